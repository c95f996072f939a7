"""Claims: which runs come next, found in the order of the claim by indexes alone, and taken by guarded writes.

What a claim may take is ``queued``: SCHEDULED runs, due at ``run_at``, and runs whose lease was seen to have lapsed.
One index holds them by (priority, run_at, sequence); the server skips within it from one priority that occurs (at most
201) to the next, so a claim costs O(log n) per run taken and per priority in use, however long the queue is.

A claim is two round trips: one aggregation reads what comes next (and how many of the job run), one batch of writes,
each guarded by the version that was read, takes it. Leases that have lapsed since the last claim cost two more, once;
each time that another process was faster, the same again.

``max_running`` (G12) rests on a unique index: a run that is claimed under a limit takes one of the job's places, a
``slot`` from 0 to ``max_running`` - 1, and no two runs can have the same one. Whoever claims takes the lowest places
that are free, as many as the live leases that it counted leave over; two that count at once want the same places, and
each place has one winner. A place is given back by whatever ends the lease, in the same write, so nothing drifts.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pymongo import UpdateMany, UpdateOne

from onceward.contracts import transitions
from onceward.contracts.executor import Executor
from onceward.contracts.records import PRIORITY_LOWEST, Run, RunId
from onceward.contracts.requests import Claim, Want
from onceward.contracts.times import span_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.mongodb import documents
from onceward.runners.mongodb.base import Base, unless_duplicate
from onceward.runners.mongodb.link import WHOLE
from onceward.runners.mongodb.terms import Doc

#: So many jobs are asked for in one aggregation, whose number of stages is limited.
_JOBS_AT_ONCE = 100
_ORDER = {"priority": -1, "run_at": 1, "seq": 1}
_ANY = ""
"""Where a job's name would stand, in a claim on all jobs. No job has this name."""


class Candidate(NamedTuple):
    """A run that comes next, as it was read."""

    entry: Entry
    now: Now
    guard: Doc
    token: int
    fresh: bool
    """True for a run that nobody had before."""

    @property
    def rank(self) -> tuple[int, int, int]:
        return _rank(self.entry)

    @property
    def exhausted(self) -> bool:
        """True for a lapsed run that the claim will bury."""
        return transitions.exhausted(self.entry, self.now)


@dataclass
class View:
    """What one look at the queue has shown."""

    held: list[Entry] = field(default_factory=list)
    lapsed: bool = False
    queues: dict[str, list[Candidate]] = field(default_factory=dict)
    slots: dict[str, list[int | None]] = field(default_factory=dict)
    """Of each job with a limit: its live leases, with the places that they take."""
    asked: dict[str, int] = field(default_factory=dict)
    """Of each queue: how many at the most it was asked to show."""


class ClaimPart(Base, Executor):
    """The part of ``Executor`` that is about the queue."""

    def claim(self, request: Claim) -> Sequence[Run]:
        """See ``Executor.claim``.

        A repetition (same request id) answers with those of its runs that it still holds. If it holds none any more,
        there is nothing left of it to repeat, and it claims anew.
        """
        wants = request.wants
        taken: list[Entry] = []
        view = self._look(request, wants, request.limit)
        if view.held:
            return _answer(sorted(view.held, key=_rank))
        while True:
            if view.lapsed:
                self._queue_lapsed(wants)
                view = self._look(request, wants, request.limit - len(taken))
            wants = _left(request.wants, taken)
            own = {entry.run.id for entry in taken}  # a lease may be over before its claim is
            chosen = _chosen(view, wants, request.limit - len(taken), own)
            got, again = self._take(request, view, wants, chosen)
            taken += got
            if not again or len(taken) >= request.limit:
                return _answer(taken)
            view = self._look(request, wants, request.limit - len(taken))

    def _look(self, request: Claim, wants: Sequence[Want] | None, limit: int) -> View:
        """One round trip for up to 100 jobs: what this request holds, what comes next, how many run."""
        view = View()
        jobs = [_ANY] if wants is None else [want.job for want in wants]
        limits = {} if wants is None else {want.job: want for want in wants}
        for at in range(0, len(jobs), _JOBS_AT_ONCE):
            some = jobs[at : at + _JOBS_AT_ONCE]
            pipelines = [self._lapsed(None if wants is None else some)]
            for job in some:
                want = limits.get(job)
                view.asked[job] = _most(want, limit)
                # Each part is read at a moment of its own. What gave its place back before the places were read stands
                # in the queue then (G13); who takes one after that leaves no such place to this claim (G12).
                if want is not None and want.max_running is not None:
                    pipelines.append(self._live(job, want.max_running))
                if view.asked[job] > 0:
                    pipelines.append(self._next(job, view.asked[job]))
            stages = [*self._mine(request), *({"$unionWith": {"coll": "runs", "pipeline": each}} for each in pipelines)]
            with self._link.reading():
                for shown in self._link.runs.aggregate(stages, batchSize=WHOLE):
                    _note(view, shown, of_any=wants is None)
        return view

    def _mine(self, request: Claim) -> list[Doc]:
        """What a claim with this request id holds."""
        return [
            {"$match": {"_id.ns": self.namespace, "claim": request.request, "status": "running"}},
            {"$project": {"_id": 0, "kind": "held", "doc": "$$ROOT"}},
        ]

    def _lapsed(self, jobs: Sequence[str] | None) -> list[Doc]:
        """Is there a lease that has lapsed and was not queued yet?"""
        return [
            {"$match": self._unqueued(jobs) | self._past("until")},
            {"$limit": 1},
            {"$project": {"_id": 0, "kind": "lapsed"}},
        ]

    def _unqueued(self, jobs: Sequence[str] | None) -> Doc:
        of_jobs = {} if jobs is None else {"_id.job": {"$in": list(jobs)}}
        return {"_id.ns": self.namespace, **of_jobs, "status": "running", "queued": False}

    def _next(self, job: str, limit: int) -> list[Doc]:
        """The first runs that a claim may take, in its order."""
        of_job = {"priority": {"$gte": PRIORITY_LOWEST}} if job == _ANY else {"_id.job": job}
        return [
            {"$match": {"_id.ns": self.namespace, **of_job, "queued": True, **self._past("run_at")}},
            {"$sort": _ORDER},
            {"$limit": limit},
            {"$set": {"now": self._terms.now}},
        ]

    def _live(self, job: str, most: int) -> list[Doc]:
        """The live leases of a job, as many as matter."""
        return [
            {"$match": self._unqueued([job]) | self._terms.future("until")},
            {"$limit": max(1, most)},
            {"$project": {"_id": 0, "kind": "live", "of": {"$literal": job}, "slot": "$slot"}},
        ]

    def _queue_lapsed(self, wants: Sequence[Want] | None) -> None:
        """Runs whose leases have lapsed are queued for claims, and their places are free. Renewals fail from now on."""
        jobs = None if wants is None else [want.job for want in wants]
        with self._link.writing():
            self._link.runs.update_many(
                self._unqueued(jobs) | self._past("until"),
                [{"$set": {"queued": True, "v": {"$add": ["$v", 1]}}}, {"$unset": "slot"}],
            )

    def _take(
        self, request: Claim, view: View, wants: Sequence[Want] | None, chosen: Sequence[Candidate]
    ) -> tuple[list[Entry], bool]:
        """What of the chosen is held now, and whether it is worth looking again."""
        if not chosen:
            return [], False
        places = {want.job: _free(view, want) for want in wants or () if want.max_running is not None}
        leases = {want.job: want.lease for want in wants or ()}
        updates: list[UpdateOne | UpdateMany] = []
        holding: list[Entry] = []
        alike: dict[tuple[Now, int, object], list[Candidate]] = {}
        tokens: dict[Now, int] = {}
        for each in chosen:  # those that are taken together have one token, so it exceeds all of their earlier ones
            if each.fresh:
                tokens[each.now] = max(each.token, tokens.get(each.now, 0))
        buried = 0
        for each in chosen:
            run = each.entry.run.id
            if each.exhausted:
                buried += 1
                update = documents.changes(transitions.bury(each.entry, each.now))
            else:
                lease_ms = span_ms(leases.get(run.job) or request.lease)
                if each.fresh and run.job not in places:
                    each = each._replace(token=tokens[each.now])
                    holding.append(_held(each, request, lease_ms))
                    alike.setdefault((each.now, lease_ms, each.guard["v"]), []).append(each)
                    continue
                entry = _held(each, request, lease_ms)
                update = documents.changes(entry)
                _mark(update, "claim", request.request)
                if run.job in places:
                    _mark(update, "slot", next(places[run.job]))
                holding.append(entry)
            updates.append(UpdateOne(each.guard, update))
        updates += [_hold_alike(some, request, ms) for (_, ms, _), some in alike.items()]
        written = self._written(updates, len(chosen))
        if not written:
            holding = self._confirmed(request, holding)
        return holding, not written or buried > 0

    def _written(self, updates: Sequence[UpdateOne | UpdateMany], count: int) -> bool:
        """True if every guard held."""
        matched = 0

        def write() -> None:
            nonlocal matched
            matched = self._link.runs.bulk_write(updates, ordered=False).matched_count

        with self._link.writing():
            refused = unless_duplicate(write)
        return not refused and matched == count

    def _confirmed(self, request: Claim, holding: Sequence[Entry]) -> list[Entry]:
        """Those that this request really holds."""
        mine = {"_id.ns": self.namespace, "claim": request.request, "status": "running"}
        with self._link.writing():  # something may have been written just before
            found = self._link.runs.find(mine, {"token": 1}, batch_size=WHOLE)
            tokens = {(_run_of(doc["_id"]), doc["token"]) for doc in found}
        return [entry for entry in holding if ((entry.run.job, *_rest(entry)), entry.run.token) in tokens]


def _held(each: Candidate, request: Claim, lease_ms: int) -> Entry:
    return transitions.hold(
        each.entry,
        holder=request.holder,
        request=request.request,
        lease_ms=lease_ms,
        now=each.now,
        token=each.token,
    )


def _hold_alike(some: Sequence[Candidate], request: Claim, lease_ms: int) -> UpdateMany:
    """Runs that nobody had before are held. One update for all: the server is much quicker with it than with many."""
    entry = _held(some[0], request, lease_ms)
    guard = {
        "_id": {"$in": [each.guard["_id"] for each in some]},
        "v": some[0].guard["v"],
        "seq": {"$in": [each.guard["seq"] for each in some]},  # none is given twice, so each finds its own
    }
    return UpdateMany(guard, {"$set": documents.first_held(entry) | {"claim": request.request}, "$inc": {"v": 1}})


def _rest(entry: Entry) -> tuple[str, str]:
    return entry.run.id.key, entry.run.id.stamp


def _run_of(key: Doc) -> tuple[str, str, str]:
    return key["job"], key["key"], key["stamp"]


def _mark(update: Doc, name: str, value: object) -> None:
    update["$set"][name] = value
    del update["$unset"][name]


def _note(view: View, shown: Doc, *, of_any: bool) -> None:
    kind = shown.get("kind")  # what comes next is shown as it is: anything else takes much longer
    if kind == "lapsed":
        view.lapsed = True
    elif kind == "held":
        view.held.append(documents.entry_of(shown["doc"]))
    elif kind == "live":
        view.slots.setdefault(shown["of"], []).append(shown.get("slot"))
    else:
        candidate = Candidate(
            entry=documents.entry_of(shown),
            now=documents.now_of(shown["now"]),
            guard=documents.guard(shown),
            token=documents.next_token(shown),
            fresh="attempt" not in shown and "rearmed" not in shown and shown["status"] == "scheduled",
        )
        view.queues.setdefault(_ANY if of_any else candidate.entry.run.job, []).append(candidate)


def _most(want: Want | None, limit: int) -> int:
    """How many runs of the job the claim may take at the most."""
    most = limit if want is None or want.limit is None else min(want.limit, limit)
    return most if want is None or want.max_running is None else min(most, want.max_running)


def _left(wants: Sequence[Want] | None, taken: Sequence[Entry]) -> tuple[Want, ...] | None:
    """The wants, less what was taken already."""
    if wants is None:
        return None
    counts: dict[str, int] = {}
    for entry in taken:
        counts[entry.run.job] = counts.get(entry.run.job, 0) + 1
    return tuple(
        want
        if want.limit is None or want.job not in counts
        else Want(job=want.job, limit=want.limit - counts[want.job], max_running=want.max_running, lease=want.lease)
        for want in wants
    )


def _room(view: View, want: Want, limit: int) -> int:
    """How many more runs of the job may be taken now (G12)."""
    most = _most(want, limit)
    return most if want.max_running is None else min(most, want.max_running - len(view.slots.get(want.job, ())))


def _free(view: View, want: Want) -> Iterator[int]:
    """The places of the job that nobody has, lowest first."""
    used = set(view.slots.get(want.job, ()))
    return (slot for slot in range(want.max_running or 0) if slot not in used)


def _chosen(view: View, wants: Sequence[Want] | None, limit: int, own: Collection[RunId]) -> list[Candidate]:
    """Candidates from the front of all queues together, until ``limit`` of them may be taken; none of ``own``.

    Those that are to be buried are not counted, so a queue may end before its room does. What comes next in it has not
    been shown then, and may come before what the others show: nothing more is chosen until one has looked again.
    """
    room = {_ANY: limit} if wants is None else {want.job: _room(view, want, limit) for want in wants}
    shown = {of: len(queue) for of, queue in view.queues.items() if len(queue) >= view.asked[of]}
    chosen: list[Candidate] = []
    for each in heapq.merge(*view.queues.values(), key=lambda each: each.rank):
        of = _ANY if wants is None else each.entry.run.job
        if room[of] <= 0 or each.entry.run.id in own:
            continue
        chosen.append(each)
        if not each.exhausted:
            limit -= 1
            room[of] -= 1
        if of in shown:
            shown[of] -= 1
        if limit <= 0 or (shown.get(of) == 0 and room[of] > 0):
            break
    return chosen


def _rank(entry: Entry) -> tuple[int, int, int]:
    """The order of claims (G13): highest priority first, then ``run_at``, then submission."""
    run = entry.run
    return -run.priority, to_ms(run.run_at), run.sequence


def _answer(entries: Sequence[Entry]) -> Sequence[Run]:
    """In the order in which they were taken."""
    return [documents.public(entry) for entry in entries]
