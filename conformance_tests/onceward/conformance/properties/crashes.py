"""A client dies between check-in and check-out: nobody is admitted before its lease ends, exactly one right after.

Where processes may share the store, the client is a process that is killed. Elsewhere the crash is simulated: the
client object is dropped; the report says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from onceward.conformance.clients import Child, Role
from onceward.conformance.properties.races import stampede
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun
from onceward.contracts import CheckIn, CheckInOutcome, Lease, LockId, LockRequest, OnAbandoned, RunId, Runner

RIVALS = 4
KEY = "crash"


@dataclass(frozen=True)
class Dead:
    """What a client had when it died.

    Attributes:
        since: monotonic time before it asked: its lease ends at ``since + lease`` at the earliest.
    """

    token: int
    attempt: int
    since: float


class Scene:
    """A namespace, its clients, and ways to die in it."""

    def __init__(self, trial: Trial, stack: ExitStack) -> None:
        trial.begin_case()
        self.trial = trial
        self.harness = trial.harness
        self.killing = trial.traits.shared
        opened = self.harness.timed_runner() if self.killing else self.harness.fresh_runner()
        self.runner = stack.enter_context(opened)
        self.moved = self.harness.movable and not self.killing
        shortest = max(trial.traits.min_lease, trial.traits.lease_granularity)
        self.lease = timedelta(seconds=10) if self.moved else max(shortest, timedelta(milliseconds=600))
        self.rivals = [self.runner, *(self._client(stack) for _ in range(RIVALS - 1))]

    def _client(self, stack: ExitStack) -> Runner:
        opening = self.harness.opening(self.runner) if self.killing else None
        if opening is None:
            return self.runner
        return stack.enter_context(opening.open())

    def die(self, act: str, pretend: Callable[[], tuple[str, int, int]], **arguments: str | int | None) -> Dead:
        """A client acquired and died; what it was told last."""
        if not self.killing:
            since = time.monotonic()
            outcome, token, attempt = pretend()
            self.trial.faults["client object dropped (crash simulated)"] += 1
        else:
            since, outcome, token, attempt = self._kill(act, arguments)
        self.trial.say(f"a client was told {outcome}, token {token}, attempt {attempt}; then it died")
        self.trial.expect(
            "C2", outcome in ("admitted", "taken_over", "acquired"), f"the first client was told {outcome}"
        )
        return Dead(token, attempt, since)

    def _kill(self, act: str, arguments: dict[str, str | int | None]) -> tuple[float, str, int, int]:
        with child(self.trial, self.runner, act, self.lease, arguments) as victim:
            since = time.monotonic()
            victim.go()
            told = victim.line().split()
            victim.kill()
        if len(told) != 3:
            raise CouldNotRun(f"the client to be killed said {told}")
        self.trial.faults["client process killed (SIGKILL)"] += 1
        return since, told[0], int(told[1]), int(told[2])

    def before_the_end(self, dead: Dead, refused: Callable[[], tuple[bool, str]]) -> None:
        """Until the lease is over, whoever asks is refused."""
        if self.moved:
            for part in (timedelta(0), self.lease / 2, self.lease / 2 - timedelta(milliseconds=1)):
                self.harness.advance(part)
                right, told = refused()
                self.trial.expect("G8", right, f"before the lease was over somebody was told {told}")
            self.harness.advance(timedelta(milliseconds=1))
            return
        asked = 0
        while True:
            right, told = refused()
            if time.monotonic() >= dead.since + self.lease.total_seconds() - 0.005:
                break  # the answer may have come after the end
            asked += 1
            self.trial.expect("G8", right, f"before the lease was over somebody was told {told}")
            if not right:
                break
            time.sleep(self.lease.total_seconds() / 12)
        if not asked:
            self.trial.notes.append("the machine was too slow to ask anything before the lease was over")

    def wait_out(self, remaining: timedelta | None) -> None:
        """The lease is over, by what the store says is left of it."""
        if not self.moved and remaining is not None:
            slack = self.trial.traits.expiry_slack + self.trial.traits.lease_granularity + timedelta(milliseconds=5)
            time.sleep(max(0.0, (remaining + slack).total_seconds()))


@contextmanager
def child(
    trial: Trial, runner: Runner, act: str, lease: timedelta, arguments: dict[str, str | int | None]
) -> Iterator[Child]:
    """A client process with the store open, waiting to be told to go; dead afterwards."""
    opening = trial.harness.opening(runner)
    if opening is None:
        raise CouldNotRun("the store says that processes may share it, but the harness has no opening() for them")
    made = Child(
        Role(
            opening=opening,
            workload="",
            client=f"victim{trial.cases}-{trial.operations}",
            seed=0,
            steps=0,
            lease=lease,
            record="",
            register="",
            act=act,
            arguments=arguments,
        )
    )
    try:
        made.wait_ready()
        yield made
    finally:
        made.kill()
        if made.process.stderr is not None:
            made.process.stderr.close()


def checkin_crash(trial: Trial) -> None:
    """Two crashes: the first is forgiven and taken over, the second ends the run."""
    with ExitStack() as stack:
        scene = Scene(trial, stack)
        run = RunId("crash", KEY)
        try:
            first = _die_in(scene, run)
            trial.expect("C2", first.attempt == 1, f"the first attempt is numbered {first.attempt}")
            _refused_then_over(scene, run, first)
            second = _die_in(scene, run)
            right = second.attempt == 2 and second.token > first.token
            trial.expect("G2", right, f"attempt {second.attempt} with token {second.token} after {first.token}")
            _refused_then_over(scene, run, second)
            _race_for_the_dead(scene, run, CheckInOutcome.FAILED)
        except Exception as error:
            raise trial.blame(error, "taking over from the dead") from error


def checkin_takeover(trial: Trial) -> None:
    """After the end of a dead client's lease all check in at once; one takes over."""
    with ExitStack() as stack:
        scene = Scene(trial, stack)
        run = RunId("crash", KEY)
        try:
            dead = _die_in(scene, run)
            _refused_then_over(scene, run, dead)
            leases = _race_for_the_dead(scene, run, CheckInOutcome.TAKEN_OVER)
            trial.expect("G2", leases[0].token > dead.token, f"token {leases[0].token} after {dead.token}")
            record = scene.runner.executor.check(run)
            right = record is not None and (record.attempt, record.crashes) == (2, 1)
            trial.expect("G8", right, lambda: f"after one crash and one takeover the record is {record}")
        except Exception as error:
            raise trial.blame(error, "taking over from the dead") from error


def _die_in(scene: Scene, run: RunId) -> Dead:
    def pretend() -> tuple[str, int, int]:
        answer = scene.runner.executor.checkin(CheckIn(run=run, holder="victim", lease=scene.lease, max_crashes=1))
        return answer.outcome.value, answer.run.token, answer.run.attempt

    return scene.die("enter_and_hang", pretend, key=run.key, max_crashes=1)


def _refused_then_over(scene: Scene, run: RunId, dead: Dead) -> None:
    """Nobody is admitted before the end; then it is over. A HOLD request looks without taking anything."""

    def refused() -> tuple[bool, str]:
        request = CheckIn(run=run, holder="early", lease=scene.lease, on_abandoned=OnAbandoned.HOLD)
        answer = scene.runner.executor.checkin(request)
        return answer.outcome is CheckInOutcome.RUNNING, answer.outcome.value

    scene.before_the_end(dead, refused)
    request = CheckIn(run=run, holder="early", lease=scene.lease, on_abandoned=OnAbandoned.HOLD)
    scene.wait_out(scene.runner.executor.checkin(request).remaining)


def _race_for_the_dead(scene: Scene, run: RunId, expected: CheckInOutcome) -> list[Lease]:
    """All rivals check in at once; exactly one gets what is expected, or all are told that it failed."""
    hour = timedelta(hours=1)
    answers = stampede(
        scene.rivals,
        lambda runner, index: runner.executor.checkin(
            CheckIn(run=run, holder=f"rival{index}", lease=hour, max_crashes=1)
        ),
    )
    for index, answer in enumerate(answers):
        scene.trial.say(f"rival{index}.checkin({run}) -> {answer.outcome.value}, attempt {answer.run.attempt}")
    told = sorted(answer.outcome.value for answer in answers)
    rest = CheckInOutcome.RUNNING if expected.admitted else expected
    right = told == sorted([expected.value, *[rest.value] * (RIVALS - 1)])
    scene.trial.expect("G8", right, f"after the end of the dead client's lease the rivals were told {told}")
    return [answer.run.lease for answer in answers if answer.outcome.admitted and answer.run.lease is not None]


def lock_crash(trial: Trial) -> None:
    """The holder of a lock dies; after its lease one of the rivals gets the lock."""
    with ExitStack() as stack:
        scene = Scene(trial, stack)
        name = LockId(KEY)

        def pretend() -> tuple[str, int, int]:
            answer = scene.runner.executor.lock(LockRequest(lock=name, holder="victim", lease=scene.lease))
            return "acquired" if answer.acquired else "refused", 0 if answer.lease is None else answer.lease.token, 0

        def refused() -> tuple[bool, str]:
            listed = [
                state for state in scene.runner.lifecycle.locks() if (state.remaining or timedelta(0)) > timedelta(0)
            ]
            return [state.lease.resource for state in listed] == [name], f"that {len(listed)} locks are held"

        try:
            dead = scene.die("lock_and_hang", pretend, key=KEY)
            scene.before_the_end(dead, refused)
            states = scene.runner.lifecycle.locks()
            scene.wait_out(states[0].remaining if states else None)
            answers = stampede(
                scene.rivals,
                lambda runner, index: runner.executor.lock(
                    LockRequest(lock=name, holder=f"rival{index}", lease=timedelta(hours=1))
                ),
            )
        except Exception as error:
            raise trial.blame(error, "locking after the dead") from error
        won = [answer.lease for answer in answers if answer.acquired and answer.lease is not None]
        trial.expect("G8", len(won) == 1, f"after the end of the dead holder's lease {len(won)} rivals got the lock")
        trial.expect("G2", won[0].token > dead.token, f"token {won[0].token} after {dead.token}")


def checkin_crashes(trial: Trial) -> None:
    """Both stories."""
    checkin_takeover(trial)
    checkin_crash(trial)


CHECKIN = Property(
    id="checkin.crash",
    statement="A dead client's run is taken over by exactly one after its lease and by nobody before; crashes count.",
    guarantees=("G2", "G8", "C2"),
    experiment=checkin_crashes,
    weight=0.8,
)
LOCK = Property(
    id="lock.crash",
    statement="A dead holder's lock goes to exactly one after its lease and to nobody before.",
    guarantees=("G2", "G8"),
    experiment=lock_crash,
    weight=0.6,
)
