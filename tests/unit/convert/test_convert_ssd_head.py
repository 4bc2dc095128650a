from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt

from dulian.convert import check_against_opencv, convert_caffe
from dulian.errors import ConversionError

RANDOM = np.random.default_rng(11)
SIDE, CELLS, BOXES_PER_CELL = 12, 3, 4
COUNT = CELLS * CELLS * BOXES_PER_CELL
X = RANDOM.normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32)


def branch(name, filters):
    return f"""
      layer {{ name: "{name}" type: "Convolution" bottom: "data" top: "{name}"
               convolution_param {{ num_output: {filters} kernel_size: 4 stride: 4 }} }}
      layer {{ name: "{name}_perm" type: "Permute" bottom: "{name}" top: "{name}_perm"
               permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
      layer {{ name: "{name}_flat" type: "Flatten" bottom: "{name}_perm" top: "{name}_flat" }}"""


PRIORS = """
      layer { name: "priors" type: "PriorBox" bottom: "loc" bottom: "data" top: "priors"
              prior_box_param { min_size: 4 max_size: 6 aspect_ratio: 2 flip: true clip: false
                                variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 step: 4 offset: 0.5 } }"""
HEAD = """
      layer { name: "mbox_priors" type: "Concat" bottom: "priors" top: "mbox_priors" concat_param { axis: 2 } }
      layer { name: "rows" type: "Reshape" bottom: "conf_flat" top: "rows"
              reshape_param { shape { dim: 0 dim: -1 dim: 2 } } }
      layer { name: "soft" type: "Softmax" bottom: "rows" top: "soft" softmax_param { axis: 2 } }
      layer { name: "flat" type: "Flatten" bottom: "soft" top: "flat" }
      layer { name: "out" type: "DetectionOutput" bottom: "loc_flat" bottom: "flat" bottom: "mbox_priors" top: "out"
              include { phase: TEST }
              detection_output_param { num_classes: 2 share_location: true background_label_id: 0
                nms_param { nms_threshold: 0.45 top_k: 400 } code_type: CENTER_SIZE keep_top_k: 200
                confidence_threshold: 0.01 clip: true } }"""
BODY = branch("loc", BOXES_PER_CELL * 4) + branch("conf", BOXES_PER_CELL * 2) + PRIORS + HEAD
TEXT = prototxt(BODY, X.shape)
TRAINED = caffemodel(
    *(
        layer(name, "Convolution", [RANDOM.normal(0, 0.2, (filters, 3, 4, 4)), RANDOM.normal(0, 1, filters)])
        for name, filters in (("loc", BOXES_PER_CELL * 4), ("conf", BOXES_PER_CELL * 2))
    )
)


def test_outputs_are_boxes_and_scores_of_every_prior(run_onnx):
    model = convert_caffe(TEXT, TRAINED)
    loaded = onnx.load_from_string(model)
    onnx.checker.check_model(loaded, full_check=True)
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*loaded.graph.input, *loaded.graph.output)
    }
    assert shapes == {"data": [1, 3, SIDE, SIDE], "boxes": [1, COUNT, 4], "scores": [1, COUNT, 2]}
    answers = run_onnx(model, X)
    np.testing.assert_allclose(answers["scores"].sum(2), 1, atol=1e-6)
    assert answers["boxes"].min() >= 0
    assert answers["boxes"].max() <= 1


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="this OpenCV has no Caffe importer")
def test_every_box_and_every_kept_row_matches_opencv():
    report = check_against_opencv(TEXT, TRAINED, convert_caffe(TEXT, TRAINED))
    assert [row.output for row in report.rows] == ["scores", "boxes", "detections: boxes", "detections: scores"]
    assert report.ok, report


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="this OpenCV has no Caffe importer")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"clip: true", b"clip: false"),
        (b"variance: 0.2", b"variance: 0.3"),
        (b"offset: 0.5", b"offset: 0.25"),
        (b"max_size: 6", b"max_size: 7"),
    ],
)
def test_another_text_is_seen_by_the_check(old, new):
    report = check_against_opencv(TEXT, TRAINED, convert_caffe(TEXT.replace(old, new), TRAINED))
    assert not report.ok
    assert {row.output for row in report.rows if not row.ok} & {"boxes", "detections: boxes"}


def numbers_of(text, run_onnx, trained=TRAINED):
    """Decoded boxes for offsets of zero, which are the prior boxes themselves."""
    silent = caffemodel(
        layer("loc", "Convolution", [np.zeros((BOXES_PER_CELL * 4, 3, 4, 4)), np.zeros(BOXES_PER_CELL * 4)]),
        layer("conf", "Convolution", [np.zeros((BOXES_PER_CELL * 2, 3, 4, 4)), np.zeros(BOXES_PER_CELL * 2)]),
    )
    return run_onnx(convert_caffe(text, silent), X)["boxes"][0]


def test_prior_boxes_by_hand(run_onnx):
    boxes = numbers_of(TEXT.replace(b"clip: true", b"clip: false"), run_onnx)
    # First cell: centre (2, 2) of 12 pixels; sides 4, sqrt(4 * 6), then 4 * sqrt(2) by 4 / sqrt(2) and turned.
    middle, wide, narrow = np.sqrt(24.0), 4 * np.sqrt(2), 4 / np.sqrt(2)
    for index, (width, height) in enumerate([(4, 4), (middle, middle), (wide, narrow), (narrow, wide)]):
        expected = np.array([2 - width / 2, 2 - height / 2, 2 + width / 2, 2 + height / 2]) / 12
        np.testing.assert_allclose(boxes[index], expected, atol=1e-6)
    # The next cell lies to the right, the row below after three cells.
    np.testing.assert_allclose(boxes[BOXES_PER_CELL] - boxes[0], [1 / 3, 0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(boxes[BOXES_PER_CELL * 3] - boxes[0], [0, 1 / 3, 0, 1 / 3], atol=1e-6)


def test_clipped_prior_boxes_and_a_step_from_the_picture(run_onnx):
    text = TEXT.replace(b"flip: true clip: false", b"flip: true clip: true").replace(b"step: 4 ", b"")
    boxes = numbers_of(text.replace(b"clip: true } }", b"clip: false } }"), run_onnx)
    np.testing.assert_allclose(boxes[0], [0, 0, 4 / 12, 4 / 12], atol=1e-6)
    assert boxes.min() >= -1e-6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"CENTER_SIZE", b"CORNER", "only code_type CENTER_SIZE"),
        (b"share_location: true", b"share_location: false", "share_location"),
        (b"num_classes: 2", b"num_classes: 3", "36 prior boxes"),
        (b"aspect_ratio: 2", b"aspect_ratio: 0", "aspect_ratio is 0"),
        (b"min_size: 4", b"min_size: -4", "min_size"),
        (b"max_size: 6", b"max_size: [6, 7]", "max_size"),
        (b"variance: 0.1", b"", "variance"),
        (b'bottom: "mbox_priors"', b'bottom: "loc_flat"', "must come from PriorBox"),
        (
            b'bottom: "priors" top: "mbox',
            b'bottom: "priors" bottom: "rows" top: "mbox',
            "inputs of shapes|unknown|reads",
        ),
    ],
)
def test_heads_that_are_not_supported_are_named(old, new, message):
    with pytest.raises(ConversionError, match=message):
        convert_caffe(TEXT.replace(old, new, 1), TRAINED)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (one_layer("ReLU", bottom="priors", top="x"), "only Concat and DetectionOutput"),
        (one_layer("ReLU", bottom="out", top="x"), "left to the caller"),
        (PRIORS.replace('"priors"', '"unread"'), "which no layer reads"),
    ],
)
def test_prior_boxes_and_rows_go_nowhere_else(extra, message):
    with pytest.raises(ConversionError, match=message):
        convert_caffe(prototxt(BODY + extra, X.shape), TRAINED)


def test_priors_by_the_million_are_refused():
    body = one_layer("TanH", top="t") + (
        'layer { name: "p" type: "PriorBox" bottom: "t" bottom: "data" top: "p" '
        "prior_box_param { min_size: [1, 2, 3, 4, 5] } }"
    )
    with pytest.raises(ConversionError, match=r"layer 'p' \(PriorBox\)"):
        convert_caffe(prototxt(body, (1, 1, 4096, 4096)), TRAINED)
