"""Clients that really run at the same time: threads of this process, and processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec

from onceward.conformance.harness import Harness, Opening
from onceward.conformance.history import Op
from onceward.conformance.nemesis import Nemesis
from onceward.conformance.recorder import ListRecorder, read_lines
from onceward.conformance.register import Register, ThreadRegister
from onceward.conformance.verdicts import CouldNotRun
from onceward.conformance.workloads import WORKLOADS, Worker
from onceward.contracts import Runner
from onceward.contracts.records import Record

#: So long may processes take to start, or to end after their work should be done.
PATIENCE = 60.0


@dataclass
class Episode:
    """What one concurrent run brought: everything that was done, what went wrong, and which faults fired."""

    history: list[Op] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def take(self, recorder: ListRecorder) -> None:
        """One more client's record."""
        self.history.extend(op for _, op in sorted(recorder.ops.items()))
        self.faults.update(recorder.faults)
        self.problems.extend(recorder.problems)


@dataclass(frozen=True)
class Cast:
    """Who plays: so many clients, each with so many steps, on leases of that length, resting ``pace`` seconds each."""

    workload: str
    clients: int
    steps: int
    lease: timedelta
    seed: int
    pace: float = 0.0

    def name(self, index: int) -> str:
        """The client's name; unique within the namespace."""
        return f"{'abcdefghijklmnopqrstuvwxyz'[index % 26]}{index // 26 or ''}"


@contextmanager
def eager_switching() -> Iterator[None]:
    """Threads take turns as often as the interpreter can, so that interleavings differ."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once() -> None:
    """Nothing has to be done before clients begin."""


def run_threads(
    harness: Harness,
    runner: Runner,
    cast: Cast,
    *,
    begin: Callable[[], None] = at_once,
    meanwhile: Callable[[Sequence[ListRecorder]], None] | None = None,
) -> Episode:
    """Each client is a thread, with a client of the store of its own where the harness makes one.

    ``begin`` is called when all have opened it, ``meanwhile`` while they are at work, which ends when it returns;
    without it, their programs are played to the end.
    """
    done = threading.Event()
    barrier = threading.Barrier(cast.clients)
    register: Register = ThreadRegister()
    runners = [runner if index == 0 else _own(harness, runner) for index in range(cast.clients)]
    recorders = [ListRecorder() for _ in runners]
    crashes: list[BaseException] = []

    def play(index: int) -> None:
        worker = Worker(
            runner=runners[index],
            client=cast.name(index),
            recorder=recorders[index],
            register=register,
            seed=cast.seed,
            steps=cast.steps,
            lease=cast.lease,
            going=lambda: not done.is_set(),
            pace=cast.pace,
        )
        try:
            barrier.wait()
            WORKLOADS[cast.workload](worker)
        except BaseException as error:  # told to the caller, who raises it
            crashes.append(error)

    threads = [threading.Thread(target=play, args=(index,), daemon=True) for index in range(cast.clients)]
    begin()
    with eager_switching():
        for thread in threads:
            thread.start()
        try:
            if meanwhile is not None:
                meanwhile(recorders)
        finally:
            if meanwhile is not None:
                done.set()
            for thread in threads:
                thread.join()
    for other in {id(other): other for other in runners if other is not runner}.values():
        other.close()
    if crashes:
        raise crashes[0]
    episode = Episode()
    for recorder in recorders:
        episode.take(recorder)
    return episode


def _own(harness: Harness, runner: Runner) -> Runner:
    """Another client of a timed runner's store."""
    opening = harness.opening(runner)
    return runner if opening is None else opening.open()


class Role(Record, frozen=True, kw_only=True):
    """What a client process is told on its standard input."""

    opening: Opening
    workload: str
    client: str
    seed: int
    steps: int
    lease: timedelta
    record: str
    register: str
    act: str = "workload"
    arguments: Mapping[str, str | int | float | None] = {}


class Child:
    """A client process. It opens the store, says so, and starts when it is told to."""

    def __init__(self, role: Role) -> None:
        self.role = role
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onceward.conformance.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self._send(msgspec.json.encode(role))

    def wait_ready(self) -> None:
        """The child has the store open.

        Raises:
            CouldNotRun: it could not open it; tells why.
        """
        if self.line() != "ready":
            raise CouldNotRun(f"a client process could not open the store: {self.last_words()}")

    def go(self) -> None:
        """The child starts its program."""
        self._send(b"go")

    def line(self) -> str:
        """What the child says next; "" when it has ended."""
        assert self.process.stdout is not None  # a pipe, see above
        return self.process.stdout.readline().decode().strip()

    def last_words(self) -> str:
        """The end of what the child wrote to its standard error."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return errors.decode(errors="replace").strip()[-600:]

    def kill(self) -> None:
        """The child is dead, at once, and reaped."""
        self.process.kill()
        self.process.wait()
        self._close()

    def wait(self, timeout: float) -> int:
        """The child's exit status. It is killed if it is not done in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CouldNotRun(f"a client process was not done after {timeout:.0f} s") from None
        finally:
            self._close()

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None  # a pipe, see above
        try:
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise CouldNotRun(f"a client process ended early: {self.last_words()}") from None

    def _close(self) -> None:
        if self.process.poll() is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()


def run_processes(
    opening: Opening, cast: Cast, folder: Path, nemesis: Nemesis, *, begin: Callable[[], None] = at_once
) -> Episode:
    """Each client is a process of its own, which the nemesis may stop or kill; ``begin`` as for threads."""
    children = [
        Child(
            Role(
                opening=opening,
                workload=cast.workload,
                client=cast.name(index),
                seed=cast.seed,
                steps=cast.steps,
                lease=cast.lease,
                record=str(folder / f"client-{index}.jsonl"),
                register=str(folder / "register.db"),
            )
        )
        for index in range(cast.clients)
    ]
    try:
        for child in children:
            child.wait_ready()
        begin()
        for child in children:
            child.go()
        nemesis.torment([child.process for child in children], cast.lease)
        killed = set(nemesis.killed)
        for child in children:
            status = child.wait(PATIENCE)
            if status != 0 and child.process.pid not in killed:
                raise CouldNotRun(f"a client process failed: {child.last_words() if child.process.stderr else status}")
    finally:
        for child in children:
            if child.process.poll() is None:
                child.kill()
            if child.process.stderr is not None:
                child.process.stderr.close()
    episode = Episode(faults=Counter(nemesis.faults))
    for child in children:
        episode.take(read_lines(Path(child.role.record)))
    return episode
