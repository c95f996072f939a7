"""Watches: open first, look, then wait: no change in between is missed, and none while waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta

from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import (
    CheckIn,
    CheckOut,
    ConfigWrite,
    Interest,
    LockId,
    LockRequest,
    RunId,
    Runner,
    RunSpec,
)

HOUR = timedelta(hours=1)
#: Longer than any store may take to tell; a change that is told at once ends the wait at once.
PATIENCE = 20.0


def watches(trial: Trial) -> None:
    """Every kind of change, before the wait and during it."""
    for during in (False, True):
        for name, (interest, prepare, change) in CHANGES.items():
            _told(trial, name, interest, prepare, change, during=during)
    _due(trial)
    _closed(trial)


def _told(
    trial: Trial,
    name: str,
    interest: Interest,
    prepare: Callable[[Runner], object],
    change: Callable[[Runner], object],
    *,
    during: bool,
) -> None:
    trial.begin_case()
    with ExitStack() as stack:
        runner = stack.enter_context(trial.harness.timed_runner())
        opening = trial.harness.opening(runner) if trial.traits.shared else None
        other = runner if opening is None else stack.enter_context(opening.open())
        try:
            prepare(runner)
            watch = stack.enter_context(runner.scheduler.watch(interest))
            while watch.wait(0.0):
                pass  # what happened before may be told, and is of no interest here
            timer = threading.Timer(0.05 if during else 0.0, change, args=(other,))
            timer.start()
            if not during:
                timer.join()
            told = watch.wait(PATIENCE)
            timer.join()
        except Exception as error:
            raise trial.blame(error, f"watching for {name}") from error
    when = "during" if during else "before"
    trial.say(f"{name} {when} the wait -> {told}")
    trial.expect("G15", told, f"{name} {when} the wait was not told within {PATIENCE:g} s")


def _submit(runner: Runner) -> object:
    return runner.scheduler.submit([RunSpec.of("job", "k")])


def _lock(runner: Runner) -> object:
    return runner.executor.lock(LockRequest(lock=LockId("l"), holder="ann", lease=HOUR))


def _unlock(runner: Runner) -> object:
    return [runner.executor.unlock(state.lease) for state in runner.lifecycle.locks()]


def _enter(runner: Runner) -> object:
    return runner.executor.checkin(CheckIn(run=RunId("job", "k"), holder="ann", lease=HOUR))


def _leave(runner: Runner) -> object:
    run = runner.executor.check(RunId("job", "k"))
    assert run is not None  # checked in before
    assert run.lease is not None  # and still held
    return runner.executor.checkout([CheckOut.succeeded(run.lease)])


def _retry(runner: Runner) -> object:
    run = runner.executor.check(RunId("job", "k"))
    assert run is not None  # checked in before
    assert run.lease is not None  # and still held
    return runner.executor.checkout([CheckOut.retry(run.lease)])


def _configure(runner: Runner) -> object:
    return runner.scheduler.write_config(ConfigWrite(name="c", document=1, expected_version=0))


def _nothing(_: Runner) -> object:
    return None


CHANGES: dict[str, tuple[Interest, Callable[[Runner], object], Callable[[Runner], object]]] = {
    "a submission": (Interest(jobs=frozenset({"job"})), _nothing, _submit),
    "a retry that is due": (Interest(jobs=frozenset({"job"})), _enter, _retry),
    "a lock set free": (Interest(locks=frozenset({"l"})), _lock, _unlock),
    "the end of a run": (Interest(runs=frozenset({RunId("job", "k")})), _enter, _leave),
    "a configuration": (Interest(configs=True), _nothing, _configure),
}


def _due(trial: Trial) -> None:
    """A run that becomes due while a watch waits is told."""
    trial.begin_case()
    with trial.harness.timed_runner() as runner, runner.scheduler.watch(Interest(jobs=frozenset({"job"}))) as watch:
        soon = timedelta(milliseconds=150)
        try:
            runner.scheduler.submit([RunSpec(id=RunId("job", "k"), after=soon)])
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until and watch.wait(max(0.0, until - time.monotonic())):
                if runner.lifecycle.now() >= _due_time(runner):
                    break
        except Exception as error:
            raise trial.blame(error, "watching for a run to become due") from error
        trial.say("a run became due during the wait")
        trial.expect("G15", time.monotonic() < until, f"a run that became due was not told within {PATIENCE:g} s")


def _due_time(runner: Runner) -> datetime:
    run = runner.executor.check(RunId("job", "k"))
    assert run is not None  # submitted before
    return run.run_at


def _closed(trial: Trial) -> None:
    """Closing a watch ends a wait."""
    trial.begin_case()
    with trial.harness.timed_runner() as runner:
        watch = runner.scheduler.watch(Interest(configs=True))
        answers: list[bool] = []
        waiting = threading.Thread(target=lambda: answers.append(watch.wait(PATIENCE * 2)), daemon=True)
        waiting.start()
        watch.close()
        watch.close()
        waiting.join(PATIENCE)
        trial.say(f"closed during the wait -> {answers}")
        trial.expect("G15", answers == [False], lambda: f"after close() a wait answered {answers}")


WATCH = Property(
    id="queue.watch",
    statement="A watch tells of every change since it was opened, and of what becomes due.",
    guarantees=("G15",),
    experiment=watches,
    weight=0.5,
)
