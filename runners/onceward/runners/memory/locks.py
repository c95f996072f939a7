"""The locks of a store in memory. Not thread-safe by itself; the store calls it under its own lock."""

from __future__ import annotations

from collections.abc import Sequence

from onceward.contracts import locking
from onceward.contracts.locking import LockEntry
from onceward.contracts.records import Lease, LockId, LockState
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.transitions import NextToken, Now


class Locks:
    """Each lock's newest lease; kept after its end, so that late copies of requests are recognised."""

    def __init__(self) -> None:
        self._entries: dict[LockId, LockEntry] = {}

    def lock(self, request: LockRequest, now: Now, *, token: NextToken) -> LockAnswer:
        """See ``Executor.lock``."""
        answer, entry = locking.lock(self._entries.get(request.lock), request, now, token=token)
        self._write(entry)
        return answer

    def unlock(self, lease: Lease, now: Now) -> bool:
        """See ``Executor.unlock``."""
        freed, entry = locking.unlock(self._of(lease), lease, now)
        self._write(entry)
        return freed

    def renew(self, renewal: Renewal, now: Now) -> Renewed:
        """See ``Executor.renew``."""
        answer, entry = locking.renew(self._of(renewal.lease), renewal, now)
        self._write(entry)
        return answer

    def force(self, lock: LockId, now: Now, token: int | None, *, next_token: NextToken) -> Lease | None:
        """See ``Lifecycle.force_unlock``."""
        lease, entry = locking.force(self._entries.get(lock), now, token=token, next_token=next_token)
        self._write(entry)
        return lease

    def states(self, now: Now) -> Sequence[LockState]:
        """See ``Lifecycle.locks``."""
        return [locking.state(found, now) for _, found in sorted(self._entries.items()) if found.held]

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

    def _of(self, lease: Lease) -> LockEntry | None:
        return self._entries.get(lease.resource) if isinstance(lease.resource, LockId) else None

    def _write(self, entry: LockEntry | None) -> None:
        if entry is not None:
            assert isinstance(entry.lease.resource, LockId)  # made by lock()
            self._entries[entry.lease.resource] = entry
