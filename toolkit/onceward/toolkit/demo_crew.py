"""The worker processes of the demonstration, as their parent sees them: started, listened to, one killed, all ended."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import IO, Self

import msgspec

from onceward.contracts import OncewardError
from onceward.toolkit.demo_report import DemoProgress, WorkerProgress
from onceward.toolkit.demo_worker import Event, Setup

DEADLINE = timedelta(minutes=5)
_SHOW_EVERY = 0.1
_GRACE = 2.0

OnProgress = Callable[[DemoProgress], None]


class DemoFailed(OncewardError):
    """The demonstration could not be run to its end."""


@dataclass
class Member:
    """One worker process, as its parent sees it."""

    number: int
    process: subprocess.Popen[str]
    ended: int = 0
    refused: int = 0
    ready: bool = False
    alive: bool = True

    def say(self, line: str) -> None:
        """The worker is told, unless it is gone."""
        pipe = _pipe(self.process.stdin)
        try:
            pipe.write(line + "\n")
            pipe.flush()
        except OSError:
            self.alive = False


class Crew:
    """The worker processes. A context manager: none of them is left behind."""

    def __init__(self, setup: Setup, *, workers: int, orders: int) -> None:
        self._setup, self._workers, self._orders = setup, workers, orders
        self._told: queue.Queue[tuple[Member, Event | None]] = queue.Queue()
        self._members: list[Member] = []
        self._begun = time.monotonic()
        self._admitted = self._takeovers = 0
        self._victim: Member | None = None
        self.killed: str | None = None
        self.seconds = 0.0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        try:
            for number in range(1, self._workers + 1):
                self._members.append(self._start(number))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, number: int) -> Member:
        """A worker is up; it is in a session of its own, so that Ctrl-C reaches the parent only."""
        process = subprocess.Popen(
            [sys.executable, "-m", "onceward.toolkit.demo_worker", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=os.name == "posix",
        )
        member = Member(number, process)
        member.say(msgspec.json.encode(self._setup).decode())
        threading.Thread(target=self._listen, args=(member,), daemon=True).start()
        return member

    def _listen(self, member: Member) -> None:
        with _pipe(member.process.stdout) as lines:
            for line in lines:
                self._told.put((member, msgspec.json.decode(line, type=Event)))
        self._told.put((member, None))

    def work(self, on_progress: OnProgress) -> None:
        """All workers have ended; one of them, if so wished, by SIGKILL."""
        end, shown = self._begun + DEADLINE.total_seconds(), 0.0
        while any(member.alive for member in self._members):
            with contextlib.suppress(queue.Empty):
                self._note(*self._told.get(timeout=_SHOW_EVERY))
            now = time.monotonic()
            if now >= end:
                raise DemoFailed(f"the demonstration did not end within {DEADLINE}")
            if now >= shown + _SHOW_EVERY:
                shown = now
                on_progress(self.progress())
        self.seconds = time.monotonic() - self._begun
        on_progress(self.progress())

    def progress(self) -> DemoProgress:
        """Where it is now."""
        return DemoProgress(
            orders=self._orders,
            ended=sum(member.ended for member in self._members),
            admitted=self._admitted,
            refused=sum(member.refused for member in self._members),
            takeovers=self._takeovers,
            killed=self.killed,
            seconds=time.monotonic() - self._begun,
            workers=tuple(self._seen(member) for member in self._members),
        )

    def _seen(self, member: Member) -> WorkerProgress:
        return WorkerProgress(
            worker=member.number,
            pid=member.process.pid,
            ended=member.ended,
            refused=member.refused,
            alive=member.alive,
            killed=member is self._victim,
        )

    def _note(self, member: Member, event: Event | None) -> None:
        if event is None:
            self._gone(member)
            return
        member.refused = max(member.refused, event.refused)
        match event.kind:
            case "ready":
                member.ready = True
                if all(each.ready for each in self._members):
                    self._go()
            case "started":
                self._admitted += 1
                self._takeovers += event.takeover
            case "ended":
                member.ended += 1
            case "inside" if self.killed is None:
                self.killed, self._victim = event.order, member
                member.process.kill()

    def _go(self) -> None:
        self._begun = time.monotonic()
        for member in self._members:
            member.say("go")

    def _gone(self, member: Member) -> None:
        """A worker has closed its output: it has ended, and how is noted."""
        member.alive = False
        code = member.process.wait()
        if code != 0 and member is not self._victim:
            self.problems.append(f"worker {member.number} ended with exit code {code}")
        if not all(each.ready for each in self._members):
            raise DemoFailed(f"worker {member.number} could not start (exit code {code})")

    def _end(self) -> None:
        """No worker is running any more."""
        running = [member.process for member in self._members if member.process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for member in self._members:
            with contextlib.suppress(OSError):  # what was still to be said went nowhere
                _pipe(member.process.stdin).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # Popen was asked for it
    return pipe
