"""Changes of runs: each is a transition of the contracts, and moves the run to where it is listed now.

A run that is held is listed below ``live``, one that waits below ``queue``, one that has ended nowhere. Record and
listing change in one transaction, so a claim that reads the lists misses nothing, and nothing in them is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from onceward.contracts import transitions
from onceward.contracts.records import Ending, Lease, Run, RunId, Status
from onceward.contracts.requests import (
    Admission,
    Cancelled,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Rearm,
    Renewal,
    Renewed,
    RunSpec,
)
from onceward.contracts.times import due_ms, from_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.zookeeper import wire
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import NEVER, Layout, buckets, digest, live_name
from onceward.runners.zookeeper.pages import Pages
from onceward.runners.zookeeper.rows import (
    LAST,
    UNKNOWN,
    Kept,
    mine,
    number,
    public,
    run_bytes,
    run_of,
)
from onceward.runners.zookeeper.settle import Change, Found, Move, Turn, found_in
from onceward.runners.zookeeper.tickets import Ticket
from onceward.runners.zookeeper.wire import Node, Op


def kept_in(found: Found | None) -> Kept | None:
    """The run in a record."""
    return None if found is None else run_of(found.data, found.stamp)


def run_in(node: Node | None) -> Run | None:
    """The run in a node, as callers get it."""
    kept = kept_in(found_in(node))
    return None if kept is None else public(kept.entry.run)


class Lists(NamedTuple):
    """Where runs are listed; what is needed to list one."""

    link: Link
    layout: Layout
    pages: Pages

    def moved(self, before: Kept | None, entry: Entry, *, listed_as: int | None = None) -> tuple[Kept, tuple[Op, ...]]:
        """The run with its new place, and what lists it there and no longer where it was.

        Args:
            before: the run as it was.
            entry: the run as it is to be.
            listed_as: its sequence in the order of the list, if its own is not known yet.
        """
        run = entry.run
        place, made = self._place(before, entry, run.sequence if listed_as is None else listed_as)
        if before is not None and place == before.place:
            return Kept(entry, place), ()
        above = self.layout.job(run.job)
        ops = list(made)
        if before is not None and before.place:
            ops.append(wire.delete(f"{above}/{before.place}"))
        if place:
            ops.append(wire.create(f"{above}/{place}", b"", self.link.acl))
        return Kept(entry, place), tuple(ops)

    def _place(self, before: Kept | None, entry: Entry, sequence: int) -> tuple[str, tuple[Op, ...]]:
        run = entry.run
        name = digest(run.key, run.id.stamp)
        if run.status is Status.RUNNING:
            assert run.lease is not None  # it is held
            return f"live/{live_name(self._end(entry), run.lease.request, name)}", ()
        if run.status is not Status.SCHEDULED:
            return "", ()
        due = to_ms(run.run_at)
        if before is not None and before.entry.run.status is Status.SCHEDULED and before.entry.run.run_at == run.run_at:
            return before.place, ()
        place, made = self.pages.place(run.job, run.priority, due, sequence, name)
        return f"queue/{place}", made

    def _end(self, entry: Entry) -> int:
        """When the lease ends at the earliest: until then nobody need look at the run."""
        if entry.until is None:
            return NEVER
        return entry.until if entry.until >= 0 else self.link.wall() + entry.until - UNKNOWN.elapsed


class RunChange(Change):
    """A change of one run."""

    def __init__(self, lists: Lists, run: RunId) -> None:
        self.lists, self.run = lists, run
        self.path = lists.layout.run(run)

    def homes(self) -> Sequence[str]:
        layout, job = self.lists.layout, self.run.job
        runs = layout.runs(job)
        return layout.job(job), layout.live(job), layout.queue(job), runs, *buckets(runs)

    def refused(self) -> None:
        self.lists.pages.forget(self.run.job)

    def move(self, before: Kept | None, entry: Entry | None, answer: Callable[[Found | None], object]) -> Move:
        """The run is to be so; the very entry that was found: it stays as it is."""
        if entry is None or (before is not None and entry is before.entry):
            return Move(answer)
        kept, beside = self.lists.moved(before, entry)
        leaves = before is not None and before.place not in ("", kept.place)
        return Move(answer, run_bytes(kept), beside, remember=not entry.run.status.ended, certain=leaves)


class Submission(RunChange):
    """See ``Scheduler.submit``; the payload is text already. A lone one needs no look, with a ticket."""

    def __init__(self, lists: Lists, spec: RunSpec) -> None:
        super().__init__(lists, spec.id)
        self._spec = spec
        self._ticket: Ticket | None = None

    def refused(self) -> None:
        if self._ticket is None:
            super().refused()
        else:
            self.lists.link.tickets.used(None)
            self._ticket = None

    def alone(self, known: Found | None) -> Move | None:
        link = self.lists.link
        if (
            known is not None or self._spec.after is not None
        ):  # what is due so much later than now must know when that is
            return None
        self._ticket = ticket = link.tickets.take()
        if ticket is None:
            return None
        wall = max(ticket.stamp.wall, link.wall())
        entry = transitions.submit(self._spec, Now(wall, wall), sequence=mine(0))
        kept, beside = self.lists.moved(None, entry, listed_as=number(ticket.stamp.zxid, LAST))

        def answer(written: Found | None) -> bool:
            assert written is not None  # it was just written, and the clock with it
            link.tickets.used(Ticket(written.stamp, ticket.version + 1))
            return True

        return Move(answer, run_bytes(kept), (*beside, link.punched(ticket)), remember=True)

    def decide(self, found: Found | None, turn: Turn) -> Move:
        known = kept_in(found)
        if known is not None:
            made = known.entry.run.origin == self._spec.request
            return Move(lambda _: made)
        entry = transitions.submit(self._spec, turn.now, sequence=number(turn.zxid, turn.place))
        return self.move(None, entry, lambda _: True)


class Entrance(RunChange):
    """See ``Executor.checkin``; the payload is text already. A new run needs no look."""

    def __init__(self, lists: Lists, request: CheckIn) -> None:
        super().__init__(lists, request.run)
        self._request = request

    def blind(self, known: Found | None, place: int) -> Move | None:
        return None if known is not None else self._new(place)

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        if found is None or kept is None:
            return self._new(turn.place)
        token = mine(turn.place)
        outcome, entry = transitions.checkin(
            kept.entry, self._request, turn.now, token=lambda: token, sequence=lambda: token
        )

        def answer(now: Found | None) -> Admission:
            shown = kept.entry if now is found else _entry_in(now)
            return _admission(outcome, shown, turn.now)

        return self.move(kept, entry, answer)

    def _new(self, place: int) -> Move:
        """A run that is not there is made, and held from its first moment."""
        new = mine(place)
        _, entry = transitions.checkin(None, self._request, UNKNOWN, token=lambda: new, sequence=lambda: new)
        return self.move(None, entry, lambda made: self._made(made, place))

    def _made(self, made: Found | None, place: int) -> Admission:
        """The same transition once more, now that it is known when it was made."""
        assert made is not None  # it was just written
        now, new = Now(made.stamp.wall, made.stamp.wall), number(made.stamp.zxid, place)
        outcome, entry = transitions.checkin(None, self._request, now, token=lambda: new, sequence=lambda: new)
        return _admission(outcome, entry, now)


def _entry_in(found: Found | None) -> Entry:
    kept = kept_in(found)
    assert kept is not None  # it was just written
    return kept.entry


def _admission(outcome: CheckInOutcome, entry: Entry, now: Now) -> Admission:
    return Admission(outcome=outcome, run=public(entry.run), remaining=entry.remaining(now))


class Exit(RunChange):
    """See ``Executor.checkout``; the result is text already. An end for good needs no look, if the run was ours."""

    def __init__(self, lists: Lists, request: CheckOut) -> None:
        super().__init__(lists, request.run)
        self._request = request

    def blind(self, known: Found | None, place: int) -> Move | None:
        kept = kept_in(known)
        if kept is None or self._request.ending in (Ending.RETRY, Ending.RELEASED):
            return None
        recorded, entry = transitions.checkout(kept.entry, self._request, UNKNOWN)
        return self.move(kept, entry, lambda _: True) if recorded and entry is not kept.entry else None

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        recorded, entry = transitions.checkout(None if kept is None else kept.entry, self._request, turn.now)
        return self.move(kept, entry, lambda _: recorded)


class Extension(RunChange):
    """See ``Executor.renew``."""

    def __init__(self, lists: Lists, run: RunId, renewal: Renewal) -> None:
        super().__init__(lists, run)
        self._renewal = renewal

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        answer, entry = transitions.renew(None if kept is None else kept.entry, self._renewal, turn.now)
        if answer is Renewed.LOST:
            return Move(lambda _: answer)
        return self.move(kept, entry, lambda _: answer)


class Cancellation(RunChange):
    """See ``Scheduler.cancel``."""

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        answer, entry = transitions.cancel(None if kept is None else kept.entry, turn.now)
        if answer is Cancelled.REQUESTED and kept is not None and kept.entry.run.cancel_requested:
            return Move(lambda _: answer)
        return self.move(kept, entry, lambda _: answer)


class Postponement(RunChange):
    """See ``Scheduler.reschedule``."""

    def __init__(self, lists: Lists, run: RunId, run_at: datetime) -> None:
        super().__init__(lists, run)
        self._run_at = from_ms(due_ms(run_at))

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        if kept is None or kept.entry.run.status is not Status.SCHEDULED:
            return Move(lambda _: False)
        if kept.entry.run.run_at == self._run_at:
            return Move(lambda _: True)
        return self.move(kept, Entry(run=replace(kept.entry.run, run_at=self._run_at)), lambda _: True)


class Rearming(RunChange):
    """See ``Lifecycle.rearm``."""

    def __init__(self, lists: Lists, request: Rearm) -> None:
        super().__init__(lists, request.run)
        self._token = request.token

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        done, entry = transitions.rearm(None if kept is None else kept.entry, self._token, turn.now)
        return self.move(kept, entry, lambda _: done)


class Forcing(RunChange):
    """See ``Lifecycle.force_unlock``."""

    def __init__(self, lists: Lists, run: RunId, token: int | None) -> None:
        super().__init__(lists, run)
        self._token = token

    def decide(self, found: Found | None, turn: Turn) -> Move:
        kept = kept_in(found)
        if kept is None or kept.entry.run.lease is None or kept.entry.lapsed(turn.now):
            return Move(lambda _: None)
        if self._token not in (None, kept.entry.run.token):
            return Move(lambda _: None)
        had: Lease = kept.entry.run.lease
        return self.move(kept, transitions.force_lapse(kept.entry, turn.now, token=mine(turn.place)), lambda _: had)
