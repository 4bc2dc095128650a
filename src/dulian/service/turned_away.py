"""Requests that are refused before the application hears of them: pictures, while the queue is full.

Under overload refusals are most of what a server does, and what each of them costs is missing to the pictures that were
let in. So the commonest one is given at the socket, word for word as the application gives it. Whatever is not quite
usual goes its usual way, and is refused there.
"""

from __future__ import annotations

from starlette.responses import Response

from dulian.errors import InputError
from dulian.service.admission import retry_after_s
from dulian.service.analysis import AnalyzeEndpoint
from dulian.service.answers import error_answer, make_request_id
from dulian.service.articles import ARTICLES
from dulian.service.envelope import find_envelope
from dulian.service.guard import Headers
from dulian.service.query import read_request
from dulian.service.security import security_headers
from dulian.service.state import Service
from dulian.service.status import UNAVAILABLE

# Who sends one of these wants to be told more, or something else.
_UNUSUAL = frozenset({b"content-encoding", b"expect", b"origin", b"transfer-encoding", b"x-request-id"})


class FullHouse:
    """Turns pictures away from a service; asked about every head, so the first look has to be cheap."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._paths = {path.encode("ascii"): path for path in (AnalyzeEndpoint.path, *(one.path for one in ARTICLES))}
        self._answers: dict[str, _Template] = {}

    def __call__(self, method: bytes, target: bytes, headers: Headers) -> bytes | None:
        """Headers and body of the 503 that a request gets; None for one that has to be heard."""
        service = self._service
        if not service.admission.is_full or not self._decides():
            return None
        place, _, query = target.partition(b"?")
        path = self._paths.get(place)
        if path is None or method != b"POST" or not self._is_usual(path, query, dict(headers)):
            return None
        service.traffic.count_request()
        service.metrics.count_answer(path, "POST", UNAVAILABLE, 0.0)
        error = service.admission.full_queue()
        if path not in self._answers:
            self._answers[path] = _Template(error_answer(error, _Template.request_id, path=path))
        return self._answers[path].fill(make_request_id(), retry_after_s(error.wait_s))

    def _decides(self) -> bool:
        """Whether a full queue is all that matters: a kept result needs no place, and the end has words of its own."""
        service = self._service
        return service.results is None and not service.draining and not service.retiring

    def _is_usual(self, path: str, query: bytes, headers: dict[bytes, bytes]) -> bool:
        """Whether the application would ask for a place in the queue before it finds anything wrong."""
        kind = headers.get(b"content-type", b"").decode("latin-1")
        if path != AnalyzeEndpoint.path and (query or not kind.startswith("multipart/form-data")):
            return False
        try:
            read_request(query, headers, deadline_s=self._service.limits.deadline_s)
            find_envelope(kind)
        except InputError:
            return False
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > self._service.limits.max_body_bytes:
            return False
        return _UNUSUAL.isdisjoint(headers) and self._service.access.is_open_to(headers)


class _Template:
    """An answer of the application's with gaps for what differs from one request to the next."""

    request_id = make_request_id()  # any; ids are all as long

    def __init__(self, answer: Response) -> None:
        own = [(name, value) for name, value in answer.raw_headers if name != b"retry-after"]
        lines = [name + b": " + value for name, value in (*own, *security_headers(own))]
        body = bytes(answer.body).replace(b"%", b"%%").replace(self.request_id.encode("ascii"), b"%(id)b")
        self._text = b"\r\n".join((*lines, b"retry-after: %(seconds)d", b"x-request-id: %(id)b", b"", body))

    def fill(self, request_id: str, seconds: int) -> bytes:
        return self._text % {b"id": request_id.encode("ascii"), b"seconds": seconds}
