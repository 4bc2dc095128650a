"""Annotated pictures: what each is called in the destination, and how it is drawn."""

from __future__ import annotations

import re
import unicodedata

from dulian.batch.shards import PICTURES
from dulian.faces import AnalysisResult
from dulian.image import Image, encode_jpeg
from dulian.messages import Language

# File systems hold names of 255 bytes, some of them less, and people shorter ones.
MAX_STEM_BYTES = 80
_SEPARATORS = re.compile(r"::|[/\\]")


def picture_name(shard: int, index: int, source: str) -> str:
    """The name of an input's picture, unique by its place in the job; its own name is only there for people."""
    return f"{PICTURES}/{shard:06d}/{index:03d}_{_stem(source)}.jpg"


def draw(image: Image, result: AnalysisResult, language: Language) -> bytes:
    """A JPEG of the picture with boxes and labels drawn."""
    from dulian.render import annotate

    return encode_jpeg(annotate(image, result, language=language))


def _stem(source: str) -> str:
    """The last part of a name without its suffix, of characters that every file system and address can hold."""
    last = _SEPARATORS.split(source)[-1]
    stem, dot, _ = last.rpartition(".")
    text = unicodedata.normalize("NFC", stem if dot and stem else last)
    kept = "".join(one if _is_kept(one) else "_" for one in text).lstrip(".")
    return kept.encode()[:MAX_STEM_BYTES].decode(errors="ignore") or "picture"


def _is_kept(character: str) -> bool:
    return character in "._-" or unicodedata.category(character)[0] in "LMN"
