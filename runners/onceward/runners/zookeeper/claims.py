"""Claims: a survey of the lists, a look at the runs at their front, and one transaction that takes them.

What is taken leaves its list in the same transaction. So two claims never take the same run: the second one's
transaction is refused, and it surveys again. That also makes the generation of the record needless here: a run that
was purged and made again is listed under another name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice

from onceward.contracts import transitions
from onceward.contracts.errors import OncewardError, OutcomeUnknown, StoreError
from onceward.contracts.records import Run, Status
from onceward.contracts.requests import Claim, Want
from onceward.contracts.times import span_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.combining import Combiner, undivided
from onceward.runners.zookeeper import wire
from onceward.runners.zookeeper.errors import contended
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import Layout, mark, parent
from onceward.runners.zookeeper.rows import MOST_TOGETHER, Kept, mine, public, run_bytes, run_of
from onceward.runners.zookeeper.runs import Lists
from onceward.runners.zookeeper.settle import Found, Settler, found_in
from onceward.runners.zookeeper.survey import Due, JobSeen, Survey, Surveyor
from onceward.runners.zookeeper.tickets import Stamp
from onceward.runners.zookeeper.wire import Op, Refused

_MOST_BYTES = 600_000


@dataclass(eq=False)
class _Candidate:
    """A run that may be taken, as it was seen."""

    path: str
    found: Found
    kept: Kept
    used: bool = False

    @property
    def run(self) -> Run:
        return self.kept.entry.run

    @property
    def rank(self) -> tuple[int, int, int]:
        """The order of claims."""
        return -self.run.priority, to_ms(self.run.run_at), self.run.sequence


@dataclass(eq=False)
class _Asked:
    """A claim under way; ``answer`` None: not answered yet."""

    claim: Claim
    answer: list[Run] | BaseException | None = None


@dataclass(eq=False)
class _Pick:
    """What is written about one run. ``asked`` None: it ends, since its crash budget is used up."""

    candidate: _Candidate
    asked: _Asked | None
    data: bytes
    ops: list[Op]


@dataclass
class _Plan:
    """What a round of claims has decided."""

    now: Now
    jobs: dict[str, JobSeen]
    candidates: list[_Candidate] = field(default_factory=list)
    stale: bool = False
    """Something at the front was taken between the survey and the look at it."""
    picks: list[_Pick] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)


class Claims:
    """Carries out claims of all threads, as many together as there are."""

    def __init__(self, link: Link, layout: Layout, lists: Lists, settler: Settler) -> None:
        self._link, self._layout, self._lists, self._settler = link, layout, lists, settler
        self._surveyor = Surveyor(link, layout)
        self._combiner = Combiner[Claim, list[Run]](undivided(self._carry), most=64)

    def claim(self, request: Claim) -> list[Run]:
        """See ``Executor.claim``."""
        return self._combiner.call(request)

    def reset(self) -> None:
        """Nothing is under way; for a forked child."""
        self._combiner.reset()

    def _carry(self, requests: Sequence[Claim]) -> list[list[Run] | BaseException]:
        asked = [_Asked(request) for request in requests]
        deadline = time.monotonic() + self._link.options.timeout_ms / 1000
        together = MOST_TOGETHER
        while waiting := [each for each in asked if each.answer is None]:
            try:
                self._round(waiting, together)
            except OncewardError as error:
                for each in waiting:
                    each.answer = error if each.answer is None else each.answer
            together = 1  # somebody was quicker with one of them: now each by itself
            if time.monotonic() > deadline:
                for each in waiting:
                    if each.answer is None:
                        each.answer = contended(self._link.where, "what is due")
        return [each.answer if each.answer is not None else [] for each in asked]

    # -- one round ----------------------------------------------------------------------------------------------

    def _round(self, asked: Sequence[_Asked], together: int) -> None:
        survey = self._survey([each.claim for each in asked])
        plan = self._look(survey, [each.claim for each in asked])
        for each in asked:
            held = [c for c in plan.candidates if c.run.lease is not None and c.run.lease.request == each.claim.request]
            if held:
                held.sort(key=lambda candidate: (candidate.run.token, candidate.rank))
                each.answer = [public(candidate.run) for candidate in held]
            else:
                self._pick(each, plan)
        picked = {pick.asked for pick in plan.picks}
        hopeless = [each for each in asked if each not in picked and not plan.stale]
        self._write(plan, together, [page for job in survey.jobs for page in job.empty])
        for each in hopeless:
            each.answer = [] if each.answer is None else each.answer

    def _survey(self, claims: Sequence[Claim]) -> Survey:
        need = sum(claim.limit for claim in claims)
        if any(claim.wants is None for claim in claims):
            return self._surveyor.survey(None, need=need)
        jobs = dict.fromkeys(want.job for claim in claims for want in claim.wants or ())
        return self._surveyor.survey(list(jobs), need=need)

    def _look(self, survey: Survey, claims: Sequence[Claim]) -> _Plan:
        """The records of what is due, as many as may be taken, and of what may have lapsed."""
        wall = survey.stamp.wall
        marks = {mark(claim.request) for claim in claims}
        paths: dict[str, str] = {}
        suspects: dict[str, str] = {}
        for seen in survey.jobs:
            for held, _ in seen.held:
                if held.end <= wall or held.request in marks:
                    suspects[self._layout.run_named(seen.job, held.run)] = seen.job
        plan = _Plan(Now(wall, wall), {seen.job: seen for seen in survey.jobs})
        for job, due in _front(survey, claims):
            path = self._layout.run_named(job, due.waiting.run)
            ours = None if path in suspects else self._as_submitted(path, due)
            if ours is None:
                paths[path] = job
            else:
                plan.candidates.append(ours)
        wanted = list(suspects | paths)
        above = [each for each in dict.fromkeys(map(parent, wanted)) if each not in self._settler.generations]
        nodes = self._link.read([*above, *wanted]).nodes if wanted else []
        for path, node in zip(above, nodes, strict=False):
            if node is not None:
                self._settler.generations[path] = node.stat.version
        for path, node in zip(wanted, nodes[len(above) :], strict=True):
            found = found_in(node)
            kept = None if found is None else run_of(found.data, found.stamp)
            plan.stale |= path in paths and (kept is None or kept.entry.run.status is not Status.SCHEDULED)
            if found is not None and kept is not None:
                plan.candidates.append(_Candidate(path, found, kept))
        plan.candidates.sort(key=lambda candidate: candidate.rank)
        return plan

    def _as_submitted(self, path: str, due: Due) -> _Candidate | None:
        """The record as this process has written it, which need not be read: it is listed as it was then."""
        found = self._settler.known(path)
        kept = None if found is None else run_of(found.data, found.stamp)
        if found is None or kept is None or not due.path.endswith(f"/{kept.place}"):
            return None
        return _Candidate(path, found, kept)

    def _pick(self, asked: _Asked, plan: _Plan) -> None:
        """Take from the front, within each job's quota."""
        claim = asked.claim
        wants = claim.wants if claim.wants is not None else tuple(Want(job=job) for job in plan.jobs)
        by_job = {want.job: want for want in wants}
        quota = {want.job: _quota(want, claim, plan) for want in wants if want.job in plan.jobs}
        taken = 0
        for candidate in plan.candidates:
            job = candidate.run.job
            if taken == claim.limit:
                return
            if candidate.used or quota.get(job, 0) <= 0 or not transitions.claimable(candidate.kept.entry, plan.now):
                continue
            candidate.used = True
            if transitions.exhausted(candidate.kept.entry, plan.now):
                self._add(plan, candidate, None, transitions.bury(candidate.kept.entry, plan.now))
                continue
            want = by_job[job]
            entry = transitions.hold(
                candidate.kept.entry,
                holder=claim.holder,
                request=claim.request,
                lease_ms=span_ms(want.lease or claim.lease),
                now=plan.now,
                token=mine(len(plan.picks)),
            )
            self._add(plan, candidate, asked, entry)
            taken, quota[job] = taken + 1, quota[job] - 1
            if want.max_running is not None:
                plan.gated.add(job)
            plan.running[job] = plan.running.get(job, 0) + 1

    def _add(self, plan: _Plan, candidate: _Candidate, asked: _Asked | None, entry: Entry) -> None:
        kept, beside = self._lists.moved(candidate.kept, entry)
        data = run_bytes(kept)
        ops = [wire.change(candidate.path, data, candidate.found.version), *beside]
        plan.picks.append(_Pick(candidate, asked, data, ops))

    def _write(self, plan: _Plan, together: int, empty: Sequence[str]) -> None:
        gates = {job: plan.jobs[job].gate for job in plan.gated}
        beside = [[wire.delete(page)] for page in empty]
        for batches in _waves(list(_batches(plan.picks, together)), plan.gated) or [[]]:
            transactions = [self._transaction(batch, plan, gates) for batch in batches]
            if transactions or beside:
                outcomes = self._link.commit(transactions + beside)[: len(batches)]
                for batch, outcome in zip(batches, outcomes, strict=True):
                    for pick in batch:
                        self._written(pick, outcome)
                if not all(isinstance(outcome, Stamp) for outcome in outcomes):
                    return
            beside = []

    def _transaction(self, batch: Sequence[_Pick], plan: _Plan, gates: dict[str, int]) -> list[Op]:
        """What writes these picks, or none of them: also not if others have taken from a job with a limit (G12)."""
        ops = [op for pick in batch for op in pick.ops]
        for job in _gated(batch, plan.gated):
            ops.insert(0, wire.change(self._layout.queue(job), b"", gates[job]))
            ops += _sealed(plan, job, batch)
            gates[job] += 1
        return ops

    def _written(self, pick: _Pick, outcome: Stamp | Refused | StoreError) -> None:
        self._settler.forget(pick.candidate.path)
        if pick.asked is None:
            return
        before = pick.asked.answer
        if isinstance(outcome, Stamp):
            written = Found(pick.data, outcome, pick.candidate.found.version + 1)
            self._settler.remember(pick.candidate.path, written)
            if not isinstance(before, OutcomeUnknown):
                got = before if isinstance(before, list) else []
                pick.asked.answer = [*got, public(run_of(pick.data, outcome).entry.run)]
        elif isinstance(outcome, OutcomeUnknown) or (isinstance(outcome, StoreError) and before is None):
            pick.asked.answer = outcome  # a refusal of one part takes nothing from what another part has got


def _front(survey: Survey, claims: Sequence[Claim]) -> Iterable[tuple[str, Due]]:
    """What is due, in the order of claims, as many of each job and in all as the claims may take."""
    most: dict[str, int] = {}
    for claim in claims:
        wants = claim.wants if claim.wants is not None else [Want(job=seen.job) for seen in survey.jobs]
        for want in wants:
            limit = claim.limit if want.limit is None else min(want.limit, claim.limit)
            most[want.job] = most.get(want.job, 0) + limit
    front = []
    for seen in survey.jobs:
        due = (due for due in seen.first if due.waiting.run_at <= survey.stamp.wall)
        front += [(due, seen.job) for due in islice(due, most.get(seen.job, 0))]
    front.sort()
    return [(job, due) for due, job in front]


def _quota(want: Want, claim: Claim, plan: _Plan) -> int:
    """How many more runs of the job this claim may take."""
    limit = claim.limit if want.limit is None else min(want.limit, claim.limit)
    if want.max_running is None:
        return limit
    live = _live(plan.jobs[want.job], plan) + plan.running.get(want.job, 0)
    return min(limit, want.max_running - live)


def _live(seen: JobSeen, plan: _Plan) -> int:
    """How many of the job's leases are live: those that cannot have lapsed, and those that were looked at."""
    certain = sum(held.end > plan.now.wall for held, _ in seen.held)
    looked_at = (
        candidate
        for candidate in plan.candidates
        if candidate.run.job == seen.job and candidate.run.status is Status.RUNNING
    )
    unsure = {held.run for held, _ in seen.held if held.end <= plan.now.wall}
    return certain + sum(
        candidate.path.rpartition("/")[2] in unsure and not candidate.kept.entry.lapsed(plan.now)
        for candidate in looked_at
    )


def _sealed(plan: _Plan, job: str, batch: Sequence[_Pick]) -> list[Op]:
    """What makes sure that leases which have lapsed, and so do not count, stay so (G12).

    Whoever looked at such a run in time to renew it may write only now. So the record is written once more as it is,
    and gets a version that nobody knows who looked before. Where it was written after its lease had ended, it has one.
    """
    settled = {pick.candidate.path for pick in plan.picks if pick.asked is not None or pick in batch}
    return [
        wire.change(each.path, run_bytes(each.kept), each.found.version)
        for each in plan.candidates
        if each.run.job == job
        and each.path not in settled
        and each.kept.entry.lapsed(plan.now)
        and each.found.stamp.wall <= (each.kept.entry.until or 0)
    ]


def _waves(batches: Sequence[list[_Pick]], gated: Set[str]) -> list[list[list[_Pick]]]:
    """Batches that may be sent together, those that come after them, and so on.

    A second transaction on a job with a limit goes by the version that the first one gives to the job's queue. It must
    not be sent before that is done: if the first one is refused, somebody else may have made that very version.
    """
    waves: list[list[list[_Pick]]] = []
    passed: Counter[str] = Counter()
    for batch in batches:
        jobs = _gated(batch, gated)
        wave = max([passed[job] for job in jobs], default=0)
        passed.update({job: wave + 1 - passed[job] for job in jobs})
        while len(waves) <= wave:
            waves.append([])
        waves[wave].append(batch)
    return waves


def _gated(batch: Sequence[_Pick], gated: Set[str]) -> Set[str]:
    """The jobs with a limit of which a batch takes runs."""
    return {pick.candidate.run.job for pick in batch if pick.asked is not None} & gated


def _batches(picks: Sequence[_Pick], together: int) -> Iterable[list[_Pick]]:
    """All in one transaction, as far as there is room."""
    batch: list[_Pick] = []
    size = 0
    for pick in picks:
        length = sum(len(op.body) for op in pick.ops)
        if batch and (len(batch) == together or size + length > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(pick)
        size += length
    if batch:
        yield batch
