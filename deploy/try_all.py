"""The second half of ``deploy/try-all``: starts what is shipped, uses it, breaks it, and tells what was seen.

It runs in a network of its own and as the first process there: when it ends, whatever it started has ended.
"""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

REPOSITORY, FOLDER = map(Path, sys.argv[1:])
DEPLOY, LOGS, BIN = REPOSITORY / "deploy", FOLDER / "logs", FOLDER / "v/bin"
NAME, CERTIFICATE = "dulian.example", "/etc/dulian/tls/cert.pem"
PATIENCE_S = 120.0
CLIENTS, REQUESTS = 8, 800
REPLICAS = {
    "a": ["--port", "8081", "--grpc-port", "9081", "--metrics-port", "9181", "--threads", "1"],
    "b": ["--port", "8082", "--grpc-port", "9082", "--metrics-port", "9191", "--workers", "2", "--threads", "1"],
}
problems: list[str] = []
running: dict[str, subprocess.Popen[bytes]] = {}


def say(text: str) -> None:
    print(text, flush=True)


def check(is_so: bool, what: str) -> None:
    """One line for what was to be seen, and whether it was."""
    say(f"  {'ok ' if is_so else 'NOT'}  {what}")
    if not is_so:
        problems.append(what)


def wait_until(is_so: Callable[[], bool], what: str, *, pause_s: float = 0.05) -> float:
    """Seconds until it is so."""
    started = time.monotonic()
    while not is_so():
        if time.monotonic() - started > PATIENCE_S * 2:
            raise SystemExit(f"waited in vain for {what}; logs: {LOGS}")
        time.sleep(pause_s)
    return time.monotonic() - started


# ── programs ─────────────────────────────────────────────────────────────────────────────────────


def start(name: str, *command: str | Path, port: int, **environment: str) -> None:
    started = time.monotonic()
    with (LOGS / f"{name}.log").open("ab") as log:
        running[name] = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **environment}, cwd=FOLDER,
        )  # fmt: skip
    wait_until(lambda: listens(port) or running[name].poll() is not None, name)
    if running[name].poll() is not None:
        raise SystemExit(f"{name} does not start:\n{(LOGS / f'{name}.log').read_text()}")
    say(f"  {name}: listens after {time.monotonic() - started:.2f} s")


def start_replica(name: str) -> None:
    start(
        f"replica-{name}", BIN / "dulian", "serve", "--allowed-host", NAME, *REPLICAS[name],
        port=int(REPLICAS[name][1]), DULIAN_REDIS_URL="redis://127.0.0.1:6379", DULIAN_CACHE_MB="16",
        DULIAN_CACHE_SECRET_FILE=str(FOLDER / "secret"), DULIAN_OFFLINE="true",
    )  # fmt: skip


def start_redis() -> None:
    small = ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]
    start("redis", "redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *small, port=6379)


def start_all() -> None:
    (FOLDER / "secret").write_text(os.urandom(32).hex())
    (FOLDER / "secret").chmod(0o600)
    start_redis()
    for name in REPLICAS:
        start_replica(name)
    start("nginx", "nginx", "-p", DEPLOY / "nginx", "-c", DEPLOY / "nginx/nginx.conf", "-g", "daemon off;", port=443)
    monitoring = DEPLOY / "monitoring"
    start(
        "alertmanager", "prometheus-alertmanager", f"--config.file={monitoring / 'alertmanager.yml'}",
        f"--storage.path={FOLDER / 'alertmanager'}", "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address=",
        port=9093,
    )  # fmt: skip
    start(
        "prometheus", "prometheus", f"--config.file={monitoring / 'prometheus.yml'}",
        f"--storage.tsdb.path={FOLDER / 'prometheus'}", "--web.listen-address=127.0.0.1:9090", port=9090,
    )  # fmt: skip


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def memory_mib(pid: int) -> list[int]:
    """Resident memory of a process and of those it started."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return [int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20 for one in pids]


# ── clients ──────────────────────────────────────────────────────────────────────────────────────


def photos() -> dict[str, bytes]:
    folder = Path(subprocess.check_output([BIN / "dulian", "models", "path", "samples"], text=True).strip())
    made = FOLDER / "photos"
    derive = REPOSITORY / "examples/derive_samples.py"
    subprocess.run([BIN / "python", derive, folder, made], check=True, stdout=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in sorted(made.iterdir())}


class Client:
    """One connection to nginx, from an address of its own: the shipped limits are for each address."""

    def __init__(self, number: int = 1) -> None:
        self._source = (f"127.0.1.{number}", 0)
        self._tls = ssl.create_default_context(cafile=CERTIFICATE)
        self._connection: http.client.HTTPSConnection | None = None

    def _open(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(NAME, context=self._tls, timeout=30)
        raw = socket.create_connection(("127.0.0.1", 443), timeout=30, source_address=self._source)
        connection.sock = self._tls.wrap_socket(raw, server_hostname=NAME)
        return connection

    def ask(self, path: str, body: bytes | None = None, method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        connection = self._connection = self._connection or self._open()
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"} if body else {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.will_close:
            self._connection = None
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def without_circumstances(wire: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wire.items() if name not in ("request_id", "timings_ms")}


def direct(port: int, picture: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/analyze", picture, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request) as answer:
        return without_circumstances(json.load(answer))


def over_grpc(pictures: dict[str, bytes]) -> dict[str, list[str]]:
    """Each picture through nginx by the native service; the labels of its faces."""
    import grpc
    from google.protobuf import json_format

    from dulian.service.rpc import dulian_pb2, dulian_pb2_grpc

    trusted = grpc.ssl_channel_credentials(Path(CERTIFICATE).read_bytes())
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.default_authority", NAME)]
    answers = {}
    with grpc.secure_channel("127.0.0.1:443", trusted, options) as channel:
        stub = dulian_pb2_grpc.DulianStub(channel)
        for name, picture in pictures.items():
            answer = stub.Analyze(dulian_pb2.AnalyzeRequest(image=picture), timeout=30)
            wire = json_format.MessageToDict(answer, preserving_proto_field_name=True)
            answers[name] = [face["label"] for face in wire.get("faces", ())]
    return answers


def load(pictures: dict[str, bytes], during: Callable[[], None]) -> None:
    """So many requests by so many clients, with something happening when a third of them has been answered."""
    expected = {name: direct(8082, picture) for name, picture in pictures.items()}
    numbers = itertools.count()
    statuses: Counter[Any] = Counter()
    seconds: list[float] = []
    wrong = 0
    struck = threading.Event()

    def client(number: int) -> None:
        nonlocal wrong
        connection = Client(number)
        names = itertools.cycle(pictures)
        while (count := next(numbers)) < REQUESTS:
            if count == REQUESTS // 3:
                during()
                struck.set()
            name = next(names)
            # With something behind a picture's end no cache has seen it.
            body = pictures[name] + f"{number}-{count}".encode()
            started = time.monotonic()
            try:
                status, _, content = connection.ask("/v1/analyze", body)
            except OSError as error:
                statuses[type(error).__name__] += 1
                continue
            seconds.append(time.monotonic() - started)
            statuses[status] += 1
            if status == 200 and without_circumstances(json.loads(content)) != expected[name]:
                wrong += 1

    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(client, range(1, CLIENTS + 1)))
    took_s = time.monotonic() - started
    p50, p99 = (1000 * quantile(seconds, q) for q in (0.5, 0.99))
    say(f"  {REQUESTS} requests by {CLIENTS} clients in {took_s:.1f} s: {REQUESTS / took_s:.0f} a second,"
        f" half of them within {p50:.0f} ms, 99 of 100 within {p99:.0f} ms; statuses {dict(statuses)}")  # fmt: skip
    check(struck.is_set() and statuses == {200: REQUESTS}, "no request failed")
    check(wrong == 0, "no answer differs from that of a replica asked alone")


def quantile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


# ── what the monitoring knows ────────────────────────────────────────────────────────────────────


class Webhook(http.server.BaseHTTPRequestHandler):
    """Where Alertmanager sends what fires."""

    alerts: list[dict[str, Any]] = []  # noqa: RUF012 - one list for all requests

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.alerts.extend(told["alerts"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        del words


def query(expression: str) -> list[tuple[dict[str, str], float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/query?query={urllib.parse.quote(expression)}") as answer:
        return [(one["metric"], float(one["value"][1])) for one in json.load(answer)["data"]["result"]]


def show_metrics() -> None:
    wanted = {
        "processes that answer": "sum(up{job='dulian'})",
        "requests, by status": "sum by (code) (dulian_http_requests_total{route='/v1/analyze'})",
        "calls over gRPC": "sum(dulian_grpc_requests_total)",
        "requests a second": "sum(rate(dulian_http_requests_total[1m]))",
        "99 of 100 answers within, s": "job:dulian_answer_seconds:p99_5m",
        "99 of 100 wait for a thread, s": "job:dulian_queue_wait_seconds:p99_5m",
        "results in the caches": "sum by (tier, result) (dulian_cache_requests_total)",
        "memory by its limit": "max(dulian_memory_used_ratio)",
        "refused": "sum(dulian_admission_rejected_total) or vector(0)",
    }
    for name, expression in wanted.items():
        for metric, value in query(expression):
            labels = " ".join(value for key, value in metric.items() if key not in ("__name__", "job"))
            say(f"  {name:32} {labels:16} {value:.4g}")


# ── the whole of it ──────────────────────────────────────────────────────────────────────────────


def steps() -> Iterator[tuple[str, Callable[[], None]]]:
    pictures = photos()
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 9095), Webhook)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    yield "what is started", start_all
    yield "photos through nginx, TLS and HTTP", lambda: through_http(pictures)
    yield "the same through gRPC, and the Open Inference Protocol", lambda: through_grpc(pictures)
    yield "one cache for all replicas", lambda: shared_results(pictures)
    yield "a replica is killed under load", lambda: load(pictures, lambda: kill("replica-a"))
    yield "Redis is killed under load", lambda: load(pictures, lambda: kill("redis"))
    yield "metrics", lambda: metrics_are_there(pictures)
    yield "the alarm, by webhook", alarm
    yield "everything is stopped", stop_all


def through_http(pictures: dict[str, bytes]) -> None:
    client = Client()
    for name, picture in pictures.items():
        status, _, content = client.ask("/v1/analyze", picture)
        answer = json.loads(content)
        labels = [face["label"] for face in answer.get("faces", ())]
        same = without_circumstances(answer) == direct(8081, picture) == direct(8082, picture)
        check(status == 200 and same, f"{name}: {labels or 'nobody'}, as by either replica alone")
    status, _, content = client.ask("/v1/analyze", pictures[next(iter(pictures))][:2000])
    check(status == 422, f"a photo that was cut off: {status}, {json.loads(content)['error']['code']}")
    status, _, content = client.ask("/v1/analyze", b"\xff" * (11 << 20))
    check(status == 413, f"11 MiB: {status}, {json.loads(content)['error']['code']}")
    check(client.ask("/metrics", method="GET")[0] == 404, "metrics are not for everybody")
    bodies = list(Path("/run/nginx-dulian").rglob("*"))
    check(not [path for path in bodies if path.is_file()], "no body was written to a file")


def through_grpc(pictures: dict[str, bytes]) -> None:
    expected = {name: [face["label"] for face in direct(8081, picture)["faces"]] for name, picture in pictures.items()}
    answers = over_grpc(pictures)
    check(answers == expected, f"{sum(map(len, answers.values()))} faces in {len(pictures)} photos, the same")
    import base64

    tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
    picture = next(iter(pictures.values()))
    asked = {"id": "42", "inputs": [{**tensor, "data": [base64.b64encode(picture).decode()]}]}
    status, _, content = Client().ask("/v2/models/face-attributes/infer", json.dumps(asked).encode())
    outputs = {one["name"]: one["data"] for one in json.loads(content).get("outputs", ())}
    check(status == 200 and len(outputs["ages"]) > 0, f"/v2 infer: ages {[round(age, 1) for age in outputs['ages']]}")


def shared_results(pictures: dict[str, bytes]) -> None:
    picture = pictures[next(iter(pictures))] + b"seen once"
    found = []
    for port in (8081, 8082):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/analyze", picture, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request) as answer:
            found.append(answer.headers["x-cache"])
        time.sleep(0.5)  # what is kept is written after the answer
    check(found == ["miss", "hit"], f"asked of one replica, then of the other: {', '.join(found)}")


def kill(name: str) -> None:
    running[name].send_signal(signal.SIGKILL)
    running.pop(name).wait()
    say(f"  {name}: SIGKILL")


def metrics_are_there(pictures: dict[str, bytes]) -> None:
    client, picture = Client(), next(iter(pictures.values()))

    def counted() -> bool:
        client.ask("/v1/analyze", picture)  # between two scrapes there has to be something
        return any(value > 0 for _, value in query("job:dulian_answer_seconds:p99_5m"))

    wait_until(counted, "two scrapes", pause_s=0.5)
    show_metrics()
    for name, process in running.items():
        if name.startswith("replica"):
            say(f"  {name}: resident memory in MiB, a watching process first: {memory_mib(process.pid)}")


def alarm() -> None:
    waited_s = wait_until(lambda: bool(Webhook.alerts), "an alert")
    for alert in Webhook.alerts:
        say(f"  {alert['status']}: {alert['labels']['alertname']}, {alert['annotations']['summary']}")
    check(
        any(alert["labels"]["alertname"] == "DulianDown" for alert in Webhook.alerts),
        f"the webhook heard of the dead replica ({waited_s:.0f} s after the step before)",
    )
    start_replica("a")
    wait_until(lambda: query("sum(up{job='dulian'})")[0][1] == 3, "the replica to be seen again")
    check(True, "the replica is back, and Prometheus sees all three processes")


def stop_all() -> None:
    for name in ("nginx", "replica-a", "replica-b", "prometheus", "alertmanager"):
        started = time.monotonic()
        running[name].terminate()
        code = running.pop(name).wait(PATIENCE_S)
        if name.startswith("replica") or code:
            check(code == 0, f"{name}: exit code {code} after {time.monotonic() - started:.1f} s")
    still = [port for port in (80, 443, 6379, 8081, 8082, 9081, 9082, 9090, 9093, 9181, 9191, 9192) if listens(port)]
    check(not still, f"nobody listens any more{still or ''}")


def main() -> None:
    started = time.monotonic()
    for title, step in steps():
        say(f"\n── {title}")
        step()
    say(f"\n{'all as it should be' if not problems else 'NOT as it should be: ' + '; '.join(problems)}"
        f" ({time.monotonic() - started:.0f} s)")  # fmt: skip
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
