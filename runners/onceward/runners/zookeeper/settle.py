"""How records change: look, decide by the contracts' pure transitions, write under a guard; again if somebody else did.

A write of a record is one transaction: it carries the version of the record that was decided on, and the generation of
the node above (its version, which a purge raises), since versions begin anew when a record is purged and made again. So
it is done only if nothing happened to the record since it was seen, however long ago that is. A run that leaves a list
needs no generation: the name that is removed there is no other run's, and never comes back.

Many changes go together. What needs no look is written at once: new records, and those of which we know the latest
version since we wrote it. What is refused is looked at, all in one trip. All writes of a round are one transaction; if
somebody else was quicker with one of them, each is tried by itself.
"""

from __future__ import annotations

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from onceward.contracts.errors import OncewardError, OutcomeUnknown, StoreError
from onceward.contracts.transitions import Now
from onceward.runners.combining import Combiner, undivided
from onceward.runners.zookeeper import wire
from onceward.runners.zookeeper.errors import contended
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import parent
from onceward.runners.zookeeper.rows import LAST
from onceward.runners.zookeeper.tickets import Stamp
from onceward.runners.zookeeper.wire import Node, Op, Refused

#: So many records are remembered, and none that is longer.
_REMEMBERED, _LONGEST = 4096, 4096
#: So many batches are under way at a time: the server synchronises its disk once for all that it has got meanwhile.
_LANES = 2
#: So many bytes go into one transaction, unless one record alone has more.
_MOST_BYTES = 600_000


class Found(NamedTuple):
    """A record as it is kept: what the node holds, the write that stored it, and its version."""

    data: bytes
    stamp: Stamp
    version: int


def found_in(node: Node | None) -> Found | None:
    """What a node holds."""
    return None if node is None else Found(node.data, Stamp(node.stat.mzxid, node.stat.mtime), node.stat.version)


class Turn(NamedTuple):
    """When and where a decision is made: the server's now, the zxid of the look, and the place among its like."""

    now: Now
    zxid: int
    place: int


class Move(NamedTuple):
    """What was decided.

    Attributes:
        answer: makes the answer of the record as it is then.
        store: what the record is to be; None: it stays as it is.
        beside: what goes with it, or not at all.
        remember: the next change of this record will probably be ours.
        certain: what goes with it can only be done with the very record that was found, not with one of the same name
            that was made after it was purged.
    """

    answer: Callable[[Found | None], Any]
    store: bytes | None = None
    beside: tuple[Op, ...] = ()
    remember: bool = False
    certain: bool = False


class Change(ABC):
    """One change of one record.

    Attributes:
        path: of the record.
    """

    path: str

    @abstractmethod
    def homes(self) -> Sequence[str]:
        """The nodes below which such records are, all of them, those above coming before those below."""

    def blind(self, known: Found | None, place: int) -> Move | None:
        """What can be decided without a look, if what we know is still so; None: nothing."""
        return None

    def alone(self, known: Found | None) -> Move | None:
        """The same for a change that nothing else goes with, if nobody has asked for the time since we did."""
        return None

    @abstractmethod
    def decide(self, found: Found | None, turn: Turn) -> Move:
        """What is to be done with what a look has found."""

    def refused(self) -> None:
        """The write was refused; the record or what goes with it has changed meanwhile."""
        return


@dataclass(eq=False)
class _Task:
    """A change under way."""

    change: Change
    looked: bool = False
    found: Found | None = None
    move: Move | None = None
    answer: Any = None
    done: bool = False

    def end(self, answer: Any) -> None:
        self.answer, self.done = answer, True


class Settler:
    """Carries out changes of all threads, as many together as there are."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.generations: dict[str, int] = {}
        """Versions of the nodes above records, as they were seen before the records that we know."""
        self._memory: dict[str, Found] = {}
        self._memory_lock = threading.Lock()
        carry = undivided(self._carry)
        self._combiners = [Combiner[Sequence[Change], list[Any]](carry, most=64) for _ in range(_LANES)]
        self._turn = itertools.count()

    def settle(self, changes: Sequence[Change]) -> list[Any]:
        """The answer to each change.

        Raises:
            StoreUnavailable: none of them was made.
            OutcomeUnknown: some may be made.
        """
        if not changes:
            return []
        answers = self._combiners[next(self._turn) % _LANES].call(changes)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if not failures:
            return answers
        for failure in failures:
            if not isinstance(failure, StoreError) or isinstance(failure, OutcomeUnknown):
                raise failure
        if len(failures) < len(answers):
            raise OutcomeUnknown(f"only a part of the batch is done: {failures[0]}") from failures[0]
        raise failures[0]

    def reset(self) -> None:
        """Nothing is under way; for a forked child."""
        for combiner in self._combiners:
            combiner.reset()
        self._memory_lock = threading.Lock()

    def known(self, path: str) -> Found | None:
        """The record as we wrote it last."""
        return self._memory.get(path)

    def remember(self, path: str, found: Found) -> None:
        """The record was just written so by us."""
        if len(found.data) > _LONGEST:
            return
        with self._memory_lock:
            self._memory.pop(path, None)
            self._memory[path] = found
            if len(self._memory) > _REMEMBERED:
                del self._memory[next(iter(self._memory))]

    def forget(self, path: str) -> None:
        """The record is not as we knew it."""
        with self._memory_lock:
            self._memory.pop(path, None)

    # -- one batch ----------------------------------------------------------------------------------------------

    def _carry(self, requests: Sequence[Sequence[Change]]) -> list[list[Any] | BaseException]:
        tasks = [[_Task(change) for change in request] for request in requests]
        waiting = [task for each in tasks for task in each]
        deadline = time.monotonic() + self._link.options.timeout_ms / 1000
        while waiting:
            try:
                self._round(_one_for_each_record(waiting))
            except OncewardError as error:
                for task in waiting:
                    if not task.done:
                        task.end(error)
            waiting = [task for task in waiting if not task.done]
            if waiting and time.monotonic() > deadline:
                for task in waiting:
                    task.end(contended(self._link.where, "what the request is about"))
                waiting = []
        return [[task.answer for task in each] for each in tasks]

    def _round(self, tasks: Sequence[_Task]) -> None:
        for place, task in enumerate(tasks):
            task.move = None
            if not task.looked and parent(task.change.path) in self.generations:
                task.found = self._memory.get(task.change.path)
                task.move = task.change.blind(task.found, place)
                if task.move is None and len(tasks) == 1:
                    task.move = task.change.alone(task.found)
        self._look([(place, task) for place, task in enumerate(tasks) if task.move is None])
        writes = []
        for task in tasks:
            assert task.move is not None  # by blind() or by decide()
            if task.move.store is None:
                task.end(task.move.answer(task.found))
            else:
                writes.append(task)
        if writes:
            self._write(writes)

    def _look(self, tasks: Sequence[tuple[int, _Task]]) -> None:
        if not tasks:
            return
        paths = [task.change.path for _, task in tasks]
        above: dict[str, None] = {}
        for _, task in tasks:  # those that we do not know all at once, since others of them will be needed soon
            home = parent(task.change.path)
            above |= dict.fromkeys([home] if home in self.generations else task.change.homes())
        seen = self._link.look([*paths, *above])
        known = dict(zip(above, seen.nodes[len(paths) :], strict=True))
        if any(known[path] is None for path in map(parent, paths)):
            self._link.make([path for path, node in known.items() if node is None])
        for path, node in known.items():
            self.generations[path] = 0 if node is None else node.stat.version
        for (place, task), node in zip(tasks, seen.nodes, strict=False):
            task.looked, task.found = True, found_in(node)
            wall = max(seen.stamp.wall, 0 if task.found is None else task.found.stamp.wall)
            task.move = task.change.decide(task.found, Turn(Now(wall, wall), seen.stamp.zxid, place))

    def _write(self, tasks: Sequence[_Task]) -> None:
        batches = list(_batches([(task, self._ops(task)) for task in tasks]))
        again: list[tuple[_Task, list[Op]]] = []
        outcomes = self._link.commit([[op for _, ops in batch for op in ops] for batch in batches])
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, Refused) and len(batch) > 1:
                again += batch
            else:
                for task, _ in batch:
                    self._written(task, outcome)
        if again:
            for (task, _), outcome in zip(again, self._link.commit([ops for _, ops in again]), strict=True):
                self._written(task, outcome)

    def _ops(self, task: _Task) -> list[Op]:
        assert task.move is not None  # only moves are written
        assert task.move.store is not None  # and only those that store something
        path = task.change.path
        if task.found is None:
            return [wire.create(path, task.move.store, self._link.acl), *task.move.beside]
        ops = [wire.change(path, task.move.store, task.found.version), *task.move.beside]
        if task.move.certain:
            return ops
        return [wire.check(parent(path), self.generations[parent(path)]), *ops]  # first, as it was found

    def _written(self, task: _Task, outcome: Stamp | Refused | StoreError) -> None:
        assert task.move is not None  # it was written
        path = task.change.path
        if isinstance(outcome, Stamp):
            version = 0 if task.found is None else task.found.version + 1
            now = Found(task.move.store or b"", outcome, version)
            (self.remember(path, now) if task.move.remember else self.forget(path))
            task.end(task.move.answer(now))
            return
        self.forget(path)
        if isinstance(outcome, Refused):
            task.looked = True
            task.change.refused()
        else:
            task.end(outcome)


def _one_for_each_record(tasks: Sequence[_Task]) -> list[_Task]:
    """The first change of each record, in order; the others must wait for what becomes of it.

    The last place in a transaction stays free: see ``LAST``.
    """
    first: dict[str, _Task] = {}
    for task in tasks:
        first.setdefault(task.change.path, task)
        if len(first) == LAST:
            break
    return list(first.values())


def _batches(writes: Sequence[tuple[_Task, list[Op]]]) -> Sequence[list[tuple[_Task, list[Op]]]]:
    """All in one transaction, as far as there is room."""
    batches: list[list[tuple[_Task, list[Op]]]] = []
    room = 0
    for task, ops in writes:
        size = sum(len(op.body) for op in ops)
        if size > room:
            batches.append([])
            room = _MOST_BYTES
        batches[-1].append((task, ops))
        room -= size
    return batches
