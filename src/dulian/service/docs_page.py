"""The page ``/docs``: what ``/openapi.json`` says, for people. One text and one stylesheet, no script, no stranger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

from dulian.markup import Html, element, join, stylesheet
from dulian.service.examples import REF, coloured, command, laid_out, sample

PAGE = "/docs"
STYLE = "/docs/style.css"

_METHODS = ("get", "post", "put", "patch", "delete")  # what else there is (HEAD) is told by these
_SCHEMA_NAME = re.compile("([A-Z][a-z]+){2,}")


def add_docs(app: FastAPI) -> None:
    """The page and its stylesheet; both are made when they are first asked for, off the loop."""
    page = cache(lambda: render(app.openapi()))

    @app.get(PAGE, include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(page())

    @app.get(STYLE, include_in_schema=False)
    def style() -> Response:
        return Response(_style(), media_type="text/css")


@cache
def _style() -> str:
    return stylesheet("paper.css", "docs.css")


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that belong together; those that no other group names are in the last one."""

    chinese: str
    english: str
    paths: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        return self.english.lower().replace(" ", "-")


_INFERENCE = {
    "/v2": "这是什么服务",
    "/v2/health/live": "进程是否在应答",
    "/v2/health/ready": "是否欢迎新的请求",
    **dict.fromkeys(("/v2/models/{model}", "/v2/models/{model}/versions/{version}"), "模型的版本与张量"),
    **dict.fromkeys(("/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"), "模型是否就绪"),
    **dict.fromkeys(("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"), "图片进，张量出"),
}
_GROUPS = (
    Group("分析", "Analysis", ("/v1/analyze", "/v1/batch", "/v1/stream")),
    Group("服务状态", "Operation", ("/livez", "/readyz", "/v1/status", "/metrics")),
    Group("模型与上限", "Models and limits", ("/v1/models", "/v1/limits")),
    Group("文章中的接口", "Routes of the articles", ("/predict", "/images/{picture_id}", "/api/analyze", "/analyze")),
    Group("开放推理协议", "Open Inference Protocol", tuple(_INFERENCE)),
    Group("其他", "Others"),
)
_CHINESE = {
    **_INFERENCE,
    "/v1/analyze": "一张图片，找出其中所有的脸",
    "/v1/batch": "一次多张图片，逐张回答",
    "/v1/stream": "一个连接，一帧接一帧，总是最新的一帧",
    "/livez": "进程是否在应答",
    "/readyz": "是否欢迎新的请求",
    "/v1/status": "服务的近况",
    "/metrics": "供 Prometheus 采集的指标",
    "/v1/models": "由哪些网络作答",
    "/v1/limits": "一次请求的各项上限",
    "/predict": "第 001 篇文章的接口",
    "/images/{picture_id}": "回答中提到的标注图",
    "/api/analyze": "第 002 篇文章的接口",
    "/analyze": "第 004 篇文章的接口",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation on one path."""

    method: str
    path: str
    operation: dict[str, Any]

    @property
    def anchor(self) -> str:
        return f"{self.method}{re.sub('[^a-z0-9]+', '-', self.path)}".rstrip("-")

    @property
    def is_stream(self) -> bool:
        return "101" in self.operation["responses"]

    @property
    def verb(self) -> str:
        return "WS" if self.is_stream else self.method.upper()


def render(document: dict[str, Any]) -> str:
    """An OpenAPI document as a page."""
    groups = list(_grouped(_routes(document)))
    info = document["info"]
    schemas = document.get("components", {}).get("schemas", {})
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", f"读脸 {info['title']} · API"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("link", rel="stylesheet", href=STYLE),
    )
    body = element(
        "body",
        element("a", bilingual("跳到正文", "Skip to the content"), class_="skip", href="#content"),
        _header(info),
        element(
            "div",
            _navigation(groups),
            element(
                "main",
                _introduction(),
                *(_group(group, routes, schemas) for group, routes in groups),
                _schemas(schemas),
                id="content",
            ),
            class_="columns",
        ),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _routes(document: dict[str, Any]) -> Iterator[Route]:
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                yield Route(method, path, operations[method])


def _grouped(routes: Iterable[Route]) -> Iterator[tuple[Group, list[Route]]]:
    left = list(routes)
    for group in _GROUPS:
        found = [route for route in left if route.path in group.paths or not group.paths]
        found.sort(key=lambda route: group.paths.index(route.path) if group.paths else 0)
        left = [route for route in left if route not in found]
        if found:
            yield group, found


def prose(text: str) -> Html:
    """A text in which `backticks` stand for code; what begins like a schema's name leads there."""
    parts = text.split("`")
    return join(_code(part) if number % 2 else part for number, part in enumerate(parts))


def _code(text: str) -> Html:
    code = element("code", text)
    return element("a", code, href=f"#schema-{text}") if _SCHEMA_NAME.fullmatch(text) else code


def bilingual(chinese: str, english: str) -> Html:
    """A heading's words in both languages."""
    return join((element("span", chinese, lang="zh-CN"), " ", element("span", english, class_="en")))


def _header(info: dict[str, Any]) -> Html:
    return element(
        "header",
        element("h1", element("span", "读脸", lang="zh-CN", class_="seal"), " ", info["title"]),
        element("p", info.get("summary"), class_="summary"),
        element(
            "p",
            element("span", "看见脸，估计年龄与性别的观感，并说明每个答案有多可信。", lang="zh-CN"),
            class_="summary",
        ),
        element("p", f"{info['version']} · ", element("a", "openapi.json", href="/openapi.json"), class_="version"),
    )


def _navigation(groups: Iterable[tuple[Group, list[Route]]]) -> Html:
    def item(route: Route) -> Html:
        return element("li", element("a", _verb(route), " ", element("code", route.path), href=f"#{route.anchor}"))

    lists = [
        element(
            "li",
            element("a", bilingual(group.chinese, group.english), href=f"#{group.anchor}"),
            element("ul", *map(item, routes)),
        )
        for group, routes in groups
    ]
    last = element("li", element("a", bilingual("数据结构", "Schemas"), href="#schemas"))
    return element("nav", element("ul", *lists, last), aria_label="接口 Routes")


def _introduction() -> Html:
    return element(
        "div",
        element(
            "p",
            prose(
                "Answers are JSON unless said otherwise. Every answer carries `X-Request-Id`; every failure has the"
                " shape of `ErrorAnswer`, except on the routes of the articles. Where the service asks for keys, send"
                " `X-API-Key: <key>` or `Authorization: Bearer <key>`."
            ),
        ),
        element(
            "p",
            element(
                "span",
                prose(
                    "除非另有说明，回答都是 JSON，并带有 `X-Request-Id`；失败时的形状是"
                    " `ErrorAnswer`（文章中的接口除外）。若服务要求密钥，请发送"
                    " `X-API-Key: <key>` 或 `Authorization: Bearer <key>`。"
                ),
                lang="zh-CN",
            ),
        ),
        class_="introduction",
    )


def _verb(route: Route) -> Html:
    return element("span", route.verb, class_=f"verb {route.verb.lower()}")


def _group(group: Group, routes: list[Route], schemas: dict[str, Any]) -> Html:
    heading = element("h2", bilingual(group.chinese, group.english), id=group.anchor)
    return element("section", heading, *(_route(route, schemas) for route in routes))


# ── a route ──────────────────────────────────────────────────────────────────────────────────────


def _route(route: Route, schemas: dict[str, Any]) -> Html:
    operation = route.operation
    chinese = _CHINESE.get(route.path)
    description = operation.get("description")
    return element(
        "article",
        element("h3", _verb(route), " ", element("code", route.path), id=route.anchor),
        element("p", operation.get("summary", ""), class_="summary"),
        chinese and element("p", chinese, class_="summary", lang="zh-CN"),
        description and join(element("p", prose(paragraph)) for paragraph in description.split("\n\n")),
        _parameters(operation.get("parameters", [])),
        _body(operation.get("requestBody")),
        _heading("示例", "Example"),
        element("pre", element("code", command(route.path, route.operation)), tabindex="0"),
        *_answers(operation["responses"], schemas),
    )


def _heading(chinese: str, english: str) -> Html:
    return element("h4", bilingual(chinese, english))


def _parameters(parameters: list[dict[str, Any]]) -> Html | None:
    if not parameters:
        return None
    rows = [
        _row(
            parameter["name"],
            join((_kind(parameter["schema"]), *_remarks(parameter))),
            parameter.get("description", ""),
        )
        for parameter in parameters
    ]
    return join((_heading("参数", "Parameters"), element("dl", *rows)))


def _remarks(parameter: dict[str, Any]) -> Iterator[str]:
    if parameter["in"] != "query":
        yield f" · {parameter['in']}"
    if "default" in parameter["schema"]:
        yield f" · default {parameter['schema']['default']}"


def _row(name: str, kind: Html, description: str) -> Html:
    return element(
        "div",
        element("dt", element("code", name), " ", element("span", kind, class_="kind")),
        element("dd", prose(description)),
    )


def _body(body: dict[str, Any] | None) -> Html | None:
    if body is None:
        return None
    rows = [
        element(
            "div",
            element("dt", element("code", media)),
            element("dd", _kind(content["schema"])),
        )
        for media, content in body["content"].items()
    ]
    return join((_heading("请求体", "Body"), element("dl", *rows)))


def _answers(responses: dict[str, Any], schemas: dict[str, Any]) -> Iterator[Html]:
    good = {status: answer for status, answer in responses.items() if status[0] in "123"}
    yield _heading("回答", "Answers")
    for status, answer in good.items():
        yield element("p", element("span", status, class_="status"), " ", prose(answer["description"]))
        for media, content in answer.get("content", {}).items():
            yield element("p", element("code", media), " ", _kind(content.get("schema", {})), class_="media")
            if "json" in media:
                example = content.get("example") or sample(content["schema"], schemas)
                yield element("pre", element("code", coloured(laid_out(example))), tabindex="0")
    if failures := [_failure(status, answer) for status, answer in responses.items() if status not in good]:
        yield element("details", element("summary", bilingual("失败", "Failures")), element("dl", *failures))


def _failure(status: str, answer: dict[str, Any]) -> Html:
    shown = element("span", status, class_="status")
    return element("div", element("dt", shown), element("dd", prose(answer["description"])))


# ── schemas ──────────────────────────────────────────────────────────────────────────────────────


def _schemas(schemas: dict[str, Any]) -> Html:
    heading = element("h2", bilingual("数据结构", "Schemas"), id="schemas")
    return element("section", heading, *(_schema(name, schemas[name]) for name in sorted(schemas)))


def _schema(name: str, schema: dict[str, Any]) -> Html:
    required = schema.get("required", ())
    rows = [
        _row(field, join((_kind(kind), "" if field in required else " · optional")), kind.get("description", ""))
        for field, kind in schema.get("properties", {}).items()
    ]
    return element(
        "article",
        element("h3", element("code", name), id=f"schema-{name}"),
        element("p", prose(schema.get("description", ""))),
        element("dl", *rows) if rows else None,
        class_="schema",
    )


def _kind(schema: dict[str, Any]) -> Html:
    """The type of a value in a few words, its named parts linked."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        return element("a", name, href=f"#schema-{name}")
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _alternatives(map(_kind, schema[key]))
    if "const" in schema:
        return element("code", json.dumps(schema["const"]))
    if "enum" in schema:
        return _alternatives(element("code", json.dumps(value).strip('"')) for value in schema["enum"])
    return _plain_kind(schema)


def _alternatives(kinds: Iterable[Html]) -> Html:
    first, *others = kinds
    return join((first, *(part for kind in others for part in (" or ", kind))))


def _plain_kind(schema: dict[str, Any]) -> Html:
    kind = schema.get("type", "any")
    if kind == "array":
        return join(("list of ", _kind(schema.get("items", {}))))
    if kind == "object" and "properties" in schema:
        return join(join((element("code", name), ": ", _kind(field))) for name, field in schema["properties"].items())
    if "contentMediaType" in schema:
        return join(("file",))
    if encoding := schema.get("contentEncoding"):
        return join((f"{encoding} text",))
    bounds = [
        f"{sign} {schema[name]:g}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in schema
    ]
    return join((" ".join((kind, ", ".join(bounds))).rstrip(),))
