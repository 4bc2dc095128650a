"""Our decoding of detector outputs against OpenCV's own classes, on a real photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.contract.test_runtimes import OPENCV_MAJOR, open_row

from dulian.image import Image, decode_image
from dulian.models.catalog import PROFILES
from dulian.models.networks import RES10_SSD, YUNET
from dulian.models.res10_ssd import Res10Ssd
from dulian.models.yunet import YuNet
from dulian.store import ModelStore

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def group(samples) -> Image:  # type: ignore[no-untyped-def]
    """Twelve faces in rows, in a picture whose sides are multiples of 32, so that nobody has to pad."""
    portrait = decode_image((samples / "astronaut.png").read_bytes()).image
    return np.ascontiguousarray(np.tile(portrait[20:180, 130:290], (3, 4, 1)))


def test_yunet_finds_what_opencvs_own_class_finds(model_store: ModelStore, original_files, group: Image) -> None:  # type: ignore[no-untyped-def]
    height, width = group.shape[:2]
    reference = cv2.FaceDetectorYN.create(
        str(original_files / "face_detection_yunet_2023mar.onnx"), "", (width, height), 0.6, 0.3
    )
    rows = reference.detect(group)[1]
    session = open_row(model_store, YUNET, "onnxruntime").new_session()
    found = YuNet(YUNET, session, long_side=width, nms_iou_threshold=0.3).detect(group, min_confidence=0.6).detections
    assert len(found) == len(rows) >= 12
    for detection in found:
        box = np.array(list(detection.box))
        row = min(rows, key=lambda row: float(np.abs(row[:2] - box[:2]).sum()))
        np.testing.assert_allclose(box, [row[0], row[1], row[0] + row[2], row[1] + row[3]], atol=0.02)
        np.testing.assert_allclose(np.array(list(detection.landmarks or ())).ravel(), row[4:14], atol=0.02)
        assert detection.confidence == pytest.approx(row[14], abs=1e-4)


def test_res10_finds_what_opencvs_own_run_finds(model_store: ModelStore, group: Image) -> None:
    if OPENCV_MAJOR >= 5:
        pytest.skip(f"OpenCV {cv2.__version__} has no Caffe importer to compare with")
    iou = PROFILES["classic"].nms_iou_threshold
    converted, original = (
        Res10Ssd(RES10_SSD, open_row(model_store, RES10_SSD, engine).new_session(), nms_iou_threshold=iou)
        for engine in ("onnxruntime", "opencv-caffe")
    )
    for threshold in (0.1, 0.3, 0.5):
        ours = converted.detect(group, min_confidence=threshold).detections
        theirs = original.detect(group, min_confidence=threshold).detections
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert tuple(a.box) == pytest.approx(tuple(b.box), abs=0.01)
            assert a.confidence == pytest.approx(b.confidence, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 16_000), (16_000, 1), (33, 65), (640, 640), (2000, 100)])
def test_detectors_take_any_shape(model_store: ModelStore, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    yunet = YuNet(
        YUNET, open_row(model_store, YUNET, "onnxruntime").new_session(), long_side=640, nms_iou_threshold=0.3
    )
    ssd = Res10Ssd(RES10_SSD, open_row(model_store, RES10_SSD, "onnxruntime").new_session(), nms_iou_threshold=0.45)
    for detector in (yunet, ssd):
        assert detector.detect(image, min_confidence=0.6).detections == ()
