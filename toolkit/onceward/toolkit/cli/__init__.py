"""The command line ``onceward``."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """The command that was asked for has run, and the process ends with its exit code."""
    from onceward.toolkit.cli.app import build

    signal.signal(signal.SIGTERM, _end)
    build()(prog_name="onceward")


def _end(number: int, frame: FrameType | None) -> None:
    """As after Ctrl-C, what was begun is ended, such as servers that were started; ``serve`` has its own way."""
    sys.exit(128 + number)
