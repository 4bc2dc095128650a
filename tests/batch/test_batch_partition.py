"""A node that is cut off from the others and comes back: it goes on for a while, and nothing is twice or lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.batch.mortal import Batch, numbered, wait_for
from tests.batch.ray_clusters import RAY_TESTS, children_of, end, heard, ray_environment
from tests.conftest import ROOT

pytest.importorskip("ray", reason="Ray is not installed: pip install 'dulian[ray]'")
pytestmark = [
    *RAY_TESTS,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="network namespaces need Linux, root and the program ip (apt-get install iproute2)",
    ),
]

HEAD, NODE = "10.213.0.1", "10.213.0.2"
PORT = 6379
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Two namespaces of this process's own with a cable between them."""

    def __init__(self) -> None:
        self.names = [f"dulian-{os.getpid()}-{index}" for index in range(2)]

    def make(self, stack: ExitStack) -> None:
        for name in self.names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
        first, second = self.names
        ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in zip(self.names, (HEAD, NODE), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")

    def pull(self) -> None:
        ip("-n", self.names[1], "link", "set", "cable", "down")

    def plug(self) -> None:
        ip("-n", self.names[1], "link", "set", "cable", "up")

    def inside(self, index: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[index]]


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        made = Network()
        try:
            made.make(stack)
        except OSError as error:
            stack.close()
            pytest.skip(f"this machine lets nobody make network namespaces: {error}")
        yield made


@contextmanager
def ray_node(
    network: Network, index: int, environment: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A node of two CPUs in a namespace; the first one is the head."""
    place = ["--head", f"--port={PORT}", "--include-dashboard=false"] if index == 0 else [f"--address={HEAD}:{PORT}"]
    command = [*RAY, "start", "--block", *place, f"--node-ip-address={(HEAD, NODE)[index]}", "--num-cpus=2"]
    with (folder / f"node-{index}").open("wb") as log:
        node = subprocess.Popen(
            [*network.inside(index), *command, f"--object-store-memory={80 * 2**20}", "--disable-usage-stats"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield node
    finally:
        started = children_of(node.pid)
        node.kill()
        node.wait()
        end(started)


class NamespacedBatch(Batch):
    """A batch whose driver is beside the head."""

    network: Network
    environment: dict[str, str]

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.batch.drive", *map(str, (self.source, self.destination, self.log))]
        self.driver = subprocess.Popen(
            [*self.network.inside(0), *command, *self.options],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.driver


def is_up(node: subprocess.Popen[bytes], folder: Path, index: int) -> bool:
    text = (folder / f"node-{index}").read_text()
    assert node.poll() is None, text
    return "Ray runtime started" in text


def test_a_node_that_is_cut_off_and_comes_back_answers_nothing_twice(network: Network, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    environment = ray_environment(folder) | {
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "1000",  # by default 10 seconds, each of three times
        "RAY_health_check_failure_threshold": "3",
        "RAY_health_check_initial_delay_ms": "0",
    }
    pictures = numbered(400)
    batch = NamespacedBatch(tmp_path, pictures, "--ray", f"{HEAD}:{PORT}", "--seconds", "0.03")
    batch.network, batch.environment = network, environment
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        head = stack.enter_context(ray_node(network, 0, environment, folder))
        wait_for(lambda: is_up(head, folder, 0), "the head does not start")
        other = stack.enter_context(ray_node(network, 1, environment, folder))
        wait_for(lambda: is_up(other, folder, 1), "the node does not start")
        try:
            driver = batch.start()
            wait_for(lambda: at_work(other) or driver.poll() is not None, "the other node gets nothing to do")
            network.pull()
            before = len(batch.analysed())
            wait_for(lambda: len(batch.analysed()) > before + 100 or driver.poll() is not None, "nobody goes on")
            assert driver.poll() is None
            network.plug()
            out, err = heard(driver)
            assert driver.returncode == 0, err
            assert out == "0 400 0 0\n"  # nobody has died, and no picture is blamed
            batch.check_complete()
        finally:
            if batch.driver is not None and batch.driver.poll() is None:
                batch.driver.kill()
                batch.driver.communicate()
    assert set(batch.analysed()) == set(pictures.values())
    assert {record["status"] for record in batch.records()} == {"ok"}


def at_work(node: subprocess.Popen[bytes]) -> bool:
    return any(
        "ray::dulian" in " ".join(process.cmdline()) for process in children_of(node.pid) if process.is_running()
    )
