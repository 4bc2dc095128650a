"""Engines whose published builds report to their makers are kept from it; it has to be done before their import.

ONNX Runtime sends which networks it runs, how long they take and on what machine, and keeps an identifier and what is
still to be sent in the user's cache. OpenVINO counts its imports, with an identifier in the user's home. Ray's head
sends which cluster it is, how large, and what it is used for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OPENVINO_REPORTS = "openvino_telemetry"


def forbid_reports() -> None:
    """Forbid it to ONNX Runtime and Ray, which read the environment; what the user has set there already stays.

    Programs call it before they start threads: the environment must not change while another thread reads it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def without_reports() -> Iterator[None]:
    """For the import of an engine, wherever it happens."""
    forbid_reports()
    # OpenVINO does without this package where it is not installed.
    hidden = sys.modules.setdefault(_OPENVINO_REPORTS, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(_OPENVINO_REPORTS, None)
