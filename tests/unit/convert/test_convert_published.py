"""The three published Caffe nets against OpenCV 4's own importer, and against their own bytes."""

from __future__ import annotations

import cv2
import pytest

from dulian.convert import check_against_opencv, convert_caffe, repair_ssd_prototxt

LEVI_HASSNER_MEAN = (78.4263377603, 87.7689143744, 114.895847746)
RES10_MEAN = (104.0, 177.0, 123.0)

pytestmark = pytest.mark.weights
needs_opencv_4 = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromCaffe"), reason=f"OpenCV {cv2.__version__} has no Caffe importer"
)


def published(folder, name):
    if name != "res10_300x300_ssd_iter_140000":
        prototxt = (folder / f"deploy_{name.removesuffix('_net')}.prototxt").read_bytes()
    else:
        paths = [folder / "deploy.prototxt", folder / "deploy.prototxt.txt"]
        prototxt = repair_ssd_prototxt(next(path for path in paths if path.is_file()).read_bytes())
    return prototxt, (folder / f"{name}.caffemodel").read_bytes()


@needs_opencv_4
@pytest.mark.parametrize(
    ("name", "mean", "outputs"),
    [
        ("age_net", LEVI_HASSNER_MEAN, ["prob"]),
        ("gender_net", LEVI_HASSNER_MEAN, ["prob"]),
        ("res10_300x300_ssd_iter_140000", RES10_MEAN, ["scores", "boxes"]),
    ],
)
def test_a_published_net_matches_opencv(original_files, name, mean, outputs):
    prototxt, caffemodel = published(original_files, name)
    report = check_against_opencv(prototxt, caffemodel, convert_caffe(prototxt, caffemodel), mean=mean)
    assert report.ok, report
    assert [row.output for row in report.rows][: len(outputs)] == outputs


@needs_opencv_4
def test_the_check_sees_the_old_detector_text(original_files):
    prototxt, caffemodel = published(original_files, "res10_300x300_ssd_iter_140000")
    padded = prototxt.replace(b"pad: 0\n    kernel_size: 3", b"pad: 1\n    kernel_size: 3")
    assert padded != prototxt
    assert not check_against_opencv(padded, caffemodel, convert_caffe(prototxt, caffemodel), mean=RES10_MEAN).ok


def test_the_same_files_give_the_same_bytes(original_files):
    prototxt, caffemodel = published(original_files, "res10_300x300_ssd_iter_140000")
    assert convert_caffe(prototxt, caffemodel) == convert_caffe(prototxt, caffemodel)
