"""Locks: a record of the newest lease, which stays, and a hold beside it, which goes away with the lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from onceward.contracts.records import Lease, LockId, LockState
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.times import from_ms, span, span_ms
from onceward.contracts.transitions import Now
from onceward.runners.etcd import names, rows, wire
from onceward.runners.etcd.base import Base
from onceward.runners.etcd.steps import DROP, Item, State, Step

T = TypeVar("T")

_PAGE = 500


class Locks(Base):
    """The part of the store that has to do with locks."""

    def lock(self, request: LockRequest) -> LockAnswer:
        """See ``Executor.lock``. One trip, whether it is free or not."""
        duration = span_ms(request.lease)
        rows.json_text(request.note, "note")

        def decide(state: State, now: Now) -> Step[LockAnswer]:
            if state.record is not None:
                found = rows.read_lock(state.record)
                mine = found.request == request.request
                if state.hold is not None:
                    rest = rows.left(state.hold, now)
                    answer = LockAnswer(
                        acquired=mine,
                        lease=rows.lock_lease(request.lock, found, state.hold),
                        remaining=None if rest is None else span(rest),
                    )
                    return Step(answer=lambda _: answer)
                if mine:
                    return Step(answer=lambda _: LockAnswer(acquired=False))
            return self._taken(request, duration, now)

        return self._cells.change(self._lock_item(request.lock, decide, new=True))

    def _taken(self, request: LockRequest, duration: int, now: Now) -> Step[LockAnswer]:
        lent = self._leases.lend(duration, now)
        taken = rows.Lock(
            holder=request.holder,
            request=request.request,
            token=rows.OWN,
            lease_ms=duration,
            expires=lent.wall,
            acquired=now.wall,
            note=request.note,
        )

        def answer(revision: int) -> LockAnswer:
            taken.token = rows.token_of(rows.OWN, revision)
            lease = rows.lock_lease(request.lock, taken, None)
            return LockAnswer(acquired=True, lease=lease, remaining=span(lent.until - self._now().elapsed))

        return Step(answer=answer, record=rows.write_lock(taken), hold=lent.id, lent=lent)

    def unlock(self, lease: Lease) -> bool:
        """See ``Executor.unlock``. One trip for who took it here; else one more to look."""
        if not isinstance(lease.resource, LockId):
            return False

        def decide(state: State, now: Now) -> Step[bool]:
            found = _mine(state, lease)
            if found is None or (state.hold is None and found.freed is None):
                return Step(answer=lambda _: False)
            if state.hold is None:
                return Step(answer=lambda _: True)
            found.freed = now.wall
            return Step(answer=lambda _: True, record=rows.write_lock(found), hold=DROP)

        return self._cells.change(self._lock_item(lease.resource, decide))

    def _renewed_lock(self, renewal: Renewal) -> Item[Renewed]:
        """The lock's hold is put on a younger lease."""
        assert isinstance(renewal.lease.resource, LockId)  # the caller has seen to that

        def decide(state: State, now: Now) -> Step[Renewed]:
            found = _mine(state, renewal.lease)
            if found is None or state.hold is None:
                return Step(answer=lambda _: Renewed.LOST)
            asked = renewal.duration or renewal.lease.duration
            duration = found.lease_ms if asked is None else span_ms(asked)
            lent = self._leases.lend(duration, now)
            step = Step(answer=lambda _: Renewed.HELD, hold=lent.id, lent=lent)
            if duration != found.lease_ms:
                step.record = rows.write_lock(replace(found, lease_ms=duration))
            return step

        return self._lock_item(renewal.lease.resource, decide)

    def _forced(self, name: LockId, token: int | None) -> Lease | None:
        """See ``Lifecycle.force_unlock``."""

        def decide(state: State, now: Now) -> Step[Lease | None]:
            found = None if state.record is None else rows.read_lock(state.record)
            if found is None or state.hold is None or token not in (None, found.token):
                return Step(answer=lambda _: None)
            lease = rows.lock_lease(name, found, state.hold)
            fenced = replace(found, token=rows.OWN, request="forced", freed=now.wall)
            return Step(answer=lambda _: lease, record=rows.write_lock(fenced), hold=DROP)

        return self._cells.change(self._lock_item(name, decide))

    def locks(self) -> Sequence[LockState]:
        """See ``Lifecycle.locks``."""
        now = self._now()
        found = [
            _state(self._lock_named(state), rows.read_lock(state.record), state, now)
            for state in self._lock_states()
            if state.record is not None and rows.read_lock(state.record).freed is None
        ]
        return sorted(found, key=lambda state: str(state.lease.resource))

    def _lock_states(self) -> Sequence[State]:
        """Every lock's record and hold, both as of one moment for each page."""
        start, end = self._names.of(names.LOCK, ""), names.behind(self._names.of(names.LOCK, ""))
        states: list[State] = []
        while True:
            page = self._link.read(wire.read(start, end, limit=_PAGE))
            cells = [(kv.key, self._names.of(names.ALIVE, self._names.parts(kv.key)[0])) for kv in page.kvs]
            states += self._cells.look(cells)
            if page.total <= len(page.kvs):
                return states
            start = page.kvs[-1].key + b"\0"

    def _lock_named(self, state: State) -> LockId:
        assert state.record is not None
        return LockId(names.original(self._names.parts(state.record.key)[0]))

    def _purge_locks(self, older_than_ms: int) -> None:
        """Locks that nobody has had for so long are forgotten."""
        latest = self._now().wall - older_than_ms
        doomed = []
        for state in self._lock_states():
            if state.record is None or state.hold is not None:
                continue
            lock = rows.read_lock(state.record)
            if (lock.expires if lock.freed is None else lock.freed) <= latest:
                alive = self._names.of(names.ALIVE, self._names.parts(state.record.key)[0])
                guards = [wire.unchanged(state.record.key, state.record.modified), wire.unchanged(alive, 0)]
                doomed.append(wire.within(wire.transaction(guards, [wire.delete(state.record.key)])))
        for at in range(0, len(doomed), 100):
            self._link.txn(wire.transaction((), doomed[at : at + 100]))

    def _lock_item(self, name: LockId, decide: Callable[[State, Now], Step[T]], *, new: bool = False) -> Item[T]:
        record, hold = self._names.lock(name)
        return Item(record, hold, decide, new)


def _mine(state: State, lease: Lease) -> rows.Lock | None:
    """The lock's newest lease, if it is this one."""
    found = None if state.record is None else rows.read_lock(state.record)
    if found is None or found.token != lease.token or found.request != lease.request:
        return None
    return found


def _state(name: LockId, lock: rows.Lock, state: State, now: Now) -> LockState:
    rest = rows.left(state.hold, now)
    return LockState(
        lease=rows.lock_lease(name, lock, state.hold),
        acquired=from_ms(lock.acquired),
        note=lock.note,
        remaining=None if rest is None else span(rest),
    )
