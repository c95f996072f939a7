"""Leases of the cluster, each good for everything that this process takes at nearly the same time for as long.

A lease of ours is granted once and never kept alive: whatever stands on it ends when it ends. Who renews is put on a
younger one. So a late copy of anything cannot last longer than what it is a copy of, and a lease needs no owner.

A hold for ``duration`` may use a lease that ends at least so much later, by our clock, which began to count before the
server's did; and not more than ``spare`` after that. When the lease ends stands in its id, by our wall clock, so that
whoever reads a key on it knows, too.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from onceward.contracts.transitions import Now
from onceward.runners.etcd import wire
from onceward.runners.etcd.errors import LeaseTaken
from onceward.runners.etcd.link import GRANT, Link

_RANDOM_BITS = 20


@dataclass(frozen=True, slots=True)
class Lent:
    """A lease: when it ends by this process's lease clock, and by its wall clock, in milliseconds."""

    id: int
    until: int
    wall: int


def ends(lease: int) -> int:
    """When a lease of ours ends, by the wall clock of who granted it."""
    return lease >> _RANDOM_BITS


class Leases:
    """The leases that this process has granted; one at a time for each length."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._current: dict[int, Lent] = {}
        self._used: Counter[int] = Counter()
        self._waste: list[int] = []
        self.shortest = 1
        """The server grants none for fewer seconds."""

    def lend(self, duration: int, now: Now, *, spare: int = 1_000) -> Lent:
        """A lease that ends ``duration`` from now at the earliest, and at most ``spare`` later (all in ms)."""
        seconds = max(self.shortest, (duration + spare) // 1000)
        with self._lock:
            lent = self._current.get(seconds)
            if lent is None or lent.until < now.elapsed + duration:
                if lent is not None:
                    self._end(lent.id)
                lent = self._current[seconds] = self._granted(seconds, now)
            self._used[lent.id] += 1
            return lent

    def release(self, lease: int) -> None:
        """Something that stood on it does not any more (or never did); without anything, it is of no use."""
        if not lease:
            return
        with self._lock:
            if lease not in self._used:
                return
            self._used[lease] -= 1
            if lease not in [lent.id for lent in self._current.values()]:
                self._end(lease)

    def forget(self, lease: int) -> None:
        """The server does not know it any more."""
        with self._lock:
            self._used.pop(lease, None)
            self._current = {seconds: lent for seconds, lent in self._current.items() if lent.id != lease}

    def close(self) -> None:
        """Leases that nothing stands on are gone; others stay until they end."""
        with self._lock:
            current, self._current = self._current, {}
            for lent in current.values():
                self._end(lent.id)
            self._used.clear()
            self._clear_away()

    def _granted(self, seconds: int, now: Now) -> Lent:
        self._clear_away()
        for over in [lease for lease in self._used if ends(lease) < now.wall]:
            del self._used[over]
        wall = now.wall + seconds * 1000
        while True:
            lease = wall << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
            with suppress(LeaseTaken):
                self._link.call(GRANT, wire.grant(lease, seconds), reads=True)
                return Lent(lease, now.elapsed + seconds * 1000, wall)

    def _end(self, lease: int) -> None:
        """It is lent to nobody any more; with nothing on it, it goes when the next one is granted."""
        if self._used.get(lease, 0) <= 0:
            self._used.pop(lease, None)
            self._waste.append(lease)

    def _clear_away(self) -> None:
        waste, self._waste = self._waste, []
        if waste:
            self._link.revoke(waste)
