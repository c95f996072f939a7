"""What an experiment can find, and the one small object that counts how often each promise was really checked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from onceward.contracts import OncewardError, StoreUnavailable


class Violated(AssertionError):
    """A promise was broken. ``guarantee`` is its id, the message says what happened instead."""

    def __init__(self, guarantee: str, message: str) -> None:
        super().__init__(f"{guarantee}: {message}")
        self.guarantee = guarantee
        self.message = message


class CouldNotRun(Exception):
    """The experiment says nothing about the store: it could not be set up, or the store was not reachable."""


class OutOfTime(BaseException):
    """The time of the experiment is used up. A BaseException, so that nothing on the way takes it for a failure."""


class Tally:
    """Counts how often each promise was evaluated. Thread-safe: concurrent clients share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.executions: Counter[str] = Counter()

    def add(self, guarantee: str, times: int = 1) -> None:
        """The promise was evaluated so many more times."""
        with self._lock:
            self.executions[guarantee] += times

    def expect(self, guarantee: str, holds: bool, said: str | Callable[[], str]) -> None:
        """The promise was evaluated once more, and holds.

        Raises:
            Violated: it does not; ``said`` tells what happened.
        """
        self.add(guarantee)
        if not holds:
            raise Violated(guarantee, said if isinstance(said, str) else said())


def attribute(error: Exception, doing: str) -> Exception:
    """What an error raised by a runner means for the verdict on a store that nobody disturbs.

    A ``StoreUnavailable`` says nothing about right and wrong; any other of our errors is a wrong answer to a
    request that was right, and an error of a driver must never come out at all (G16).
    """
    if isinstance(error, (Violated, CouldNotRun)):
        return error
    kind = type(error)
    if isinstance(error, StoreUnavailable):
        return CouldNotRun(f"{doing}: {kind.__name__}: {error}")
    if isinstance(error, OncewardError):
        return Violated("A1", f"{doing} raised {kind.__name__}: {error}")
    return Violated("G16", f"{doing} leaked {kind.__module__}.{kind.__qualname__}: {error}")
