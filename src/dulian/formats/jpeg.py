"""JPEG by its segments: size, orientation, profile, and whether the file is whole. ITU-T T.81, annex B."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from dulian.errors import ImageDecodeError, ImageTruncatedError
from dulian.formats.header import MAX_BLOCKS, Buffer, Header, JpegScan, orientation_of

MAX_SCANS = 64
"""Progressive encoders write about ten; each one costs a pass over the whole picture."""

_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0: False, 0xC1: False, 0xC2: True}
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ICC = b"ICC_PROFILE\0"


@dataclass(slots=True)
class _Frame:
    """The start-of-frame segment; ``sampling`` maps component id to its factors (horizontal, vertical)."""

    width: int
    height: int
    progressive: bool
    sampling: dict[int, tuple[int, int]]


@dataclass(slots=True)
class _Walk:
    """What one pass over the segments gathers."""

    data: bytes
    metadata_left: int
    parts: list[Buffer] = field(default_factory=list)
    frame: _Frame | None = None
    orientation: int | None = None
    profile: dict[int, bytes] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    scans: int = 0
    first_scan: JpegScan | None = None
    multi_scan: bool = False


def read(data: bytes, max_metadata_bytes: int) -> Header:
    """Walk from SOI to EOI; what follows EOI (a second picture, a video) is left out.

    Raises:
        ImageTruncatedError: no EOI, or a segment that reaches beyond the file.
        ImageDecodeError: no picture, or a coding that is not 8-bit Huffman (baseline, extended, progressive).
    """
    walk = _Walk(data, max_metadata_bytes, parts=[data[:2]])
    position = 2
    for _ in range(MAX_BLOCKS):
        marker, start = _next_marker(data, position)
        if marker == _EOI:
            return _header(walk)
        if marker in _STANDALONE:
            position = start
            continue
        (length,) = struct.unpack_from(">H", data, start)
        end = start + length
        if length < 2:
            raise ImageDecodeError("the JPEG has a segment of impossible length")
        if end > len(data):
            raise ImageTruncatedError("the JPEG ends inside a segment")
        position = _take(walk, marker, start + 2, end)
    raise ImageDecodeError(f"the JPEG has more than {MAX_BLOCKS} segments")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """The next marker and where it ends; stray bytes before it are skipped, as every decoder does."""
    found = _MARKER.search(data, position)
    if found is None:
        raise ImageTruncatedError("the JPEG ends before its end-of-image marker")
    return data[found.end() - 1], found.end()


def _take(walk: _Walk, marker: int, start: int, end: int) -> int:
    """Note one segment, keep it if it makes pixels, and return where the next one is looked for."""
    if marker == _COM or _APP0 <= marker <= 0xEF:
        _take_metadata(walk, marker, start, end)
        return end
    whole = memoryview(walk.data)[start - 4 : end]
    if marker in _FRAMES:
        if walk.frame is not None:
            raise ImageDecodeError("the JPEG has more than one frame header")
        walk.frame = _read_frame(walk.data[start:end], marker)
    if marker != _SOS:
        walk.parts.append(whole)
        return end
    return _take_scan(walk, whole, start, end)


def _take_metadata(walk: _Walk, marker: int, start: int, end: int) -> None:
    """Read orientation and profile within the budget; keep what tells a decoder the colour space."""
    opening = walk.data[start : min(end, start + len(_ICC))]
    keep = (marker == _APP0 and opening.startswith(b"JFIF\0")) or (marker == _APP14 and opening.startswith(b"Adobe"))
    if keep and marker not in walk.kept:
        walk.kept.add(marker)
        walk.parts.append(memoryview(walk.data)[start - 4 : end])
    is_exif = marker == _APP1 and opening.startswith(b"Exif\0\0") and walk.orientation is None
    is_profile = marker == _APP2 and opening == _ICC and end - start > len(_ICC) + 2
    if not is_exif and not is_profile:
        return
    walk.metadata_left -= end - start
    if walk.metadata_left < 0:
        return
    if is_exif:
        walk.orientation = orientation_of(walk.data[start:end])
    else:
        start += len(_ICC)
        walk.profile.setdefault(walk.data[start], walk.data[start + 2 : end])


def _read_frame(payload: bytes, marker: int) -> _Frame:
    if marker not in _HUFFMAN_FRAMES:
        raise ImageDecodeError("lossless, hierarchical and arithmetic-coded JPEG are not supported")
    precision, height, width, count = struct.unpack_from(">BHHB", payload)
    if precision != 8:
        raise ImageDecodeError(f"JPEG with {precision} bits per sample is not supported, only 8")
    if not width or not height:
        raise ImageDecodeError("the JPEG states a size of nothing")
    if count not in (1, 3, 4) or len(payload) < 6 + 3 * count:
        raise ImageDecodeError(f"JPEG with {count} colour components is not supported")
    sampling = {payload[6 + 3 * i]: (payload[7 + 3 * i] >> 4, payload[7 + 3 * i] & 15) for i in range(count)}
    if len(sampling) != count or not all(1 <= factor <= 4 for pair in sampling.values() for factor in pair):
        raise ImageDecodeError("the JPEG has impossible sampling factors")
    return _Frame(width, height, _HUFFMAN_FRAMES[marker], sampling)


def _take_scan(walk: _Walk, header: memoryview, start: int, end: int) -> int:
    """Step over the entropy-coded bytes of one scan: to the next marker that is neither stuffing nor a restart."""
    if walk.frame is None:
        raise ImageDecodeError("the JPEG has a scan before its frame header")
    walk.scans += 1
    if walk.scans > MAX_SCANS:
        raise ImageDecodeError(f"the JPEG has more than {MAX_SCANS} scans")
    found = _SCAN_END.search(walk.data, end)
    if found is None:
        raise ImageTruncatedError("the JPEG ends before its end-of-image marker")
    entropy = memoryview(walk.data)[end : found.start()]
    walk.parts += [header, entropy]
    if walk.first_scan is None:
        walk.first_scan = _first_scan(walk.frame, walk.data[start:end], entropy)
        walk.multi_scan = walk.data[start] < len(walk.frame.sampling)
    return found.start()


def _first_scan(frame: _Frame, payload: bytes, entropy: memoryview) -> JpegScan:
    components = [payload[1 + 2 * i] for i in range(payload[0])]
    if not components or not set(components) <= set(frame.sampling):
        raise ImageDecodeError("the JPEG has a scan of unknown components")
    horizontal = max(h for h, _ in frame.sampling.values())
    vertical = max(v for _, v in frame.sampling.values())
    if len(components) > 1:
        blocks = sum(frame.sampling[name][0] * frame.sampling[name][1] for name in components)
        return JpegScan(entropy, 8 * vertical, -(-frame.width // (8 * horizontal)), blocks)
    h, v = frame.sampling[components[0]]
    return JpegScan(entropy, 8 * vertical // v, -(-frame.width * h // (8 * horizontal)), 1)


def _header(walk: _Walk) -> Header:
    if walk.frame is None or walk.first_scan is None:
        raise ImageTruncatedError("the JPEG ends before its picture starts")
    frame = walk.frame
    return Header(
        "jpeg",
        frame.width,
        frame.height,
        (*walk.parts, b"\xff\xd9"),
        decoder="pillow" if len(frame.sampling) == 4 else "turbojpeg",
        orientation=walk.orientation or 1,
        profile=b"".join(walk.profile[key] for key in sorted(walk.profile)) or None,
        heavy=frame.progressive or walk.multi_scan,
        scan=walk.first_scan,
    )
