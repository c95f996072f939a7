"""A client process: ``python -m onceward.conformance.child`` with its role on standard input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec

from onceward.conformance.clients import Role
from onceward.conformance.recorder import FileRecorder
from onceward.conformance.register import FileRegister
from onceward.conformance.workloads import WORKLOADS, Worker
from onceward.contracts import CheckIn, CheckOut, ConfigWrite, LockId, LockRequest, RunId, Runner, RunSpec


def main() -> None:
    """The role was played to its end."""
    role = msgspec.json.decode(sys.stdin.buffer.readline(), type=Role)
    with role.opening.open() as runner:
        say("ready")
        if sys.stdin.buffer.readline().strip() != b"go":
            return
        ACTS[role.act](runner, role)


def say(line: str) -> None:
    """The parent hears it at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def workload(runner: Runner, role: Role) -> None:
    """One client of a concurrent history."""
    worker = Worker(
        runner=runner,
        client=role.client,
        recorder=FileRecorder(Path(role.record)),
        register=FileRegister(Path(role.register)),
        seed=role.seed,
        steps=role.steps,
        lease=role.lease,
    )
    WORKLOADS[role.workload](worker)


def enter_and_hang(runner: Runner, role: Role) -> None:
    """A check-in was admitted and told, and then nothing more happens, until the parent kills this process."""
    run = RunId("crash", str(role.arguments["key"]))
    most = role.arguments.get("max_crashes")
    answer = runner.executor.checkin(
        CheckIn(run=run, holder=role.client, lease=role.lease, max_crashes=None if most is None else int(most))
    )
    say(f"{answer.outcome.value} {answer.run.token} {answer.run.attempt}")
    hang()


def lock_and_hang(runner: Runner, role: Role) -> None:
    """A lock was acquired and told, and then nothing more happens."""
    name = LockId(str(role.arguments["key"]))
    answer = runner.executor.lock(LockRequest(lock=name, holder=role.client, lease=role.lease))
    say(f"{'acquired' if answer.acquired else 'refused'} {0 if answer.lease is None else answer.lease.token} 0")
    hang()


def write_and_hang(runner: Runner, role: Role) -> None:
    """One acknowledged write of each kind, each told when it was acknowledged, again and again until killed."""
    for number in range(10_000):
        lease = timedelta(hours=1)
        ended = runner.executor.checkin(CheckIn(run=RunId("done", str(number)), holder=role.client, lease=lease)).run
        assert ended.lease is not None  # a fresh key is admitted
        if runner.executor.checkout([CheckOut.succeeded(ended.lease, {"n": number})])[0]:
            say(f"done {number} {ended.token}")
        held = runner.executor.checkin(CheckIn(run=RunId("held", str(number)), holder=role.client, lease=lease)).run
        say(f"held {number} {held.token}")
        if runner.scheduler.submit([RunSpec.of("waits", str(number), {"n": number})])[0]:
            say(f"waits {number} 0")
        answer = runner.executor.lock(LockRequest(lock=LockId(f"lock {number}"), holder=role.client, lease=lease))
        say(f"lock {number} {0 if answer.lease is None else answer.lease.token}")
        written = runner.scheduler.write_config(ConfigWrite(name=f"c{number}", document=number, expected_version=0))
        say(f"config {number} {0 if written is None else written.version}")


def look(runner: Runner, role: Role) -> None:
    """What another process wrote is told."""
    found = runner.executor.check(RunId("shared", str(role.arguments["key"])))
    say("absent" if found is None else f"{found.status.value} {found.token}")


def hang() -> None:
    """Nothing happens until this process is killed."""
    while True:
        time.sleep(60)


ACTS: Mapping[str, Callable[[Runner, Role], None]] = {
    "workload": workload,
    "enter_and_hang": enter_and_hang,
    "lock_and_hang": lock_and_hang,
    "write_and_hang": write_and_hang,
    "look": look,
}

if __name__ == "__main__":
    main()
