"""One JSON line per event on standard error. Never file names, bytes, or what was seen in a picture."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from dulian.service.tracing import ids

logger = logging.getLogger("dulian.service")


def log_event(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log an event by its name, with fields and the trace it belongs to; ``error`` brings its traceback along."""
    logger.log(level, event, extra={"fields": {**fields, **ids()}}, exc_info=error)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; ``always`` stands in every one."""

    def __init__(self, always: dict[str, Any]) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._always,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(**always: Any) -> None:
    """Send our events, and the servers' warnings, to standard error, each with these fields."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(always))
    for name, level in (("dulian.service", logging.INFO), ("uvicorn", logging.WARNING), ("grpc", logging.WARNING)):
        named = logging.getLogger(name)
        named.handlers = [handler]
        named.setLevel(level)
        named.propagate = False
    # It quotes bytes of broken bodies; the client is told of these, the log is not.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)
