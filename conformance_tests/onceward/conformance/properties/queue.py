"""The state machine of the queue: submit, claim, reschedule, cancel and everything that can happen to a run."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import rule

from onceward.conformance.machine import explore, holders, picked, picks
from onceward.conformance.model.runs import Known
from onceward.conformance.properties.operator_rules import OperatedMachine
from onceward.conformance.properties.runs_machine import FAR, ODD, PAYLOADS, RUNS, brief, kept, runs
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import Cancelled, CheckIn, Claim, Json, OnFailed, Run, RunId, RunSpec, Status, Want

JOBS = ("orders", "orders/a")
WANTS = (None, (0,), (0,), (1,), (0, 1))
PRIORITIES = (0, 0, 5, -1)

specs = st.tuples(
    runs,
    st.sampled_from(PRIORITIES),
    st.sampled_from(("now", "now", "soon", "past", "later")),
    st.sampled_from((None, 0, 1)),
    st.sampled_from(PAYLOADS),
)


class QueueMachine(OperatedMachine):
    """G1, G2, G5-G8, G12, G13, J4: claims take what is due, in order, within the limits, and nothing else."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.specs: list[RunSpec] = []
        self.claims: list[tuple[Claim, bool]] = []

    # -- submit -------------------------------------------------------------------------------------------------

    @rule(drawn=st.lists(specs, min_size=1, max_size=4), holder=holders)
    def submit(self, drawn: list[tuple[RunId, int, str, int | None, Json]], holder: str) -> None:
        """New runs, or some that are known already."""
        batch = [self._spec(*each) for each in drawn]
        self.specs.extend(batch)
        self.enqueue(batch, holder)

    @rule(pick=picks, holder=holders)
    def repeat_submit(self, pick: int, holder: str) -> None:
        """A submission of earlier arrives again."""
        spec = picked(self.specs, pick)
        if spec is not None:
            self.enqueue([spec], holder)

    def _spec(self, run: RunId, priority: int, when: str, max_crashes: int | None, payload: Json) -> RunSpec:
        soon = timedelta(seconds=1) if self.exact else FAR
        moment = {"past": self.wall() - FAR, "later": self.wall() + FAR + ODD}.get(when)
        return RunSpec(
            id=run,
            payload=payload,
            priority=priority,
            run_at=moment,
            after=soon if when == "soon" else None,
            max_crashes=max_crashes,
            request=self.request(),
        )

    def enqueue(self, batch: list[RunSpec], holder: str) -> None:
        """Each run exists afterwards; the answer says which ones this submission made."""
        early = self.wall()
        before = {spec.id: self.look(spec.id) for spec in batch}
        answers = self.ask(
            f"{holder}.submit({', '.join(_shown(spec) for spec in batch)})",
            lambda: self.client(holder).scheduler.submit(batch),
        )
        self.expect("C2", len(answers) == len(batch), lambda: f"{len(batch)} asked, {len(answers)} answered")
        for spec, answer in zip(batch, answers, strict=True):
            self._answered(spec, answer, before, early)

    def _answered(self, spec: RunSpec, answer: bool, before: dict[RunId, Run | None], early: datetime) -> None:
        """One submission of a batch: made, or known before and not touched."""
        found, after = self.known.get(spec.id), self.look(spec.id)
        if found is None:
            self.expect("C2", answer and after is not None, lambda: f"new, but answered {answer}: {after}")
            assert after is not None  # just checked
            self._made(spec, after, early)
            before[spec.id] = after
            return
        law = "G7" if found.origin == spec.request else "G5"
        self.expect(law, answer is (found.origin == spec.request), lambda: f"known, but answered {answer}")
        self.expect(law, after == before[spec.id], lambda: f"a repeated submission made it {after}")

    def _made(self, spec: RunSpec, record: Run, early: datetime) -> None:
        if spec.run_at is None:
            self.due_now(record, early, spec.after or timedelta(0))
        else:
            right = record.run_at == kept(spec.run_at)
            self.expect("C2", right, lambda: f"asked for {spec.run_at}, it is due at {record.run_at}")
        self.create(
            spec.id, spec.request, record, payload=spec.payload, priority=spec.priority, max_crashes=spec.max_crashes
        )
        self.agrees(spec.id, record)

    # -- claim --------------------------------------------------------------------------------------------------

    @rule(
        holder=holders,
        limit=st.sampled_from((1, 2, 3, 10)),
        jobs=st.sampled_from(WANTS),
        most=st.sampled_from((None, None, 0, 1, 2)),
        running=st.sampled_from((None, None, 1, 2)),
        lease=st.integers(0, 1),
        own=st.booleans(),
    )
    def claim(
        self,
        holder: str,
        limit: int,
        jobs: tuple[int, ...] | None,
        most: int | None,
        running: int | None,
        lease: int,
        own: bool,
    ) -> None:
        """A new claim."""
        wants = None
        if jobs is not None:
            special = self.leases[1] if own else None
            wants = tuple(Want(job=JOBS[j], limit=most, max_running=running, lease=special) for j in jobs)
        length = self.leases[lease]
        assert length is not None  # only the last one is for ever
        request = Claim(holder=holder, lease=length, limit=limit, wants=wants, request=self.request())
        self.take(request)

    @rule(pick=picks)
    def repeat_claim(self, pick: int) -> None:
        """A claim of earlier arrives again, while it still holds something, or when it never did."""
        earlier = picked(self.claims[-3:], pick)
        if earlier is None:
            return
        request, fruitful = earlier
        held = [found for found in self.known.values() if found.asked_by(request.request)]
        if not held:
            if not fruitful:
                self.take(request)
            return
        before = {run: self.look(run) for run in RUNS}
        answer = self.ask(f"{request.holder}.claim({request.request}) again", lambda: self._claim(request))
        right = sorted(run.id for run in answer) == sorted(found.id for found in held)
        self.expect("G7", right, lambda: f"the claim holds {[found.id for found in held]}, repeated it got {answer}")
        after = {run: self.look(run) for run in RUNS}
        self.expect("G7", after == before, lambda: f"a repeated claim changed {before} into {after}")

    def _claim(self, request: Claim) -> list[Run]:
        return list(self.client(request.holder).executor.claim(request))

    def take(self, request: Claim) -> None:
        """Exactly what is due, in order, within the limits, is the holder's."""
        wall = self.wall()
        expected, spent = self._expected(request, wall)
        answer = self.ask(
            f"{request.holder}.claim({request.request}, limit={request.limit}, {_wanted(request)})",
            lambda: self._claim(request),
        )
        self.claims.append((request, bool(answer)))
        got = [run.id for run in answer]
        early = [run for run in got if run in self.known and not self.known[run].claimable(self.now_ms, wall)]
        held = [run for run in early if self.known[run].status is not Status.SCHEDULED]
        self.expect("G1", not held, lambda: f"claimed although held or ended: {held}")
        self.expect("J4", not early, lambda: f"claimed before its time: {early}")
        self._within_limits(request, answer)
        law = "G12" if self._limited(request) else "G8" if any(self._late(run) for run in expected) else "G13"
        self.expect(law, got == expected, lambda: f"claimed {got}, must be {expected}")
        for run in answer:
            found = self.known[run.id]
            lease = self._lease_for(request, run.id.job)
            self.begin(found, run, lease, holder=request.holder, request=request.request)
            self.agrees(run.id, run)
        for found, surely in spent:
            self._buried(found, surely=surely)

    def _expected(self, request: Claim, wall: datetime) -> tuple[list[RunId], list[tuple[Known, bool]]]:
        """The runs that the claim must get, and those whose crash budget is used up (and whether it must see them)."""
        room = self._room(request)
        due = [found for found in self.known.values() if found.claimable(self.now_ms, wall) and found.id.job in room]
        due.sort(key=lambda found: (-found.priority, found.run_at, found.order))
        taken: list[RunId] = []
        spent: list[Known] = []
        for found in due:
            if found.spent(self.now_ms, found.max_crashes):
                spent.append(found)
            elif len(taken) < request.limit and room[found.id.job] > 0:
                taken.append(found.id)
                room[found.id.job] -= 1
        unsated = len(taken) < request.limit
        return taken, [(found, unsated and room[found.id.job] > 0) for found in spent]

    def _room(self, request: Claim) -> dict[str, int]:
        """How many runs of each wanted job the claim may take."""
        if request.wants is None:
            return {found.id.job: request.limit for found in self.known.values()}
        room = {}
        for want in request.wants:
            most = request.limit if want.limit is None else want.limit
            if want.max_running is not None:
                most = min(most, want.max_running - self._live(want.job))
            room[want.job] = max(0, most)
        return room

    def _live(self, job: str) -> int:
        return sum(found.id.job == job and found.live(self.now_ms) for found in self.known.values())

    def _late(self, run: RunId) -> bool:
        return self.known[run].lapsed(self.now_ms)

    @staticmethod
    def _limited(request: Claim) -> bool:
        return any(want.max_running is not None or want.limit is not None for want in request.wants or ())

    @staticmethod
    def _lease_for(request: Claim, job: str) -> timedelta:
        own = next((want.lease for want in request.wants or () if want.job == job), None)
        return own or request.lease

    def _within_limits(self, request: Claim, answer: list[Run]) -> None:
        self.expect("G12", len(answer) <= request.limit, lambda: f"limit {request.limit}, got {len(answer)}")
        for want in request.wants or ():
            got = sum(run.id.job == want.job for run in answer)
            if want.limit is not None:
                self.expect("G12", got <= want.limit, f"at most {want.limit} wanted, got {got}")
            if want.max_running is not None and got:
                live = self._live(want.job) + got
                self.expect("G12", live <= want.max_running, f"{live} of {want.job} run, at most {want.max_running}")

    def _buried(self, found: Known, *, surely: bool) -> None:
        """A run whose crash budget is used up has ended, if the claim came to it."""
        record = self.look(found.id)
        ended = record is not None and record.status is Status.FAILED
        self.expect("G8", ended or not surely, lambda: f"{found.id} has no crash left, but is {record}")
        if ended:
            found.bury(self.now_ms)
        self.agrees(found.id, record)

    # -- other ways in and out ----------------------------------------------------------------------------------

    @rule(run=runs, holder=holders, lease=st.integers(0, 3), again=st.sampled_from(OnFailed))
    def checkin(self, run: RunId, holder: str, lease: int, again: OnFailed) -> None:
        """Somebody checks in on a run of the queue."""
        length = self.leases[lease % len(self.leases)]
        request = CheckIn(run=run, holder=holder, request=self.request(), lease=length, on_failed=again)
        self.checkins.append(request)
        self.enter(request)

    @rule(pick=picks, holder=holders)
    def claim_after_lapse(self, pick: int, holder: str) -> None:
        """A lease comes to its end, and somebody claims."""
        self.lapse(pick, False)
        self.take(Claim(holder=holder, lease=timedelta(hours=1), limit=2, request=self.request()))

    @rule(run=runs, when=st.sampled_from(("past", "later", "soon")))
    def reschedule(self, run: RunId, when: str) -> None:
        """A waiting run is due at another time."""
        moment = (
            self.wall() + {"past": -FAR, "later": FAR + ODD, "soon": timedelta(seconds=1) if self.exact else FAR}[when]
        )
        found, before = self.known.get(run), self.look(run)
        waiting = found is not None and found.status is Status.SCHEDULED
        answer = self.ask(f"reschedule({run}, {when})", lambda: self.runner.scheduler.reschedule(run, run_at=moment))
        self.expect("C2", answer is waiting, lambda: f"the reschedule was answered {answer}")
        if waiting and found is not None:
            found.run_at = kept(moment)
            self.agrees(run, self.look(run))
        else:
            after = self.look(run)
            self.expect("G5", after == before, lambda: f"a refused reschedule changed {before} into {after}")

    @rule(run=runs)
    def cancel(self, run: RunId) -> None:
        """Somebody cancels a run."""
        found = self.known.get(run)
        expected = Cancelled.ABSENT
        if found is not None:
            expected = {
                Status.SCHEDULED: Cancelled.CANCELLED,
                Status.CANCELLED: Cancelled.CANCELLED,
                Status.RUNNING: Cancelled.REQUESTED,
            }.get(found.status, Cancelled.ENDED)
        answer = self.ask(f"cancel({run})", lambda: self.runner.scheduler.cancel(run))
        self.expect("C2", answer is expected, lambda: f"the cancel was answered {answer}, must be {expected}")
        if found is not None and found.status is Status.SCHEDULED:
            found.drop(self.now_ms)
        elif found is not None and found.status is Status.RUNNING:
            found.cancel_requested = True
        self.agrees(run, self.look(run))


def _shown(spec: RunSpec) -> str:
    when = "past or later" if spec.run_at else brief(spec.after, "now")
    return f"{spec.id} priority {spec.priority} due {when} max_crashes={spec.max_crashes} {spec.request}"


def _wanted(request: Claim) -> str:
    if request.wants is None:
        return "any job"
    return "; ".join(
        want.job
        + (f" limit={want.limit}" if want.limit is not None else "")
        + (f" max_running={want.max_running}" if want.max_running is not None else "")
        for want in request.wants
    )


MODEL = Property(
    id="queue.model",
    statement="Every answer to a submit, claim, reschedule, cancel, check-out and renewal is the right one.",
    guarantees=("G1", "G2", "G4", "G5", "G6", "G7", "G8", "G12", "G13", "G14", "J4", "C2", "L7"),
    experiment=explore(QueueMachine, cases=40, steps=50),
    weight=2.5,
)
