"""The locks of a store in memory. Not thread-safe by itself; the store calls it under its own lock."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from onceward.contracts.records import Lease, LockId, LockState
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.times import from_ms, span, span_ms
from onceward.contracts.transitions import LockEntry, NextToken, Now


class Locks:
    """Each lock's newest lease; kept after its end, so that late copies of requests are recognised."""

    def __init__(self) -> None:
        self._entries: dict[LockId, LockEntry] = {}

    def lock(self, request: LockRequest, now: Now, *, token: NextToken) -> LockAnswer:
        """See ``Executor.lock``."""
        found = self._entries.get(request.lock)
        if found is not None:
            mine = found.lease.request == request.request
            if found.live(now):
                return LockAnswer(acquired=mine, lease=found.lease, remaining=span(found.until - now.elapsed))
            if mine:
                return LockAnswer(acquired=False)
        ms = span_ms(request.lease)
        lease = Lease(
            resource=request.lock,
            holder=request.holder,
            token=token(),
            request=request.request,
            duration=span(ms),
            expires=from_ms(now.wall + ms),
        )
        self._entries[request.lock] = LockEntry(
            lease=lease, until=now.elapsed + ms, acquired=now.wall, held=True, note=request.note
        )
        return LockAnswer(acquired=True, lease=lease, remaining=span(ms))

    def unlock(self, lease: Lease, now: Now) -> bool:
        """See ``Executor.unlock``."""
        found = self._mine(lease)
        if found is None:
            return False
        if not found.held:
            return True
        if not found.live(now):
            return False
        self._write(replace(found, held=False))
        return True

    def renew(self, renewal: Renewal, now: Now) -> Renewed:
        """See ``Executor.renew``."""
        found = self._mine(renewal.lease)
        if found is None or not found.live(now):
            return Renewed.LOST
        duration = renewal.duration or renewal.lease.duration or found.lease.duration
        assert duration is not None  # every lock has a lease that ends
        ms = span_ms(duration)
        lease = replace(found.lease, duration=duration, expires=from_ms(now.wall + ms))
        self._write(replace(found, lease=lease, until=now.elapsed + ms))
        return Renewed.HELD

    def force(self, lock: LockId, now: Now, token: int | None, *, next_token: NextToken) -> Lease | None:
        """See ``Lifecycle.force_unlock``."""
        found = self._entries.get(lock)
        if found is None or not found.live(now) or token not in (None, found.lease.token):
            return None
        fence = next_token()
        fenced = replace(found.lease, token=fence, request=f"forced:{fence}")
        self._write(replace(found, lease=fenced, held=False))
        return found.lease

    def states(self, now: Now) -> Sequence[LockState]:
        """See ``Lifecycle.locks``."""
        return [
            LockState(
                lease=found.lease,
                acquired=from_ms(found.acquired),
                note=found.note,
                remaining=span(found.until - now.elapsed),
            )
            for _, found in sorted(self._entries.items())
            if found.held
        ]

    def purge(self, now: Now, *, older_than_ms: int) -> None:
        """Forget locks that nobody holds and that ended so long ago."""
        old = [
            lock
            for lock, found in self._entries.items()
            if not found.live(now) and found.until <= now.elapsed - older_than_ms
        ]
        for lock in old:
            del self._entries[lock]

    def lapses_in(self, name: str, now: Now, *, told: set[int]) -> int | None:
        """Milliseconds until the lock lapses; 0 once when it has; None: it is free, or that was told before."""
        found = self._entries.get(LockId(name))
        if found is None or not found.held or found.lease.token in told:
            return None
        if not found.live(now):
            told.add(found.lease.token)
        return max(0, found.until - now.elapsed)

    def _mine(self, lease: Lease) -> LockEntry | None:
        found = self._entries.get(lease.resource) if isinstance(lease.resource, LockId) else None
        if found is None or found.lease.token != lease.token or found.lease.request != lease.request:
            return None
        return found

    def _write(self, entry: LockEntry) -> None:
        assert isinstance(entry.lease.resource, LockId)  # made by lock()
        self._entries[entry.lease.resource] = entry
