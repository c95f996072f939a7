"""Group commit of check-outs: what ends while one batch is under way goes with the next.

Each check-out is sent, the same one, until its outcome is known. So a store that is away for a minute costs a minute
and nothing else: a late check-out still counts if nobody has taken the run over, and is refused if somebody has.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from onceward.contracts import CheckOut, Ending, Executor, Failure, InvalidRequest
from onceward.toolkit.server.attempt import Attempt

log = logging.getLogger("onceward.server")

MOST_AT_ONCE = 500


class Pending(NamedTuple):
    """A check-out that is to be sent, of an attempt that took so long."""

    checkout: CheckOut
    attempt: Attempt
    took: timedelta


Settled: TypeAlias = Callable[[Sequence[Pending], Sequence[bool]], object]


class Flusher:
    """Collects check-outs, and sends them in batches. Any thread may add; one at a time sends.

    Args:
        executor: where they are sent.
        settled: hears what the store said of each of a batch: True for recorded.
    """

    def __init__(self, executor: Executor, settled: Settled) -> None:
        self._executor, self._settled = executor, settled
        self._waiting: deque[Pending] = deque()
        self._sending = threading.Lock()
        self._batch: list[Pending] = []
        self.wake: Callable[[], object] = lambda: None
        """Called whenever there is something to send."""

    def __len__(self) -> int:
        """How many are not known to be recorded or refused."""
        return len(self._waiting) + len(self._batch)

    def add(self, pending: Pending) -> None:
        """It will be sent."""
        self._waiting.append(pending)
        self.wake()

    def unsent(self) -> list[CheckOut]:
        """Those whose outcome is not known."""
        return [pending.checkout for pending in [*self._batch, *self._waiting]]

    def flush(self) -> None:
        """All that waited has been recorded or refused, and whoever wanted to know was told.

        Raises:
            StoreError: the store did not answer; what is not known is sent again by the next call.
        """
        with self._sending:
            while self._batch or self._waiting:
                while self._waiting and len(self._batch) < MOST_AT_ONCE:
                    self._batch.append(self._waiting.popleft())
                answers, batch = self._send(self._batch), self._batch
                self._batch = []
                self._settled(batch, answers)

    def _send(self, batch: list[Pending]) -> list[bool]:
        try:
            return list(self._executor.checkout([pending.checkout for pending in batch]))
        except InvalidRequest as error:
            if len(batch) > 1:  # one of them is at fault, and the others must not suffer for it
                return [self._send([pending])[0] for pending in batch]
            return [self._send_instead(batch[0], error)]

    def _send_instead(self, pending: Pending, error: InvalidRequest) -> bool:
        """A result that the store does not take is a failure of the run, and not one that a retry would mend."""
        log.error("%s: its end was refused: %s", pending.checkout.run, error)
        instead = replace(
            pending.checkout, ending=Ending.FAILED, result=None, error=Failure.of(error), after=None, at=None
        )
        return self._executor.checkout([instead])[0]
