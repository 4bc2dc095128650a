"""The model store: weights are fetched, verified, converted, and put in their place in one step.

What the networks are is in :mod:`dulian.models.catalog`, how they become ONNX in :mod:`dulian.convert`.
"""

from __future__ import annotations

from dulian.store.directories import FileState, State
from dulian.store.download import Progress
from dulian.store.installer import Installed
from dulian.store.model_store import SYSTEM_DIRS, ModelStore
from dulian.store.originals import Notify

__all__ = ["SYSTEM_DIRS", "FileState", "Installed", "ModelStore", "Notify", "Progress", "State"]
