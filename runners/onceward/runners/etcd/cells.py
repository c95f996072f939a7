"""The one way in which this runner changes anything: look, decide, and write if nothing has changed since.

A cell is a record and perhaps a hold, the small key that goes away with its lease. A decision is a pure function of
both as they were, and is written by a transaction whose guards say that they still are. Where they are not, its answer
brings them as they are now, and the decision is taken again. So what was seen may be old, or a mere guess: if it is
what the store has, that took one round trip. Only a decision to change nothing needs a look that is not a guess.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from onceward.contracts.errors import OutcomeUnknown, StoreError, StoreUnavailable
from onceward.contracts.transitions import Now
from onceward.runners.combining import Combiner, undivided
from onceward.runners.etcd import wire
from onceward.runners.etcd.errors import LeaseGone
from onceward.runners.etcd.leases import Leases
from onceward.runners.etcd.link import Link
from onceward.runners.etcd.steps import ABSENT, Item, Planned, State, reads_of
from onceward.runners.etcd.wire import Guard, Op

T = TypeVar("T")

#: A server takes 128 operations in a transaction unless told otherwise, and 1.5 MiB.
ITEMS, ROOM = 100, 1_000_000
_READ_AT_ONCE = 60
#: Somebody else got on each time that we did not; so often in a row that does not happen.
_TRIES = 200
_LEASES_TRIED = 3
_REMEMBERED, _SMALL = 4_096, 16_384


class Cells:
    """Changes cells, one or many at a time."""

    def __init__(self, link: Link, leases: Leases, now: Callable[[], Now]) -> None:
        self._link = link
        self._leases = leases
        self._now = now
        self._lock = threading.Lock()
        self._seen: dict[bytes, State] = {}
        self._combiner = Combiner[Item[Any], Any](undivided(self._outcomes), alone=self._outcome, most=ITEMS)

    def change(self, item: Item[T]) -> T:
        """What was decided about one cell is done; threads that come at the same time share a trip."""
        answer: T = self._combiner.call(item)
        return answer

    def change_all(self, items: Sequence[Item[T]]) -> list[T]:
        """What was decided about each cell is done, one by one in effect, in few trips.

        Raises:
            OutcomeUnknown: of some it is not known, or a part is done and the rest is not.
            StoreUnavailable: nothing is done.
        """
        answers: list[T] = []
        failures: list[BaseException] = []
        for outcome in self._outcomes(items):
            if isinstance(outcome, BaseException):
                failures.append(outcome)
            else:
                answers.append(outcome)
        for failure in failures:
            if answers and isinstance(failure, StoreUnavailable):
                raise OutcomeUnknown(f"a part of the batch is done, the rest is not: {failure}") from failure
            raise failure
        return answers

    def _outcome(self, item: Item[T]) -> T | BaseException:
        """As ``_outcomes`` for one cell: its guess is mostly right, and then this is all."""
        state = self._guess(item)
        step = None if state is None else item.decide(state, self._now())
        if state is None or step is None or not step.writes:
            return self._seen_through(_Work([item], [None]))[0]
        plan = Planned(0, item, state, step)
        try:
            done = self._carried((plan,), plan.transaction())
        except LeaseGone:
            return self._outcomes([item])[0]
        if done.succeeded:
            self._note(plan, done.revision)
            return step.answer(done.revision)
        work = _Work([item], [None])
        work.see(0, self._refused(plan, done))
        return self._seen_through(work)[0]

    def _outcomes(self, items: Sequence[Item[T]]) -> list[T | BaseException]:
        """For each cell the answer, or the error."""
        return self._seen_through(_Work(items, [self._guess(item) for item in items]))

    def _seen_through(self, work: _Work[T]) -> list[T | BaseException]:
        """For each cell the answer, or the error; some may have been looked at."""
        for _ in range(_TRIES):
            if not work.left:
                return work.outcomes
            try:
                self._look(work)
                steps = self._decided(work)
            except StoreError as error:
                work.fail(list(work.left), error)
                break
            for chunk in _chunks(steps):
                self._write(work, chunk)
        work.fail(list(work.left), StoreUnavailable("others change the same things all the time; nothing was changed"))
        return work.outcomes

    def look(self, items: Sequence[tuple[bytes, bytes]]) -> list[State]:
        """Cells as they are now; one trip for some dozens."""
        states: list[State] = []
        for at in range(0, len(items), _READ_AT_ONCE):
            part = items[at : at + _READ_AT_ONCE]
            reads = [op for record, hold in part for op in reads_of(record, hold)]
            states += _states(self._link.txn(wire.transaction((), reads), reads=True), part)
        return states

    def guess(self, record: bytes) -> State | None:
        """The cell as it was when this process wrote or read it last; None: it never did."""
        return self._seen.get(record)

    def remember(self, key: bytes, state: State) -> None:
        """The next guess about the cell, unless a later one is known: answers may overtake each other."""
        with self._lock:
            known = self._seen.pop(key, None)
            if known is not None and state.record is not None and _written(known) > _written(state):
                state = known
            if state.record is not None and len(state.record.value) <= _SMALL:
                self._seen[key] = state
                if len(self._seen) > _REMEMBERED:
                    del self._seen[next(iter(self._seen))]

    def _guess(self, item: Item[Any]) -> State | None:
        return self.guess(item.record) or (ABSENT if item.new else None)

    def _look(self, work: _Work[Any]) -> None:
        blind = [index for index in work.left if work.states[index] is None]
        if blind:
            found = self.look([(work.items[index].record, work.items[index].hold) for index in blind])
            for index, state in zip(blind, found, strict=True):
                work.see(index, state)
                self.remember(work.items[index].record, state)

    def _decided(self, work: _Work[T]) -> list[Planned[T]]:
        """The changes to be made now; one for each cell at most."""
        planned: list[Planned[T]] = []
        busy: set[bytes] = set()
        for index in list(work.left):
            item, state = work.items[index], work.states[index]
            if item.record in busy:
                work.states[index] = None  # what comes before it changes it
                continue
            busy.add(item.record)
            if state is None:  # it was to be looked at again, and is
                continue
            step = item.decide(state, self._now())
            if step.writes:
                planned.append(Planned(index, item, state, step))
            elif index in work.fresh:
                work.answer(index, step.answer(0))
            else:
                work.states[index] = None
        return planned

    def _write(self, work: _Work[T], chunk: Sequence[Planned[T]]) -> None:
        try:
            results = self._sent(chunk)
        except LeaseGone:
            if work.often_gone():
                error = StoreUnavailable("etcd forgets leases as soon as it has granted them; nothing was changed")
                work.fail([plan.number for plan in chunk], error)
            return
        except StoreError as error:
            work.fail([plan.number for plan in chunk], error)
            return
        for plan, done in zip(chunk, results, strict=True):
            if done.succeeded:
                self._note(plan, done.revision)
                work.answer(plan.number, plan.step.answer(done.revision))
            else:
                work.see(plan.number, self._refused(plan, done))

    def write_together(
        self, plans: Sequence[Planned[T]], *, guards: Sequence[Guard], more: Sequence[Op]
    ) -> Together[T]:
        """If the guards hold, each step whose cell is as it was seen is done, and ``more``; all at one moment.

        Raises:
            StoreError: as usual.
            LeaseGone: nothing was done; leases have to be taken anew.
        """
        parts = [wire.within(plan.transaction()) for plan in plans]
        done = self._carried(plans, wire.transaction(guards, [*parts, *more]))
        if not done.succeeded:
            self._give_back(plans)
            return Together(0, ())
        answers: list[T] = []
        for index, plan in enumerate(plans):
            if done.nested(index).succeeded:
                self._note(plan, done.revision)
                answers.append(plan.step.answer(done.revision))
            else:
                self._refused(plan, done.nested(index))
        return Together(done.revision, tuple(answers))

    def _sent(self, plans: Sequence[Planned[T]]) -> list[wire.Done]:
        """What became of each of these plans."""
        if len(plans) == 1:
            return [self._carried(plans, plans[0].transaction())]
        parts = [wire.within(plan.transaction()) for plan in plans]
        outer = self._carried(plans, wire.transaction((), parts))
        return [outer.nested(index) for index in range(len(parts))]

    def _carried(self, plans: Sequence[Planned[T]], request: bytes) -> wire.Done:
        """What became of the transaction that has these plans in it. Leases are let go of where nothing was done.

        Raises:
            StoreError: as usual.
            LeaseGone: nothing was done; leases have to be taken anew.
        """
        try:
            return self._link.txn(request)
        except LeaseGone:
            self._forget_leases(plans)
            raise
        except OutcomeUnknown:
            raise
        except StoreError:
            self._give_back(plans)
            raise

    def _refused(self, plan: Planned[Any], done: wire.Done) -> State:
        """The cell was not as it was thought to be; this is how it is."""
        self._give_back([plan])
        state = _states(done, [(plan.item.record, plan.item.hold)])[0]
        self.remember(plan.item.record, state)
        return state

    def _note(self, plan: Planned[Any], revision: int) -> None:
        """What was done is known for the next time."""
        if plan.step.hold is not None and plan.state.hold is not None:
            self._leases.release(plan.state.hold.lease)
        self.remember(plan.item.record, plan.after(revision))

    def _forget_leases(self, plans: Sequence[Planned[Any]]) -> None:
        for plan in plans:
            if plan.step.lent is not None:
                self._leases.forget(plan.step.lent.id)

    def _give_back(self, plans: Sequence[Planned[Any]]) -> None:
        for plan in plans:
            if plan.step.lent is not None:
                self._leases.release(plan.step.lent.id)


class Together(NamedTuple, Generic[T]):
    """What became of steps that were tried together: the revision (0: nothing was done), and those that were done."""

    revision: int
    answers: tuple[T, ...]


class _Work(Generic[T]):
    """What is left to do of a batch."""

    def __init__(self, items: Sequence[Item[T]], guesses: list[State | None]) -> None:
        self.items = items
        self.states = guesses
        self.fresh: set[int] = set()
        self.left = dict.fromkeys(range(len(items)))
        self._outcomes: dict[int, T | BaseException] = {}
        self._gone = 0

    @property
    def outcomes(self) -> list[T | BaseException]:
        """In the order of the items."""
        return [self._outcomes[index] for index in range(len(self.items))]

    def see(self, index: int, state: State) -> None:
        """The cell is like that now."""
        self.states[index] = state
        self.fresh.add(index)

    def answer(self, index: int, answer: T) -> None:
        """Nothing is left to do about it."""
        del self.left[index]
        self._outcomes[index] = answer

    def fail(self, indices: Sequence[int], error: StoreError) -> None:
        """Nothing can be done about them. Each has an error of its own: different threads may raise them."""
        for index in indices:
            del self.left[index]
            self._outcomes[index] = own = type(error)(*error.args)
            own.__cause__ = error.__cause__

    def often_gone(self) -> bool:
        """The cluster did not know a lease that it should have known, and not for the first time."""
        self._gone += 1
        return self._gone >= _LEASES_TRIED


def _written(state: State) -> int:
    """The revision that wrote last to the cell, as far as it tells."""
    record, hold = state
    return max(0 if record is None else record.modified, 0 if hold is None else hold.modified)


def _states(done: wire.Done, cells: Sequence[tuple[bytes, bytes]]) -> list[State]:
    """The cells that were read, in their order."""
    states, at = list[State](), 0
    for _, hold in cells:
        record, alive = done.found(at).kvs, done.found(at + 1).kvs if hold else ()
        states.append(State(record[0] if record else None, alive[0] if alive else None))
        at += 2 if hold else 1
    return states


def _chunks(plans: Sequence[Planned[T]]) -> Iterator[list[Planned[T]]]:
    """As many at a time as a server takes."""
    chunk: list[Planned[T]] = []
    room = ROOM
    for plan in plans:
        if chunk and (len(chunk) >= ITEMS or plan.size > room):
            yield chunk
            chunk, room = [], ROOM
        chunk.append(plan)
        room -= plan.size
    if chunk:
        yield chunk
