"""Drawing: on a copy, inside the picture, off the eyes, readable."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dulian import render
from dulian.errors import MalformedInputError
from dulian.faces import (
    AgeEstimate,
    AnalysisResult,
    BoundingBox,
    Face,
    GenderEstimate,
    ImageInfo,
    Landmarks,
    Message,
    ModelInfo,
    Quality,
)
from dulian.fonts import find_cjk_font
from dulian.layout import eye_zones
from dulian.render import INK, PALETTE, annotate

BLURRED = Message("blurred", "The face is blurred; hold still or focus.", "人脸模糊;请保持稳定并对焦。")


def landmarks(box: BoundingBox) -> Landmarks:
    def at(x: float, y: float) -> tuple[float, float]:
        return (box.x1 + x * box.width, box.y1 + y * box.height)

    return Landmarks(at(0.3, 0.4), at(0.7, 0.4), at(0.5, 0.6), at(0.35, 0.8), at(0.65, 0.8))


def make_face(x1, y1, x2, y2, *, id=0, status="ok", age=31.4, gender="female", message=None, eyes=True) -> Face:
    box = BoundingBox(x1, y1, x2, y2)
    return Face(
        id=id,
        box=box,
        confidence=0.9,
        landmarks=landmarks(box) if eyes else None,
        age=None if age is None else AgeEstimate(age, age - 5.4, age + 5.6, 0.9, "(25-32)", 0.7),
        gender=None if gender == "none" else GenderEstimate(gender, 0.9, 0.9),
        quality=Quality(0.8, 0.7, 0.5, 100),
        status=status,
        label="",
        message=message,
    )


def make_result(*faces: Face) -> AnalysisResult:
    return AnalysisResult(ImageInfo(640, 480), ModelInfo("standard", "opencv", "0"), faces)


def make_image(width: int = 640, height: int = 480, value: int = 120) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


# ── the copy ─────────────────────────────────────────────────────────────────────────────────────


def test_the_image_stays_as_it_is():
    image = make_image()
    image.setflags(write=False)
    drawn = annotate(image, make_result(make_face(200, 150, 320, 300)))
    assert (image == 120).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert drawn.flags.writeable
    assert not np.shares_memory(drawn, image)


def test_views_may_be_given():
    image = make_image()[::-1, 10:, ::-1]
    drawn = annotate(image, make_result(make_face(200, 150, 320, 300)))
    assert drawn.flags.c_contiguous
    assert changed(image, drawn).any()


def test_nobody_in_the_picture_is_an_identical_copy():
    image = make_image()
    drawn = annotate(image, make_result())
    assert (drawn == image).all()
    assert drawn is not image


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5, 3), (1, 1, 3), (1, 40, 3), (40, 1, 3), (3, 2, 3), (20, 20, 3)])
def test_tiny_pictures_work(shape):
    image = np.zeros(shape, np.uint8)
    result = make_result(
        make_face(0, 0, shape[1], shape[0], message=BLURRED, status="uncertain"),
        make_face(0, 0, shape[1], shape[0], id=1),
    )
    assert annotate(image, result).shape == shape


def test_the_same_picture_gives_the_same_bytes_in_any_thread():
    image = make_image()
    faces = [make_face(40 * i, 100, 40 * i + 36, 150, id=i, message=BLURRED) for i in range(15)]
    expected = annotate(image, make_result(*faces)).tobytes()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: annotate(image, make_result(*faces)).tobytes(), range(12)))
    assert set(answers) == {expected}


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(MalformedInputError, match="uint8 image"):
        annotate(image, make_result())


def test_unknown_languages_are_refused():
    with pytest.raises(MalformedInputError, match="'fr'; choose from en, zh"):
        annotate(make_image(), make_result(), language="fr")


# ── what is drawn ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", list(PALETTE))
@pytest.mark.parametrize("ground", [0, 128, 255])
def test_the_box_is_drawn_along_its_edge_in_a_colour_of_its_status(status, ground):
    image = make_image(value=ground)
    drawn = annotate(image, make_result(make_face(200, 150, 320, 300, status=status)))
    near = np.zeros(image.shape[:2], bool)
    near[144:306, 194:326] = True
    near[158:292, 208:312] = False
    edge = drawn[near]
    assert changed(image, drawn)[near].mean() > 0.2
    assert (np.abs(edge.astype(int) - PALETTE[status]).sum(axis=1) < 12).mean() > 0.03
    assert not changed(image, drawn)[160:290, 210:310].any()


@pytest.mark.parametrize("eyes", [True, False])
@given(box=st.tuples(st.integers(-80, 600), st.integers(-80, 440), st.integers(12, 500), st.integers(12, 400)))
@settings(max_examples=60)
def test_the_eyes_of_a_face_alone_stay_clear(eyes, box):
    x, y, w, h = box
    image = make_image()
    face = make_face(x, y, x + w, y + h, message=BLURRED, status="uncertain", eyes=eyes)
    touched = changed(image, annotate(image, make_result(face)))
    # Lines and round corners run along the visible box, so only what lies well within it counts.
    inner = BoundingBox(max(x, 0) + 12, max(y, 0) + 12, min(x + w, 640) - 12, min(y + h, 480) - 12)
    for zone in eye_zones(face.box, (face.landmarks.right_eye, face.landmarks.left_eye) if eyes else None):
        x1, y1 = round(max(zone.x1, inner.x1)) + 1, round(max(zone.y1, inner.y1)) + 1
        x2, y2 = round(min(zone.x2, inner.x2)) - 1, round(min(zone.y2, inner.y2)) - 1
        if x1 < x2 and y1 < y2:
            assert not touched[y1:y2, x1:x2].any()


def test_the_label_is_drawn_above_the_box_and_below_it_at_the_top_edge():
    image = make_image()
    plate = PALETTE["ok"]
    above = annotate(image, make_result(make_face(200, 150, 320, 300)))
    below = annotate(image, make_result(make_face(200, 0, 320, 150)))
    assert (above[125:140, 205:300] == plate).all(axis=2).mean() > 0.3
    assert (below[160:175, 205:300] == plate).all(axis=2).mean() > 0.3


def test_a_message_adds_a_line():
    image = make_image()
    plain = annotate(image, make_result(make_face(200, 150, 320, 300, status="uncertain")))
    reasoned = annotate(image, make_result(make_face(200, 150, 320, 300, status="uncertain", message=BLURRED)))
    assert changed(image, reasoned)[:140].sum() > 1.3 * changed(image, plain)[:140].sum()


def test_a_face_without_attributes_has_a_box_and_no_label():
    image = make_image()
    drawn = annotate(image, make_result(make_face(200, 150, 320, 300, age=None, gender="none")))
    touched = changed(image, drawn)
    assert touched.any()
    assert not touched[:144].any()


def test_fifty_faces_all_get_something_and_nothing_breaks():
    image = make_image(1280, 720)
    places = [(x, y) for y in range(5) for x in range(10)]
    faces = [make_face(120 * x + 40, 140 * y + 40, 120 * x + 90, 140 * y + 100, id=10 * y + x) for x, y in places]
    touched = changed(image, annotate(image, make_result(*faces)))
    for face in faces:
        x, y = int(face.box.x1), int(face.box.y1)
        assert touched[y - 40 : y + 100, x - 20 : x + 100].sum() > 600


def test_a_hopeless_crowd_still_has_all_its_boxes():
    image = make_image(200, 200)
    faces = [make_face(20 * x, 20 * y, 20 * x + 19, 20 * y + 19, id=10 * y + x) for y in range(10) for x in range(10)]
    touched = changed(image, annotate(image, make_result(*faces)))
    assert all(touched[20 * y : 20 * y + 20, 20 * x : 20 * x + 20].any() for y in range(10) for x in range(10))


# ── words and colours ────────────────────────────────────────────────────────────────────────────


def luminance(bgr) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in bgr)]
    return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]


def contrast(a, b) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("status", list(PALETTE))
def test_text_is_readable_on_every_plate(status):
    assert contrast(PALETTE[status], INK) >= 7


@pytest.mark.parametrize("status", list(PALETTE))
def test_line_or_halo_stands_out_from_any_grey(status):
    for grey in range(256):
        ground = (grey, grey, grey)
        assert max(contrast(PALETTE[status], ground), contrast(INK, ground)) >= 3


@pytest.fixture
def texts(monkeypatch):
    """The lines of every plate, in the order in which they were made."""
    written: list[tuple[str, ...]] = []
    original = render._plate

    def spy(lines, *args):
        written.append(tuple(lines))
        return original(lines, *args)

    monkeypatch.setattr(render, "_plate", spy)
    return written


@pytest.mark.parametrize(
    ("face", "text"),
    [
        (make_face(200, 150, 320, 300), "Female, 31 (26–37)"),
        (make_face(200, 150, 320, 300, gender="none"), "31 (26–37)"),
        (make_face(200, 150, 320, 300, age=None, gender="male"), "Male"),
    ],
)
def test_the_english_words(texts, face, text):
    annotate(make_image(), make_result(face))
    assert texts[0][0].replace("-", "–") == text


def test_the_reason_is_the_code_in_english(texts):
    annotate(make_image(), make_result(make_face(200, 150, 320, 300, status="low_quality", message=BLURRED)))
    assert texts[0][1:] == ("blurred",)


def test_without_a_chinese_font_the_words_are_english(monkeypatch):
    image, result = make_image(), make_result(make_face(200, 150, 320, 300, message=BLURRED, status="uncertain"))
    monkeypatch.setattr(render, "find_cjk_font", lambda: None)
    assert (annotate(image, result, language="zh") == annotate(image, result)).all()


def test_without_any_font_pillows_own_is_used_and_no_glyph_is_missing(monkeypatch, texts):
    monkeypatch.setattr(render, "find_latin_font", lambda: None)
    annotate(make_image(), make_result(make_face(200, 150, 320, 300)))
    assert texts[0] == ("Female, 31 (26-37)",)


def test_chinese_words(texts):
    if find_cjk_font() is None:
        pytest.skip("no Chinese font on this system")
    image, result = make_image(), make_result(make_face(200, 150, 320, 300, message=BLURRED, status="uncertain"))
    drawn = annotate(image, result, language="zh")
    assert texts[0] == ("女 31岁 (26–37)", "人脸模糊")
    assert (drawn != annotate(image, result)).any()


def test_a_small_picture_gets_the_short_form_and_a_single_face_no_index(texts):
    annotate(make_image(70, 60), make_result(make_face(5, 5, 65, 58)))
    assert ("F 31",) in texts
    annotate(make_image(16, 12), make_result(make_face(2, 2, 14, 11, id=7)))
    assert ("#7",) not in texts


def test_the_index_is_the_id_of_the_face(texts):
    faces = [make_face(20 * x, 20 * y, 20 * x + 19, 20 * y + 19, id=10 * y + x) for y in range(10) for x in range(10)]
    annotate(make_image(200, 200), make_result(*faces))
    assert ("#55",) in texts
