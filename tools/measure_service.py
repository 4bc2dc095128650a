"""First and later requests, memory and throughput of a service that this command starts, picture by picture.

    python tools/measure_service.py --pictures NAME=FILE … -- dulian serve --port 8123
    python tools/measure_service.py --path /predict --ready / --pictures NAME=FILE … -- the articles' way on port 8123

What the articles' tables compare: for every picture the service is started anew, the picture is sent as the first
request, and then again and again. The port is 8123. Times are those of a client on the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

PORT = 8123
BOUNDARY = "dulian-measures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default="/v1/analyze")
    parser.add_argument("--ready", default="/readyz")
    parser.add_argument("--pictures", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--later", type=int, default=30, help="requests after the first")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load for the throughput")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    pictures = {name: multipart(Path(file)) for name, file in (each.split("=", 1) for each in options.pictures)}
    starts = []
    print(f"{'picture':<28}{'first ms':>9}{'later ms':>9}{'p95':>7}{'first/later':>12}")
    for name, body in pictures.items():
        with running(options.command, options.ready) as (ready_s, _):
            starts.append(ready_s)
            first = timed(options.path, body)
            later = sorted(timed(options.path, body) for _ in range(options.later))
            middle = statistics.median(later)
            p95 = later[int(0.95 * len(later))]
            print(f"{name:<28}{first:9.1f}{middle:9.1f}{p95:7.1f}{first / middle:12.2f}", flush=True)
    with running(options.command, options.ready) as (ready_s, process):
        starts.append(ready_s)
        idle = memory(process)
        rates = {
            count: throughput(options.path, list(pictures.values()), count, options.seconds) for count in (1, 2, 8)
        }
        print(f"start to ready {statistics.median(starts):.2f} s, median of {len(starts)}")
        print(f"memory {idle:.0f} MiB before the first request, {memory(process):.0f} MiB after all")
        print("requests/s", ", ".join(f"{rate:.1f} from {count} at once" for count, rate in rates.items()))


def multipart(file: Path) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'
    return head.encode() + file.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def running(command: list[str], ready: str) -> Iterator[tuple[float, psutil.Process]]:
    """The service, from its start to when it is ready, and its end."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        while not answers(ready):
            if service.poll() is not None or time.perf_counter() - started > 120:
                raise SystemExit(f"{command} does not get ready")
            time.sleep(0.005)
        yield time.perf_counter() - started, psutil.Process(service.pid)
        family = psutil.Process(service.pid).children(recursive=True)
        service.terminate()
        service.wait()
        psutil.wait_procs(family)


def answers(path: str) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        connection.request("GET", path)
        connection.getresponse().read()
    except OSError:
        return False
    return True


def timed(path: str, body: bytes) -> float:
    """Milliseconds of one request on a connection of its own."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"the service answers {answer.status}")
    return (time.perf_counter() - started) * 1000


def throughput(path: str, bodies: list[bytes], at_once: int, seconds: float) -> float:
    """Requests per second of that many clients, each of which sends the next picture when it has its answer."""
    until = time.perf_counter() + seconds

    def client(offset: int) -> int:
        count = 0
        while time.perf_counter() < until:
            timed(path, bodies[(offset + count) % len(bodies)])
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as clients:
        done = sum(clients.map(client, range(at_once)))
    return done / (time.perf_counter() - started)


def memory(process: psutil.Process) -> float:
    """Resident MiB of a process and its children."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 2**20


if __name__ == "__main__":
    main()
