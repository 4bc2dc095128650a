"""The OpenAPI description of the routes that take pictures: no FastAPI routes, they do not describe themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dulian.analyzer import ALL_ATTRIBUTES, DEFAULT_OPTIONS, MAX_FACES
from dulian.faces import FaceOrder
from dulian.service import schema, stream
from dulian.service.access import FREE_PATHS
from dulian.service.answers import JPEG_TYPE, JSON_TYPE, PICTURES
from dulian.service.articles import ANALYZE, API_ANALYZE, PREDICT, Article
from dulian.service.cache import Found
from dulian.service.envelope import FIELD, FORM_TYPE
from dulian.service.examples import ERROR, FACE, RESULT
from dulian.service.limits import ServiceLimits
from dulian.service.query import ANNOTATE, ARTICLE_PARAMETERS, BATCH_PARAMETERS, FORMATS, MAX_WHOLE, PARAMETERS

TITLE = "dulian"
SUMMARY = "Faces, perceived age and gender, and how far to trust each answer, from a photo."
_REF = "#/components/schemas/"
_ERRORS = {
    "400": "The request is malformed: an empty body, a broken envelope, an option out of range.",
    "401": "The service asks for a key, and there is no valid one in `Authorization` or `X-API-Key`.",
    "408": "The body arrived too slowly.",
    "413": "Too many bytes, pixels, or pixels along one side.",
    "415": "Not an image type, a content type or a content encoding that is accepted.",
    "422": "A known image type that is damaged or ends too early.",
    "429": "This key has used up its rate, or its share of the queue.",
    "500": "A defect of the service.",
    "503": "Overloaded, or the deadline is out of reach.",
    "504": "The deadline passed.",
}
_MODELS = (
    schema.AnalysisResult,
    schema.ErrorAnswer,
    schema.BatchAnswer,
    schema.ArticleFaces,
    schema.Predictions,
    schema.TimedResults,
    schema.TextError,
    schema.StreamWishes,
    schema.StreamResult,
    schema.StreamError,
    schema.StreamDropped,
)
_EXAMPLES: dict[type[schema.Wire], Any] = {
    schema.AnalysisResult: RESULT,
    schema.BatchAnswer: {"results": [RESULT, ERROR]},
    schema.ErrorAnswer: ERROR,
    schema.TextError: {"error": PREDICT.missing},
    schema.StreamResult: {"id": 7, **RESULT},
    schema.StreamWishes: {"id": 7, "options": {"max_faces": 3, "attributes": ["age"]}},
    schema.StreamDropped: {"dropped": [5, 6]},
    schema.ArticleFaces: {"faces": [FACE], "processing_time_ms": 47, "annotated_image": "/9j/4AAQSkZJRg…"},
    schema.Predictions: {
        "results": [FACE | {"age": "(25-32)"}],
        "output_image": f"{PICTURES}llWYnrHywoQTX5Y8f4A40w",
        "resource_usage": {"cpu_percent": 12.5, "memory_mb": 183.42, "timestamp": 1768616574.125},
    },
    schema.TimedResults: {
        "results": [{"bbox": [120, 80, 80, 100], "gender": "Female", "age": "25-32"}],
        "processing_time": "0.12s",
    },
}


def complete(document: dict[str, Any], limits: ServiceLimits) -> dict[str, Any]:
    """FastAPI's document with the routes for pictures, the shape of errors and every schema they refer to."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(_schemas())
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"]["default"] = _error("Any failure.")
    document["paths"] |= {
        "/v1/analyze": {"post": _analyze(limits)},
        "/v1/batch": {"post": _batch(limits)},
        PREDICT.path: {"post": _article(PREDICT, "article 001", limits, _json(schema.Predictions))},
        API_ANALYZE.path: {"post": _article(API_ANALYZE, "article 002", limits, _json(schema.TimedResults))},
        ANALYZE.path: {"post": _article(ANALYZE, "article 004", limits, _JPEG)},
        stream.PATH: {"get": _stream(limits)},
        f"{PICTURES}{{picture_id}}": {"get": _picture(), "head": _picture()},
    }
    _add_keys(document)
    return document


def _add_keys(document: dict[str, Any]) -> None:
    """Whether the service asks for keys is up to whoever runs it, and may change: they may be left out."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key, where the service asks for one."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, in another way."},
    }
    document["security"] = [{}, {"bearer": []}, {"header": []}]
    for path in document["paths"].keys() & FREE_PATHS:
        for operation in document["paths"][path].values():
            operation["security"] = []


def _schemas() -> dict[str, Any]:
    """Every model by its name, some with an example."""
    found = schemas_of(_MODELS)
    for model, example in _EXAMPLES.items():
        found[model.__name__]["examples"] = [example]
    return found


def schemas_of(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """Models by their names; what has a default in one is not always there, and the default itself means nothing."""
    _, definitions = models_json_schema([(model, "serialization") for model in models], ref_template=_REF + "{model}")
    found: dict[str, Any] = definitions["$defs"]
    for model in found.values():
        properties = model.get("properties", {})
        model["required"] = [name for name in model.get("required", ()) if "default" not in properties[name]]
        for described in properties.values():
            described.pop("default", None)
    return found


# ── routes ───────────────────────────────────────────────────────────────────────────────────────


def _analyze(limits: ServiceLimits) -> dict[str, Any]:
    in_json = {
        "type": "object",
        "required": [FIELD],
        "additionalProperties": False,
        "properties": {FIELD: {"type": "string", "contentEncoding": "base64", "maxLength": limits.max_body_bytes}},
    }
    return {
        "summary": "Find the faces in one picture",
        "description": "One picture in, all its faces out. A picture without faces is an answer with a hint.",
        "operationId": "analyze",
        "parameters": [*_query(PARAMETERS, limits), *headers()],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": BINARY,
                "application/octet-stream": BINARY,
                **_form(_FILE | {"description": "exactly one file"}),
                JSON_TYPE: {"schema": in_json},
            },
        },
        "responses": {
            "200": success(
                "The faces; with `format=faces` in the words of article 000; with `Accept: image/jpeg` the picture with"
                " the faces drawn on it.",
                {JSON_TYPE: {"schema": {"anyOf": [_ref(schema.AnalysisResult), _ref(schema.ArticleFaces)]}}, **_JPEG},
                kept=True,
            ),
            **errors(_error),
        },
    }


def _batch(limits: ServiceLimits) -> dict[str, Any]:
    files = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": limits.max_batch_parts}
    return {
        "summary": "Find the faces in many pictures",
        "description": (
            f"At most {limits.max_batch_parts} pictures in one form, as many answers in the same order. A picture that"
            " is refused has an error in its place and stops no other. The deadline is that of all together; what it"
            " cuts off has the error `deadline_exceeded`. 503 only if there was no room for any of them."
        ),
        "operationId": "analyze_batch",
        "parameters": [*_query(BATCH_PARAMETERS, limits), *headers()],
        "requestBody": {"required": True, "content": _form(files)},
        "responses": {
            "200": success("A result or an error for each picture.", _json(schema.BatchAnswer)),
            **errors(_error, without=("422",)),
        },
    }


def _article(article: Article, name: str, limits: ServiceLimits, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": f"The same in the shape of {name}",
        "description": "For clients that were written for it. Undecided genders become the likelier one.",
        "operationId": "article" + article.path.replace("/", "_"),
        "parameters": [*_query(ARTICLE_PARAMETERS, limits), *headers()],
        "requestBody": {"required": True, "content": _form(_FILE | {"description": "exactly one file"})},
        "responses": {"200": success("The faces.", content, kept=not article.draws), **errors(text_error)},
    }


def _picture() -> dict[str, Any]:
    return {
        "summary": f"The drawn picture that an answer of {PREDICT.path} names",
        "parameters": [{"name": "picture_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": success("The picture.", _JPEG),
            "404": text_error("There is none by this name, or no longer."),
            "default": text_error("Any other failure."),
        },
    }


def _stream(limits: ServiceLimits) -> dict[str, Any]:
    return {
        "summary": "Find the faces in one frame after another",
        "description": (
            f"A WebSocket. Each binary message is one frame: a JPEG, PNG or WebP of at most {limits.max_frame_bytes:,}"
            " bytes. A text message before it, at most"
            f" {limits.max_stream_text_bytes:,} bytes of JSON as in `StreamWishes`, may give it an id and options."
            " They hold for that frame alone; without an id it goes by its number, from 1 on."
            "\n\n"
            "Answers are text messages in the order of the frames: `StreamResult` or `StreamError` with the frame's id."
            " While one frame is analysed, one other waits, and a newer one takes its place. Whose place was taken is"
            " told afterwards, every id once: `StreamDropped`."
            "\n\n"
            "After the error of a frame the stream goes on. It ends with 1002 or 1007 if the messages are broken, 1003"
            f" after a text that is no JSON object, 1008 after {limits.stream_idle_s:g} seconds without a frame, more"
            f" than {stream.MAX_TEXTS} texts in a row, or when the key is revoked, 1009 after a message that is too"
            " big, 1011 after a defect, and 1012 when the service is about to end: what it accepted is answered before."
            "\n\n"
            f"The subprotocol `{stream.SUBPROTOCOL}` is chosen if it is offered. Pages cannot set headers and offer"
            " their key as a subprotocol beside it; they have to be of this host, or of an origin that is allowed. No"
            " extension is accepted, compression included."
        ),
        "operationId": "stream",
        "parameters": headers()[1:],
        "responses": {
            "101": {"description": "The stream is open."},
            "400": _error("The handshake is malformed, or has a query."),
            "403": _error("A page of an origin that is not allowed."),
            "426": _error("No handshake, but a plain request."),
            **errors(_error, without=("400", "408", "413", "415", "422", "504")),
            "503": _error(f"{limits.max_streams} streams are open, or the service is about to end.") | _LATER,
        },
    }


# ── parameters ───────────────────────────────────────────────────────────────────────────────────


def _query(names: tuple[str, ...], limits: ServiceLimits) -> list[dict[str, Any]]:
    known = {parameter["name"]: parameter for parameter in _all_parameters(limits)}
    return [known[name] for name in names]


def _all_parameters(limits: ServiceLimits) -> list[dict[str, Any]]:
    attributes = {"type": "array", "items": {"type": "string", "enum": sorted(ALL_ATTRIBUTES)}}
    return [
        _parameter("max_faces", "faces in the answer, at most", type="integer", minimum=1, maximum=MAX_FACES)
        | {"example": MAX_FACES},
        _parameter(
            "min_confidence",
            "detection threshold; the profile's own if not given",
            type="number",
            exclusiveMinimum=0,
            maximum=1,
        ),
        _parameter("attributes", "separated by commas, or repeated; empty only detects", **attributes)
        | {"style": "form", "explode": False, "allowEmptyValue": True},
        _parameter(
            "order", "order of the faces", type="string", enum=list(get_args(FaceOrder)), default=DEFAULT_OPTIONS.order
        ),
        _parameter(
            "coverage",
            "probability with which the age interval holds the true age",
            type="number",
            minimum=0.5,
            maximum=0.99,
            default=DEFAULT_OPTIONS.coverage,
        ),
        _parameter(
            "max_ms",
            f"latency budget from the complete body on; {limits.deadline_s * 1000:.0f} at most",
            type="integer",
            minimum=1,
            maximum=MAX_WHOLE,
        ),
        _parameter(
            "annotate",
            "a drawn copy within the JSON; base64 by default with format=faces, else none",
            type="string",
            enum=list(ANNOTATE),
        ),
        _parameter("format", "the JSON's shape", type="string", enum=list(FORMATS), default=FORMATS[0]),
    ]


def headers() -> list[dict[str, Any]]:
    """Headers that every route for pictures knows."""
    return [
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "description": "as max_ms; the smaller of the two counts",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_WHOLE},
        },
        {
            "name": "X-Request-Id",
            "in": "header",
            "description": "1 to 128 printable characters of ASCII come back in the answer, for all else a new one",
            "schema": {"type": "string"},
        },
    ]


def _parameter(name: str, description: str, **schema_of_it: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema_of_it}


# ── bodies and answers ───────────────────────────────────────────────────────────────────────────

BINARY: dict[str, Any] = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_FILE: dict[str, Any] = {"type": "string", "contentMediaType": "image/*"}
_JPEG: dict[str, Any] = {JPEG_TYPE: {"schema": {"type": "string", "contentMediaType": JPEG_TYPE}}}


def _form(field: dict[str, Any]) -> dict[str, Any]:
    """Content that is a form; what makes its field a file is a type or a file name of its own."""
    fields = {"type": "object", "required": [FIELD], "properties": {FIELD: field}}
    return {FORM_TYPE: {"schema": fields, "encoding": {FIELD: {"contentType": "image/*"}}}}


def _ref(model: type[schema.Wire]) -> dict[str, Any]:
    return {"$ref": _REF + model.__name__}


def _json(model: type[schema.Wire]) -> dict[str, Any]:
    example = {"example": _EXAMPLES[model]} if model in _EXAMPLES else {}
    return {JSON_TYPE: {"schema": _ref(model), **example}}


def success(description: str, content: dict[str, Any], *, kept: bool = False) -> dict[str, Any]:
    """An answer; ``kept`` if it may have been given before."""
    headers: dict[str, Any] = {"X-Request-Id": {"schema": {"type": "string"}}}
    if kept:
        headers["X-Cache"] = {
            "description": "there where results are kept, for answers without a picture: analysed for this request, for"
            " another one that was under way, or before",
            "schema": {"type": "string", "enum": list(get_args(Found))},
        }
    return {"description": description, "headers": headers, "content": content}


_LATER: dict[str, Any] = {"headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}}


def errors(answer: Callable[[str], dict[str, Any]], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every failure of a route for pictures, by its status."""
    answers = {status: answer(text) for status, text in _ERRORS.items() if status not in without}
    for status in ("429", "503"):
        answers[status] |= _LATER
    return answers


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON_TYPE: {"schema": _ref(schema.ErrorAnswer)}}}


def text_error(description: str) -> dict[str, Any]:
    """A failure that is told as a text."""
    return {"description": description, "content": {JSON_TYPE: {"schema": _ref(schema.TextError)}}}
