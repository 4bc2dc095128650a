"""Folders and archives made by somebody who means harm, or by a copy that broke off."""

from __future__ import annotations

import io
import os
import random
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest

from dulian.batch.inputs import list_inputs, open_reader, tars
from dulian.batch.records import Input
from dulian.errors import InputNotFoundError, InputTooLargeError
from tests.batch.input_kinds import MAX_BYTES, listed, problems, read_all, tar_bytes, zip_bytes

LINK = "a link, which is not followed"
SPECIAL = "not a regular file"
needs_root = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root may do that")


def reasons(*sources: str) -> dict[str, str]:
    """What is refused, by the last part of its name."""
    found = problems(listed(*sources))
    return {os.path.basename(name): message.rpartition(": ")[2] for name, message in found.items()}


def write_zip(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members:
            archive.writestr(info, data)
    return str(path)


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> str:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


# ── folders ──────────────────────────────────────────────────────────────────────────────────────


def test_links_pipes_and_sockets_are_reported_and_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "secret.jpg").write_bytes(b"secret")
    album = tmp_path / "album"
    album.mkdir()
    (album / "good.jpg").write_bytes(b"good")
    (album / "out.jpg").symlink_to(secret / "secret.jpg")
    (album / "dangling.jpg").symlink_to("nowhere")
    (album / "out").symlink_to(secret)
    (album / "loop").symlink_to(album)
    (album / "ring").symlink_to("ring")
    (album / "notes").symlink_to(secret / "secret.jpg")
    os.mkfifo(album / "pipe")
    os.mkfifo(album / "pipe.jpg")
    monkeypatch.chdir(album)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        inputs = listed(".")
    links = dict.fromkeys(["out.jpg", "dangling.jpg", "out", "loop", "ring"], LINK)
    assert reasons(".") == {**links, **dict.fromkeys(["pipe", "pipe.jpg", "socket"], SPECIAL)}
    assert [one.source for one in inputs if one.problem is None] == ["good.jpg"]
    assert {one.problem[0] for one in inputs if one.problem} == {"input_not_found"}


def test_globs_follow_no_links_either(tmp_path: Path) -> None:
    (tmp_path / "album" / "sub").mkdir(parents=True)
    (tmp_path / "album" / "sub" / "a.jpg").write_bytes(b"x")
    (tmp_path / "album" / "loop").symlink_to(tmp_path / "album")
    for pattern in ("**/*.jpg", "*/*.jpg", "album/**", "alb?m/*"):
        inputs = listed(f"{tmp_path}/{pattern}")
        names = [one.source.removeprefix(f"{tmp_path}/") for one in inputs if one.problem is None]
        assert names == ([] if pattern == "*/*.jpg" else ["album/sub/a.jpg"])
    assert reasons(f"{tmp_path}/album/*/*.jpg") == {"loop": LINK}


@needs_root
def test_devices_are_reported(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "zero.jpg", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this root may not make device nodes")
    assert reasons(str(tmp_path)) == {"zero.jpg": SPECIAL}
    with pytest.raises(InputNotFoundError, match=SPECIAL):
        read_all([Input(source=str(tmp_path / "zero.jpg"))])


@needs_root
def test_folders_that_may_not_be_listed_are_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "album" / "closed").mkdir(parents=True)
    (tmp_path / "album" / "a.jpg").write_bytes(b"x")
    (tmp_path / "album" / "closed").chmod(0o700)
    script = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from dulian.batch.inputs import list_inputs\n"
        "sys.stdout.buffer.writelines(one.to_line() for one in list_inputs(['.']))"
    )
    # Modules are found before rights are given up; the folders above may be closed to everybody else.
    script = f"import dulian.batch.inputs.listing\n{script}"
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "album", capture_output=True, check=True)
    first, closed = map(Input.from_line, run.stdout.splitlines())
    assert first.source == "a.jpg"
    assert closed.source == "closed"
    assert closed.problem == ("input_not_found", "cannot read closed: Permission denied")


def test_a_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"x")
    inputs = listed(str(tmp_path / "a.jpg"))
    assert read_all(inputs) == [b"x"]
    picture.unlink()
    picture.symlink_to("secret")
    with pytest.raises(InputNotFoundError, match="not followed"):
        read_all(inputs)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_an_archive_that_became_a_link_is_not_followed(name: str, tmp_path: Path) -> None:
    files = {"b.jpg": b"secret"}
    data = zip_bytes(files) if name == "a.zip" else tar_bytes(files, "gz" if name == "a.tgz" else "")
    (tmp_path / name).write_bytes(data)
    inputs = listed(str(tmp_path / name))
    assert read_all(inputs) == [b"secret"]
    (tmp_path / name).rename(tmp_path / "moved")
    (tmp_path / name).symlink_to("moved")
    with pytest.raises(InputNotFoundError, match="not followed"):
        read_all(inputs)


def test_a_link_that_is_put_there_while_it_is_opened_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "O_NOFOLLOW"):
        pytest.skip("this system has no O_NOFOLLOW")
    (tmp_path / "a.jpg").symlink_to(__file__)
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    with pytest.raises(InputNotFoundError, match="cannot read"):
        read_all([Input(source=str(tmp_path / "a.jpg"))])


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "a.zip")
    for name in ("a.jpg", "a.zip::b.jpg"):
        with pytest.raises(InputNotFoundError, match=SPECIAL):
            read_all([Input(source=str(tmp_path / name))])
    assert reasons(str(tmp_path / "a.zip")) == {"a.zip": SPECIAL}


def test_a_named_folder_may_be_a_link_and_a_named_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"x")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "file.jpg").symlink_to("real/a.jpg")
    (tmp_path / "real.zip").write_bytes(zip_bytes({"b.jpg": b"zipped"}))
    (tmp_path / "latest.zip").symlink_to("real.zip")
    assert read_all(listed(str(tmp_path / "folder"), str(tmp_path / "latest.zip"))) == [b"x", b"zipped"]
    assert reasons(str(tmp_path / "file.jpg")) == {"file.jpg": LINK}
    (inside,) = listed(str(tmp_path / "latest.zip"))
    assert inside.source == f"{tmp_path}/latest.zip::b.jpg"
    (tmp_path / "latest.zip").unlink()
    assert read_all([inside]) == [b"zipped"]


def test_what_is_not_there_is_an_input_of_its_own(tmp_path: Path) -> None:
    sources = [str(tmp_path / name) for name in ("a.jpg", "a.zip", "a.txt", "nul\0.jpg")]
    assert [one.problem and one.problem[0] for one in listed(*sources)] == ["input_not_found"] * 4
    assert listed(f"{tmp_path}/*.jpg") == []


@pytest.mark.parametrize(
    "name",
    [
        *("new\nline.jpg", "esc\x1b[31m.jpg", "\udcff\udcfe.jpg", "😀 读脸.jpg", " blank .jpg", "#hash.jpg", "-"),
        *("a.zip::b.jpg", "file::a.jpg", "100%.jpg", "me[1].jpg", "\u202egpj.jpg", 'quote".jpg', "back\\slash.jpg"),
        "\u2028.jpg",
    ],
)
@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_odd_names_are_printable_and_still_open(
    name: str, separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / f"x{name}.jpg").write_bytes(name.encode(errors="surrogateescape"))
    (tmp_path / f"{name}.jpg").write_bytes(name.encode(errors="surrogateescape"))
    for source in (".", "album"):
        for one in listed(source):
            again = Input.from_line(one.to_line())
            assert again.problem is None
            assert again.source.isprintable()
            assert read_all([again]) == [name.encode(errors="surrogateescape")]
    # Lists that are made of locations find them again.
    if not (separator == "\n" and ("\n" in name or name.startswith("#"))):
        (tmp_path / "again.lst").write_bytes(
            b"".join(f"{one.location}{separator}".encode(errors="surrogateescape") for one in listed("."))
        )
        assert [one.location for one in listed("again.lst")] == [one.location for one in listed(".")]
        assert problems(listed("again.lst")) == {}


def test_a_very_deep_folder_is_reported_once(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    assert next(iter(problems(listed(str(tmp_path))).values())).endswith("File name too long")
    assert len(listed(str(tmp_path))) == 1
    subprocess.run(["rm", "-rf", str(tmp_path / ("d" * 200))], check=True)


def test_empty_things_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.txt").touch()
    (tmp_path / "list.jsonl").touch()
    (tmp_path / "list.csv").touch()
    write_zip(tmp_path / "a.zip")
    write_tar(tmp_path / "a.tar")
    write_tar(tmp_path / "a.tgz", mode="w:gz")
    assert listed(*(str(path) for path in tmp_path.iterdir())) == []
    assert listed() == []
    for name in ("b.zip", "b.tar", "b.tgz", "b.parquet"):
        (tmp_path / name).touch()
        assert list(reasons(str(tmp_path / name))) == [name]


# ── archives ─────────────────────────────────────────────────────────────────────────────────────


def test_names_in_archives_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["../out.jpg", "/abs.jpg", "a/../../b.jpg", "C:\\x.jpg", "new\nline.jpg", "./dot.jpg", "s3://b/k.jpg"]
    files = {name: name.encode() for name in names}
    (tmp_path / "a.zip").write_bytes(zip_bytes(files))
    (tmp_path / "a.tar").write_bytes(tar_bytes(files))
    before = sorted(tmp_path.rglob("*"))
    for archive in ("a.zip", "a.tar"):
        inputs = listed(archive)
        assert [one.location for one in inputs] == [f"{archive}::{name}" for name in names]
        assert read_all(inputs) == list(files.values())
        assert all(one.source.isprintable() for one in inputs)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "out.jpg").exists()


def test_links_and_devices_in_archives_are_reported(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive = write_zip(tmp_path / "a.zip", (link, b"/etc/passwd"), ("good.jpg", b"x"))
    assert reasons(archive) == {"a.zip::link.jpg": LINK}
    archive = write_tar(
        tmp_path / "a.tar",
        (tar_info("soft.jpg", tarfile.SYMTYPE, target="/etc/passwd"), b""),
        (tar_info("hard.jpg", tarfile.LNKTYPE, target="good.jpg"), b""),
        (tar_info("notes", tarfile.SYMTYPE, target="x"), b""),
        (tar_info("device", tarfile.CHRTYPE), b""),
        (tar_info("pipe.jpg", tarfile.FIFOTYPE), b""),
        (tar_info("good.jpg", size=1), b"x"),
    )
    assert reasons(archive) == {
        **dict.fromkeys(["a.tar::soft.jpg", "a.tar::hard.jpg"], LINK),
        **dict.fromkeys(["a.tar::device", "a.tar::pipe.jpg"], SPECIAL),
    }


def test_encrypted_and_oddly_compressed_members_are_reported(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"a.jpg": b"x", "b.jpg": b"y"}))
    first = data.index(b"PK\x01\x02")
    data[first + 8] |= 1
    data[data.index(b"PK\x01\x02", first + 1) + 10] = 93
    (tmp_path / "a.zip").write_bytes(data)
    found = reasons(str(tmp_path / "a.zip"))
    assert found["a.zip::a.jpg"] == "it is encrypted"
    assert found["a.zip::b.jpg"].startswith("it is compressed by method 93")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.zip::a.jpg\n")
    with pytest.raises(InputNotFoundError, match="encrypted"):
        read_all(listed(str(tmp_path / "list.txt")))


def test_hidden_members_and_nested_archives_are_left_alone(tmp_path: Path) -> None:
    names = ["__MACOSX/._a.jpg", ".git/b.jpg", "inner.zip", "inner.tar.gz", "a.jpg", "folder/"]
    (tmp_path / "a.zip").write_bytes(zip_bytes(dict.fromkeys(names, b"x")))
    (tmp_path / "a.tar").write_bytes(tar_bytes(dict.fromkeys(names[:-1], b"x")))
    for archive in ("a.zip", "a.tar"):
        assert [one.source for one in listed(str(tmp_path / archive))] == [f"{tmp_path}/{archive}::a.jpg"]


def test_a_member_that_unpacks_to_more_is_cut(tmp_path: Path) -> None:
    bomb = zip_bytes({"bomb.jpg": bytes(200_000_000)})
    (tmp_path / "honest.zip").write_bytes(bomb)
    (one,) = listed(str(tmp_path / "honest.zip"))
    with pytest.raises(InputTooLargeError):
        read_all([one])
    # One that says it is small: its size stands 24 bytes into the directory's entry.
    lying = bytearray(bomb)
    struct.pack_into("<L", lying, lying.index(b"PK\x01\x02") + 24, 1000)
    (tmp_path / "lying.zip").write_bytes(lying)
    (one,) = listed(str(tmp_path / "lying.zip"))
    assert one.size == 1000
    tracemalloc.start()
    with pytest.raises(InputNotFoundError, match="another size"):
        read_all([one])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_what_the_checksum_does_not_fit_is_damaged(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"a.jpg": b"picture" * 100}, zipfile.ZIP_STORED))
    data[60] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputNotFoundError, match="checksum"):
        read_all(listed(str(tmp_path / "a.zip")))


def test_a_compressed_archive_that_grows_too_far_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MIN_UNPACKED_BYTES", 2_000_000)
    files = {"a.jpg": b"x", "bomb.jpg": bytes(50_000_000), "b.jpg": b"y"}
    for name, compression in (("a.tgz", "gz"), ("a.txz", "xz")):
        (tmp_path / name).write_bytes(tar_bytes(files, compression))
        inputs = listed(str(tmp_path / name))
        assert [one.source.rpartition("/")[2] for one in inputs] == [f"{name}::a.jpg", f"{name}::bomb.jpg", name]
        assert "unpacks to more than" in reasons(str(tmp_path / name))[name]
        assert read_all(inputs[:1]) == [b"x"]


def test_headers_that_claim_to_be_huge_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tar_info("a.jpg", size=1), io.BytesIO(b"x"))
        archive.addfile(tar_info("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=100_000_000), io.BytesIO(bytes(10**8)))
    tracemalloc.start()
    found = reasons(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"a.tgz": "a header of 100,000,256 bytes"}
    assert peak < 10_000_000


def test_negative_sizes_do_not_go_round_in_circles(tmp_path: Path) -> None:
    header = bytearray(tar_info("a.jpg").tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # −512 in base 256: the next header would be this one
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(tar_bytes({"z.jpg": b"z"})[:1024] + header + bytes(1024))
    inputs = list(islice(list_inputs([str(tmp_path / "a.tar")]), 10))
    assert [one.problem is None for one in inputs] == [True, False]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.txz"])
def test_a_cut_archive_keeps_what_could_be_listed(name: str, tmp_path: Path) -> None:
    noise = random.Random(1)
    files = {f"{number}.jpg": noise.randbytes(100_000) for number in range(20)}
    compression = {"a.tgz": "gz", "a.tar.bz2": "bz2", "a.txz": "xz"}.get(name, "")
    whole = zip_bytes(files) if name == "a.zip" else tar_bytes(files, compression)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    inputs = listed(str(tmp_path / name))
    assert inputs[-1].source == str(tmp_path / name)
    assert inputs[-1].problem is not None
    good = [one for one in inputs if one.problem is None]
    if name != "a.zip":  # whose directory is at the end
        assert 0 < len(good) < 20
        assert read_all(good[:-1]) == list(files.values())[: len(good) - 1]


def test_a_tar_archive_cut_between_members_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes({"a.jpg": b"x", "b.jpg": b"y"})[:1024])
    inputs = listed(str(tmp_path / "a.tar"))
    assert [one.problem is None for one in inputs] == [True, False]
    assert reasons(str(tmp_path / "a.tar")) == {"a.tar": "its end is missing"}


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes({"a.jpg": b"x", "b.jpg": b"y", "c.jpg": b"z"}))
    data[1024 + 150] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    assert reasons(str(tmp_path / "a.tar")) == {"a.tar": "a header is damaged"}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.txz"])
def test_damage_anywhere_is_reported_or_harmless(name: str, tmp_path: Path) -> None:
    files = {f"{number}.jpg": bytes([number]) * 100 for number in range(10)}
    compression = {"a.tgz": "gz", "a.txz": "xz"}.get(name, "")
    whole = zip_bytes(files) if name == "a.zip" else tar_bytes(files, compression)
    noise = random.Random(3)
    reader = open_reader(base=".", max_bytes=MAX_BYTES)
    for number in range(150):
        data = bytearray(whole)
        for _ in range(noise.choice((1, 3, 30))):
            data[noise.randrange(len(data))] = noise.randrange(256)
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(data)
        for one in listed(str(path)):
            with suppress(InputNotFoundError, InputTooLargeError):
                assert len(reader.read(one)) <= MAX_BYTES
    reader.close()


def test_wide_zip_archives_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        with archive.open("wide.jpg", "w", force_zip64=True) as member:
            member.write(b"wide")
        for number in range(66_000):  # more than the short form of the end can count
            archive.writestr(f"{number}.txt", b"")
    inputs = listed(str(tmp_path / "a.zip"))
    assert read_all(inputs) == [b"wide"]


def test_members_beyond_4_gib_are_found(tmp_path: Path) -> None:
    """A sparse file stands in for large members: only where things lie matters."""
    whole = zip_bytes({"a.jpg": b"far away"}, zipfile.ZIP_STORED)
    start = whole.index(b"PK\x01\x02")
    shift = 5 * 2**30
    entry = bytearray(whole[start : whole.index(b"PK\x05\x06")])
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, 12)
    entry += struct.pack("<2HQ", 1, 8, shift)
    directory = shift + start
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(entry), directory)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, directory + len(entry), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with open(tmp_path / "a.zip", "wb") as file:
        file.seek(shift)
        file.write(whole[:start] + entry + wide + locator + end)
    assert read_all(listed(str(tmp_path / "a.zip"))) == [b"far away"]


def test_names_in_the_alphabets_of_packers(tmp_path: Path) -> None:
    data = zip_bytes({"aaaa.jpg": b"x", "bbbb.jpg": b"y", "读脸.jpg": b"z"})
    data = data.replace(b"aaaa", b"\x81\x82\x83\x84").replace(b"bbbb", "éé".encode())
    (tmp_path / "a.zip").write_bytes(data)
    inputs = listed(str(tmp_path / "a.zip"))
    assert [one.source.rpartition("::")[2] for one in inputs] == ["üéâä.jpg", "éé.jpg", "读脸.jpg"]
    assert read_all(inputs) == [b"x", b"y", b"z"]


def test_members_of_one_name_are_read_each_from_its_place(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = write_zip(tmp_path / "a.zip", ("a.jpg", b"first"), ("a.jpg", b"second"))
    assert read_all(listed(archive)) == [b"first", b"second"]


def test_reading_far_back_begins_a_compressed_archive_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "WINDOW_BYTES", 300_000)
    noise = random.Random(2)
    files = {f"{number}.jpg": noise.randbytes(100_000) for number in range(20)}
    (tmp_path / "a.tgz").write_bytes(tar_bytes(files, "gz"))
    inputs = listed(str(tmp_path / "a.tgz"))
    order = [*range(20), 18, 17, 0, 19, 5, 4, 3]
    assert read_all([inputs[number] for number in order]) == [list(files.values())[number] for number in order]


def test_an_archive_whose_name_holds_another_ones_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip::b.zip").write_bytes(zip_bytes({"c.jpg": b"x"}))
    (one,) = listed(f"file::{tmp_path}/a.zip::b.zip")
    assert one.problem is not None
    assert "rename it" in one.problem[1]


def test_checksums_are_what_versions_of_members_say(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"a.jpg": b"x"}))
    (one,) = listed(str(tmp_path / "a.zip"))
    assert one.version == f"{zlib.crc32(b'x'):08x}"
