"""A change of one cell: how the cell was seen, what is to be done to it, and the transaction that does just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from onceward.contracts.transitions import Now
from onceward.runners.etcd import wire
from onceward.runners.etcd.leases import Lent
from onceward.runners.etcd.wire import Guard, Kv, Op

T = TypeVar("T")

#: The same cells come again and again.
_KEPT = 4_096


class State(NamedTuple):
    """A cell as it was seen."""

    record: Kv | None = None
    hold: Kv | None = None


ABSENT = State()
DROP = -1


@dataclass(slots=True, kw_only=True)
class Step(Generic[T]):
    """What is to be done to a cell.

    Attributes:
        answer: what the caller is told, given the revision that has written it.
        record: its new value; None: as it is.
        hold: the lease to put it on (0: one that never ends); DROP: nobody has it; None: as it is.
        more: what else is done at the same moment.
        guards: what else must be true.
        lent: the lease that was taken for it.
    """

    answer: Callable[[int], T]
    record: bytes | None = None
    hold: int | None = None
    more: tuple[Op, ...] = ()
    guards: tuple[Guard, ...] = ()
    lent: Lent | None = None

    @property
    def writes(self) -> bool:
        """It changes something."""
        return self.record is not None or self.hold is not None or bool(self.more)


@dataclass(slots=True)
class Item(Generic[T]):
    """A cell, and who decides about it. ``hold`` b"": it has none. ``new``: at first sight it is taken for absent."""

    record: bytes
    hold: bytes
    decide: Callable[[State, Now], Step[T]]
    new: bool = False


class Planned(NamedTuple, Generic[T]):
    """A step, the cell that it is for, how that was seen, and which one of a batch it is."""

    number: int
    item: Item[T]
    state: State
    step: Step[T]

    @property
    def size(self) -> int:
        """Bytes that it takes in a transaction, at most."""
        return len(self.step.record or b"") + 600

    def transaction(self) -> bytes:
        """If the cell is as it was seen, the step; else how it is."""
        item, state, step = self.item, self.state, self.step
        guards = [wire.unchanged(item.record, state.record.modified if state.record else 0)]
        ops: list[Op] = []
        if step.record is not None:
            ops.append(wire.put(item.record, step.record))
        if item.hold:
            guards.append(wire.unchanged(item.hold, state.hold.modified if state.hold else 0))
            if step.hold == DROP:
                ops.append(wire.delete(item.hold))
            elif step.hold is not None:
                ops.append(wire.put(item.hold, b"", step.hold))
        return wire.transaction([*guards, *step.guards], [*ops, *step.more]) + _otherwise(item.record, item.hold)

    def after(self, revision: int) -> State:
        """The cell as the step has left it."""
        record, hold, step = self.state.record, self.state.hold, self.step
        if step.record is not None:
            created = record.created if record is not None else revision
            record = Kv(self.item.record, step.record, created, revision, 0)
        if step.hold == DROP:
            hold = None
        elif step.hold is not None:
            hold = Kv(self.item.hold, b"", hold.created if hold is not None else revision, revision, step.hold)
        return State(record, hold)


@lru_cache(_KEPT)
def _otherwise(record: bytes, hold: bytes) -> bytes:
    """The end of a transaction: if the cell is not as it was seen, how it is."""
    return wire.transaction((), (), reads_of(record, hold))


def reads_of(record: bytes, hold: bytes) -> list[Op]:
    """What tells how a cell is."""
    return [wire.get(wire.read(key)) for key in (record, hold) if key]
