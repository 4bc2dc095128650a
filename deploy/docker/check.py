"""Run in the finished image by install.sh: everything that the service loads is there, and networks answer."""

from __future__ import annotations

import importlib

import numpy as np

import dulian
from dulian.models.catalog import PROFILES
from dulian.store import ModelStore

MODULES = (
    *("PIL._avif", "PIL._imaging", "PIL._imagingcms", "PIL._imagingft", "PIL._webp", "_ssl", "cv2", "httptools"),
    *("dulian.cli.app", "dulian.service.supervisor", "dulian.service.worker", "simplejpeg"),
)


def main() -> None:
    """Import it all, and have every network that is there look at a picture of nothing."""
    for name in MODULES:
        importlib.import_module(name)
    store = ModelStore(offline=True)
    ready = [name for name, one in PROFILES.items() if all(store.inspect(row).state == "ready" for row in one.rows)]
    assert ready, "no profile is complete"
    for name in ready:
        result = dulian.load_analyzer(profile=name, offline=True).analyze(np.full((480, 640, 3), 127, np.uint8))
        assert result.faces == ()
    print("ready:", *ready)


if __name__ == "__main__":
    main()
