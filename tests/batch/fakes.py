"""A destination in memory, and jobs whose records are made by hand."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from dulian.batch.job import JOB, Job, name_of_manifest
from dulian.batch.records import Input, Record, duplicate_record, error_record, ok_record
from dulian.batch.shards import encode, name_of_shard
from dulian.errors import InputNotFoundError


class MemoryDestination:
    """Names and bytes of one process; keeps the rules of :class:`dulian.batch.destinations.Destination`."""

    def __init__(self, files: Mapping[str, bytes] | None = None, *, url: str = "fake://place/job") -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.url = url
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.files,))

    def prepare(self) -> None:
        pass

    def create(self, name: str, data: bytes) -> bool:
        with self._lock:
            if name in self.files:
                return False
            self.files[name] = data
            return True

    def replace(self, name: str, data: bytes) -> None:
        self.files[name] = data

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        stream = io.BytesIO()
        yield stream
        self.files[name] = stream.getvalue()

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def names(self, folder: str) -> Iterator[str]:
        for name in [*self.files]:
            parent, _, last = name.rpartition("/")
            if parent == folder:
                yield last

    def remove(self, name: str) -> None:
        self.files.pop(name, None)


class MemoryReader:
    """Pictures by location; what is not there is an error, as with a real reader."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        self.pictures = dict(pictures)
        self.read_names: list[str] = []

    def read(self, wanted: Input) -> bytes:
        self.read_names.append(wanted.location)
        if wanted.location not in self.pictures:
            raise InputNotFoundError(f"cannot read {wanted.source}: there is no such file")
        return self.pictures[wanted.location]

    def close(self) -> None:
        pass


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────

MODEL = {"profile": "standard", "engine": "onnxruntime", "digest": "0123456789abcdef"}
OPTIONS = {"max_faces": 300, "attributes": ["age", "gender"], "dedupe": False, "pictures": None}


def make_job(
    inputs: Sequence[Input], *, shard_size: int = 3, model: Mapping[str, Any] = MODEL, base: str = "/photos"
) -> Job:
    """The job of these inputs."""
    lines = b"".join(one.to_line() for one in inputs)
    return Job(
        inputs=len(inputs),
        manifest=hashlib.sha256(lines).hexdigest(),
        model=dict(model),
        options=dict(OPTIONS),
        shard_size=shard_size,
        base=base,
    )


def begin(destination: MemoryDestination, inputs: Sequence[Input], **parts: Any) -> Job:
    """A job whose manifest is there, and no record yet."""
    job = make_job(inputs, **parts)
    for shard in range(job.shards):
        start = shard * job.shard_size
        lines = b"".join(one.to_line() for one in inputs[start : start + job.shard_size])
        destination.create(name_of_manifest(job, shard), lines)
    destination.create(JOB, job.to_json())
    return job


def commit(destination: MemoryDestination, job: Job, shard: int, records: Sequence[Record]) -> None:
    """The records of one shard."""
    destination.create(name_of_shard(shard), encode(records, job=job.id, shard=shard))


def finished_job(
    records: Sequence[Record], *, destination: MemoryDestination | None = None, **parts: Any
) -> tuple[MemoryDestination, Job]:
    """A job that has these records, whose inputs are named as they are."""
    place = destination or MemoryDestination()
    inputs = [Input(source=record["source"], same_as=record.get("same_as")) for record in records]
    job = begin(place, inputs, **parts)
    for shard in range(job.shards):
        start = shard * job.shard_size
        commit(place, job, shard, records[start : start + job.shard_size])
    return place, job


# ── records ──────────────────────────────────────────────────────────────────────────────────────


def face(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A face as a record has it; ``age``, ``gender``, ``quality`` are their main value or the whole of them."""
    made: dict[str, Any] = {
        "id": number,
        "bbox": [10.0 + number, 12.5, 60.0 + number, 72.5],
        "confidence": 0.93,
        "landmarks": None,
        "age": 31.0,
        "gender": "female",
        "quality": 0.8,
        "status": "ok",
        "label": "Female, (25-32)",
        "message": None,
    } | changes
    if isinstance(made["age"], float):
        age = made["age"]
        parts = {"value": age, "low": max(age - 8, 0.0), "high": age + 8, "coverage": 0.9, "bucket": "(25-32)"}
        made["age"] = {**parts, "bucket_probability": 0.7}
    if made["gender"] in ("female", "male", "undecided"):
        shares = {"female": 0.95, "male": 0.04, "undecided": 0.52}
        share = shares[made["gender"]]
        value = None if made["gender"] == "undecided" else made["gender"]
        made["gender"] = {"value": value, "probability": max(share, 1 - share), "female_probability": share}
    if isinstance(made["quality"], float):
        score = made["quality"]
        looks = {"score": score, "sharpness": 0.6, "brightness": 0.5, "size_px": 88}
        made["quality"] = {**looks, "pose": {"yaw": 1.0, "pitch": -2.0, "roll": 0.5}, "reasons": []}
    return made


def with_reasons(made: dict[str, Any], *reasons: str) -> dict[str, Any]:
    return {**made, "quality": {**made["quality"], "reasons": [*reasons]}, "status": "low_quality"}


def ok(source: str, *faces: dict[str, Any], total_ms: float = 40.0, **changes: Any) -> Record:
    """The record of a picture that was answered."""
    result: dict[str, Any] = {
        "request_id": None,
        "image": {"width": 640, "height": 480, "rotated": 0},
        "model": dict(MODEL),
        "faces": [*faces],
        "timings_ms": {"decode": 5.0, "detect": 10.0, "attributes": 20.0, "total": total_ms},
        "annotated_image": None,
    }
    if not faces:
        message = {"code": "no_face", "en": "No face was found.", "zh": "没有找到人脸。"}
        result["hint"] = {"message": message, "best_candidate": None}
    sha256 = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()
    return ok_record(source, sha256, 12_345, result | changes)


def failed(source: str, code: str = "image_truncated", message: str = "the file ends too early") -> Record:
    return error_record(source, code, message, sha256="0" * 64, size=99)


def same(source: str, as_: str) -> Record:
    return duplicate_record(source, as_)


def some_records(count: int, make: Callable[[int], Record] | None = None) -> list[Record]:
    """So many, of all kinds."""

    def usual(number: int) -> Record:
        if number % 7 == 3:
            return failed(f"{number:04d}.jpg")
        if number % 7 == 5:
            return same(f"{number:04d}.jpg", f"{number - 1:04d}.jpg")
        return ok(f"{number:04d}.jpg", *(face(place, age=20.0 + number % 40) for place in range(number % 3)))

    return [(make or usual)(number) for number in range(count)]


def moved(one: Input, path: str) -> Input:
    """The same input, opened elsewhere."""
    return replace(one, path=path)
