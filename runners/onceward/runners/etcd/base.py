"""What the parts of the store share: the way to the cluster, the keys, the clocks, and how a run is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from onceward.contracts.records import Run, RunId, Status
from onceward.contracts.times import from_ms, span_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.etcd import rows, wire
from onceward.runners.etcd.cells import Cells
from onceward.runners.etcd.leases import Leases
from onceward.runners.etcd.link import Link
from onceward.runners.etcd.names import Names
from onceward.runners.etcd.options import Options
from onceward.runners.etcd.steps import DROP, Item, State, Step
from onceward.runners.etcd.wire import Op

T = TypeVar("T")


class Sequences:
    """Numbers in the order of submission: microseconds of the wall clock, none twice, none smaller than one before.

    Two processes may hit upon the same one; who comes second is refused by a guard, and takes the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Larger than every one before."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last


class Base:
    """State of a store that each part works with; made and opened by ``EtcdStore``."""

    namespace: str
    options: Options
    _link: Link
    _names: Names
    _leases: Leases
    _cells: Cells
    _sequences: Sequences
    _now: Callable[[], Now]

    def _item(self, run: RunId, decide: Callable[[Entry | None, State, Now], Step[T]], *, new: bool = False) -> Item[T]:
        """A run, and who decides about it."""

        def on_state(state: State, now: Now) -> Step[T]:
            found = None if state.record is None else rows.entry(run, state.record, state.hold, now)
            return decide(found, state, now)

        return Item(self._names.record(run), self._names.hold(run), on_state, new)

    def _held(self, found: Entry | None, after: Entry, now: Now, answer: Callable[[Entry], T]) -> Step[T]:
        """The run is written with a new lease, and held as long as that lives."""
        run, until, lent = after.run, None, None
        assert run.lease is not None  # it is held
        if run.lease.duration is not None:
            lent = self._leases.lend(span_ms(run.lease.duration), now)
            run = replace(run, lease=replace(run.lease, expires=from_ms(lent.wall)))
            until = lent.until
        step = self._written(found, run, lambda revision: answer(Entry(run=rows.stamped(run, revision), until=until)))
        step.hold, step.lent = (0 if lent is None else lent.id), lent
        return step

    def _let_go(self, state: State, found: Entry, after: Entry, answer: Callable[[int], T]) -> Step[T]:
        """The run is written, and nobody has it."""
        step = self._written(found, after.run, answer)
        step.hold = None if state.hold is None else DROP
        return step

    def _written(self, found: Entry | None, run: Run, answer: Callable[[int], T]) -> Step[T]:
        """The run is written, and its place with it.

        While a run waits, its key in q is as new as its record: so whoever has seen the key can tell an old record.
        """
        more: list[Op] = []
        key, value = self._names.place(run)
        before = None if found is None else self._names.place(found.run)[0]
        if before != key or run.status is Status.SCHEDULED:
            more.append(wire.put(key, value))
        if before not in (None, key):
            more.append(wire.delete(before))
        step = Step(answer=answer, record=rows.write_run(run))
        if found is None:
            existing = self._names.existing(run)
            more.append(wire.put(existing, value))
            step.guards = (wire.unchanged(existing, 0),)
        step.more = tuple(more)
        return step
