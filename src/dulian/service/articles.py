"""The routes and shapes of the articles that this product began with: what their clients send, and what they expect.

They know two genders and eight age ranges. An undecided gender becomes the likelier one, an age its range; what was not
asked for is left out. Everything else is as in ``POST /v1/analyze``: limits, options, statuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dulian.errors import InputNotFoundError, MalformedInputError
from dulian.faces import AnalysisResult, BoundingBox, Face
from dulian.serialize import SHARE_DIGITS
from dulian.service.answers import JPEG_TYPE, JSON_TYPE, PICTURES, to_json
from dulian.service.endpoint import Answer, PictureEndpoint, Upload
from dulian.service.envelope import FIELD, FORM_TYPE, is_form, read_form, the_only
from dulian.service.query import ARTICLE_PARAMETERS, Asked
from dulian.service.state import Service

# ── shapes ───────────────────────────────────────────────────────────────────────────────────────


def as_faces(result: AnalysisResult) -> dict[str, Any]:
    """Article 000: ``faces`` and milliseconds."""
    faces = [
        _face(face, _corners(face.box), bare_age=True) | {"confidence": _confidence(face)} for face in result.faces
    ]
    return {"faces": faces, "processing_time_ms": round(result.timings_ms.total)}


def as_predictions(result: AnalysisResult, picture_path: str, usage: dict[str, Any]) -> dict[str, Any]:
    """Article 001: ``results``, where the drawn picture is, and what the process uses."""
    faces = [_face(face, _corners(face.box)) | {"confidence": _confidence(face)} for face in result.faces]
    return {"results": faces, "output_image": picture_path, "resource_usage": usage}


def as_timed_results(result: AnalysisResult) -> dict[str, Any]:
    """Article 002: ``results`` with boxes as x, y, width, height, and seconds as text."""
    faces = [_face(face, _corner_and_size(face.box), bare_age=True) for face in result.faces]
    return {"results": faces, "processing_time": f"{result.timings_ms.total / 1000:.2f}s"}


def _face(face: Face, box: list[int], *, bare_age: bool = False) -> dict[str, Any]:
    words: dict[str, Any] = {"bbox": box}
    if face.gender is not None:
        words["gender"] = "Female" if face.gender.female_probability >= 0.5 else "Male"
    if face.age is not None:
        words["age"] = face.age.bucket.strip("()") if bare_age else face.age.bucket
    return words


def _confidence(face: Face) -> float:
    return round(face.confidence, SHARE_DIGITS)


def _corners(box: BoundingBox) -> list[int]:
    return [round(edge) for edge in box]


def _corner_and_size(box: BoundingBox) -> list[int]:
    x1, y1, x2, y2 = _corners(box)
    return [x1, y1, x2 - x1, y2 - y1]


# ── routes ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One route: what it says when there is no picture or no file was chosen, and how it answers."""

    path: str
    missing: str
    not_chosen: str
    draws: bool
    answer: Callable[[Service, AnalysisResult, bytes], Answer]


def _answer_001(service: Service, result: AnalysisResult, drawn: bytes) -> Answer:
    picture_id = service.pictures.new_id()
    wire = as_predictions(result, PICTURES + picture_id, service.process.resource_usage())
    return Answer(to_json(wire), JSON_TYPE, kept=(picture_id, drawn))


def _answer_002(service: Service, result: AnalysisResult, drawn: bytes) -> Answer:
    return Answer(to_json(as_timed_results(result)), JSON_TYPE)


def _answer_004(service: Service, result: AnalysisResult, drawn: bytes) -> Answer:
    return Answer(drawn, JPEG_TYPE)


_NO_IMAGE = "No image uploaded"
_WHERE_TO = f"send one picture as file field '{FIELD}' of {FORM_TYPE}"

PREDICT = Article(path="/predict", missing=_NO_IMAGE, not_chosen=_NO_IMAGE, draws=True, answer=_answer_001)
API_ANALYZE = Article(
    path="/api/analyze", missing="没有上传图片", not_chosen="没有选择文件", draws=False, answer=_answer_002
)
# Article 004 has no words for it. This path is also DeepFace's, whose field has another name.
ANALYZE = Article(path="/analyze", missing=_WHERE_TO, not_chosen=_WHERE_TO, draws=True, answer=_answer_004)
ARTICLES = (PREDICT, API_ANALYZE, ANALYZE)


class ArticleEndpoint(PictureEndpoint):
    """A form with one file, as the articles' pages send it; anything else is no picture to them."""

    parameters = ARTICLE_PARAMETERS

    def __init__(self, service: Service, article: Article) -> None:
        super().__init__(service)
        self.path = article.path
        self._article = article
        self.empty = article.missing

    def _check_envelope(self, content_type: str) -> None:
        if not is_form(content_type):
            raise MalformedInputError(self._article.missing)

    def _open(self, upload: Upload) -> bytes:
        limits = self._service.limits
        pictures = read_form(upload.body, upload.content_type, limits, max_parts=limits.max_parts)
        if not pictures:
            raise MalformedInputError(self._article.missing)
        picture = the_only(pictures)
        if picture.name == b"":
            raise MalformedInputError(self._article.not_chosen)
        return picture.content(upload.body)

    def _draws(self, asked: Asked) -> bool:
        return self._article.draws

    def _shape(self, result: AnalysisResult, drawn: bytes | None, upload: Upload) -> Answer:
        return self._article.answer(self._service, result, drawn or b"")


def picture_endpoint(service: Service) -> Callable[[Request], Awaitable[Response]]:
    """Article 001: the drawn picture that an answer of ``/predict`` names."""

    async def picture(request: Request) -> Response:
        jpeg = await service.pictures.get(request.path_params["picture_id"])
        if jpeg is None:
            raise InputNotFoundError("no such picture; drawn pictures are kept for a short time")
        return Response(jpeg, media_type=JPEG_TYPE)

    return picture
