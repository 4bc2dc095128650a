"""Words for people: reason codes and labels in English and Chinese. The only place that has such texts."""

from __future__ import annotations

from typing import Literal

from dulian.faces import AgeEstimate, Face, GenderEstimate, Message

Language = Literal["en", "zh"]

# Also the order of importance: a face shows the first of its reasons.
REASONS: dict[str, tuple[str, str]] = {
    "incomplete": (
        "The file holds less picture than it claims; part of what you see is filler.",
        "文件内容不完整,画面有一部分是填充出来的。",
    ),
    "face_too_small": (
        "The face is only {size_px} px wide; come closer or use a larger picture (at least {min_size_px} px).",
        "人脸只有 {size_px} 像素,太小;请靠近一些或使用更大的照片(至少 {min_size_px} 像素)。",
    ),
    "cut_by_frame": (
        "The face is cut off by the edge of the picture; show the whole face.",
        "人脸被画面边缘截断;请让整张脸进入画面。",
    ),
    "too_dark": ("The face is too dark; add light.", "人脸太暗;请增加光线。"),
    "too_bright": ("The face is overexposed; use softer light.", "人脸过曝;请使用更柔和的光线。"),
    "blurred": ("The face is blurred; hold still or focus.", "人脸模糊;请保持稳定并对焦。"),
    "profile_view": (
        "The face is turned to the side; look towards the camera.",
        "人脸侧向一边;请正对镜头。",
    ),
    "low_confidence": (
        "The networks are not sure about this face.",
        "模型对这张脸没有把握。",
    ),
}

HINTS: dict[str, tuple[str, str]] = {
    "no_face": (
        "No face was found. Use a picture with a face that is larger, sharper and turned to the camera.",
        "没有找到人脸。请使用人脸更大、更清晰、正对镜头的照片。",
    ),
    "almost_a_face": (
        "No face was found; the best candidate scored {score:.2f}, below min_confidence {threshold:.2f}.",
        "没有找到人脸;最像的一处得分 {score:.2f},低于 min_confidence {threshold:.2f}。",
    ),
    "lone_face": (
        "A doubtful face, {score:.2f}, is not believed alone (below {threshold:.2f}); set min_confidence to see it.",
        "只有一张可疑的脸,得分 {score:.2f},单独出现时不予采信(低于 {threshold:.2f});指定 min_confidence 即可查看。",
    ),
}

GENDERS: dict[str | None, tuple[str, str]] = {
    "female": ("Female", "女"),
    "male": ("Male", "男"),
    None: ("Unknown", "性别不定"),
}


def reason_message(code: str, **facts: object) -> Message:
    """The sentence for a reason code; ``facts`` fill its blanks."""
    english, chinese = REASONS[code]
    return Message(code, english.format(**facts), chinese.format(**facts))


def hint_message(code: str, **facts: object) -> Message:
    """The sentence for a picture without faces."""
    english, chinese = HINTS[code]
    return Message(code, english.format(**facts), chinese.format(**facts))


def article_label(age: AgeEstimate | None, gender: GenderEstimate | None) -> str:
    """The articles' label, ``Female, (25-32)``, without the parts that were not asked for."""
    parts = []
    if gender is not None:
        parts.append(GENDERS[gender.value][0])
    if age is not None:
        parts.append(age.bucket)
    return ", ".join(parts) or "Face"


def display_label(face: Face, language: Language = "en") -> str:
    """The label drawn on pictures: ``Female, 31 (26–37)`` or ``女 31岁 (26–37)``.

    The interval is the age's own, so that a wide one shows doubt that a bucket would hide.
    """
    zh = language == "zh"
    parts = []
    if face.gender is not None:
        parts.append(GENDERS[face.gender.value][zh])
    if face.age is not None:
        years = f"{face.age.value:.0f}岁" if zh else f"{face.age.value:.0f}"
        parts.append(f"{years} ({face.age.low:.0f}–{face.age.high:.0f})")
    return (" " if zh else ", ").join(parts) or ("人脸" if zh else "Face")
