"""Stampedes: all at the same moment want the same thing, round after round; one gets it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import TypeVar

from onceward.conformance.clients import eager_switching
from onceward.conformance.machine import told
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    ConfigWrite,
    Lease,
    LockId,
    LockRequest,
    RunId,
    Runner,
    RunSpec,
    Want,
)

T = TypeVar("T")

CLIENTS = 6
ROUNDS = 25
HOUR = timedelta(hours=1)


def stampede(runners: list[Runner], call: Callable[[Runner, int], T]) -> list[T]:
    """The answers of all clients, who asked at the same moment.

    Raises:
        Exception: what the first client that failed had raised.
    """
    barrier = threading.Barrier(len(runners))
    answers: dict[int, T] = {}
    errors: list[Exception] = []

    def ask(index: int) -> None:
        try:
            barrier.wait()
            answers[index] = call(runners[index], index)
        except Exception as error:  # told to the caller, who raises it
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(runners))]
    with eager_switching():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [answers[index] for index in range(len(runners))]


class Arena:
    """Clients of one fresh namespace, and what they ask of it together."""

    def __init__(self, trial: Trial, stack: ExitStack) -> None:
        trial.begin_case()
        self.trial = trial
        self.runner = stack.enter_context(trial.harness.fresh_runner())
        others = [trial.harness.another(self.runner) for _ in range(CLIENTS - 1)]
        for other in others:
            if other is not self.runner:
                stack.callback(other.close)
        self.runners = [self.runner, *others]
        self.rng = random.Random(f"race/{trial.seed}")

    def all_ask(self, doing: str, call: Callable[[Runner, int], T]) -> list[T]:
        """The answers; they are in the history."""
        self.trial.log = []
        try:
            answers = stampede(self.runners, call)
        except Exception as error:
            self.trial.say(f"{CLIENTS} clients at once: {doing} -> {type(error).__name__}")
            raise self.trial.blame(error, doing) from error
        for index, answer in enumerate(answers):
            self.trial.say(f"client {index}: {doing} -> {told(answer)}")
        return answers

    def lapse(self, lease: Lease) -> None:
        """The lease is over, and not a moment more."""
        harness = self.trial.harness
        if harness.movable and lease.duration is not None:
            harness.advance(lease.duration)
        else:
            harness.lapse(self.runner, lease)

    def one(self, guarantee: str, winners: list[T], what: str) -> T:
        """Exactly one has won."""
        self.trial.expect(guarantee, len(winners) == 1, lambda: f"{what}: {len(winners)} of {CLIENTS} won")
        return winners[0]


def checkins(trial: Trial) -> None:
    """New keys, and keys whose holder is dead, are wanted by all at once."""
    with ExitStack() as stack:
        arena = Arena(trial, stack)
        for number in range(ROUNDS):
            run = RunId("race", f"k{number}")
            lease = _race_in(arena, run, CheckInOutcome.ADMITTED)
            if number % 5 == 0:
                arena.lapse(lease)
                newer = _race_in(arena, run, CheckInOutcome.TAKEN_OVER)
                trial.expect("G2", newer.token > lease.token, f"token {newer.token} after {lease.token}")
                lease = newer
            _race_out(arena, lease)


def _race_in(arena: Arena, run: RunId, expected: CheckInOutcome) -> Lease:
    def ask(runner: Runner, index: int) -> tuple[CheckInOutcome, Lease | None]:
        answer = runner.executor.checkin(CheckIn(run=run, holder=f"c{index}", lease=HOUR))
        return answer.outcome, answer.run.lease

    answers = arena.all_ask(f"checkin({run})", ask)
    winner = arena.one("G1", [lease for outcome, lease in answers if outcome.admitted], f"check-in on {run}")
    outcomes = {outcome for outcome, _ in answers}
    right = outcomes == {expected, CheckInOutcome.RUNNING}
    arena.trial.expect("G8", right, lambda: f"{run}: the answers were {sorted(o.value for o in outcomes)}")
    same = {(None if lease is None else lease.token) for _, lease in answers}
    arena.trial.expect("C2", len(same) == 1, lambda: f"{run}: the answers showed the tokens {same}")
    assert winner is not None  # the admitted have leases, as the line above has shown
    return winner


def _race_out(arena: Arena, lease: Lease) -> None:
    """All check out with the same token, each on its own account: one is recorded."""

    def ask(runner: Runner, index: int) -> tuple[bool, int]:
        return runner.executor.checkout([CheckOut.succeeded(lease, {"by": index})])[0], index

    answers = arena.all_ask(f"checkout({lease.resource})", ask)
    _, winner = arena.one("G6", [each for each in answers if each[0]], f"check-out of {lease.resource}")
    assert isinstance(lease.resource, RunId)  # a run's lease
    record = arena.runner.executor.check(lease.resource)
    kept = record is not None and record.result == {"by": winner}
    arena.trial.expect("G6", kept, lambda: f"client {winner} was told that its check-out counts, recorded is {record}")


def locks(trial: Trial) -> None:
    """A lock that is free, was let go of, or has lapsed is wanted by all at once."""
    with ExitStack() as stack:
        arena = Arena(trial, stack)
        name, newest = LockId("race"), 0
        for number in range(ROUNDS):

            def ask(runner: Runner, index: int) -> tuple[bool, Lease | None]:
                answer = runner.executor.lock(LockRequest(lock=name, holder=f"c{index}", lease=HOUR))
                return answer.acquired, answer.lease

            answers = arena.all_ask("lock('race')", ask)
            lease = arena.one("G3", [lease for acquired, lease in answers if acquired], "the lock")
            assert lease is not None  # acquired
            trial.expect("G2", lease.token > newest, f"token {lease.token} after {newest}")
            newest = lease.token
            if number % 5 == 0:
                arena.lapse(lease)
                continue
            freed = arena.all_ask("unlock('race')", lambda runner, _, held=lease: runner.executor.unlock(held))  # type: ignore[misc]
            trial.expect("G7", all(freed), lambda f=freed: f"unlocked at once by its own lease: {f}")  # type: ignore[misc]


def claims(trial: Trial) -> None:
    """All claim at once: the claims are disjoint, complete, and within the limits."""
    with ExitStack() as stack:
        arena = Arena(trial, stack)
        for number in range(ROUNDS):
            job, most = f"job{number}", arena.rng.choice((None, 1, 2))
            count, limit = arena.rng.randrange(1, 9), arena.rng.randrange(1, 4)
            arena.runner.scheduler.submit([RunSpec.of(job, f"k{index}") for index in range(count)])
            want = Want(job=job, max_running=most)

            def ask(runner: Runner, index: int, want: Want = want, limit: int = limit) -> list[str]:
                claim = Claim(holder=f"c{index}", lease=HOUR, limit=limit, wants=(want,))
                return [run.key for run in runner.executor.claim(claim)]

            answers = arena.all_ask(f"claim({job}, limit={limit}, max_running={most}) of {count}", ask)
            taken = [key for keys in answers for key in keys]
            trial.expect("G1", len(set(taken)) == len(taken), lambda t=taken: f"claimed twice: {t}")  # type: ignore[misc]
            if most is not None:
                trial.expect("G12", len(taken) <= most, f"{len(taken)} run, at most {most} may")
            late = [ask(runner, index) for index, runner in enumerate(arena.runners)]
            got = len(taken) + sum(len(keys) for keys in late)
            room = count if most is None else min(count, most)
            least = min(room, CLIENTS * limit)
            trial.expect("J6", least <= got <= room, f"{got} were claimed, {least} to {room} could be")


def configs(trial: Trial) -> None:
    """All count up in one document: every accepted edit is in it."""
    with ExitStack() as stack:
        arena = Arena(trial, stack)
        edits = 8

        def ask(runner: Runner, _: int) -> list[int]:
            versions: list[int] = []
            while len(versions) < edits:
                found = runner.scheduler.read_config("count")
                count = found.document if found is not None and isinstance(found.document, int) else 0
                version = 0 if found is None else found.version
                write = ConfigWrite(name="count", document=count + 1, expected_version=version)
                written = runner.scheduler.write_config(write)
                if written is not None:
                    versions.append(written.version)
            return versions

        answers = arena.all_ask(f"{edits} edits", ask)
        versions = sorted(version for each in answers for version in each)
        trial.expect("G11", versions == list(range(1, CLIENTS * edits + 1)), lambda: f"versions given out: {versions}")
        final = arena.runner.scheduler.read_config("count")
        right = final is not None and final.document == CLIENTS * edits
        trial.expect("G11", right, lambda: f"{CLIENTS * edits} edits were accepted, the document is {final}")


CHECKINS = Property(
    id="checkin.race",
    statement="Of all who check in, or out, at the same moment exactly one is told yes.",
    guarantees=("G1", "G2", "G6", "G8", "C2"),
    experiment=checkins,
    weight=0.7,
)
LOCKS = Property(
    id="lock.race",
    statement="Of all who ask for a lock at the same moment exactly one gets it.",
    guarantees=("G2", "G3", "G7"),
    experiment=locks,
    weight=0.7,
)
CLAIMS = Property(
    id="queue.race",
    statement="Claims at the same moment are disjoint, complete, and within the limits.",
    guarantees=("G1", "G12", "J6"),
    experiment=claims,
    weight=0.7,
)
CONFIGS = Property(
    id="queue.config_race",
    statement="Edits of a configuration at the same moment are all in it.",
    guarantees=("G11",),
    experiment=configs,
    weight=0.4,
)
