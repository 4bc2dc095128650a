"""Rewrites published networks as ONNX; needs numpy and onnx, and neither Caffe nor its schema.

What is here: the Caffe reader and writer, TensorFlow.js graphs and face-api's network, the repair of one well-known
prototxt, YuNet's open input, dlib's weights without subnormal numbers, and the comparison with OpenCV 4's own Caffe
importer. Fetching and storing files is not.
"""

from __future__ import annotations

from dulian.errors import MissingDependencyError

try:
    import onnx as onnx
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        "rewriting networks needs onnx, which is not installed here: a container goes without; do it where"
        " 'pip install dulian' has brought it, and bring the files"
    ) from error

from dulian.convert.caffe import convert_caffe
from dulian.convert.check import CheckReport, CheckRow, check_against_opencv
from dulian.convert.face_api import convert_face_api
from dulian.convert.published import flush_subnormals, has_old_ssd_flaw, make_yunet_symbolic, repair_ssd_prototxt
from dulian.convert.tfjs import convert_tfjs_graph

__all__ = [
    "CheckReport",
    "CheckRow",
    "check_against_opencv",
    "convert_caffe",
    "convert_face_api",
    "convert_tfjs_graph",
    "flush_subnormals",
    "has_old_ssd_flaw",
    "make_yunet_symbolic",
    "repair_ssd_prototxt",
]
