"""What every runtime must do, run for each row of the table and for each network of the catalog."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from dulian.errors import MissingDependencyError, SharedSessionError, UnknownNameError, WeightsError
from dulian.models.catalog import all_rows
from dulian.models.rows import ModelRow
from dulian.runtimes import (
    RUNTIMES,
    Precision,
    Session,
    SessionFactory,
    Tensor,
    Weights,
    choose_engine,
    find_runtime,
    load_runtime,
)
from dulian.runtimes.onnxruntime import OnnxRuntimeFactory
from dulian.store import ModelStore

OPENCV_MAJOR = int(cv2.__version__.partition(".")[0])
ONNX_RUNTIMES = [name for name, row in RUNTIMES.items() if row.format == "onnx"]
ROWS = {row.name: row for row in all_rows()}
REFERENCE = "onnxruntime"

pytestmark = pytest.mark.weights


def open_row(store: ModelStore, row: ModelRow, engine: str, workers: int = 1) -> SessionFactory:
    runtime = find_runtime(engine)
    weights = store.load(row) if runtime.format == "onnx" else store.load_originals(row)
    return load_runtime(runtime).open_weights(weights, threads=1, workers=workers)


def tensor_for(row: ModelRow, seed: int, batch: int = 2, wh: tuple[int, int] | None = None) -> Tensor:
    """Blotches of many sizes in the range the network is fed with."""
    width, height = wh or row.input_wh or (320, 256)
    batch = 1 if row.provides == {"detection"} else batch
    rng = np.random.default_rng(seed)
    pixels = np.zeros((batch, height, width, 3), np.float32)
    for index in range(batch):
        for cells in (3, 9, 27):
            coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
            pixels[index] += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) / 3
    return np.ascontiguousarray(((pixels - np.float32(row.mean)) * np.float32(row.scale)).transpose(0, 3, 1, 2))


def agree(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    """Every output of the reference ``b``, in ``a``, within an absolute tolerance."""
    for name, expected in b.items():
        np.testing.assert_allclose(a[name], expected, atol=tolerance, rtol=0, err_msg=name)


@pytest.fixture(params=ONNX_RUNTIMES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(ROWS))
def row(request: pytest.FixtureRequest) -> ModelRow:
    return ROWS[request.param]


def test_same_tensor_same_answer_as_the_reference(model_store: ModelStore, row: ModelRow, engine: str) -> None:
    session = open_row(model_store, row, engine).new_session()
    reference = open_row(model_store, row, REFERENCE).new_session()
    for seed in range(3):
        tensor = tensor_for(row, seed)
        answer, expected = session.run(tensor), reference.run(tensor)
        assert all(output.dtype == np.float32 for output in answer.values())
        agree(answer, expected, 1e-3)


def test_yunet_takes_any_multiple_of_32_from_64_on(model_store: ModelStore, engine: str) -> None:
    row = ROWS["yunet"]
    session, reference = (open_row(model_store, row, name).new_session() for name in (engine, REFERENCE))
    for wh in [(640, 480), (64, 64), (320, 640), (640, 64), (96, 672), (640, 480)]:
        tensor = tensor_for(row, 7, wh=wh)
        agree(session.run(tensor), reference.run(tensor), 1e-3)


def test_a_batch_answers_as_its_members_alone(model_store: ModelStore, row: ModelRow, engine: str) -> None:
    if row.provides == {"detection"}:
        pytest.skip("detectors look at one picture at a time")
    session = open_row(model_store, row, engine).new_session()
    batch = tensor_for(row, 3, batch=8)
    together = session.run(batch)
    for index in range(8):
        alone = session.run(np.ascontiguousarray(batch[index : index + 1]))
        for name, expected in together.items():
            np.testing.assert_allclose(alone[name][0], expected[index], atol=1e-5, rtol=0)


def test_answers_are_the_callers_own(model_store: ModelStore, row: ModelRow, engine: str) -> None:
    session = open_row(model_store, row, engine).new_session()
    first = session.run(tensor_for(row, 1))
    kept = {name: output.copy() for name, output in first.items()}
    session.run(tensor_for(row, 2))
    for name, output in first.items():
        np.testing.assert_array_equal(output, kept[name])


def test_damaged_weights_are_refused(engine: str) -> None:
    runtime = find_runtime(engine)
    with pytest.raises(WeightsError, match="broken"):
        load_runtime(runtime).open_weights(Weights("broken", "", (b"\x08\x07not a network",)), threads=1)


@pytest.mark.parametrize("name", ["res10_ssd", "age_net", "gender_net"])
@pytest.mark.parametrize("runtime_name", ONNX_RUNTIMES)
def test_converted_nets_answer_as_opencvs_own_caffe_run(model_store: ModelStore, name: str, runtime_name: str) -> None:
    if OPENCV_MAJOR >= 5:
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer to compare with")
    row = ROWS[name]
    converted = open_row(model_store, row, runtime_name).new_session()
    original = open_row(model_store, row, "opencv-caffe").new_session()
    tensor = tensor_for(row, 5, batch=1)
    expected, answer = original.run(tensor), converted.run(tensor)
    if "prob" in expected:
        agree(answer, expected, 1e-4)
        return
    rows = expected["detection_out"].reshape(-1, 7)
    rows = rows[rows[:, 2] > 0]
    assert len(rows) > 0
    for _, label, score, *box in rows:
        ours = np.column_stack([answer["boxes"][0], answer["scores"][0, :, int(label)]])
        assert np.abs(ours - [*box, score]).max(axis=1).min() < 1e-4


def test_caffe_originals_under_opencv_5_say_what_to_do(model_store: ModelStore) -> None:
    if OPENCV_MAJOR < 5:
        pytest.skip(f"OpenCV {cv2.__version__} still reads Caffe")
    with pytest.raises(MissingDependencyError, match="no Caffe importer"):
        open_row(model_store, ROWS["age_net"], "opencv-caffe")


def test_onnx_runtime_keeps_no_second_copy_of_the_weights(model_store: ModelStore, row: ModelRow) -> None:
    factory = open_row(model_store, row, "onnxruntime")
    assert isinstance(factory, OnnxRuntimeFactory)
    assert factory._model._model_bytes is None
    assert factory.new_session().run(tensor_for(row, 0))


# ── threads ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=list(RUNTIMES))
def any_engine(request: pytest.FixtureRequest) -> str:
    """Every runtime, the Caffe one where OpenCV still reads Caffe."""
    if RUNTIMES[request.param].format == "caffe" and OPENCV_MAJOR >= 5:
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer")
    return str(request.param)


def test_a_session_refuses_another_thread(model_store: ModelStore, any_engine: str) -> None:
    session = open_row(model_store, ROWS["gender_net"], any_engine).new_session()
    with ThreadPoolExecutor(1) as pool, pytest.raises(SharedSessionError):
        pool.submit(session.run, tensor_for(ROWS["gender_net"], 0)).result()


def answers_of_threads(sessions: list[Session], tensors: list[Tensor], rounds: int) -> Iterator[tuple[int, Tensor]]:
    """Which tensor each thread asked about, and what it was told, with all threads starting together."""
    start = threading.Barrier(len(sessions))

    def work(session: Session, offset: int) -> list[tuple[int, Tensor]]:
        start.wait()
        asked = [(offset + turn) % len(tensors) for turn in range(rounds)]
        return [(index, next(iter(session._run(tensors[index]).values()))) for index in asked]

    with ThreadPoolExecutor(len(sessions)) as pool:
        futures = [pool.submit(work, session, offset) for offset, session in enumerate(sessions)]
        for future in futures:
            yield from future.result()


def test_sessions_of_eight_threads_answer_as_one(model_store: ModelStore, any_engine: str) -> None:
    row = ROWS["gender_net"]
    factory = open_row(model_store, row, any_engine, workers=8)
    tensors = [tensor_for(row, seed, batch=1) for seed in range(4)]
    serial = [next(iter(factory.new_session().run(tensor).values())) for tensor in tensors]
    sessions = [factory.new_session() for _ in range(8)]
    for index, answer in answers_of_threads(sessions, tensors, rounds=6):
        assert answer.tobytes() == serial[index].tobytes()


def wrong_answers_of_a_shared_net(model_dir: Path) -> int:
    """How many answers of eight threads in one OpenCV net, past the guard, differ from the serial ones."""
    row = ROWS["gender_net"]
    factory = open_row(ModelStore(model_dir=model_dir, offline=True), row, "opencv")
    tensors = [tensor_for(row, seed, batch=1) for seed in range(4)]
    serial = [next(iter(factory.new_session().run(tensor).values())) for tensor in tensors]
    shared = [factory.new_session()] * 8
    print("ready", flush=True)  # noqa: T201  the parent process reads it
    return sum(a.tobytes() != serial[i].tobytes() for i, a in answers_of_threads(shared, tensors, rounds=6))


def test_the_check_above_catches_a_shared_net(model_store: ModelStore) -> None:
    """Negative control, in a process of its own: a shared net answers wrongly, throws, or takes the process down."""
    code = (
        "from pathlib import Path\nfrom tests.contract.test_runtimes import wrong_answers_of_a_shared_net\n"
        f"print('wrong:', wrong_answers_of_a_shared_net(Path({str(model_store.write_dir)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("ready\n"), done.stderr
    crashed = done.returncode < 0 or "cv2.error" in done.stderr
    assert crashed or int(done.stdout.split("wrong:")[1]) > 0, done.stderr


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="choose from auto, onnxruntime"):
        find_runtime("tpu")


@pytest.mark.parametrize(
    ("name", "precision", "chosen"),
    [
        ("auto", "f32", "onnxruntime"),
        ("auto", "bf16", "openvino"),
        *((name, precision, name) for name in (*RUNTIMES, "tpu") for precision in ("f32", "bf16")),
    ],
)
def test_auto_is_the_engine_that_does_what_is_asked(name: str, precision: Precision, chosen: str) -> None:
    assert choose_engine(name, precision) == chosen


def test_a_runtime_is_found_by_its_name() -> None:
    assert {name: find_runtime(name) for name in RUNTIMES} == RUNTIMES


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"dulian\[openvino\]"):
        find_runtime("openvino")


def test_other_precisions_belong_to_openvino(model_store: ModelStore) -> None:
    weights = model_store.load(ROWS["dlib_gender"])
    for name in ("onnxruntime", "opencv"):
        with pytest.raises(MissingDependencyError, match="openvino"):
            load_runtime(RUNTIMES[name]).open_weights(weights, threads=1, precision="bf16")


FIRST_USE = """
import sys, threading
import openvino
import dulian.runtimes.openvino

sys.setswitchinterval(1e-7)
together = threading.Barrier(8)

def ask():
    together.wait()
    openvino.Type.f32.to_dtype()

threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_use_openvino_first_at_once_do_not_wait_for_each_other_for_ever() -> None:
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
