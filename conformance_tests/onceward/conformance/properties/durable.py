"""What was acknowledged survives closing and opening the store, and the death of the process that wrote it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from onceward.conformance.clients import Child
from onceward.conformance.properties.crashes import child
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    ConfigWrite,
    InvalidRequest,
    LockId,
    LockRequest,
    RunId,
    Runner,
    RunSpec,
    Status,
)

HOUR = timedelta(hours=1)
#: The process that writes is killed after so many acknowledged writes: by turns early and late.
ACKNOWLEDGED = (7, 61, 160)


def reopen(trial: Trial) -> None:
    """Everything is there when the store is opened again, and tokens go on."""
    trial.begin_case()
    runner = trial.harness.timed_runner()
    try:
        before = _write(runner)
        trial.say("a check-out, a check-in, a submission, a lock and a configuration were written")
        runner = _again(trial, runner)
        after = _read(runner)
        for name, was in before.items():
            trial.expect("G6", after[name] == was, lambda n=name, w=was: f"{n} was {w}, now it is {after[n]}")  # type: ignore[misc]
        _tokens_go_on(trial, runner)
    except Exception as error:
        raise trial.blame(error, "closing and opening again") from error
    finally:
        runner.close()


def _again(trial: Trial, runner: Runner) -> Runner:
    try:
        opened = trial.harness.reopen(runner)
    except InvalidRequest as error:
        raise CouldNotRun(str(error)) from error
    trial.faults["store closed and opened again"] += 1
    if trial.harness.restart():
        trial.faults["server killed and started again"] += 1
    trial.say("-- the store is closed and opened again --")
    return opened


def _write(runner: Runner) -> dict[str, object]:
    ended = runner.executor.checkin(CheckIn(run=RunId("done", "k"), holder="ann", lease=HOUR)).run.lease
    assert ended is not None  # a new key
    runner.executor.checkout([CheckOut.succeeded(ended, {"n": 1})])
    runner.executor.checkin(CheckIn(run=RunId("held", "k"), holder="ann", lease=HOUR, payload=[1]))
    runner.scheduler.submit([RunSpec.of("waits", "k", {"n": 2}, priority=3)])
    runner.executor.lock(LockRequest(lock=LockId("l"), holder="ann", lease=HOUR, note="why"))
    runner.scheduler.write_config(ConfigWrite(name="c", document={"on": True}, expected_version=0))
    return _read(runner)


def _read(runner: Runner) -> dict[str, object]:
    read: dict[str, object] = {job: runner.executor.check(RunId(job, "k")) for job in ("done", "held", "waits")}
    read["lock"] = [(state.lease, state.acquired, state.note) for state in runner.lifecycle.locks()]
    read["config"] = runner.scheduler.configs()
    return read


def _tokens_go_on(trial: Trial, runner: Runner) -> None:
    """After opening, held is still held, done is still done, and new tokens are larger."""
    held = runner.executor.checkin(CheckIn(run=RunId("held", "k"), holder="bob", lease=HOUR))
    done = runner.executor.checkin(CheckIn(run=RunId("done", "k"), holder="bob", lease=HOUR))
    right = (held.outcome, done.outcome) == (CheckInOutcome.RUNNING, CheckInOutcome.DONE)
    trial.expect("G6", right, f"opened again, check-ins were told {held.outcome.value} and {done.outcome.value}")
    taken = runner.lifecycle.force_unlock(RunId("held", "k"))
    again = runner.executor.checkin(CheckIn(run=RunId("held", "k"), holder="bob", lease=HOUR))
    larger = taken is not None and again.outcome.admitted and again.run.token > taken.token
    trial.expect("G2", larger, lambda: f"taken from {taken}, the next lease is {again.run.lease}")


def kill(trial: Trial) -> None:
    """The process that writes is killed at an arbitrary moment; what it had told to be acknowledged is there."""
    for most in ACKNOWLEDGED:
        trial.begin_case()
        with trial.harness.timed_runner() as runner:
            runner.close()  # a durable store need not be shared; the writer has it alone
            with child(trial, runner, "write_and_hang", HOUR, {}) as writer:
                told = _listen(writer, most + trial.seed % 5)
            trial.faults["writing process killed (SIGKILL)"] += 1
            trial.say(f"a process was killed after {len(told)} acknowledged writes")
            runner = _again(trial, runner)
            try:
                for line in told:
                    _still_there(trial, runner, line)
                _no_torn_write(trial, runner)
            except Exception as error:
                raise trial.blame(error, "reading after the kill") from error
            finally:
                runner.close()


def _listen(writer: Child, most: int) -> Sequence[str]:
    """What the process told, up to a number of lines; it is killed while it goes on writing."""
    told: list[str] = []
    watchdog = threading.Timer(60, writer.process.kill)
    watchdog.start()
    try:
        writer.go()
        while len(told) < most and (line := writer.line()):
            told.append(line)
        writer.process.kill()
        with suppress(ValueError):
            while line := writer.line():  # what it had told before the kill came
                told.append(line)
    finally:
        watchdog.cancel()
    if len(told) < most:
        raise CouldNotRun(f"the process that was to write ended after {len(told)} writes")
    return [line for line in told if len(line.split()) == 3]


def _still_there(trial: Trial, runner: Runner, line: str) -> None:
    """One acknowledged write is still there."""
    kind, number, token = line.split()
    if kind in ("done", "held", "waits"):
        status = {"done": Status.SUCCEEDED, "held": Status.RUNNING, "waits": Status.SCHEDULED}[kind]
        run = runner.executor.check(RunId(kind, number))
        right = run is not None and (run.status, run.token) == (status, int(token))
        trial.expect("G6", right, lambda: f"acknowledged {line!r}, after the kill it is {run}")
    elif kind == "lock":
        held = {state.lease.resource: state.lease.token for state in runner.lifecycle.locks()}
        found = held.get(LockId(f"lock {number}"))
        trial.expect("G6", found == int(token), lambda: f"acknowledged {line!r}, after the kill its token is {found}")
    else:
        document = runner.scheduler.read_config(f"c{number}")
        right = document is not None and (document.document, document.version) == (int(number), int(token))
        trial.expect("G6", right, lambda: f"acknowledged {line!r}, after the kill it is {document}")


def _no_torn_write(trial: Trial, runner: Runner) -> None:
    """The store works on, with larger tokens."""
    newest = max((state.lease.token for state in runner.lifecycle.locks()), default=0)
    answer = runner.executor.lock(LockRequest(lock=LockId("lock 0"), holder="bob", lease=HOUR))
    forced = runner.lifecycle.force_unlock(LockId("lock 0"))
    again = runner.executor.lock(LockRequest(lock=LockId("lock 0"), holder="bob", lease=HOUR))
    first = 0 if forced is None else forced.token
    right = again.acquired and again.lease is not None and again.lease.token > first
    trial.expect("G2", right, lambda: f"{answer}; newest {newest}; forced {forced}; then {again}")


REOPEN = Property(
    id="durable.reopen",
    statement="What was acknowledged is there after closing and opening the store, and tokens go on.",
    guarantees=("G2", "G6"),
    needs=("durable",),
    experiment=reopen,
    weight=0.5,
)
KILL = Property(
    id="durable.kill",
    statement="What was acknowledged is there after the process that wrote it was killed.",
    guarantees=("G2", "G6"),
    needs=("durable",),
    experiment=kill,
    weight=1.0,
)
