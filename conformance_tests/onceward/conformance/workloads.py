"""What concurrent clients do: random but seeded programs that lose leases, come late, repeat themselves and give up.

The draws are made before the store is asked and do not depend on its answers, so a seed gives every client the same
program each time; only the interleaving differs.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from msgspec.structs import replace

from onceward.conformance.history import Kind, Op, Outcome, Seen
from onceward.conformance.recorder import Recorder, Scribe
from onceward.conformance.register import Register
from onceward.contracts import (
    Admission,
    CheckIn,
    CheckOut,
    Claim,
    Ending,
    Lease,
    LockAnswer,
    LockId,
    LockRequest,
    Renewal,
    Renewed,
    Run,
    RunId,
    Runner,
    RunSpec,
    Want,
)

JOB = "work"
MAX_RUNNING = 3


@dataclass(frozen=True)
class Step:
    """One step of a client's program; every field is drawn beforehand."""

    resource: int
    act: str
    pause: float
    repeat: bool
    limit: int
    """How many runs to claim at most."""
    tries: int
    """How often to ask before giving up."""


#: What holders do with what they got, and how often.
ACTS = (
    *("finish",) * 7,
    *("retry",) * 4,
    *("renew",) * 3,
    *("late",) * 2,
    *("abandon",) * 2,
    *("give_back",) * 1,
)


def program(seed: int, client: str, steps: int, resources: int) -> Iterator[Step]:
    """The steps of one client; the resources move on with the steps, so that clients meet."""
    rng = random.Random(f"{seed}/{client}")
    for index in range(steps):
        yield Step(
            resource=index // 3 + rng.randrange(resources),
            act=rng.choice(ACTS),
            pause=rng.random() * 0.003,
            repeat=rng.random() < 0.2,
            limit=rng.choice((1, 1, 2, 5)),
            tries=rng.choice((1, 1, 2, 6)),
        )


def to_the_end() -> bool:
    """True: clients go on until their program is over."""
    return True


@dataclass
class Worker:
    """One client with its runner, its program and its record.

    Attributes:
        going: asked before each step; False: that was enough.
        pace: seconds of rest after each step.
    """

    runner: Runner
    client: str
    recorder: Recorder
    register: Register
    seed: int
    steps: int
    lease: timedelta
    going: Callable[[], bool] = to_the_end
    pace: float = 0.0

    def __post_init__(self) -> None:
        self.scribe = Scribe(self.client, self.recorder)
        self._requests = 0

    @property
    def seconds(self) -> float:
        """The length of its leases."""
        return self.lease.total_seconds()

    def program(self, resources: int) -> Iterator[Step]:
        """The steps of its program, for as long as it is to go on."""
        for step in program(self.seed, self.client, self.steps, resources):
            if not self.going():
                return
            yield step
            time.sleep(self.pace)

    def request(self) -> str:
        """A request id that nobody else uses in this history."""
        self._requests += 1
        return f"{self.client}-{self._requests}"

    def op(self, kind: Kind, resource: str, request: str) -> Op:
        """An operation, not sent yet."""
        return Op(
            client=self.client, kind=kind, resource=resource, request=request, inv=0, ret=0, outcome=Outcome.UNKNOWN
        )

    # -- runs ---------------------------------------------------------------------------------------------------

    def checkin(self, request: CheckIn) -> Admission | None:
        """The answer to the check-in, if there was one."""
        op = replace(self.op(Kind.CHECKIN, str(request.run), request.request), lease=self.seconds)
        return self.scribe.send(op, lambda: self.runner.executor.checkin(request), _read_admission)

    def claim(self, request: Claim) -> Sequence[Run]:
        """The runs that were claimed."""
        op = replace(self.op(Kind.CLAIM, "", request.request), lease=self.seconds, call=request.request)
        runs = self.scribe.send_batch([op], lambda: self.runner.executor.claim(request), _read_claim)
        return runs or ()

    def submit(self, specs: Sequence[RunSpec]) -> None:
        """The runs exist."""
        ops = [self.op(Kind.SUBMIT, str(spec.id), spec.request) for spec in specs]
        self.scribe.send_batch(
            ops,
            lambda: self.runner.scheduler.submit(specs),
            lambda ops, _: [replace(op, outcome=Outcome.DONE) for op in ops],
        )

    def finish(self, lease: Lease, ending: Ending, *, twice: bool = False) -> None:
        """The lease's attempt has ended, if the token was still the newest."""
        request = CheckOut(lease=lease, ending=ending, request=self.request())
        op = self._about(Kind.CHECKOUT, lease)
        op = replace(op, own=request.request, ending=ending.value)
        for _ in range(1 + twice):
            self.scribe.send(op, lambda: self.runner.executor.checkout([request])[0], _read_flag)
        if twice:
            self.recorder.fault("check-out sent twice")

    # -- leases of both kinds -----------------------------------------------------------------------------------

    def renew(self, lease: Lease) -> None:
        """The lease goes on, if it was still held."""
        op = replace(self._about(Kind.RENEW, lease), lease=self.seconds)
        self.scribe.send(op, lambda: self.runner.executor.renew([Renewal(lease=lease)])[0], _read_renewed)

    def unlock(self, lease: Lease) -> None:
        """The lock is free, if it was still held."""
        self.scribe.send(self._about(Kind.UNLOCK, lease), lambda: self.runner.executor.unlock(lease), _read_flag)

    def lock(self, request: LockRequest) -> Lease | None:
        """The lease, if the lock was granted."""
        op = replace(self.op(Kind.LOCK, request.lock.name, request.request), lease=self.seconds)
        answer = self.scribe.send(op, lambda: self.runner.executor.lock(request), _read_lock)
        return answer.lease if answer is not None and answer.acquired else None

    def count(self, lease: Lease, pause: float) -> None:
        """The counter that the lock guards is one larger, unless the token is stale by then."""
        name = f"counter of {lease.resource}"
        read = replace(self.op(Kind.READ, name, lease.request), token=lease.token)
        value = self.scribe.send(read, lambda: self.register.read(name, lease.token), _read_value)
        time.sleep(pause)
        if value is not None:
            write = replace(self.op(Kind.WRITE, name, lease.request), token=lease.token, value=value + 1)
            self.scribe.send(write, lambda: self.register.write(name, lease.token, value + 1), _read_flag)

    def outlast(self) -> None:
        """This client was paused until its lease is over."""
        self.recorder.fault("client paused past its lease")
        time.sleep(self.seconds * 1.25)

    def _about(self, kind: Kind, lease: Lease) -> Op:
        return replace(self.op(kind, _name(lease), lease.request), token=lease.token)


def _name(lease: Lease) -> str:
    return lease.resource.name if isinstance(lease.resource, LockId) else str(lease.resource)


def _read_admission(op: Op, answer: Admission) -> Op:
    run = answer.run
    if answer.outcome.admitted and run.lease is not None:
        return replace(op, outcome=Outcome.GRANTED, token=run.lease.token, attempt=run.attempt)
    last = run.attempts[-1] if run.attempts else None
    seen = Seen(status=answer.outcome.value)
    if last is not None:
        seen = Seen(status=answer.outcome.value, attempt=last.number, token=last.token, request=last.request)
    return replace(op, outcome=Outcome.REFUSED, seen=seen)


def _read_claim(ops: list[Op], runs: Sequence[Run]) -> list[Op]:
    if not runs:
        return [replace(ops[0], outcome=Outcome.REFUSED)]
    return [
        replace(
            ops[0],
            resource=str(run.id),
            outcome=Outcome.GRANTED,
            token=run.token,
            attempt=run.attempt,
            rank=(-run.priority, run.run_at.timestamp(), run.sequence),
        )
        for run in runs
    ]


def _read_lock(op: Op, answer: LockAnswer) -> Op:
    if answer.acquired and answer.lease is not None:
        return replace(op, outcome=Outcome.GRANTED, token=answer.lease.token)
    return replace(op, outcome=Outcome.LOST if answer.lease is None else Outcome.REFUSED)


def _read_flag(op: Op, done: bool) -> Op:
    return replace(op, outcome=Outcome.DONE if done else Outcome.LOST)


def _read_renewed(op: Op, answer: Renewed) -> Op:
    return replace(op, outcome=Outcome.LOST if answer is Renewed.LOST else Outcome.DONE)


def _read_value(op: Op, value: int | None) -> Op:
    return replace(op, outcome=Outcome.LOST if value is None else Outcome.DONE, value=value)


# -- the programs -----------------------------------------------------------------------------------------------


def checkins(worker: Worker) -> None:
    """Everybody checks in on the same keys."""
    for step in worker.program(4):
        run = RunId(JOB, f"k{step.resource}")
        for _ in range(step.tries):
            request = CheckIn(run=run, holder=worker.client, lease=worker.lease, request=worker.request())
            answer = worker.checkin(request)
            if step.repeat:
                worker.recorder.fault("check-in sent twice")
                answer = worker.checkin(request) or answer
            if answer is not None and answer.outcome.admitted and answer.run.lease is not None:
                _go_on(worker, answer.run.lease, step)
                break
            if answer is not None and answer.run.status.ended:
                break
            time.sleep(worker.seconds / 4)


def _go_on(worker: Worker, lease: Lease, step: Step) -> None:
    """What becomes of an attempt."""
    time.sleep(step.pause)
    match step.act:
        case "abandon":
            worker.recorder.fault("client forgot its lease")
            return
        case "late":
            worker.outlast()
        case "renew":
            worker.renew(lease)
    ending = {"retry": Ending.RETRY, "give_back": Ending.RELEASED}.get(step.act, Ending.SUCCEEDED)
    worker.finish(lease, ending, twice=step.repeat)
    if step.act == "late":
        worker.renew(lease)


def locks(worker: Worker) -> None:
    """Everybody wants the same locks, and counts while it has one."""
    for step in worker.program(2):
        name = LockId(f"lock{step.resource % 3}")
        request = LockRequest(lock=name, holder=worker.client, lease=worker.lease, request=worker.request())
        lease = worker.lock(request)
        if step.repeat:
            worker.recorder.fault("lock request sent twice")
            lease = worker.lock(request) or lease
        if lease is None:
            time.sleep(worker.seconds / 4 if step.tries > 2 else step.pause)
            continue
        worker.count(lease, step.pause)
        if step.act == "abandon":
            worker.recorder.fault("client forgot its lease")
            continue
        if step.act == "late":
            worker.outlast()
        if step.act in ("renew", "late"):
            worker.renew(lease)
        worker.unlock(lease)
        if step.repeat:
            worker.unlock(lease)


def queue(worker: Worker) -> None:
    """Some submit, all claim, never more than a few at a time."""
    wants = (Want(job=JOB, max_running=MAX_RUNNING),)
    for index, step in enumerate(worker.program(4)):
        if index % 3 == 0:
            ids = [RunId(JOB, f"{worker.client}.{index}.{n}") for n in range(step.limit)]
            worker.submit([RunSpec(id=run, priority=step.resource % 3, request=worker.request()) for run in ids])
        _claim(worker, step, wants)


def backlog(worker: Worker) -> None:
    """All claim from what was submitted before, without limits."""
    for step in worker.program(4):
        _claim(worker, plainly(step), None)


def plainly(step: Step) -> Step:
    """Backlogs are worked off without detours, so that places in the order stay what they were."""
    return dataclasses.replace(step, act=step.act if step.act == "abandon" else "finish")


def _claim(worker: Worker, step: Step, wants: tuple[Want, ...] | None) -> None:
    request = Claim(holder=worker.client, lease=worker.lease, limit=step.limit, wants=wants, request=worker.request())
    runs = worker.claim(request)
    if step.repeat and runs:
        worker.recorder.fault("claim sent twice")
        runs = worker.claim(request)
    for run in runs:
        if run.lease is not None:
            _go_on(worker, run.lease, step)
    if not runs:
        time.sleep(step.pause)


WORKLOADS: Mapping[str, Callable[[Worker], None]] = {
    "checkin": checkins,
    "lock": locks,
    "queue": queue,
    "backlog": backlog,
}
