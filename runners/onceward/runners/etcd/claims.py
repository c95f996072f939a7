"""Claims: what may be taken, in order, and a transaction that takes it if it is still there.

A look reads the front of each row of scheduled runs and counts what runs and what is held. Where more run than are
held, some leases have lapsed, and the difference of both lists tells which. Then the runs are read, and taken all in
one transaction, each under its own guard. Nothing is scanned that is not due. What this process has written itself is
not read, since the guard tells whether it is still so; and where next to nothing goes on, no look is needed either, see
``Quiet``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from onceward.contracts import transitions
from onceward.contracts.errors import OutcomeUnknown, StoreUnavailable
from onceward.contracts.records import Run, RunId, Status
from onceward.contracts.requests import Claim, Want
from onceward.contracts.times import span_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.etcd import names, rows, wire
from onceward.runners.etcd.base import Base
from onceward.runners.etcd.cells import ITEMS, ROOM
from onceward.runners.etcd.errors import LeaseGone
from onceward.runners.etcd.fronts import Ahead, At, Fronts
from onceward.runners.etcd.names import Place
from onceward.runners.etcd.quiet import Quiet, Waiting
from onceward.runners.etcd.steps import Planned, State, Step
from onceward.runners.etcd.wire import Found, Guard, Kv

#: A repeated claim is recognised for as long as its leases, and so much longer; what that may differ by. Milliseconds.
_MEMO_KEPT, _MEMO_SPARE = 600_000, 60_000
#: So many of the next keys of a row are remembered.
_REMEMBERED = 2_000
#: A claim of 100,000 takes a thousand rounds; more only if others are always faster.
_ROUNDS = 5_000

_encode = msgspec.json.Encoder().encode
_decode_memo = msgspec.json.Decoder(list[tuple[str, str]]).decode


class _Found(NamedTuple):
    """A run that may be taken: where it stands in the order of claims, and its record's revision (0: not known)."""

    place: Place
    run: RunId
    since: int = 0


class _Live(NamedTuple):
    """How many leases of a job were live at a revision."""

    total: int
    revision: int


@dataclass(slots=True)
class _Taking:
    """One claim under way.

    Attributes:
        taken: what it has got so far.
        memo: its memo as it is in the store; ``known``: it was looked at.
        live: of each job that is limited.
    """

    request: Claim
    taken: list[Run] = field(default_factory=list)
    memo: Kv | None = None
    known: bool = False
    live: dict[str, _Live] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """How many more it may take."""
        return self.request.limit - len(self.taken)

    def quota(self, want: Want) -> int:
        """How many more of a job it may take."""
        quota = self.room
        if want.limit is not None:
            quota = min(quota, want.limit - sum(run.id.job == want.job for run in self.taken))
        if want.max_running is not None:
            quota = min(quota, want.max_running - self.live[want.job].total)
        return quota

    def lease_for(self, job: str) -> int:
        """The lease for runs of a job, in milliseconds."""
        own = next((want.lease for want in self.request.wants or () if want.job == job), None)
        return span_ms(own or self.request.lease)


class Claims(Base):
    """The part of the store that has to do with claims."""

    _scheduled: Fronts
    _ahead: Ahead
    _quiet: Quiet

    def claim(self, request: Claim) -> Sequence[Run]:
        """See ``Executor.claim``.

        Three trips: to look, to read what this process has not written itself, to take. Each hundred runs take another
        round; and where others were quicker with some, one more look tells what there is instead. One trip, where
        nothing of these jobs ran and hardly anything waited at the last look, and what was submitted since is our own.
        """
        taking = _Taking(request)
        try:
            if self._at_once(taking):
                return [rows.public(run) for run in taking.taken]
            for _ in range(_ROUNDS):
                found, moved, held = self._look(taking)
                if held is not None:
                    return held
                all_taken = self._take(taking, found[:ITEMS])
                if taking.room <= 0 or (all_taken and len(found) <= ITEMS and not moved):
                    return [rows.public(run) for run in taking.taken]
        except StoreUnavailable as error:
            if taking.taken:
                raise OutcomeUnknown(f"a part of the claim is done, the rest is not: {error}") from error
            raise
        raise OutcomeUnknown("others take what this claim wants all the time; ask again with the same request")

    def _at_once(self, taking: _Taking) -> bool:
        """All that is claimable was taken without a look; False: a look is needed, after a part was taken or nothing.

        Nothing of the jobs runs if the guards hold, so all of their limits are free.
        """
        wants, now = taking.request.wants or (), self._now()
        jobs = [_scope(want) for want in wants]
        known = self._quiet.all_of(jobs, now.wall) if wants else None
        if known is None:
            return False
        waiting, guards = known
        due = sorted(self._places(waiting, now))
        taking.live = {want.job: _Live(0, 0) for want in wants}
        chosen = list(self._within_limits(taking, due))
        if not chosen or len(guards) + len(chosen) > ITEMS or None in self._known(chosen):
            return False
        self._quiet.forget(jobs)
        taking.live = {}
        return self._take(taking, chosen, guards=guards)

    def _look(self, taking: _Taking) -> tuple[list[_Found], bool, list[Run] | None]:
        """What may be taken, in order; whether to look again in any case; or what the claim has taken already."""
        wants = taking.request.wants
        jobs = [b""] if wants is None else [_scope(want) for want in wants]
        prefix, most, until = self._names.prefix, taking.room, self._now().wall + self.options.timeout_ms
        counts = [prefix + kind + job for job in jobs for kind in (names.RUNNING, names.HOLD)]
        fronts, also = self._fronts(
            [prefix + names.SCHEDULED + job for job in jobs],
            most,
            also=[
                wire.read(self._names.of(names.MEMO, taking.request.request)),
                *(wire.read(start, names.behind(start), count_only=True) for start in counts),
            ],
        )
        held = self._recognised(taking, also[0].found)
        if held:
            return [], False, held
        running, holds = also[1::2], also[2::2]
        if wants is not None:
            taking.live = {
                want.job: _Live(at.found.total, at.revision)
                for want, at in zip(wants, holds, strict=True)
                if want.max_running is not None
            }
        found, moved = list(self._due(fronts, self._now())), False
        for job, run, hold in zip(jobs, running, holds, strict=True):
            gone = run.found.total - hold.found.total
            if gone > 0:
                lapsed = list(self._lapsed(job))
                moved = moved or len(lapsed) < gone  # what had lapsed a moment ago may stand where was looked before
                found += lapsed
        if wants is not None and not found:
            for job, run in zip(jobs, running, strict=True):
                if not run.found.total:
                    self._note_quiet(job, run.revision, until, fronts, most)
        found.sort()
        return list(self._within_limits(taking, found)), moved, None

    def _note_quiet(self, job: bytes, revision: int, until: int, fronts: Sequence[Found], most: int) -> None:
        """Nothing of the job runs; if all that waits was seen, claims may go by that."""
        scope = self._names.prefix + names.SCHEDULED + job
        rows_of_job = [front for front in fronts if front.kvs and front.kvs[0].key.startswith(scope)]
        if all(front.total == len(front.kvs) < most for front in rows_of_job):
            self._quiet.seen(job, revision, until, [kv for front in rows_of_job for kv in front.kvs])

    def _fronts(self, scopes: Sequence[bytes], most: int, *, also: Sequence[bytes]) -> tuple[list[Found], list[At]]:
        """What is due first in each row, at least ``most`` if there are so many; and what the other reads find.

        What comes due until the answer is there is found, too: a run that is given back meanwhile is due from then on.
        """
        limited: set[bytes] = set()

        def read(row: bytes, _: bytes) -> bytes:
            due = row + b"%015d" % (self._now().wall + self.options.timeout_ms + 1)
            ahead = self._ahead.end(row, most)
            if ahead is None or ahead >= due:
                limited.discard(row)
                return wire.read(row, due, limit=max(most, _REMEMBERED))
            limited.add(row)
            return wire.read(row, ahead, limit=most)

        while True:
            found, others = self._scheduled.look(scopes, read, also=also)
            short = [row for row, front in found if row in limited and len(front.kvs) < most]
            for row in short:
                self._ahead.forget(row)
            if not short:
                for row, front in found:
                    self._ahead.saw(row, front)
                return [front for _, front in found], others

    def _recognised(self, taking: _Taking, memo: Found) -> list[Run]:
        """What another copy of the claim has taken, if there was one."""
        before = None if taking.memo is None else taking.memo.modified
        seen = memo.kvs[0] if memo.kvs else None
        if seen is None or (taking.known and seen.modified == before):
            taking.known = True
            return []
        taking.memo, taking.known = seen, True
        return self._still_held(seen, taking.request)

    def _still_held(self, memo: Kv, request: Claim) -> list[Run]:
        """What the memo names and nobody has ended since, in the order of its tokens."""
        ids = [names.run_named(job.encode(), tail.encode()) for job, tail in _decode_memo(memo.value)]
        states = self._cells.look([(self._names.record(run), self._names.hold(run)) for run in ids])
        runs = [
            rows.read_run(run, state.record, state.hold)
            for run, state in zip(ids, states, strict=True)
            if state.record is not None
        ]
        return [
            rows.public(run)
            for run in sorted(runs, key=lambda run: run.token)
            if run.status is Status.RUNNING and run.lease is not None and run.lease.request == request.request
        ]

    # -- what may be taken --------------------------------------------------------------------------------------------

    def _due(self, fronts: Sequence[Found], now: Now) -> Iterator[_Found]:
        """The first runs of each row, as far as they are due."""
        return self._places((Waiting(kv.key, kv.value, kv.modified) for front in fronts for kv in front.kvs), now)

    def _places(self, waiting: Iterable[Waiting], now: Now) -> Iterator[_Found]:
        """Of runs that wait, those that are due."""
        for key, tail, since in waiting:
            place = self._names.place_of(key)
            if place.run_at <= now.wall:
                yield _Found(place, names.run_named(place.job, tail), since)

    def _cell(self, found: _Found) -> tuple[bytes, bytes]:
        return self._names.record(found.run), self._names.hold(found.run)

    def _known(self, found: Sequence[_Found]) -> list[State | None]:
        """What this process remembers of them, where that is what the look has seen.

        Anything older would be refused when it is taken, and those behind it would be taken first.
        """
        guesses = [self._cells.guess(self._names.record(each.run)) for each in found]
        return [
            state if state is not None and state.record is not None and state.record.modified == each.since else None
            for each, state in zip(found, guesses, strict=True)
        ]

    def _lapsed(self, job: bytes) -> Iterator[_Found]:
        """Runs whose hold is gone."""
        runs, holds = self._names.prefix + names.RUNNING + job, self._names.prefix + names.HOLD + job
        reads = [wire.read(runs, names.behind(runs)), wire.read(holds, names.behind(holds), keys_only=True)]
        done = self._link.txn(wire.transaction((), [wire.get(read) for read in reads]), reads=True)
        alive = {kv.key[len(self._names.prefix) + len(names.HOLD) :] for kv in done.found(1).kvs}
        for kv in done.found(0).kvs:
            place = self._names.place_of(kv.key)
            if place.job + b"/" + kv.value not in alive:
                yield _Found(place, names.run_named(place.job, kv.value))

    def _within_limits(self, taking: _Taking, found: Sequence[_Found]) -> Iterator[_Found]:
        """The best of them that all limits allow; none that it has taken, whose lease may be over by now."""
        own = {run.id for run in taking.taken}
        quota = {want.job: taking.quota(want) for want in taking.request.wants or ()}
        room = taking.room
        for each in found:
            left = quota.get(each.run.job, room)
            if room > 0 and left > 0 and each.run not in own:
                quota[each.run.job] = left - 1
                room -= 1
                yield each

    # -- taking -------------------------------------------------------------------------------------------------------

    def _take(self, taking: _Taking, found: Sequence[_Found], *, guards: Sequence[Guard] = ()) -> bool:
        """They are the caller's, but for those that others have changed meanwhile, or none if a guard does not hold.

        True: each of them is.
        """
        plans = self._plans(taking, found)
        if not plans:
            return not found
        runs = [found[plan.number].run for plan in plans]
        memo = self._memo(taking, runs, self._now())
        guards = [*guards, wire.unchanged(memo.key, 0 if taking.memo is None else taking.memo.modified)]
        for job in sorted({run.job for run in runs} & taking.live.keys()):
            start = self._names.of(names.HOLD, job, "")
            guards.append(wire.none_newer(start, names.behind(start), taking.live[job].revision))
        put = wire.put(memo.key, memo.value, memo.lease)
        try:
            done = self._cells.write_together(plans, guards=guards, more=[put])
        except LeaseGone:
            self._leases.forget(memo.lease)
            return False
        if not done.revision:
            self._leases.release(memo.lease)
            return False
        taking.memo, taking.known = memo._replace(modified=done.revision), True
        taken = [run for run in done.answers if run is not None]
        taking.taken += taken
        return len(taken) == len(found)

    def _plans(self, taking: _Taking, found: Sequence[_Found]) -> list[Planned[Run | None]]:
        """What is to be written to take them, as far as a transaction has room; what we know need not be read."""
        known = self._known(found)
        read = iter(self._cells.look([self._cell(each) for each, state in zip(found, known, strict=True) if not state]))
        states = [state or next(read) for state in known]
        now, plans, room = self._now(), list[Planned[Run | None]](), ROOM
        for index, state in enumerate(states):
            if room < 0:
                break
            item = self._item(found[index].run, partial(self._decided, taking, index))
            step = item.decide(state, now)
            if step.writes:
                plans.append(Planned(index, item, state, step))
                room -= plans[-1].size
        return plans

    def _memo(self, taking: _Taking, runs: Sequence[RunId], now: Now) -> Kv:
        """What is written down so that a repeated claim is recognised."""
        ids = [*(run.id for run in taking.taken), *runs]
        value = _encode([(names.escaped(run.job), names.tail_of(run).decode()) for run in ids])
        longest = max([taking.lease_for(run.job) for run in runs])
        lent = self._leases.lend(longest + _MEMO_KEPT, now, spare=_MEMO_SPARE)
        return Kv(self._names.of(names.MEMO, taking.request.request), value, 0, 0, lent.id)

    def _decided(self, taking: _Taking, index: int, found: Entry | None, state: State, now: Now) -> Step[Run | None]:
        """Take a run if that may be done, or end it if no further crash is forgiven."""
        if found is None or not transitions.claimable(found, now):
            return Step(answer=lambda _: None)
        if transitions.exhausted(found, now):
            return self._let_go(state, found, transitions.bury(found, now), lambda _: None)
        request = taking.request
        after = transitions.hold(
            found,
            holder=request.holder,
            request=request.request,
            lease_ms=taking.lease_for(found.run.job),
            now=now,
            token=rows.own(index),
        )
        return self._held(found, after, now, lambda entry: entry.run)


def _scope(want: Want) -> bytes:
    """What the keys of a job begin with, behind their kind."""
    return names.escaped(want.job).encode() + b"/"
