"""Workers of job servers on a store: claims, ends, crashes and shutdowns, and what must come out of it all."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import rule

from onceward.conformance.machine import HOLDERS, Machine, explore, holders, picked, picks, quietly, told
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import Json, RunId, RunQuery, Status
from onceward.toolkit.jobs import FatalError, JobContext, JobSettings, Launcher, Retry, Snooze, job
from onceward.toolkit.jobs.retry import Backoff
from onceward.toolkit.server.attempt import Attempt
from onceward.toolkit.server.capacity import Plan
from onceward.toolkit.server.events import Events
from onceward.toolkit.server.settings import ServerSettings
from onceward.toolkit.server.worker import Worker

JOB, LIMIT, TRIES = "work", 3, 2
RETRY = Retry(attempts=TRIES, delay=timedelta(0), backoff=Backoff.FIXED, jitter=0.0, max_crashes=None)
SETTINGS = JobSettings(retry=RETRY)
#: How a run ends, and how often it has failed by then.
ENDS = {
    "ok": (Status.SUCCEEDED, 0),
    "fail": (Status.FAILED, TRIES),
    "fatal": (Status.FAILED, 1),
    "snooze": (Status.SUCCEEDED, 0),
}
_PATIENCE = 200


class Waiting:
    """Bodies that run when the machine says so."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def start(self, attempt: Attempt) -> None:
        """It waits for its turn."""
        self.attempts.append(attempt)

    def close(self) -> None:
        """There is nothing to close."""


class WorkerMachine(Machine):
    """G1, G2, G4, G8, G12, G17, J6, J7: whatever servers do, each run ends once, as it should, within the limits."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.programs: dict[str, str] = {}
        self.snoozed: set[str] = set()
        self.tokens: dict[RunId, int] = {}
        self.bodies: dict[str, Waiting] = {}
        self.workers: dict[str, Worker] = {}
        self.zombies: list[tuple[Worker, Attempt]] = []
        self.retired: list[Worker] = []
        for holder in HOLDERS:
            self._start(holder)

    def _start(self, holder: str) -> None:
        @job(name=JOB, retry=RETRY, max_running=LIMIT, lock_lifetime=timedelta(hours=1))
        def work(ctx: JobContext) -> Json:
            match ctx.data:
                case "fail":
                    raise ValueError("as it should")
                case "fatal":
                    raise FatalError("as it should")
                case "snooze" if ctx.key not in self.snoozed:
                    self.snoozed.add(ctx.key)
                    raise Snooze(timedelta(0))
            return ctx.attempt

        plan = Plan(work, work.settings())
        client = self.client(holder)
        self.bodies[holder] = Waiting()
        self.workers[holder] = Worker(
            client,
            ServerSettings(max_concurrency=2, default_concurrency=2),
            lambda: {JOB: plan},
            launcher=Launcher(client.scheduler, lambda name: plan.settings),
            events=Events(),
            bodies=self.bodies[holder],
        )

    @rule(count=st.integers(1, 3), program=st.sampled_from(tuple(ENDS)), priority=st.sampled_from((0, 0, 5)))
    def submit(self, count: int, program: str, priority: int) -> None:
        """Runs are submitted."""
        launcher = Launcher(self.runner.scheduler, lambda name: SETTINGS)
        for _ in range(count):
            key = f"{len(self.programs)}"
            self.programs[key] = program
            submit = partial(launcher.launch, JOB, program, key=key, priority=priority)
            self.ask(f"submit {key} ({program})", submit)

    @rule(holder=holders)
    def claim(self, holder: str) -> None:
        """A server takes what it can start."""
        worker = self.workers[holder]
        taken = self.ask(f"{holder}.claim()", worker.claim)
        for attempt in worker.running():
            known, token = self.tokens.get(attempt.run.id, 0), attempt.held.token
            self.expect("G2", token >= known, lambda: f"{attempt.run.id}: token {token} after {known}")  # noqa: B023
            self.tokens[attempt.run.id] = token
        held = [attempt.run.id for each in self.workers.values() for attempt in each.running()]
        self.expect("G1", len(set(held)) == len(held), lambda: f"two servers have one run: {held}")
        self.expect("G12", len(held) <= LIMIT, lambda: f"{len(held)} run at once, at most {LIMIT} may")
        here = len(worker.running())
        self.expect("G12", here <= 2, lambda: f"{here} runs in a process that may run 2, after taking {taken}")

    @rule(holder=holders, pick=picks)
    def end(self, holder: str, pick: int) -> None:
        """A body runs to its end, which is recorded."""
        attempt = picked(self.bodies[holder].attempts, pick)
        if attempt is None:
            return
        self.bodies[holder].attempts.remove(attempt)
        self._perform(holder, self.workers[holder], attempt)
        self._recorded(attempt)

    @rule(holder=holders)
    def crash(self, holder: str) -> None:
        """A server dies with what it had, and another one starts in its place, after the leases are over."""
        self.claim(holder)
        worker = self.workers[holder]
        for attempt in worker.running():
            self.trial.harness.lapse(self.runner, attempt.held.lease)
            self.zombies.append((worker, attempt))
        self.trial.say(f"{holder}: died with {len(worker.running())} runs")
        self.trial.faults["job server dropped with its runs (crash simulated)"] += 1
        self.retired.append(worker)
        self._start(holder)

    @rule(holder=holders, pick=picks)
    def wake_up(self, holder: str, pick: int) -> None:
        """A server that was thought dead ends a run that somebody else has by now: nothing of it counts."""
        zombie = picked(self.zombies, pick)
        if zombie is None:
            return
        for each in (holder, *HOLDERS):
            self.claim(each)
        self.zombies.remove(zombie)
        worker, attempt = zombie
        before = self.runner.executor.check(attempt.run.id)
        assert before is not None  # it was claimed
        self._perform("a dead server", worker, attempt)
        after = self.runner.executor.check(attempt.run.id)
        if before.token != attempt.held.token:
            self.expect("G4", after == before, lambda: f"a stale end made {before} to {after}")
        else:
            self._recorded(attempt)

    @rule(holder=holders)
    def shut_down(self, holder: str) -> None:
        """A server gives back what it has, and another one starts in its place."""
        worker = self.workers[holder]
        worker.stop_claiming()
        given = self.ask(f"{holder}: shutdown", worker.give_up)
        self.ask(f"{holder}: check-outs", worker.flusher.flush)
        running = self.runner.lifecycle.runs(RunQuery(statuses=frozenset({Status.RUNNING})))
        left = [run.id for run in running if run.lease is not None and run.lease.holder == worker.holder]
        self.expect("G17", not left and not len(worker.flusher), lambda: f"gave back {given}, still has {left}")
        self.retired.append(worker)
        self._start(holder)

    @rule()
    def settle(self) -> None:
        """Servers work undisturbed until nothing is left: every run has ended as it should."""
        for _ in range(_PATIENCE):
            moved = 0
            for holder in HOLDERS:
                moved += self.workers[holder].claim()
                while self.bodies[holder].attempts:
                    self.end(holder, 0)
                    moved += 1
            if not moved:
                break
        runs = {run.key: run for run in self.runner.lifecycle.runs(RunQuery(job=JOB, limit=10_000))}
        for key, program in self.programs.items():
            status, failures = ENDS[program]
            run = runs.get(key)
            self.expect("J6", run is not None and run.status is status, lambda: f"{key} ({program}) is {told(run)}")  # noqa: B023
            assert run is not None  # just expected
            failed = run.failures
            self.expect("J7", failed == failures, lambda: f"{key} failed {failed} times")  # noqa: B023

    def _perform(self, who: str, worker: Worker, attempt: Attempt) -> None:
        def end() -> None:
            attempt.perform()
            worker.flusher.flush()

        self.ask(f"{who}: ends {attempt.run.key} #{attempt.run.attempt}", end)

    def _recorded(self, attempt: Attempt) -> None:
        found = self.runner.executor.check(attempt.run.id)
        known = found is not None and any(
            each.token == attempt.held.token and each.ending is not None for each in found.attempts
        )
        self.expect("G6", known, lambda: f"the end of {attempt.run.id} #{attempt.run.attempt} is not recorded: {found}")

    def teardown(self) -> None:
        """Nothing is renewed any more."""
        for worker in [*self.workers.values(), *self.retired]:
            worker.close(timedelta(seconds=1))
        super().teardown()


MODEL = Property(
    id="worker.model",
    statement="Whatever job servers do on the store, crash or shut down, each run ends once, as it should.",
    guarantees=("G1", "G2", "G4", "G6", "G12", "G17", "J6", "J7"),
    experiment=quietly(explore(WorkerMachine, cases=12, steps=30)),
)
