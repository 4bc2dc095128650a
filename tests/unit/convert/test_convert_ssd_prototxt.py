from __future__ import annotations

import hashlib

import pytest

from dulian.convert import has_old_ssd_flaw, repair_ssd_prototxt
from dulian.errors import ConversionError

CURRENT_SHA256 = "dcd661dc48fc9de0a341db1f666a2164ea63a67265c7f779bc12d6b3f2fa67e9"

CURRENT = b"""layer {
  name: "conv7_2_h"
  convolution_param {
    pad: 1
  }
}
layer {
  name: "conv8_2_h"
  convolution_param {
    pad: 0
  }
}
layer {
  name: "conv9_2_h"
  convolution_param {
    pad: 0
  }
}
layer {
  name: "detection_out"
  detection_output_param {
    confidence_threshold: 0.01
    clip: 1
  }
}
"""
UNCLIPPED = CURRENT.replace(b"    clip: 1\n", b"")
PADDED_ONCE = CURRENT.replace(b"pad: 0", b"pad: 1", 1)
OLD = UNCLIPPED.replace(b"pad: 0", b"pad: 1").replace(b"\n", b"\r\n")
OTHER = b'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'


@pytest.mark.parametrize(
    ("text", "flawed"), [(OLD, True), (UNCLIPPED, True), (PADDED_ONCE, True), (CURRENT, False), (OTHER, False)]
)
def test_the_flaw_is_seen(text, flawed):
    assert has_old_ssd_flaw(text) is flawed


@pytest.mark.parametrize(
    "text", [OLD, UNCLIPPED, PADDED_ONCE, CURRENT, CURRENT.rstrip(b"\n"), CURRENT.replace(b"\n", b"\r\n")]
)
def test_repair_ends_in_the_current_text(text):
    assert repair_ssd_prototxt(text) == CURRENT


def test_repair_leaves_other_nets_alone():
    with pytest.raises(ConversionError, match="not the one of the res10"):
        repair_ssd_prototxt(OTHER)


def test_a_text_that_cannot_be_repaired_is_refused():
    with pytest.raises(ConversionError, match="nothing was repaired"):
        repair_ssd_prototxt(OLD.replace(b"pad: 1", b"pad: 2"))


@pytest.mark.weights
def test_the_published_old_file_becomes_the_current_one(original_files):
    path = original_files / "deploy.prototxt.txt"
    if not path.is_file():
        pytest.skip("the folder of published files lacks the old deploy.prototxt.txt")
    old = path.read_bytes()
    assert has_old_ssd_flaw(old)
    repaired = repair_ssd_prototxt(old)
    assert hashlib.sha256(repaired).hexdigest() == CURRENT_SHA256
    assert not has_old_ssd_flaw(repaired)
    assert repair_ssd_prototxt(repaired) == repaired
