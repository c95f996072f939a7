"""Changes of locks: each is a transition of the contracts."""

from __future__ import annotations

from collections.abc import Sequence

from onceward.contracts import locking
from onceward.contracts.locking import LockEntry
from onceward.contracts.records import Lease, LockId
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.transitions import Now
from onceward.runners.zookeeper.names import Layout, buckets
from onceward.runners.zookeeper.rows import UNKNOWN, lock_bytes, lock_of, mine
from onceward.runners.zookeeper.settle import Change, Found, Move, Turn


def lock_in(found: Found | None) -> LockEntry | None:
    """The lock in a record."""
    return None if found is None else lock_of(found.data, found.stamp)


class LockChange(Change):
    """A change of one lock."""

    def __init__(self, layout: Layout, lock: LockId) -> None:
        self.path, self._above = layout.lock(lock), layout.locks

    def homes(self) -> Sequence[str]:
        return buckets(self._above)


class Taking(LockChange):
    """See ``Executor.lock``. A lock that is new, or of which we know that it is free, needs no look."""

    def __init__(self, layout: Layout, request: LockRequest) -> None:
        super().__init__(layout, request.lock)
        self._request = request

    def blind(self, known: Found | None, place: int) -> Move | None:
        entry = lock_in(known)
        if entry is not None and (entry.held or entry.lease.request == self._request.request):
            return None
        return self._decided(entry, UNKNOWN, place)

    def decide(self, found: Found | None, turn: Turn) -> Move:
        return self._decided(lock_in(found), turn.now, turn.place)

    def _decided(self, found: LockEntry | None, now: Now, place: int) -> Move:
        answer, entry = locking.lock(found, self._request, now, token=lambda: mine(place))
        if entry is None or entry is found:
            return Move(lambda _: answer)

        return Move(_taken, lock_bytes(entry), remember=True)


def _taken(written: Found | None) -> LockAnswer:
    entry = lock_in(written)
    assert entry is not None  # it was just written
    return LockAnswer(acquired=True, lease=entry.lease, remaining=entry.lease.duration)


class Release(LockChange):
    """See ``Executor.unlock``. A lock that we have needs no look: what is written says "if it has not lapsed yet"."""

    def __init__(self, layout: Layout, lock: LockId, lease: Lease) -> None:
        super().__init__(layout, lock)
        self._lease = lease

    def blind(self, known: Found | None, place: int) -> Move | None:
        entry = lock_in(known)
        if entry is None or not entry.held or not locking.owns(entry, self._lease):
            return None
        return Move(_is_free, lock_bytes(entry, released=True), remember=True)

    def decide(self, found: Found | None, turn: Turn) -> Move:
        entry = lock_in(found)
        freed, after = locking.unlock(entry, self._lease, turn.now)
        if entry is None or after is entry:
            return Move(lambda _: freed)
        return Move(_is_free, lock_bytes(entry, released=True), remember=True)


def _is_free(written: Found | None) -> bool:
    entry = lock_in(written)
    return entry is not None and not entry.held


class LockExtension(LockChange):
    """See ``Executor.renew``."""

    def __init__(self, layout: Layout, lock: LockId, renewal: Renewal) -> None:
        super().__init__(layout, lock)
        self._renewal = renewal

    def decide(self, found: Found | None, turn: Turn) -> Move:
        before = lock_in(found)
        answer, entry = locking.renew(before, self._renewal, turn.now)
        if entry is None or answer is Renewed.LOST:
            return Move(lambda _: answer)
        return Move(lambda _: answer, lock_bytes(entry), remember=True)


class LockForcing(LockChange):
    """See ``Lifecycle.force_unlock``."""

    def __init__(self, layout: Layout, lock: LockId, token: int | None) -> None:
        super().__init__(layout, lock)
        self._token = token

    def decide(self, found: Found | None, turn: Turn) -> Move:
        before = lock_in(found)
        had, entry = locking.force(before, turn.now, token=self._token, next_token=lambda: mine(turn.place))
        if entry is None or entry is before:
            return Move(lambda _: had)
        return Move(lambda _: had, lock_bytes(entry))
