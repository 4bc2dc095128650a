"""How well a picture lets one judge a face: size, sharpness, light, pose, framing, and the reasons for doubt.

Measured on one fixed-size crop, so that figures of different pictures can be compared.
"""

from __future__ import annotations

import cmath
import math

import cv2

from dulian.faces import BoundingBox, Detection, Landmarks, Pose, Quality
from dulian.image import Image
from dulian.models.rows import SquareCrop

QUALITY_CROP = SquareCrop(margin=0.0, side=112, grey=True)

# Below these, answers get worse on the development photos (docs/decisions.md, "Reasons for doubt").
MIN_SIZE_PX = 28
MIN_SHARPNESS = 0.1
MIN_BRIGHTNESS = 0.13
MAX_BRIGHTNESS = 0.80
MAX_YAW = 35.0
MAX_HIDDEN = 0.12
# Variance of the Laplacian, in a crop lit to the usual brightness, at which sharpness is one half.
HALF_SHARP = 120.0
USUAL_BRIGHTNESS = 0.43
MAX_GAIN = 4.0
# Side, in pixels, from which more size no longer helps any of the networks.
FULL_SIZE_PX = 112


def assess(detection: Detection, grey: Image, image_wh: tuple[int, int], *, size_px: int, incomplete: bool) -> Quality:
    """Judge one face by its unclipped detection, its :data:`QUALITY_CROP` and the size it was photographed in."""
    brightness = cv2.mean(grey)[0] / 255
    sharpness = _sharpness(grey, brightness)
    pose = estimate_pose(detection.landmarks) if detection.landmarks else None
    hidden = _hidden_share(detection.box, image_wh)
    checks = {
        "incomplete": incomplete,
        "face_too_small": size_px < MIN_SIZE_PX,
        "cut_by_frame": hidden > MAX_HIDDEN,
        "too_dark": brightness < MIN_BRIGHTNESS,
        "too_bright": brightness > MAX_BRIGHTNESS,
        "blurred": sharpness < MIN_SHARPNESS,
        "profile_view": pose is not None and abs(pose.yaw) > MAX_YAW,
    }
    return Quality(
        score=_score(size_px, sharpness, brightness, pose, hidden),
        sharpness=sharpness,
        brightness=brightness,
        size_px=size_px,
        pose=pose,
        reasons=tuple(code for code, applies in checks.items() if applies),
    )


def estimate_pose(landmarks: Landmarks) -> Pose:
    """Head pose from five points, by how far the nose tip leaves the middle of eyes and mouth.

    The nose tip stands about half an eye distance before the plane of eyes and mouth, so its shift
    within that plane, over that depth, is the tangent of the turn. Good to some ten degrees.
    """
    right_eye, left_eye, nose, mouth_right, mouth_left = (complex(x, y) for x, y in landmarks)
    eyes, mouth = (right_eye + left_eye) / 2, (mouth_right + mouth_left) / 2
    across = left_eye - right_eye
    roll = cmath.phase(across)
    upright_nose = (nose - (eyes + mouth) / 2) * cmath.rect(1, -roll)
    # A turned head shows its eyes closer together, yet keeps the distance from eyes to mouth.
    scale = max(abs(across), abs(mouth - eyes), 1e-6)
    depth = 0.5 * scale
    # A frontal nose tip lies a little below the middle between eyes and mouth.
    yaw = math.atan2(upright_nose.real, depth)
    pitch = -math.atan2(upright_nose.imag - 0.06 * scale, depth)
    return Pose(yaw=math.degrees(yaw), pitch=math.degrees(pitch), roll=math.degrees(roll))


def _sharpness(grey: Image, brightness: float) -> float:
    """Share of fine detail; scaled by brightness, because a dark picture is not a blurred one."""
    gain = min(USUAL_BRIGHTNESS / max(brightness, 1e-6), MAX_GAIN)
    deviation = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0])
    variance = (deviation * gain) ** 2
    return variance / (variance + HALF_SHARP)


def _hidden_share(box: BoundingBox, image_wh: tuple[int, int]) -> float:
    """Share of the detected box that lies outside the picture."""
    inside_width = max(0.0, min(box.x2, image_wh[0]) - max(box.x1, 0.0))
    inside_height = max(0.0, min(box.y2, image_wh[1]) - max(box.y1, 0.0))
    return 1 - inside_width * inside_height / box.area if box.area > 0 else 1.0


def _score(size_px: int, sharpness: float, brightness: float, pose: Pose | None, hidden: float) -> float:
    """One figure in [0, 1] to rank faces by: the product of what each aspect leaves."""
    size = min(1.0, size_px / FULL_SIZE_PX)
    light = 1 - (2 * abs(brightness - 0.5)) ** 3
    facing = max(0.0, math.cos(math.radians(pose.yaw))) if pose else 1.0
    return size * math.sqrt(sharpness) * light * facing * (1 - hidden)
