"""What can be chosen: the profiles, each a detector and the networks that describe its faces, and the sample pictures.

Nothing here runs and nothing here is read from disk. A row is enough for the store to fetch and
verify a model, for a model family to feed it, and for ``dulian models`` to say where it comes from.
"""

from __future__ import annotations

from dataclasses import replace

from dulian.errors import UnknownNameError
from dulian.models.archives import SCIKIT_IMAGE
from dulian.models.networks import (
    AGE_NET,
    AGE_NET_BARE,
    DLIB_AGE,
    DLIB_GENDER,
    FACE_API_AGE,
    FACE_API_GENDER,
    FACERES,
    GENDER_NET,
    GENDER_NET_BARE,
    RES10_SSD,
    YUNET,
)
from dulian.models.rows import Glance, ModelRow, Profile, Source, WeightsFile

STANDARD = Profile(
    name="standard",
    summary="YuNet + dlib age and gender: small, fast, landmarks, weights under MIT and CC0",
    summary_zh="YuNet + dlib 年龄、性别:小巧、快速、带关键点,权重为 MIT 与 CC0",
    detector=YUNET,
    estimators=(DLIB_AGE, DLIB_GENDER),
    min_confidence=0.6,
    sure_confidence=0.9,
    retry_confidence=0.85,
    doubt_confidence=0.75,
    nms_iou_threshold=0.3,
    filling_confidence=0.8,
    lone_confidence=0.66,
    detection_side=640,
    glance=Glance(side=320, from_side=512, face_px=48, sure_confidence=0.85, trace_confidence=0.15),
    process_bytes=400 * 2**20,
)

CLASSIC = Profile(
    name="classic",
    summary="res10 SSD + Levi-Hassner age and gender: the trio of countless OpenCV tutorials, fed better",
    summary_zh="res10 SSD + Levi-Hassner 年龄、性别:无数 OpenCV 教程所用的三个网络,裁剪更好",
    detector=RES10_SSD,
    estimators=(AGE_NET, GENDER_NET),
    min_confidence=0.5,
    sure_confidence=0.8,
    retry_confidence=0.9,
    doubt_confidence=0.75,
    nms_iou_threshold=0.45,
    filling_confidence=0.8,
    detail_px=227,
    process_bytes=500 * 2**20,
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        STANDARD,
        replace(
            STANDARD,
            name="accurate",
            summary="standard + face-api and FaceRes: right most often, slower; their weights are for research",
            summary_zh="standard + face-api 与 FaceRes:最准,较慢;这两者的权重仅供研究",
            estimators=(FACERES, FACE_API_AGE, FACE_API_GENDER, DLIB_AGE, DLIB_GENDER),
            detail_px=224,
            process_bytes=600 * 2**20,
        ),
        CLASSIC,
        replace(
            CLASSIC,
            name="classic-article",
            summary="the same trio as the articles feed it: the bare box, the likeliest class; to compare with",
            summary_zh="同样三个网络,按文章的做法:直接裁剪检测框,取概率最大的类;仅供比较",
            estimators=(AGE_NET_BARE, GENDER_NET_BARE),
        ),
    )
}

DEFAULT_PROFILE = "standard"

# Public-domain or CC0 pictures (scikit-image data/README), for a first try and for tests.
SAMPLES: tuple[WeightsFile, ...] = (
    WeightsFile(
        name="astronaut.png",
        size=791_555,
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        sources=(Source(SCIKIT_IMAGE, "skimage/data/astronaut.png"),),
    ),
    WeightsFile(
        name="chelsea.png",
        size=240_512,
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        sources=(Source(SCIKIT_IMAGE, "skimage/data/chelsea.png"),),
    ),
)


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        UnknownNameError: The catalog has no such profile.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UnknownNameError(f"unknown profile {name!r}; choose from {', '.join(PROFILES)}") from None


def all_rows() -> tuple[ModelRow, ...]:
    """Every network of every profile, each once, in catalog order."""
    return tuple(dict.fromkeys(row for profile in PROFILES.values() for row in profile.rows))
