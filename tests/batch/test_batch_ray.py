"""A real Ray cluster of three nodes: what it computes is computed once, whoever is killed; and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from dulian import __version__
from dulian.batch.analysis import ModelAnalysis
from dulian.batch.destinations import open_destination
from dulian.batch.drivers import ray_node
from dulian.batch.drivers.inline import InlineDriver
from dulian.batch.drivers.ray import RayDriver, _Crew, _import_ray, _reach, _task, room
from dulian.batch.drivers.ray_node import Errand, compute
from dulian.batch.ledger import Ledger
from dulian.batch.records import Input, Record
from dulian.batch.run import Wish, prepare, run
from dulian.batch.shards import Range
from dulian.batch.work import Orders
from dulian.errors import BackendError, DestinationError, MalformedInputError, MissingDependencyError
from dulian.store import ModelStore
from tests.batch.fake_work import HANGS, KILLS, FakeAnalysis
from tests.batch.fakes import MemoryDestination, begin
from tests.batch.mortal import PATIENCE_S, Batch, numbered, wait_for
from tests.batch.ray_clusters import RAY_TESTS, RayCluster, children_of, end, heard, ray_cluster
from tests.conftest import ROOT

pytest.importorskip("ray", reason="Ray is not installed: pip install 'dulian[ray]'")
pytestmark = RAY_TESTS


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(3) as running:
        yield running


class RayBatch(Batch):
    """A batch whose driver has Ray compute it, and a group of processes of its own, as in a terminal."""

    def __init__(
        self, folder: Path, pictures: dict[str, bytes], *options: str, address: str, environment: dict[str, str]
    ) -> None:
        super().__init__(folder, pictures, "--ray", address, *options)
        self.environment = environment

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.batch.drive", *map(str, (self.source, self.destination, self.log))]
        self.driver = subprocess.Popen(
            [*command, *self.options],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.driver

    def committed(self) -> dict[str, int]:
        """Files of records, and when each was written."""
        return {path.name: path.stat().st_mtime_ns for path in (self.destination / "records").glob("*")}


MakeBatch = Callable[..., RayBatch]


@pytest.fixture
def make_batch(tmp_path: Path, cluster: RayCluster) -> Iterator[MakeBatch]:
    batches: list[RayBatch] = []

    def make(pictures: dict[str, bytes], *options: str, address: str = cluster.address, **environment: str) -> RayBatch:
        batches.append(
            RayBatch(tmp_path, pictures, *options, address=address, environment=cluster.environment | environment)
        )
        return batches[-1]

    yield make
    for batch in batches:
        if batch.driver is not None and batch.driver.poll() is None:
            started = children_of(batch.driver.pid)
            batch.driver.kill()
            batch.driver.communicate()
            end(started)


# ── who is killed ────────────────────────────────────────────────────────────────────────────────


def test_after_a_node_and_the_driver_are_killed_exactly_what_is_missing_is_computed(
    make_batch: MakeBatch, cluster: RayCluster
) -> None:
    pictures = numbered(600)
    batch = make_batch(pictures, "--seconds", "0.01")
    driver = batch.start()
    wait_for(lambda: len(batch.analysed()) > 60 or driver.poll() is not None, "nothing is computed")
    cluster.kill_node(1)
    survived = len(batch.committed())
    wait_for(lambda: len(batch.committed()) > survived + 3 or driver.poll() is not None, "the other nodes do not go on")
    driver.kill()
    out, err = heard(driver)
    assert (out, err) == ("", ""), "Ray's own words reach the terminal"
    wait_for(lambda: not cluster.tasks(), "tasks outlive their driver")
    committed, analysed = batch.committed(), len(batch.analysed())
    assert 3 < len(committed) < 37

    cluster.add_node()
    assert batch.finish() == (16 * len(committed), 600 - 16 * len(committed), 0, 0)
    missing = [data for name, data in pictures.items() if f"{int(name[:5]) // 16:06d}.jsonl" not in committed]
    assert sorted(batch.analysed()[analysed:]) == missing
    assert batch.committed().items() > committed.items()
    batch.check_complete()


def test_a_picture_that_kills_is_found_and_quarantined(make_batch: MakeBatch) -> None:
    batch = make_batch(numbered(12) | {"00003.jpg": KILLS}, "--shard-size", "2")
    assert batch.finish() == (0, 12, 5, 1)
    wrong = {Path(one["source"]).name: one["error"] for one in batch.records() if one["status"] != "ok"}
    assert {name: error["code"] for name, error in wrong.items()} == {"00003.jpg": "process_died"}
    batch.check_complete()


def test_ctrl_c_leaves_no_process_of_a_local_cluster_and_the_next_run_goes_on(
    make_batch: MakeBatch, cluster: RayCluster
) -> None:
    """With a token, as Ray does where nothing is said of it; and to all processes, as a terminal does."""
    batch = make_batch(numbered(200), "--seconds", "0.02", address="local", RAY_AUTH_MODE="token")
    driver = batch.start()
    wait_for(lambda: len(batch.analysed()) > 40 or driver.poll() is not None, "nothing is computed")
    started = children_of(driver.pid)
    assert any("raylet" in process.name() for process in started)
    os.killpg(driver.pid, signal.SIGINT)
    out, err = heard(driver)
    assert "KeyboardInterrupt" in err
    assert out == ""
    _, alive = psutil.wait_procs(started, 10)
    assert not alive
    assert not [*open_destination(batch.destination).names("staging")]
    committed = len(batch.committed())
    batch.options, batch.environment = ("--ray", cluster.address), cluster.environment
    assert batch.finish()[:2] == (16 * committed, 200 - 16 * committed)
    batch.check_complete()


# ── what is computed ─────────────────────────────────────────────────────────────────────────────


def without_times(records: list[Record]) -> list[Record]:
    return [{name: value for name, value in record.items() if name != "timings_ms"} for record in records]


@pytest.mark.weights
def test_real_models_answer_as_they_do_in_this_process(
    make_batch: MakeBatch, model_store: ModelStore, samples: Path, tmp_path: Path
) -> None:
    pictures = {path.name: path.read_bytes() for path in sorted(samples.iterdir()) if path.suffix in (".png", ".jpg")}
    pictures["broken.png"] = pictures["astronaut.png"][:5000]
    batch = make_batch(pictures, "--shard-size", "2", "--model-dir", str(model_store.write_dir), address="auto")
    assert batch.finish() == (0, len(pictures), 0, 0)
    analysis = ModelAnalysis(profile="standard", model_dir=model_store.write_dir, offline=True)
    here = open_destination(tmp_path / "here")
    job, _ = prepare(Wish(sources=[str(batch.source)], analysis=analysis, shard_size=2), here)
    run(job, here, analysis, driver=InlineDriver())
    theirs, batch.destination = batch.records(), tmp_path / "here"
    assert without_times(theirs) == without_times(batch.records())
    assert {record["status"] for record in theirs} == {"ok", "error"}
    assert any(record.get("faces") for record in theirs)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_what_no_node_has_room_for_is_not_waited_for_without_end(make_batch: MakeBatch) -> None:
    batch = make_batch(numbered(4), "--threads", "64", "--patience-s", "2")
    driver = batch.start()
    _, err = heard(driver)
    assert "BackendError: for 2 seconds no node of the Ray cluster could take a task, which needs 64 CPU" in err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_an_error_of_ours(address: str) -> None:
    ray = _import_ray()
    with pytest.raises(BackendError, match=f"cannot reach the Ray cluster at {address}: "):
        _reach(ray, address)


def orders_in(destination: Any, *inputs: Input) -> Orders:
    analysis = FakeAnalysis()
    job = begin(destination, [*inputs], model=analysis.model())
    return Orders(job=job, destination=destination, analysis=analysis)


def test_memory_is_refused_as_a_destination() -> None:
    destination = MemoryDestination(url="memory://job")
    orders = orders_in(destination, Input(source="a"))
    with pytest.raises(MalformedInputError, match="memory of this process, where no node can see it"):
        RayDriver().run(Ledger(orders.job, destination), orders)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    destination = MemoryDestination()
    orders = orders_in(destination, Input(source="a"))
    with pytest.raises(MissingDependencyError, match=r"pip install 'dulian\[ray\]'"):
        RayDriver().run(Ledger(orders.job, destination), orders)


# ── one node ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def errand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Errand]:
    monkeypatch.setattr(ray_node, "_SEEN_WITHIN_S", 0.0)
    destination = MemoryDestination({"staging/sign": b"key"})
    (tmp_path / "a.jpg").write_bytes(b"a")
    picture = Input(source=str(tmp_path / "a.jpg"))
    orders = orders_in(destination, picture)
    yield Errand(key="key", orders=orders, sign="staging/sign", witness=picture, stall_s=60.0)
    if ray_node._open is not None:
        ray_node._open[1].close()
    ray_node._open = None


PART, ATTEMPT = Range(0, 0, 1), "staging/attempt"


def test_a_node_that_sees_the_same_computes_and_opens_the_errand_once(errand: Errand) -> None:
    fetched: list[Errand] = []

    def fetch() -> Errand:
        fetched.append(errand)
        return errand

    assert [compute("key", fetch, PART, ATTEMPT) for _ in range(2)] == [("done", [("ok", 0)])] * 2
    assert len(fetched) == 1
    assert errand.orders.destination.read("records/000000.jsonl")


def test_a_node_that_sees_another_folder_refuses(errand: Errand) -> None:
    errand.orders.destination.replace("staging/sign", b"of another run")
    kind, error = compute("key", lambda: errand, PART, ATTEMPT)
    assert (kind, type(error)) == ("failed", DestinationError)
    assert "share this folder with all nodes" in str(error)


def test_a_node_that_cannot_see_the_pictures_refuses_to_call_them_missing(errand: Errand, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").unlink()
    kind, error = compute("key", lambda: errand, PART, ATTEMPT)
    assert (kind, type(error)) == ("failed", BackendError)
    assert "share the pictures with all nodes" in str(error)
    assert errand.orders.destination.read("records/000000.jsonl") is None


def test_a_node_with_other_networks_refuses(errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeAnalysis, "model", lambda self: {"profile": "fake", "engine": "other", "digest": "fake"})
    kind, error = compute("key", lambda: errand, PART, ATTEMPT)
    assert (kind, type(error)) == ("failed", BackendError)
    assert "same release, engines and weights" in str(error)


def test_a_process_that_hangs_ends_itself(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from dulian.batch.drivers.ray_node import Errand, compute
from dulian.batch.records import Input
from dulian.batch.shards import Range
from tests.batch.fakes import MemoryDestination
from tests.batch.test_batch_ray import orders_in

picture = Path({str(tmp_path / "a.jpg")!r})
picture.write_bytes({HANGS!r})
orders = orders_in(MemoryDestination({{"sign": b"key"}}), Input(source=str(picture)))
errand = Errand(key="key", orders=orders, sign="sign", witness=None, stall_s=0.5)
compute("key", lambda: errand, Range(0, 0, 1), "attempt")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "Timeout" in done.stderr


@pytest.mark.parametrize(("hidden", "found"), [([], __version__), (["dulian"], "none")])
def test_a_node_with_another_release_or_none_says_so(hidden: list[str], found: str, tmp_path: Path) -> None:
    """The function travels by value: it is loaded where dulian cannot be imported."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    file = tmp_path / "task"
    file.write_bytes(cloudpickle.dumps(_task()))
    program = f"""
import json, pickle, sys
for name in {hidden}:
    sys.modules[name] = None
import ray
task = pickle.load(open({str(file)!r}, "rb"))
print(json.dumps(task("0.0.0", [], "key", (0, 0, 1), "attempt")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    kind, said = json.loads(done.stdout)
    assert kind == "refused"
    assert f"has dulian {found}, this is 0.0.0; install the same one on all nodes" in said


@pytest.mark.parametrize(
    ("cpus", "threads", "tasks"), [(0, 1, 0), (1, 1, 1), (2, 1, 1), (8, 1, 7), (8, 2, 3), (2, 2, 1), (1, 2, 0)]
)
def test_a_cpu_of_each_node_stays_free_if_there_is_one(cpus: int, threads: int, tasks: int) -> None:
    assert room({"CPU": cpus, "memory": 64 << 30}, threads) == tasks


def test_a_node_takes_no_more_than_fit_into_its_memory() -> None:
    assert room({"CPU": 8, "memory": 2 << 30}, 1) == 3
    assert room({"CPU": 8}, 1) == 0


# ── what Ray raises ──────────────────────────────────────────────────────────────────────────────


def fake_cluster(answer: Callable[[str], object], **cpus: int) -> Any:
    """Nodes whose tasks end at once; ``answer`` is asked, with the name of the node, what is to be heard of them."""
    import ray.exceptions

    def task(**options: Any) -> SimpleNamespace:
        node = options["scheduling_strategy"].node_id
        return SimpleNamespace(remote=lambda *given: (node, next(numbers)))

    numbers = count()
    nodes = [
        {"NodeID": name * 56, "Alive": True, "Resources": {"CPU": n, "memory": 1 << 40}} for name, n in cpus.items()
    ]
    return SimpleNamespace(
        exceptions=ray.exceptions,
        put=lambda errand: errand,
        nodes=lambda: nodes,
        remote=lambda function: SimpleNamespace(options=task),
        wait=lambda tasks, num_returns, timeout: (tasks, []),
        get=lambda reference: answer(reference[0][0]),
    )


def crew_of(answer: Callable[[str], object], **cpus: int) -> tuple[_Crew, Ledger]:
    """At work on one shard of two inputs."""
    destination = MemoryDestination()
    orders = orders_in(destination, Input(source="a"), Input(source="b"))
    ledger = Ledger(orders.job, destination)
    errand = Errand(key="key", orders=orders, sign="sign", witness=None, stall_s=60.0)
    return _Crew(fake_cluster(answer, **cpus), ledger, RayDriver(), errand), ledger


def test_a_range_that_is_lost_again_and_again_ends_the_run_and_blames_no_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray.exceptions

    monkeypatch.setattr("dulian.batch.drivers.ray._LOOK_S", 0.0)
    monkeypatch.setattr("dulian.batch.drivers.ray._LEFT_OUT_S", 0.0)
    asked: list[str] = []

    def lost(node: str) -> object:
        asked.append(node)
        raise ray.exceptions.NodeDiedError("the node is gone")

    crew, ledger = crew_of(lost, a=2)
    with pytest.raises(BackendError, match=r"inputs 0 to 2 of shard 0 were lost 5 times.*the node is gone"):
        crew.work()
    assert ledger.tally.deaths == 0
    assert len(asked) == 5


def test_a_node_that_takes_no_task_is_left_out_for_a_while() -> None:
    """The list of nodes may be ahead of those who give out tasks, or behind them, for some seconds."""
    import ray.exceptions

    asked: list[str] = []

    def answer(node: str) -> object:
        asked.append(node)
        if node == "a":
            raise ray.exceptions.TaskUnschedulableError("the node doesn't exist any more")
        return "done", []

    crew, ledger = crew_of(answer, a=8, b=2)
    crew.work()
    assert asked == ["a", "b"]
    assert ledger.finished
