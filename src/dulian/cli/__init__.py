"""The command line: one file per command, one place that turns errors into exit codes.

This module is all that is loaded before an interrupt can be answered, so it stays small.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143
OUTPUT_FAILED = 3
HEALTHCHECK = "healthcheck"


def main() -> None:
    """Run the command line; every expected failure is one line on standard error and an exit code."""
    # Until a command says that it can be interrupted, nothing is under way that would have to be put in order.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if sys.argv[1:] == [HEALTHCHECK] and not os.environ.get("DULIAN_CONFIG"):
            _check_health()
        _guard()
        _run()
    except BaseException as error:
        if _interrupted:
            _leave(TERMINATED if _interrupted[0] == signal.SIGTERM else INTERRUPTED)
        if isinstance(error, BrokenPipeError):
            _leave(1)
        if isinstance(error, OSError):
            _leave(OUTPUT_FAILED, f"dulian: {error.strerror or error}")
        raise


_interrupted: list[int] = []


def interruptible(*, terminated: bool = False) -> None:
    """From here on Ctrl-C is an exception, so that work under way is put in order; commands call it.

    With ``terminated`` SIGTERM too: the first process of a container does not even end by it otherwise.
    """

    def interrupt(number: int, frame: object) -> None:
        # Remembered, because what an import makes of the exception is anything.
        _interrupted.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    if terminated:
        signal.signal(signal.SIGTERM, interrupt)


def _check_health() -> NoReturn:
    """The same as the command, without the tenth of a second that all commands take to load."""
    from dulian.cli.probe import check

    sys.exit(check())


def _guard() -> None:
    """Before anything imports a library that it concerns."""
    from dulian.quiet import forbid_reports
    from dulian.settings import guard_opencv

    guard_opencv()
    forbid_reports()


def _run() -> None:
    from dulian.cli.app import app, exit_code
    from dulian.errors import DulianError
    from dulian.sources import printable

    code: object = 0
    try:
        app()
    except DulianError as error:
        print(f"dulian: {printable(str(error))}", file=sys.stderr)  # noqa: T201
        code = exit_code(error)
    except SystemExit as leaving:
        code = leaving.code
    # Flushed here, where a full disk or a closed pipe can still be told.
    sys.stdout.flush()
    sys.exit(code)  # type: ignore[arg-type]


def _leave(code: int, line: str | None = None) -> None:
    """End at once: standard output may be beyond flushing."""
    if line and sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)
