"""What a request costs above its analysis: ``python -m tests.service.overhead``. Processor time of the server alone.

A 100 kB multipart upload over one kept connection to a server whose analysis does nothing, in a process of its own;
beside it the same through a bare ASGI application that reads the body and answers as many bytes.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from pathlib import Path

REQUESTS = 2000
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + bytes(100_000) + b"\r\n--b--\r\n"
)
HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}


def serve(kind: str) -> None:
    import uvicorn
    from tests.service.services import FakeAnalysis, fake_service

    from dulian.service.guard import GuardedProtocol
    from dulian.service.http import create_app

    async def bare(scope, receive, send):  # type: ignore[no-untyped-def]
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"300")]})
        await send({"type": "http.response.body", "body": bytes(300)})

    class Announcing(uvicorn.Server):
        async def startup(self, sockets=None):  # type: ignore[no-untyped-def]
            await super().startup(sockets)
            sys.stdout.write(f"{self.servers[0].sockets[0].getsockname()[1]}\n")
            sys.stdout.flush()

    with fake_service(FakeAnalysis()) as service:
        app = bare if kind == "bare" else create_app(service)
        Announcing(
            uvicorn.Config(
                app, port=0, http=GuardedProtocol, ws="none", loop="asyncio", lifespan="off", log_config=None
            )
        ).run()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(kind: str) -> float:
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        connection = http.client.HTTPConnection("127.0.0.1", int(process.stdout.readline()))
        for count in (200, REQUESTS):
            started = cpu_s(process.pid)
            for _ in range(count):
                connection.request("POST", "/v1/analyze", BODY, HEADERS)
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
        return (cpu_s(process.pid) - started) / REQUESTS * 1000
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        for kind in ("bare", "service"):
            sys.stdout.write(f"{kind}: {measure(kind):.2f} ms of processor time per request, mean of {REQUESTS}\n")
