"""What Python itself gets wrong, and how we live with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_TRIES = 100


def undisturbed(call: Callable[[], T]) -> T:
    """What a call answers that parses source, as ``inspect`` and ``traceback`` do, whatever other threads parse.

    CPython counts how deep its parser is for all threads together (gh-106905; 3.11.7 is one that does). So it may find
    the count wrong at the end, and raises SystemError although nothing was wrong. Then the call is made again.
    """
    for _ in range(_TRIES):
        try:
            return call()
        except SystemError:
            continue
    return call()
