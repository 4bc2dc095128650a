"""The web page at ``/``: files of this package, read once and kept, and the sample pictures where they were pulled.

What a name leads to is looked up in a table that was made at the start; no request reaches a folder.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

PAGE = "/"
MODEL_CARD = "/model-card"
STATIC = "/static/"
SAMPLES = f"{STATIC}samples/"

# Spelled here, because what the system says of these endings is not the same everywhere, and browsers mind.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# Kept by browsers, and asked for again with the tag: a new version is seen at once.
_CACHING = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, as it goes out."""

    body: bytes
    media_type: str
    tag: str


@cache
def assets() -> Mapping[str, Asset]:
    """All files of the page by their path below ``/static/``."""
    return {name: _asset(name, file.read_bytes()) for name, file in _files(resources.files(__name__) / "static")}


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif Path(entry.name).suffix in _TYPES:
            yield f"{prefix}{entry.name}", entry


def _asset(name: str, body: bytes) -> Asset:
    return Asset(body, _TYPES[Path(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@cache
def model_card() -> tuple[Asset, str]:
    """The model card, and the policy under which browsers show it as it is meant."""
    body = resources.files("dulian").joinpath("data", "model-card.html").read_bytes()
    style = body.partition(b"<style>")[2].partition(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return _asset("model-card.html", body), policy


def add_page(app: FastAPI, samples: Mapping[str, Path]) -> None:
    """The page, its files, and the sample pictures by their names."""

    async def page(request: Request) -> Response:
        return _answer(request, assets()["index.html"])

    async def static(request: Request) -> Response:
        asset = assets().get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        return _answer(request, asset)

    async def sample(request: Request) -> Response:
        path = samples.get(request.path_params["name"])
        if path is None or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type=_TYPES[path.suffix], headers={"cache-control": _CACHING})

    async def card(request: Request) -> Response:
        asset, policy = model_card()
        answer = _answer(request, asset)
        answer.headers["content-security-policy"] = policy
        return answer

    app.add_route(PAGE, page, methods=["GET"], include_in_schema=False)
    app.add_route(MODEL_CARD, card, methods=["GET"], include_in_schema=False)
    app.add_route(f"{SAMPLES}{{name}}", sample, methods=["GET"], include_in_schema=False)
    app.add_route(f"{STATIC}{{name:path}}", static, methods=["GET"], include_in_schema=False)


def _answer(request: Request, asset: Asset) -> Response:
    headers = {"etag": asset.tag, "cache-control": _CACHING}
    if asset.tag in request.headers.get("if-none-match", ""):
        # With its type, by which the answer gets its policy: browsers put headers of this answer in place of the kept.
        return Response(status_code=304, media_type=asset.media_type, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)
