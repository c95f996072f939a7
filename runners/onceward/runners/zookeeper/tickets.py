"""What spares a submission its look, as long as nobody else asks for the time.

Whoever numbers a run, or says when it is due, writes the clock first; so does whoever only looks. Who knows the version
that the clock was given last, and writes it in the transaction under the guard of that version, therefore comes behind
all runs that were numbered before, and before all that will be: as if it had looked just then. Its time may be a little
too early. But nobody has learnt a later one.

Where others ask for the time, too, that is refused; then it is tried less and less often.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

#: Seconds for which a ticket is good: our idea of the server's time is as old.
_GOOD_FOR = 5.0
#: After refusals so many are left out, at the most.
_MOST_LEFT_OUT = 64


class Stamp(NamedTuple):
    """When a transaction was made: its zxid, and the server's clock in milliseconds."""

    zxid: int
    wall: int


class Ticket(NamedTuple):
    """The clock as it was written last: that transaction, and the clock's version since."""

    stamp: Stamp
    version: int


class Tickets:
    """The latest ticket of this process. Threads share it; each is good for one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: Ticket | None = None
        self._heard = 0.0
        self._pause = self._left_out = 0

    def offer(self, ticket: Ticket) -> None:
        """We have written the clock."""
        with self._lock:
            if self._latest is None or ticket.version > self._latest.version:
                self._latest, self._heard = ticket, time.monotonic()

    def take(self) -> Ticket | None:
        """A ticket, if there is one and it is worth trying."""
        with self._lock:
            ticket, self._latest = self._latest, None
            if ticket is None or time.monotonic() > self._heard + _GOOD_FOR:
                return None
            if self._left_out < self._pause:
                self._left_out += 1
                return None
            return ticket

    def used(self, next_one: Ticket | None) -> None:
        """It was good, and brought the next one; None: somebody else had written the clock."""
        with self._lock:
            self._left_out = 0
            self._pause = 0 if next_one is not None else min(max(1, 2 * self._pause), _MOST_LEFT_OUT)
        if next_one is not None:
            self.offer(next_one)
