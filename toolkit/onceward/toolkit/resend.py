"""Sending the same request again until its outcome is known: the one answer to ``OutcomeUnknown``.

Every request carries an id of its own, and a store recognises the repetition, so a second send has no second effect
and gives the first answer (guarantee G7). What may not be done is to send a *new* request instead.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from onceward.contracts import OutcomeUnknown, StoreError, StoreUnavailable

T = TypeVar("T")

log = logging.getLogger("onceward.resend")

ATTEMPTS = 6
DEADLINE = timedelta(seconds=15)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0

#: Retry only what is unknown: the default, for requests that may as well fail at once.
UNKNOWN: tuple[type[StoreError], ...] = (OutcomeUnknown,)
#: Retry also what was definitely not done: for the end of work that would be lost otherwise.
UNKNOWN_OR_UNAVAILABLE: tuple[type[StoreError], ...] = (OutcomeUnknown, StoreUnavailable)


def resend(
    call: Callable[[], T],
    *,
    attempts: int = ATTEMPTS,
    deadline: timedelta = DEADLINE,
    on: tuple[type[StoreError], ...] = UNKNOWN,
) -> T:
    """The outcome of ``call`` is known: its answer is returned, or its definite error is raised.

    Once a send was unknown, a later ``StoreUnavailable`` says nothing about it; so it stays unknown until a send is
    answered. Pauses grow from 20 ms to 1 s, with jitter.

    Args:
        call: sends one request; must send the *same* request (same request id) whenever it is called.
        attempts: send at most so often.
        deadline: do not send again after so long.
        on: which errors are answered by sending again.

    Raises:
        OutcomeUnknown: still unknown after all attempts.
        StoreError: as ``call`` raised it, where no earlier send was unknown.
    """
    end = time.monotonic() + deadline.total_seconds()
    unknown: OutcomeUnknown | None = None
    pause = _FIRST_PAUSE
    for left in range(attempts - 1, -1, -1):
        try:
            return call()
        except (OutcomeUnknown, StoreUnavailable) as error:
            if isinstance(error, OutcomeUnknown):
                unknown = error
            elif unknown is None and not isinstance(error, on):
                raise
            wait = pause * random.uniform(0.5, 1.0)
            if left == 0 or time.monotonic() + wait >= end:
                raise _worst(unknown, error) from error
            log.debug("sending the same request again in %.3f s: %s", wait, error)
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)
    raise ValueError(f"attempts: {attempts} is not accepted; allowed: at least 1")


def _worst(unknown: OutcomeUnknown | None, last: StoreError) -> StoreError:
    """What is to be said of all sends together."""
    if unknown is None or unknown is last:
        return last
    return OutcomeUnknown(f"{unknown} (and then: {last})")
