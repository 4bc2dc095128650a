from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.fakes import face_at

from dulian.crops import cut_face
from dulian.faces import Detection, Landmarks, Quality
from dulian.messages import REASONS
from dulian.quality import QUALITY_CROP, assess, estimate_pose

SIZE = (400, 300)
FACE = face_at(100, 50, 120)


def scene(seed: int = 0) -> np.ndarray:
    """Fine texture of middle brightness."""
    return np.random.default_rng(seed).integers(80, 150, (300, 400, 3), np.uint8)


def judge(face: Detection, image: np.ndarray, *, incomplete: bool = False) -> Quality:
    size_px = round(min(face.box.width, face.box.height))
    return assess(face, cut_face(image, face, QUALITY_CROP), SIZE, size_px=size_px, incomplete=incomplete)


def reasons(image: np.ndarray, face: Detection = FACE, *, incomplete: bool = False) -> tuple[str, ...]:
    return judge(face, image, incomplete=incomplete).reasons


def test_a_good_face_has_no_reasons() -> None:
    assert reasons(scene()) == ()


def test_each_fault_has_its_reason() -> None:
    image = scene()
    assert reasons(image, face_at(100, 50, 20))[0] == "face_too_small"
    assert reasons(image, face_at(-40, 50, 120)) == ("cut_by_frame",)
    assert reasons((image * 0.15).astype(np.uint8)) == ("too_dark",)
    assert reasons(np.clip(image.astype(int) + 110, 0, 255).astype(np.uint8)) == ("too_bright",)
    assert reasons(np.asarray(cv2.GaussianBlur(image, (0, 0), 6), np.uint8)) == ("blurred",)
    assert reasons(image, turned_face(0.45)) == ("profile_view",)
    assert reasons(image, incomplete=True) == ("incomplete",)


def test_every_reason_has_words() -> None:
    found = set()
    for image in (scene(), np.zeros((300, 400, 3), np.uint8), np.full((300, 400, 3), 255, np.uint8)):
        for face in (FACE, face_at(-40, 50, 120), face_at(10, 10, 10), turned_face(0.45)):
            found |= set(reasons(image, face, incomplete=True))
    assert found <= set(REASONS)


def test_a_darker_picture_is_no_less_sharp() -> None:
    image = scene()
    bright, dark = (judge(FACE, picture).sharpness for picture in (image, (image * 0.5).astype(np.uint8)))
    assert dark == pytest.approx(bright, abs=0.05)


def test_scores_are_shares_and_fall_with_every_fault() -> None:
    image = scene()

    def score(face: Detection, picture: np.ndarray = image) -> float:
        return judge(face, picture).score

    best = score(FACE)
    assert 0 < best <= 1
    for worse in (
        score(face_at(100, 50, 40)),
        score(face_at(-40, 50, 120)),
        score(turned_face(0.45)),
        score(FACE, (image * 0.2).astype(np.uint8)),
        score(FACE, np.asarray(cv2.GaussianBlur(image, (0, 0), 6), np.uint8)),
    ):
        assert 0 <= worse < best


def turned_face(shift: float) -> Detection:
    """A face whose nose tip is ``shift`` of the eye distance away from the middle."""
    x, y, side = 100, 50, 120
    eyes = (x + 0.3 * side, y + 0.4 * side), (x + 0.7 * side, y + 0.4 * side)
    nose = x + (0.5 + shift * 0.4) * side, y + 0.6 * side
    mouth = (x + 0.35 * side, y + 0.8 * side), (x + 0.65 * side, y + 0.8 * side)
    return Detection(FACE.box, 0.9, Landmarks(*eyes, nose, *mouth))


def test_pose_of_a_frontal_face_is_none_to_speak_of() -> None:
    pose = estimate_pose(FACE.landmarks)  # type: ignore[arg-type]
    assert abs(pose.yaw) < 1
    assert abs(pose.pitch) < 10
    assert abs(pose.roll) < 1


def test_yaw_follows_the_nose() -> None:
    right, left = (estimate_pose(turned_face(shift).landmarks) for shift in (0.3, -0.3))  # type: ignore[arg-type]
    assert right.yaw == pytest.approx(-left.yaw)
    assert right.yaw > 20


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 45, 90, 180])
def test_roll_is_the_turn_of_the_eye_line(degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(list(FACE.landmarks)) @ turn.T  # type: ignore[arg-type]
    pose = estimate_pose(Landmarks(*map(tuple, points.tolist())))  # type: ignore[arg-type]
    assert (pose.roll - degrees + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert abs(pose.yaw) < 1


def test_coinciding_landmarks_do_no_harm() -> None:
    pose = estimate_pose(Landmarks(*[(5.0, 5.0)] * 5))
    assert np.isfinite([pose.yaw, pose.pitch, pose.roll]).all()
