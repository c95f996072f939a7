"""The state machine of a lock, as pure functions: what ``transitions`` is for runs.

Each function answers with the entry to write, or the very object it was given where nothing changes.
"""

from __future__ import annotations

from msgspec.structs import replace

from onceward.contracts.records import Lease, LockState, Record
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.times import from_ms, span, span_ms
from onceward.contracts.transitions import NextToken, Now


class LockEntry(Record, frozen=True, kw_only=True):
    """A lock as a store keeps it: its newest lease, when that was given and ends, and whether it is let go of."""

    lease: Lease
    until: int
    acquired: int
    held: bool
    note: str | None = None

    def live(self, now: Now) -> bool:
        """True while somebody holds it."""
        return self.held and self.until > now.elapsed


def known(found: LockEntry, request: LockRequest, now: Now) -> LockAnswer | None:
    """The answer that changes nothing: somebody holds it, or this is a late copy. None: the lock may be taken."""
    mine = found.lease.request == request.request
    if found.live(now):
        return LockAnswer(acquired=mine, lease=found.lease, remaining=span(found.until - now.elapsed))
    return LockAnswer(acquired=False) if mine else None


def lock(
    found: LockEntry | None, request: LockRequest, now: Now, *, token: NextToken
) -> tuple[LockAnswer, LockEntry | None]:
    """Take it if nobody has it; see ``Executor.lock``."""
    settled = None if found is None else known(found, request, now)
    if settled is not None:
        return settled, found
    ms = span_ms(request.lease)
    lease = Lease(
        resource=request.lock,
        holder=request.holder,
        token=token(),
        request=request.request,
        duration=span(ms),
        expires=from_ms(now.wall + ms),
    )
    entry = LockEntry(lease=lease, until=now.elapsed + ms, acquired=now.wall, held=True, note=request.note)
    return LockAnswer(acquired=True, lease=lease, remaining=span(ms)), entry


def unlock(found: LockEntry | None, lease: Lease, now: Now) -> tuple[bool, LockEntry | None]:
    """Let go of it; see ``Executor.unlock``."""
    if found is None or not owns(found, lease):
        return False, found
    if not found.held:
        return True, found
    if not found.live(now):
        return False, found
    return True, replace(found, held=False)


def renew(found: LockEntry | None, renewal: Renewal, now: Now) -> tuple[Renewed, LockEntry | None]:
    """Extend its lease; see ``Executor.renew``."""
    if found is None or not owns(found, renewal.lease) or not found.live(now):
        return Renewed.LOST, found
    duration = renewal.duration or renewal.lease.duration or found.lease.duration
    assert duration is not None  # every lock has a lease that ends
    ms = span_ms(duration)
    lease = replace(found.lease, duration=duration, expires=from_ms(now.wall + ms))
    return Renewed.HELD, replace(found, lease=lease, until=now.elapsed + ms)


def force(
    found: LockEntry | None, now: Now, *, token: int | None, next_token: NextToken
) -> tuple[Lease | None, LockEntry | None]:
    """Whoever held it has lost it; see ``Lifecycle.force_unlock``."""
    if found is None or not found.live(now) or token not in (None, found.lease.token):
        return None, found
    fence = next_token()
    fenced = replace(found.lease, token=fence, request=f"forced:{fence}")
    return found.lease, replace(found, lease=fenced, held=False)


def owns(found: LockEntry, lease: Lease) -> bool:
    """True if this lease is the lock's newest: token and request id both match."""
    return found.lease.token == lease.token and found.lease.request == lease.request


def state(found: LockEntry, now: Now) -> LockState:
    """The lock as listings show it."""
    return LockState(
        lease=found.lease,
        acquired=from_ms(found.acquired),
        note=found.note,
        remaining=span(found.until - now.elapsed),
    )
