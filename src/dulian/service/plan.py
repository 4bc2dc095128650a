"""What a service would need and do on a machine of a given size, reckoned from a short measurement of the real thing.

One process is started just as the service starts it, and asked for a few seconds. How work is shared out among
processes and threads is decided by the very function that the service asks.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dulian.errors import BackendError, MalformedInputError
from dulian.keys import KeysFile
from dulian.machine import effective_cores
from dulian.service.child import Child
from dulian.service.start import WATCHER_BYTES, Share, bind, lay_out, process_bytes
from dulian.service.traffic import processor_s, resident_bytes
from dulian.settings import Settings

WARM_S = 1.0
MEASURE_S = 3.0
PATIENCE_S = 120.0
CLIENTS_PER_THREAD = 2
# A photo as it usually comes: so many pixels along each side, one face.
PICTURE_SIDE = 1000
MAX_CORES = 1024
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One process under load on this machine.

    ``resident_bytes``, and ``cores_used``, how many cores it got, are None where the system does not tell.
    """

    threads: int
    requests_per_s: float
    resident_bytes: int | None
    cores_used: float | None
    seconds: float
    clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start on so many bytes of memory and cores, and what is to be expected of it.

    ``fits`` says whether ``most_bytes``, what all processes may take at once with the largest pictures, is there.
    ``usual_bytes`` and ``requests_per_s`` are those of ``measured``, times the processes.
    """

    profile: str
    memory_bytes: int
    cores: int
    workers: int
    threads: int
    fits: bool
    usual_bytes: int | None
    most_bytes: int
    requests_per_s: float
    command: str
    measured: Measurement


def make_plan(settings: Settings, memory: int, cores: int, picture: bytes) -> Plan:
    """Measure one process, and reckon. Takes a few seconds.

    Raises:
        UnknownNameError: No such profile.
        BackendError: The process cannot start, or this system cannot start it that way.
    """
    settings = settings.model_copy(update={"workers": "auto"})
    workers, threads = lay_out(settings, cores, memory)
    measured = measure(settings, min(threads, effective_cores()), picture)
    watcher = WATCHER_BYTES if workers > 1 else 0
    usual = measured.resident_bytes
    most = workers * process_bytes(settings) + watcher
    return Plan(
        profile=settings.profile,
        memory_bytes=memory,
        cores=cores,
        workers=workers,
        threads=threads,
        fits=most <= memory,
        usual_bytes=None if usual is None else workers * usual + watcher,
        most_bytes=most,
        requests_per_s=round(measured.requests_per_s * workers * threads / measured.threads, 1),
        command=command_of(settings, workers, threads),
        measured=measured,
    )


def command_of(settings: Settings, workers: int, threads: int) -> str:
    """The line that starts such a service."""
    words = ["dulian", "serve", "--workers", str(workers), "--threads", str(threads)]
    for name in ("profile", "engine", "precision"):
        if (value := getattr(settings, name)) != Settings.model_fields[name].default:
            words += [f"--{name}", value]
    return shlex.join(words)


def parse_memory(text: str) -> int:
    """Bytes: a number with K, M, G or T, each 1024 times the one before, as containers and service managers count.

    Raises:
        MalformedInputError: It is no such number.
    """
    found = _MEMORY.fullmatch(text.strip())
    if found is None or not (count := int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))):
        raise MalformedInputError(f"{text!r} is no amount of memory; write it as in 512M or 2G")
    return count


def check_cores(count: int) -> int:
    """The number as it is.

    Raises:
        MalformedInputError: No machine has so many, or so few.
    """
    if not 1 <= count <= MAX_CORES:
        raise MalformedInputError(f"{count} is no number of cores from 1 to {MAX_CORES}")
    return count


# ── the measurement ──────────────────────────────────────────────────────────────────────────────


def measure(settings: Settings, threads: int, picture: bytes) -> Measurement:
    """Start one process with so many threads, load it for a few seconds, and end it.

    Raises:
        BackendError: It cannot start, or this system cannot start it that way.
    """
    clients = CLIENTS_PER_THREAD * threads
    with _one_process(settings, threads) as (child, port, key), _Load(port, key, picture, clients) as load:
        load.wait(WARM_S)
        before, used_s = load.answered, processor_s(child.pid)
        began = time.monotonic()
        load.wait(MEASURE_S)
        took_s = time.monotonic() - began
        used_until_s = processor_s(child.pid)
        return Measurement(
            threads=threads,
            requests_per_s=round((load.answered - before) / took_s, 1),
            resident_bytes=resident_bytes(child.pid),
            cores_used=None if used_s is None or used_until_s is None else round((used_until_s - used_s) / took_s, 2),
            seconds=round(took_s, 1),
            clients=clients,
        )


@contextmanager
def _one_process(settings: Settings, threads: int) -> Iterator[tuple[Child, int, str]]:
    """A process of the service on a port of this machine alone, with a key that nobody else has."""
    if os.name != "posix":
        raise BackendError("a plan needs a process that is given its socket, which this system does not do")
    with tempfile.TemporaryDirectory(prefix="dulian-") as folder, bind("127.0.0.1", 0) as listener:
        keys = KeysFile(Path(folder, "keys.json"))
        key, _ = keys.create(name="plan")
        alone = {"host": "127.0.0.1", "metrics_port": None, "grpc_port": None, "otel_endpoint": None, "redis_url": None}
        chosen = settings.model_copy(update={**alone, "keys_file": keys.path, "idle_unload_s": 0.0, "grace_s": 0.0})
        orders = {
            "settings": chosen.in_full(),
            "share": asdict(Share(threads=threads)),
            "listeners": [listener.fileno()],
        }
        child = Child(0, orders, [listener.fileno()], log=subprocess.DEVNULL)
        try:
            while child.hear():
                if child.ready:
                    yield child, listener.getsockname()[1], key
                    break
            else:
                raise BackendError(child.bury()[1])
        finally:
            child.kill()
            child.bury()


class _Load:
    """Clients that ask one request after the other; one that is refused ends all of them."""

    def __init__(self, port: int, key: str, picture: bytes, clients: int) -> None:
        self.answered = 0
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "image/jpeg"}
        self._picture = picture
        self._stop = threading.Event()
        self._error: str | None = None
        self._counting = threading.Lock()
        self._clients = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]

    def __enter__(self) -> _Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join(PATIENCE_S)

    def wait(self, seconds: float) -> None:
        """Let them ask for so long.

        Raises:
            BackendError: One was not answered.
        """
        self._stop.wait(seconds)
        if self._error is not None:
            raise BackendError(f"the process that is measured does not answer: {self._error}")

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            while not self._stop.is_set():
                connection.request("POST", "/v1/analyze", self._picture, self._headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.client.OK:
                    raise OSError(f"status {answer.status}")
                with self._counting:
                    self.answered += 1
        except (OSError, http.client.HTTPException) as error:
            self._error = str(error) or type(error).__name__
            self._stop.set()
        finally:
            connection.close()
