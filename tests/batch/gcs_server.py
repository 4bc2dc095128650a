"""A server that speaks as Google Cloud Storage does, on a free port until its standard input ends: ``python -m``.

It is gcp-storage-emulator, over real sockets, with what it lacks: many connections, and the condition
``ifGenerationMatch=0``.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from functools import partial
from http import HTTPStatus, server
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

TAKEN = {"error": {"code": 412, "message": "At least one of the pre-conditions you specified did not hold."}}


class TakenError(Exception):
    """An object of that name is there, and must not be."""


class ConditionalStorage(Storage):  # type: ignore[misc] # it has no types
    """For one request at a time."""

    must_be_new = False

    def create_file(self, bucket_name: str, file_name: str, *given: Any, **more: Any) -> None:
        if self.must_be_new and file_name in self.objects.get(bucket_name, {}):
            raise TakenError
        super().create_file(bucket_name, file_name, *given, **more)


class Handler(RequestHandler):  # type: ignore[misc]
    turn = threading.Lock()

    def handle_one_request(self) -> None:
        with self.turn:
            super().handle_one_request()

    def parse_request(self) -> bool:
        parsed: bool = super().parse_request()
        if parsed:
            self.path = self.path.replace(";", "%3B")  # it would take what follows for parameters
        return parsed

    def do_POST(self) -> None:
        conditions = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch", [])
        self.storage.must_be_new = conditions == ["0"]
        try:
            super().do_POST()
        except TakenError:
            body = json.dumps(TAKEN).encode()
            self.send_response(HTTPStatus.PRECONDITION_FAILED)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def main() -> None:
    logging.disable()
    listening = server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, ConditionalStorage(use_memory_fs=True)))
    sys.stdout.write(f"{listening.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
