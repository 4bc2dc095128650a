"""``POST /v1/analyze``: one picture in any wrapping, answered in full, in few words, or by the drawn picture."""

from __future__ import annotations

import base64
from typing import Any

from dulian.faces import AnalysisResult
from dulian.service.answers import JPEG_TYPE, JSON_TYPE, to_json
from dulian.service.articles import as_faces
from dulian.service.endpoint import Answer, PictureEndpoint, Upload, look_at
from dulian.service.query import Asked
from dulian.service.state import Service


class AnalyzeEndpoint(PictureEndpoint):
    """The route that has to be quick."""

    path = "/v1/analyze"

    def _draws(self, asked: Asked) -> bool:
        return asked.picture or asked.annotate

    def _shape(self, result: AnalysisResult, drawn: bytes | None, upload: Upload) -> Answer:
        if drawn is not None and upload.asked.picture:
            return Answer(drawn, JPEG_TYPE)
        if upload.asked.format == "faces":
            return Answer(to_json(with_picture(as_faces(result), drawn)), JSON_TYPE)
        return as_result(result, drawn, upload.request_id)


def answer_picture(service: Service, picture: bytes, asked: Asked, request_id: str) -> Answer:
    """A picture's file, answered in full; for routes with more than one picture, and in a compute thread.

    Raises:
        DulianError: The picture is refused.
    """
    return as_result(*look_at(service, picture, asked, draw=asked.annotate), request_id)


def as_result(result: AnalysisResult, drawn: bytes | None, request_id: str) -> Answer:
    """The wire contract's own shape."""
    wire = result.to_dict()
    wire["request_id"] = request_id
    return Answer(to_json(with_picture(wire, drawn)), JSON_TYPE)


def with_picture(wire: dict[str, Any], drawn: bytes | None) -> dict[str, Any]:
    """The same with the JPEG of the drawn copy in it, if there is one."""
    if drawn is not None:
        wire["annotated_image"] = base64.b64encode(drawn).decode("ascii")
    return wire
