from __future__ import annotations

import math
import sys

import cv2
import numpy as np
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt

from dulian.convert import CheckReport, CheckRow, check_against_opencv, convert_caffe
from dulian.errors import ConversionError, MissingDependencyError

needs_opencv_4 = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromCaffe"), reason=f"OpenCV {cv2.__version__} has no Caffe importer"
)
RANDOM = np.random.default_rng(9)
TEXT = prototxt(
    one_layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", top="conv")
    + one_layer("ReLU", bottom="conv", top="conv")
    + one_layer("InnerProduct", "inner_product_param { num_output: 5 }", bottom="conv", top="fc")
    + one_layer("Softmax", bottom="fc", top="prob"),
    (10, 3, 16, 16),
)


def trained(factor=1.0):
    random = np.random.default_rng(4)
    return caffemodel(
        layer("convolution", "Convolution", [random.normal(0, 0.01, (4, 3, 3, 3)) * factor, np.zeros(4)]),
        layer("innerproduct", "InnerProduct", [random.normal(0, 0.1, (5, 784)), random.normal(0, 1, 5)]),
    )


@needs_opencv_4
def test_a_faithful_conversion_passes():
    report = check_against_opencv(TEXT, trained(), convert_caffe(TEXT, trained()))
    assert report.ok
    assert report.images > 1
    assert report.reference == f"OpenCV {cv2.__version__}"
    assert [(row.output, row.tolerance) for row in report.rows] == [("prob", 1e-5)]
    assert 0 <= report.rows[0].max_abs_diff <= 1e-5


@needs_opencv_4
def test_other_weights_fail():
    report = check_against_opencv(TEXT, trained(), convert_caffe(TEXT, trained(1.01)))
    assert not report.ok
    assert report.rows[0].max_abs_diff > 1e-5


@needs_opencv_4
def test_given_images_and_a_net_without_probabilities():
    text = prototxt(one_layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }"), (1, 3, 16, 16))
    images = [RANDOM.integers(0, 256, (40, 30, 3), dtype=np.uint8)]
    report = check_against_opencv(text, trained(), convert_caffe(text, trained()), images=images)
    assert report.ok
    assert report.images == 1
    assert not check_against_opencv(text, trained(), convert_caffe(text, trained(1.001)), images=images).ok


@needs_opencv_4
def test_a_grey_net_can_be_checked():
    text = prototxt(one_layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 }"), (1, 1, 16, 16))
    assert check_against_opencv(text, trained(), convert_caffe(text, trained())).ok


@needs_opencv_4
def test_an_onnx_of_another_net_is_named():
    other = convert_caffe(prototxt(one_layer("TanH"), (1, 3, 16, 16)), trained())
    with pytest.raises(ConversionError, match="has no output prob"):
        check_against_opencv(TEXT, trained(), other)
    wider = convert_caffe(TEXT.replace(b"dim: 16", b"dim: 17"), retrained_for_17())
    with pytest.raises(ConversionError, match="cannot run the converted net"):
        check_against_opencv(TEXT, trained(), wider)
    with pytest.raises(ConversionError, match="cannot load the converted net"):
        check_against_opencv(TEXT, trained(), b"no model")


def retrained_for_17():
    return caffemodel(
        layer("convolution", "Convolution", [np.ones((4, 3, 3, 3)), np.zeros(4)]),
        layer("innerproduct", "InnerProduct", [np.ones((5, 900)), np.ones(5)]),
    )


@needs_opencv_4
def test_what_opencv_cannot_run_is_a_conversion_error():
    mismatched = caffemodel(layer("convolution", "Convolution", [np.ones((4, 9, 3, 3)), np.zeros(4)]))
    with pytest.raises(ConversionError, match="OpenCV cannot run"):
        check_against_opencv(TEXT, mismatched, convert_caffe(TEXT, trained()))


def test_opencv_5_is_told_apart(monkeypatch):
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe", raising=False)
    with pytest.raises(MissingDependencyError, match=r"OpenCV 4 is needed: pip install 'opencv-python-headless>=4.14"):
        check_against_opencv(TEXT, trained(), b"")


@pytest.mark.parametrize(("module", "message"), [("cv2", "OpenCV is missing"), ("onnxruntime", "onnxruntime is missi")])
def test_a_missing_package_is_named(monkeypatch, module, message):
    monkeypatch.setattr(cv2.dnn, "readNetFromCaffe", None, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=message):
        check_against_opencv(TEXT, trained(), b"")


def test_a_report_is_ok_only_when_every_row_is():
    good, bad = CheckRow("a", 1e-6, 1e-5), CheckRow("b", 1e-4, 1e-5)
    assert CheckReport((good,), 1, "x").ok
    assert not CheckReport((good, bad), 1, "x").ok
    assert not CheckReport((), 0, "x").ok
    assert not CheckRow("a", math.nan, 1e-5).ok
