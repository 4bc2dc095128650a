"""Finding and judging files: the right one is used, any other stops with one clear line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fake_registry import FakeRegistry, blob, model_row, sha256, weights_file

from dulian.errors import BackendError, WeightsError
from dulian.models import catalog
from dulian.models.networks import RES10_SSD
from dulian.models.rows import ModelRow
from dulian.store import ModelStore


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> ModelStore:
    return ModelStore(
        model_dir=tmp_path / "models",
        offline=True,
        notify=said.append,
        system_dirs=(tmp_path / "system",),
        cache_dir=tmp_path / "cache",
    )


def put(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def refusal(store: ModelStore, row: ModelRow) -> str:
    with pytest.raises(WeightsError) as caught:
        store.load(row)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_very_bytes_that_were_verified_are_handed_over(registry: FakeRegistry, store: ModelStore) -> None:
    put(store.write_dir, "tiny.onnx", registry.tiny_data)
    weights = store.load(registry.tiny)
    assert (weights.name, weights.format, weights.data) == ("tiny", "onnx", (registry.tiny_data,))
    assert weights.sha256 == registry.tiny.weights.sha256


@pytest.mark.parametrize("twentieth", range(20))
def test_a_truncated_file_is_refused_at_every_offset(registry: FakeRegistry, store: ModelStore, twentieth: int) -> None:
    kept = registry.size * twentieth // 20
    path = put(store.write_dir, "tiny.onnx", registry.tiny_data[:kept])
    message = refusal(store, registry.tiny)
    assert str(path) in message
    assert f"truncated: {kept} of {registry.size} bytes" in message
    assert registry.tiny.weights.sha256 in message
    assert sha256(registry.tiny_data[:kept]) in message
    assert "dulian models pull standard" in message
    assert store.inspect(registry.tiny).state == "damaged"


@pytest.mark.parametrize("position", [0, 1_999, 3_999])
def test_one_flipped_bit_is_refused(registry: FakeRegistry, store: ModelStore, position: int) -> None:
    flipped = bytearray(registry.tiny_data)
    flipped[position] ^= 0x10
    put(store.write_dir, "tiny.onnx", bytes(flipped))
    message = refusal(store, registry.tiny)
    assert registry.tiny.weights.sha256 in message
    assert sha256(bytes(flipped)) in message


def test_a_longer_file_is_refused(registry: FakeRegistry, store: ModelStore) -> None:
    put(store.write_dir, "tiny.onnx", registry.tiny_data + b"x")
    assert sha256(registry.tiny_data + b"x") in refusal(store, registry.tiny)


def test_swapped_files_are_refused_and_called_by_their_name(registry: FakeRegistry, store: ModelStore) -> None:
    put(store.write_dir, "tiny.onnx", registry.other_data)
    put(store.write_dir, "other.onnx", registry.tiny_data)
    assert "which is other.onnx" in refusal(store, registry.tiny)
    assert "which is tiny.onnx" in refusal(store, registry.other)


def test_a_folder_a_pipe_and_a_giant_are_refused_unread(registry: FakeRegistry, store: ModelStore) -> None:
    path = store.write_dir / "tiny.onnx"
    path.mkdir(parents=True)
    assert "not a regular file" in refusal(store, registry.tiny)
    path.rmdir()
    os.mkfifo(path)
    assert "not a regular file" in refusal(store, registry.tiny)
    path.unlink()
    with path.open("wb") as giant:
        giant.truncate(1 << 40)
    assert "more than the" in refusal(store, registry.tiny)


def test_a_missing_file_offline_names_the_folders_and_both_ways_out(
    registry: FakeRegistry, store: ModelStore, tmp_path: Path
) -> None:
    message = refusal(store, registry.tiny)
    assert "tiny.onnx is missing" in message
    for folder in ("models", "system", "cache"):
        assert str(tmp_path / folder) in message
    assert "dulian models pull standard" in message
    assert "dulian models import FILE" in message
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("folder", ["models", "system", "cache"])
def test_an_empty_model_dir_does_not_hide_the_other_folders(
    registry: FakeRegistry, store: ModelStore, tmp_path: Path, folder: str
) -> None:
    store.write_dir.mkdir()
    put(tmp_path / folder, "tiny.onnx", registry.tiny_data)
    assert store.load(registry.tiny).data == (registry.tiny_data,)


def test_the_first_folder_decides_even_when_it_is_wrong(
    registry: FakeRegistry, store: ModelStore, tmp_path: Path
) -> None:
    wrong = put(store.write_dir, "tiny.onnx", b"wrong")
    put(tmp_path / "cache", "tiny.onnx", registry.tiny_data)
    assert str(wrong) in refusal(store, registry.tiny)


def test_a_broken_system_file_is_not_said_to_be_mended_by_pull(registry: FakeRegistry, tmp_path: Path) -> None:
    store = ModelStore(system_dirs=(tmp_path / "system",), cache_dir=tmp_path / "cache")
    put(tmp_path / "system", "tiny.onnx", b"wrong")
    message = refusal(store, registry.tiny)
    assert "pull" not in message
    assert "remove or replace it" in message
    assert "--model-dir" in message
    with pytest.raises(WeightsError, match="remove or replace it"):
        store.pull((registry.tiny,))


def test_an_unreadable_system_folder_counts_as_empty(
    registry: FakeRegistry, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "system"
    put(closed, "tiny.onnx", b"never seen")
    put(tmp_path / "cache", "tiny.onnx", registry.tiny_data)
    real_open, real_access = os.open, os.access

    def refuse_open(path: os.PathLike[str] | str, *arguments: int) -> int:
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments)

    monkeypatch.setattr(os, "open", refuse_open)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and real_access(path, mode))
    assert store.load(registry.tiny).data == (registry.tiny_data,)


# ── originals ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def caffe_row(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> ModelRow:
    """A Caffe pair that 'converts' by joining; 'old' in its prototxt is the flaw."""
    monkeypatch.setattr("dulian.convert.convert_caffe", lambda prototxt, caffemodel, **_: prototxt + caffemodel)
    monkeypatch.setattr("dulian.convert.repair_ssd_prototxt", lambda text: text.replace(b"old", b"new"))
    prototxt, caffemodel = b"a new net", blob(7, 300)
    row = model_row(
        "pair",
        weights_file("pair.onnx", prototxt + caffemodel),
        originals=(
            weights_file("deploy_pair.prototxt", prototxt, aliases=("pair_deploy.prototxt",)),
            weights_file("pair.caffemodel", caffemodel, aliases=("pair_article.caffemodel",)),
        ),
        recipe="caffe",
    )
    registry.use(row)
    monkeypatch.setattr(catalog, "PROFILES", registry.profiles)
    return row


@pytest.mark.parametrize("prototxt", ["deploy_pair.prototxt", "pair_deploy.prototxt"])
@pytest.mark.parametrize("caffemodel", ["pair.caffemodel", "pair_article.caffemodel"])
def test_originals_are_found_under_article_names_and_converted_once(
    caffe_row: ModelRow, store: ModelStore, tmp_path: Path, prototxt: str, caffemodel: str
) -> None:
    put(tmp_path / "system", prototxt, b"a new net")
    put(tmp_path / "system", caffemodel, blob(7, 300))
    assert store.inspect(caffe_row).state == "ready"
    assert store.load(caffe_row).data == (b"a new net" + blob(7, 300),)
    assert (store.write_dir / "pair.onnx").read_bytes() == b"a new net" + blob(7, 300)
    originals = store.load_originals(caffe_row)
    assert (originals.format, originals.data) == ("caffe", (b"a new net", blob(7, 300)))
    assert originals.sha256 == caffe_row.originals[1].sha256


def test_the_old_prototxt_is_repaired_with_a_warning(
    caffe_row: ModelRow, store: ModelStore, tmp_path: Path, said: list[str]
) -> None:
    path = put(tmp_path / "system", "deploy_pair.prototxt", b"a old net")
    put(tmp_path / "system", "pair.caffemodel", blob(7, 300))
    assert store.load(caffe_row).data == (b"a new net" + blob(7, 300),)
    assert any(str(path) in line and "repaired" in line for line in said)
    assert path.read_bytes() == b"a old net"


def test_an_equivalent_prototxt_is_taken_as_it_is(caffe_row: ModelRow, store: ModelStore, said: list[str]) -> None:
    text = b"the same net in other words"
    prototxt = replace(caffe_row.originals[0], equivalents=(sha256(text),))
    row = replace(
        caffe_row,
        originals=(prototxt, caffe_row.originals[1]),
        weights=weights_file("pair.onnx", text + blob(7, 300)),
    )
    put(store.write_dir, "deploy_pair.prototxt", text)
    put(store.write_dir, "pair.caffemodel", blob(7, 300))
    assert store.load(row).data == (text + blob(7, 300),)
    assert not said


def test_any_other_wrong_prototxt_stops(caffe_row: ModelRow, store: ModelStore) -> None:
    path = put(store.write_dir, "pair_deploy.prototxt", b"another net")
    put(store.write_dir, "pair.caffemodel", blob(7, 300))
    message = refusal(store, caffe_row)
    assert str(path) in message
    assert "dulian models pull standard" in message
    assert store.inspect(caffe_row).state == "damaged"


def test_weights_without_their_prototxt_say_so(caffe_row: ModelRow, store: ModelStore) -> None:
    path = put(store.write_dir, "pair_article.caffemodel", blob(7, 300))
    message = refusal(store, caffe_row)
    assert f"found {path} but not deploy_pair.prototxt (also known as pair_deploy.prototxt)" in message
    assert store.inspect(caffe_row).state == "missing"


def test_a_conversion_with_another_result_is_refused(
    caffe_row: ModelRow, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store.write_dir, "deploy_pair.prototxt", b"a new net")
    put(store.write_dir, "pair.caffemodel", blob(7, 300))
    monkeypatch.setattr("dulian.convert.convert_caffe", lambda prototxt, caffemodel, **_: b"something else")
    message = refusal(store, caffe_row)
    assert sha256(b"something else") in message
    assert not (store.write_dir / "pair.onnx").exists()


def test_a_conversion_that_cannot_be_kept_is_used_all_the_same(
    caffe_row: ModelRow, tmp_path: Path, said: list[str]
) -> None:
    put(tmp_path / "system", "deploy_pair.prototxt", b"a new net")
    put(tmp_path / "system", "pair.caffemodel", blob(7, 300))
    put(tmp_path, "no-folder", b"")
    store = ModelStore(
        model_dir=tmp_path / "no-folder" / "models", notify=said.append, system_dirs=(tmp_path / "system",)
    )
    assert store.load(caffe_row).data == (b"a new net" + blob(7, 300),)
    assert "at the next start" in said[-1]


def test_a_network_without_caffe_files_names_other_engines(registry: FakeRegistry, store: ModelStore) -> None:
    with pytest.raises(BackendError, match="'tiny' has no Caffe files; choose engine"):
        store.load_originals(registry.tiny)


@pytest.mark.weights
def test_the_real_old_text_is_repaired_and_its_net_converted(original_files: Path, tmp_path: Path) -> None:
    said: list[str] = []
    prototxt, caffemodel = RES10_SSD.originals
    text = (original_files / prototxt.name).read_bytes()
    old = text.replace(b"    clip: 1\n", b"").replace(b"\n", b"\r\n")
    put(tmp_path, "deploy.prototxt.txt", old)
    put(tmp_path, "face_detector.caffemodel", (original_files / caffemodel.name).read_bytes())
    store = ModelStore(model_dir=tmp_path, offline=True, notify=said.append, system_dirs=(), cache_dir=tmp_path / "no")
    assert store.load(RES10_SSD).sha256 == RES10_SSD.weights.sha256
    assert store.load_originals(RES10_SSD).data[0] == text
    assert "repaired" in said[0]
