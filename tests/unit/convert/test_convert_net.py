"""Whole small nets: names, inputs, phases, folding, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
import pytest
from caffe_writer import caffemodel, layer, one_layer, prototxt
from hypothesis import given, settings
from hypothesis import strategies as st

from dulian.convert import convert_caffe
from dulian.errors import ConversionError

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
WEIGHTS, BIAS = RANDOM.normal(0, 1, (4, 3, 3, 3)), RANDOM.normal(0, 1, 4)
MEAN, VARIANCE = RANDOM.normal(0, 1, 4), RANDOM.uniform(0.5, 2, 4)
GAIN, SHIFT = RANDOM.normal(1, 0.5, 4), RANDOM.normal(0, 1, 4)
CONV = one_layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", top="a")
NORM = one_layer("BatchNorm", bottom="a", top="a") + one_layer(
    "Scale", "scale_param { bias_term: true }", bottom="a", top="a"
)
TRAINED = caffemodel(
    layer("convolution", "Convolution", [WEIGHTS, BIAS]),
    layer("batchnorm", "BatchNorm", [MEAN * 3, VARIANCE * 3, [3.0]]),
    layer("scale", "Scale", [GAIN, SHIFT]),
    layer("innerproduct", "InnerProduct", [RANDOM.normal(0, 1, (5, 144)), RANDOM.normal(0, 1, 5)]),
)
CLASSIFIER = prototxt(
    CONV
    + NORM
    + one_layer("ReLU", bottom="a", top="a")
    + one_layer("InnerProduct", "inner_product_param { num_output: 5 }", bottom="a", top="fc")
    + one_layer("Dropout", bottom="fc", top="fc")
    + one_layer("Softmax", bottom="fc", top="prob"),
    X.shape,
)


def ops(model):
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def outputs(model):
    return [output.name for output in onnx.load_from_string(model).graph.output]


def test_a_whole_classifier_matches_opencv(run_onnx, run_caffe):
    model = convert_caffe(CLASSIFIER, TRAINED)
    assert outputs(model) == ["prob"]
    np.testing.assert_allclose(run_onnx(model, X)["prob"], run_caffe(CLASSIFIER, TRAINED, X), atol=1e-5)


def test_equal_files_give_equal_bytes_without_a_date_or_a_path():
    model = convert_caffe(CLASSIFIER, TRAINED)
    assert model == convert_caffe(CLASSIFIER, TRAINED)
    loaded = onnx.load_from_string(model)
    assert (loaded.producer_name, loaded.producer_version, loaded.doc_string) == ("dulian", "", "")
    assert (loaded.ir_version, loaded.opset_import[0].version) == (8, 13)


def test_inputs_and_outputs_declare_an_open_batch():
    graph = onnx.load_from_string(convert_caffe(CLASSIFIER, TRAINED)).graph
    shapes = [
        [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (graph.input[0], graph.output[0])
    ]
    assert shapes == [["N", 3, 8, 8], ["N", 5]]


def test_batchnorm_and_scale_vanish_into_the_convolution(run_onnx, run_caffe):
    text = prototxt(CONV + NORM, X.shape)
    model = convert_caffe(text, TRAINED)
    assert ops(model) == ["Conv"]
    np.testing.assert_allclose(run_onnx(model, X)["a"], run_caffe(text, TRAINED, X), atol=1e-5)


def test_a_convolution_that_is_read_twice_is_not_folded(run_onnx):
    batch_norm = one_layer("BatchNorm", bottom="a", top="n")
    scale = one_layer("Scale", "scale_param { bias_term: true }", bottom="n", top="n")
    copy = one_layer("Power", "power_param { scale: 1.5 }", bottom="a", top="raw")
    model = convert_caffe(prototxt(CONV + batch_norm + scale + copy, X.shape), TRAINED)
    assert sorted(ops(model)) == ["Add", "Conv", "Mul", "Mul"]
    answers = run_onnx(model, X)
    gain, centre, shift = (values.reshape(1, -1, 1, 1) for values in (GAIN / np.sqrt(VARIANCE + 1e-5), MEAN, SHIFT))
    np.testing.assert_allclose(answers["n"], (answers["raw"] / 1.5 - centre) * gain + shift, atol=1e-4)


def test_batchnorm_on_the_input_stays_an_affine_map(run_onnx):
    text = one_layer("BatchNorm", "batch_norm_param { eps: 0.5 }", top="n")
    trained = caffemodel(layer("batchnorm", "BatchNorm", [[2, 4, 6], [1, 2, 3], [2.0]]))
    model = convert_caffe(prototxt(text, X.shape), trained)
    assert ops(model) == ["Mul", "Add"]
    mean, variance = (np.array(v).reshape(1, 3, 1, 1) for v in ([1, 2, 3], [0.5, 1, 1.5]))
    np.testing.assert_allclose(run_onnx(model, X)["n"], (X - mean) / np.sqrt(variance + 0.5), atol=1e-5)


def test_a_scale_factor_of_zero_means_no_statistics(run_onnx):
    trained = caffemodel(layer("batchnorm", "BatchNorm", [[2, 4, 6], [1, 2, 3], [0.0]]))
    text = one_layer("BatchNorm", "batch_norm_param { eps: 0.25 }", top="n")
    np.testing.assert_allclose(run_onnx(convert_caffe(prototxt(text, X.shape), trained), X)["n"], X * 2, atol=1e-6)


def test_scale_over_other_axes(run_onnx):
    gain = RANDOM.normal(0, 1, (8, 8))
    text = prototxt(one_layer("Scale", "scale_param { axis: 2 num_axes: -1 }"), X.shape)
    got = run_onnx(convert_caffe(text, caffemodel(layer("scale", "Scale", [gain]))), X)["out"]
    np.testing.assert_allclose(got, X * gain.astype(np.float32), atol=1e-6)


def test_overwritten_blobs_keep_their_order(run_onnx):
    text = prototxt(
        one_layer("Power", "power_param { shift: 1 }", top="a")
        + """layer { name: "r1" type: "ReLU" bottom: "a" top: "a" }
             layer { name: "p1" type: "Power" bottom: "a" top: "b" power_param { scale: -1 } }
             layer { name: "p2" type: "Power" bottom: "a" top: "a" power_param { scale: 3 } }
             layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "out" }""",
        X.shape,
    )
    model = convert_caffe(text, caffemodel(layer("none", "Silence")))
    assert outputs(model) == ["out"]
    np.testing.assert_allclose(run_onnx(model, X)["out"], np.maximum(X + 1, 0) * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ('layer { name: "d" type: "Dropout" bottom: "t" top: "t" }', ["t"]),
        ('layer { name: "d" type: "Dropout" bottom: "t" top: "named" }', ["named"]),
        ('layer { name: "s" type: "Split" bottom: "t" top: "x" top: "y" } ' + one_layer("ReLU", bottom="x"), ["out"]),
        (one_layer("ReLU", bottom="t") + one_layer("Sigmoid", bottom="t", top="other"), ["out", "other"]),
    ],
)
def test_outputs_go_by_caffes_names(last, expected):
    model = convert_caffe(prototxt(one_layer("TanH", top="t") + last), caffemodel(layer("none", "Silence")))
    assert outputs(model) == expected


def test_an_overwritten_input_is_still_the_input(run_onnx):
    body = one_layer("Power", "power_param { shift: 1 }", top="data") + one_layer("TanH")
    model = convert_caffe(prototxt(body, X.shape), caffemodel(layer("none", "Silence")))
    np.testing.assert_allclose(run_onnx(model, X)["out"], np.tanh(X + 1), atol=1e-6)


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_numbers_that_are_none_are_refused(number):
    trained = caffemodel(
        layer("convolution", "Convolution", [WEIGHTS, BIAS + number]),
        layer("batchnorm", "BatchNorm", [MEAN, VARIANCE / 100, [1.0]]),
        layer("scale", "Scale", [GAIN, SHIFT]),
    )
    with pytest.raises(ConversionError, match=r"convolution\.bias would hold an infinite number"):
        convert_caffe(prototxt(CONV + NORM, X.shape), trained)


LAYER = one_layer("TanH")


@pytest.mark.parametrize(
    "head",
    [
        'input: "data" input_dim: 10 input_dim: 3 input_dim: 8 input_dim: 8\n' + LAYER,
        'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n' + LAYER,
        'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }' + LAYER,
        'input: "data" input_shape { dim: [1, 3, 8, 8] } layer { name: "loss" type: "Accuracy" bottom: "data" '
        'top: "loss" include { phase: TRAIN } }' + LAYER,
        'input: "data" input_shape { dim: [1, 3, 8, 8] } layer { name: "loss" type: "Accuracy" bottom: "data" '
        'top: "loss" exclude { phase: TEST } }' + LAYER,
        'input: "data" input_shape { dim: [1, 3, 8, 8] }' + LAYER.replace("}", "include { phase: TEST } }"),
    ],
)
def test_every_way_to_declare_the_input(run_onnx, head):
    model = convert_caffe(head.encode(), caffemodel(layer("none", "Silence")))
    np.testing.assert_allclose(run_onnx(model, X)["out"], np.tanh(X), atol=1e-6)


CONV_A = "convolution_param { num_output: 4 kernel_size: 3"
REFUSED = {
    "unknown type": (one_layer("Deconvolution"), r"layer 'deconvolution' \(Deconvolution\): this type of layer is not"),
    "unknown v1 type": ('layers { name: "m" type: MVN bottom: "data" top: "m" }', r"layer 'm' \(MVN\)"),
    "unknown parameter": (one_layer("ReLU", "relu_param { bend: 2 }"), r"layer 'relu' \(ReLU\): parameter bend is not"),
    "alien parameter": (one_layer("ReLU", "pooling_param { pad: 1 }"), r"parameter pooling_param is not"),
    "nothing read": (one_layer("ReLU", bottom="ghost"), "reads 'ghost', which no layer before it writes"),
    "no weights": (
        one_layer("Convolution", CONV_A.replace("4", "3") + "}").replace('convolution"', 'other"'),
        "holds no weights",
    ),
    "wrong filters": (one_layer("Convolution", CONV_A.replace("4", "5") + "}"), "weights in the caffemodel have shape"),
    "wrong group": (one_layer("Convolution", CONV_A + " group: 3 }"), "4 filters in 3 groups"),
    "too many sizes": (one_layer("Convolution", "convolution_param { kernel_size: [3, 3, 3] }"), "has 3 values"),
    "huge kernel": (one_layer("Convolution", "convolution_param { num_output: 4 kernel_size: 99999 }"), "is supported"),
    "unknown pool": (one_layer("Pooling", "pooling_param { pool: SUM kernel_size: 3 }"), "pool is 'SUM'; known are"),
    "within channel": (one_layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }"), "WITHIN_CHANNEL"),
    "even lrn": (one_layer("LRN", "lrn_param { local_size: 4 }"), "must be odd"),
    "batch statistics": (one_layer("BatchNorm", "batch_norm_param { use_global_stats: false }"), "batch itself"),
    "across spatial": (one_layer("Normalize"), "across_spatial"),
    "reshape": (one_layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 } }"), "cannot reshape"),
    "moving the batch": (one_layer("Permute", "permute_param { order: 1 }"), "order"),
    "slice": (one_layer("Slice", "slice_param { slice_point: 9 }"), "cannot be cut"),
    "axis": (one_layer("Softmax", "softmax_param { axis: 4 }"), "axis 4"),
    "two inputs": (one_layer("TanH", 'bottom: "data"'), "2 inputs"),
    "no top": ('layer { name: "r" type: "ReLU" bottom: "data" }', "tops"),
    "no name": ('layer { type: "ReLU" bottom: "data" top: "x" }', "without a name"),
    "twin names": (one_layer("ReLU", top="a") * 2 + one_layer("TanH", bottom="a", top="a"), "same name"),
    "stages": (LAYER.replace("}", 'include { stage: "x" } }'), "only `phase`"),
    "no layers": ("", "no layers"),
    "mixed": (LAYER + LAYER.replace("layer", "layers"), "mixes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_named(case):
    body, message = REFUSED[case]
    with pytest.raises(ConversionError, match=message):
        convert_caffe(prototxt(body, X.shape), TRAINED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAYER, "declares no input|reads 'data'"),
        ('input: "data"' + LAYER, "names 1 inputs and 0"),
        ('input: "data" input_shape { dim: 1 dim: 3 dim: 0 dim: 8 }' + LAYER, "sides of 1 to"),
        ('input: "data" input_shape { dim: 1 dim: 3 dim: 99999999 dim: 8 }' + LAYER, "sides of 1 to"),
        ('input: "data" input_shape { dim: 7 }' + LAYER, "has shape"),
    ],
)
def test_a_missing_or_senseless_input_is_named(text, message):
    with pytest.raises(ConversionError, match=message):
        convert_caffe(text.encode(), TRAINED)


@pytest.mark.parametrize("size", [2, 3])
def test_numbers_that_do_not_fit_the_channels_are_refused(size):
    trained = caffemodel(
        layer("convolution", "Convolution", [WEIGHTS, BIAS]), layer("scale", "Scale", [np.ones(size), np.ones(size)])
    )
    scaled = one_layer("Scale", "scale_param { bias_term: true }", bottom="a", top="a")
    with pytest.raises(ConversionError, match=f"4 filters, but {size} channels"):
        convert_caffe(prototxt(CONV + scaled), trained)


def test_a_net_whose_tensors_outgrow_memory_is_refused():
    body = "".join(
        f'layer {{ name: "c{index}" type: "Concat" bottom: "{bottom}" bottom: "{bottom}" top: "t{index}" }}'
        for index, bottom in enumerate(["data", *(f"t{index}" for index in range(40))])
    )
    with pytest.raises(ConversionError, match="numbers"):
        convert_caffe(prototxt(body), TRAINED)


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_text_is_converted_or_refused(data):
    text = CLASSIFIER.decode()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 12))
    filling = data.draw(st.sampled_from(["", "0", "-1", "7", "99999999999", "2.5", "}", "{", '"', "a", "true", "ReLU"]))
    with suppress(ConversionError):
        convert_caffe((text[:start] + filling + text[start + length :]).encode(), TRAINED)
