from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from caffe_writer import blob, bytes_field, caffemodel, layer, number_field, varint
from hypothesis import given, settings
from hypothesis import strategies as st

from dulian.convert.caffe_model import MAX_BLOBS, MAX_DIMENSIONS, read_caffemodel
from dulian.errors import ConversionError

WEIGHTS = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 8
VALID = caffemodel(layer("conv", "Convolution", [WEIGHTS, np.ones(2)]), layer("relu", "ReLU"))


@pytest.mark.parametrize("version", ["new", "v1"])
def test_both_generations_give_the_same_layers(version):
    conv, relu = read_caffemodel(
        caffemodel(layer("conv", "Convolution", [WEIGHTS], version=version), layer("relu", "ReLU", version=version))
    )
    assert (conv.name, conv.type, relu.name, relu.type) == ("conv", "Convolution", "relu", "ReLU")
    assert conv.blobs[0].dtype == np.float32
    np.testing.assert_array_equal(conv.blobs[0], WEIGHTS)
    assert relu.blobs == ()


@pytest.mark.parametrize("data", ["packed", "single", "double", "half"])
@pytest.mark.parametrize(("shape", "expected"), [("new", (2, 3)), ("legacy", (1, 1, 2, 3)), ("none", (6,))])
def test_every_way_to_store_a_blob(data, shape, expected):
    values = np.array([[0.5, -1, 2], [3, 4, -5.25]], np.float32)
    (read,) = read_caffemodel(caffemodel(layer("a", "X", [values], shape=shape, data=data)))
    assert read.blobs[0].shape == expected
    np.testing.assert_array_equal(read.blobs[0].reshape(-1), values.reshape(-1))


def test_packed_data_in_two_pieces_is_joined():
    pieces = bytes_field(5, np.float32([1, 2]).tobytes()) + bytes_field(5, np.float32([3]).tobytes())
    (read,) = read_caffemodel(caffemodel(layer("a", "X", [pieces])))
    np.testing.assert_array_equal(read.blobs[0], [1, 2, 3])


def test_gradients_and_unknown_fields_are_passed_over():
    extra = bytes_field(6, np.zeros(9, np.float32).tobytes()) + number_field(77, 5) + varint(78 << 3 | 1) + bytes(8)
    (read,) = read_caffemodel(caffemodel(layer("a", "X", [extra + blob([1.0, 2.0])])))
    np.testing.assert_array_equal(read.blobs[0], [1, 2])


def test_an_unknown_v1_type_keeps_its_number():
    body = bytes_field(4, "odd") + number_field(5, 999)
    assert read_caffemodel(bytes_field(2, body))[0].type == "V1 type 999"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no layers"),
        (bytes_field(1, "net"), "no layers"),
        (VALID[:-1], "truncated"),
        (b"\xff" * 11, "longer than 10 bytes"),
        (b"\x00\x00", "number 0"),
        (b"\x0b", "wire type 3"),
        (number_field(100, 7), "should hold bytes"),
        (caffemodel(layer("a", "X", [bytes_field(5, b"abc")])), "inside a number"),
        (caffemodel(layer("a", "X", [number_field(5, 1)])), "should hold numbers"),
        (caffemodel(layer("a", "X", [bytes_field(7, bytes_field(1, b"\x05"))])), "do not fill its shape"),
        (caffemodel(layer("a", "X", [number_field(1, -1) + blob([1.0], shape="none")])), "do not fill its shape"),
        (caffemodel(layer("a", "X", [number_field(10, 3) + bytes_field(12, b"ab")])), "raw data of type 3"),
        (caffemodel(layer("a", "X", [number_field(10, 2) + bytes_field(12, b"abc")])), "inside a number"),
        (caffemodel(layer("a", "X", [b""] * (MAX_BLOBS + 1))), "blobs"),
        (
            caffemodel(layer("a", "X", [bytes_field(7, bytes_field(1, b"\x01" * (MAX_DIMENSIONS + 1)))])),
            "dimensions",
        ),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(ConversionError, match=message):
        read_caffemodel(data)


@pytest.mark.parametrize("end", range(1, len(VALID)))
def test_a_truncated_file_is_refused_or_shorter(end):
    try:
        layers = read_caffemodel(VALID[:end])
    except ConversionError:
        return
    assert len(layers) < 2  # the cut fell between two layers


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_only_raise_conversion_errors(data):
    for candidate in (data, bytes_field(100, data), bytes_field(100, bytes_field(7, data))):
        with suppress(ConversionError):
            read_caffemodel(candidate)


@settings(max_examples=200)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_a_flipped_byte_only_raises_conversion_errors(position, value):
    damaged = bytearray(VALID)
    damaged[position] = value
    with suppress(ConversionError):
        read_caffemodel(bytes(damaged))
