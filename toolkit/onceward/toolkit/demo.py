"""The demonstration: several processes share a pile of orders, one of them is killed, and every order is done once.

Each worker tries *every* order, in an order of its own. One of them is told to stop in the middle of an order, and is
killed there with SIGKILL; the order's lease lapses, and another worker takes it over. At the end the store's records
are read: each order must have exactly one recorded check-out.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from onceward.contracts import OncewardError, StoreMisconfigured, checks
from onceward.contracts.times import span_ms
from onceward.toolkit import keys
from onceward.toolkit.demo_orders import make_orders, read_orders, write_orders
from onceward.toolkit.demo_report import DemoProgress, DemoReport, WorkerProgress, count_bodies, report
from onceward.toolkit.demo_worker import JOB, Event, Setup
from onceward.toolkit.director import Director

__all__ = ["DemoFailed", "DemoProgress", "DemoReport", "WorkerProgress", "run_demo"]

NAMESPACE = "onceward-demo"
DEFAULT_ORDERS = Path("examples") / "orders.jsonl"
LEASE = timedelta(seconds=1.5)
DEADLINE = timedelta(minutes=5)
_SHOW_EVERY = 0.1
_GRACE = 2.0
#: The victim is stopped when this share of the orders is done.
_KILL_AT = 0.4

OnProgress = Callable[[DemoProgress], None]


class DemoFailed(OncewardError):
    """The demonstration could not be run to its end."""


def run_demo(
    orders: Path | None = None,
    *,
    url: str | None = None,
    workers: int = 4,
    kill: bool = True,
    lease: timedelta = LEASE,
    on_progress: OnProgress | None = None,
) -> DemoReport:
    """All orders have ended, and the report says how; look at ``report.ok``.

    Args:
        orders: a file of JSON lines; None: ``examples/orders.jsonl``, or the same orders made anew.
        url: a store that processes can share; None: a SQLite file that is removed afterwards.
        workers: so many processes.
        kill: one of them is killed in the middle of an order.
        lease: an order whose worker died can be taken over after this.
        on_progress: is called about ten times a second, by the calling thread.

    Raises:
        InvalidRequest: the orders cannot be read, or there are too few workers.
        DemoFailed: it did not come to its end in five minutes.
    """
    checks.whole("workers", workers, 2 if kill else 1, 64)
    checks.required_lease("lease", lease)
    with tempfile.TemporaryDirectory(prefix="onceward-demo-") as folder:
        work = Path(folder)
        path = _orders(orders, work)
        order_ids = [str(order["order_id"]) for order in read_orders(path)]
        stamp = {"type": "director", "demo": keys.random()}
        with Director(url or f"sqlite:///{work / 'demo.db'}", namespace=NAMESPACE, stamp=stamp) as director:
            if not director.runner.traits.shared:
                raise StoreMisconfigured(
                    f"{url} cannot be shared between processes; take for example sqlite:///demo.db"
                )
            setups = [
                Setup(
                    worker=number,
                    url=url or f"sqlite:///{work / 'demo.db'}",
                    namespace=NAMESPACE,
                    stamp=stamp,
                    orders=str(path),
                    effects=str(work / f"effects-{number}.jsonl"),
                    lease_ms=span_ms(lease),
                )
                for number in range(1, workers + 1)
            ]
            with Crew(setups, orders=len(order_ids), kill=kill) as crew:
                crew.work(on_progress or (lambda progress: None))
            return report(
                order_ids,
                director.runs(JOB),
                count_bodies(Path(setup.effects) for setup in setups),
                workers=workers,
                seconds=crew.seconds,
                refused=crew.progress().refused,
                killed=crew.killed,
                problems=crew.problems,
            )


def _orders(given: Path | None, work: Path) -> Path:
    if given is not None:
        return given
    if DEFAULT_ORDERS.is_file():
        return DEFAULT_ORDERS
    made = work / "orders.jsonl"
    write_orders(made, make_orders())
    return made


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

    def __init__(self, setups: Sequence[Setup], *, orders: int, kill: bool) -> None:
        self._orders = orders
        self._kill = kill
        self._told: queue.Queue[tuple[Member, Event | None]] = queue.Queue()
        self._members: list[Member] = []
        self._setups = setups
        self._begun = time.monotonic()
        self._admitted = self._takeovers = 0
        self._victim: Member | None = None
        self.killed: str | None = None
        self.seconds = 0.0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        try:
            for setup in self._setups:
                self._members.append(self._start(setup))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, setup: Setup) -> Member:
        """A worker is up; it is in a session of its own, so that Ctrl-C reaches the parent only."""
        process = subprocess.Popen(
            [sys.executable, "-m", "onceward.toolkit.demo_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=os.name == "posix",
        )
        member = Member(setup.worker, process)
        member.say(msgspec.json.encode(setup).decode())
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
        if self._kill and self.killed is None:
            self.problems.append("no worker could be killed in the middle of an order: there were too few orders")
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
            workers=tuple(
                WorkerProgress(
                    worker=each.number, pid=each.process.pid, ended=each.ended, refused=each.refused, alive=each.alive
                )
                for each in self._members
            ),
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
                self._choose_victim()
            case "inside" if self.killed is None:
                self.killed = event.order
                member.process.kill()

    def _go(self) -> None:
        self._begun = time.monotonic()
        for member in self._members:
            member.say("go")
        self._choose_victim()

    def _choose_victim(self) -> None:
        """The first worker is told to stop inside its next order, once enough orders are done."""
        ended = sum(member.ended for member in self._members)
        if self._kill and self._victim is None and ended >= self._orders * _KILL_AT - len(self._members):
            self._victim = self._members[0]
            self._victim.say("pause")

    def _gone(self, member: Member) -> None:
        """A worker has closed its output: it has ended, and how is noted."""
        member.alive = False
        code = member.process.wait()
        expected = member is self._victim and self.killed is not None
        if code != 0 and not expected:
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
