"""The shutdown of a server, in its order: stop claiming, tell, keep renewing, drain, give back, close.

Each step has its share of the deadline, and none waits for a store that does not answer longer than that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Protocol

from onceward.contracts import RunId, Runner
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.server.health import ShutdownReport
from onceward.toolkit.server.listening import Listener
from onceward.toolkit.server.loops import Loop
from onceward.toolkit.server.presence import Presence
from onceward.toolkit.server.worker import Worker

log = logging.getLogger("onceward.server")

#: Kept of the deadline for giving back and closing: this share, and at most so many seconds.
_RESERVE, _MOST_RESERVE = 0.25, 3.0
_LOOK_EVERY = 0.02


class Closable(Protocol):
    """What is shut down."""

    runner: Runner
    worker: Worker
    presence: Presence
    owns_runner: bool

    @property
    def loops(self) -> Mapping[str, Loop]:
        """All of its loops, by name."""
        ...

    @property
    def listeners(self) -> Iterable[Listener]:
        """What waits for the store."""
        ...


def shut_down(server: Closable, deadline: timedelta) -> ShutdownReport:
    """The server is shut down; within the deadline, whatever the store does."""
    began = lease_time()
    end = began + deadline.total_seconds()
    worker, loops = server.worker, server.loops
    drain_end = end - min(_MOST_RESERVE, deadline.total_seconds() * _RESERVE)
    worker.stop_claiming()
    kept = ("check-out", "mind")  # they serve what still runs
    stopped = [loop for name, loop in loops.items() if name not in kept]
    loops["start"].stop()
    loops["start"].join(min(1.0, drain_end - lease_time()))  # either all loops run now, or none ever will
    for loop in stopped:
        loop.stop()
    for listener in server.listeners:
        _bounded(listener.close, until=drain_end)
    told = [attempt.run.id for attempt in worker.running()]  # before they are: some end at once
    worker.stopping.set()
    loops["claim"].join(min(1.0, drain_end - lease_time()))  # what it still brings is given back
    worker.drain(drain_end - lease_time())
    released = worker.give_up()
    unsent = _flushed(worker, end - (end - drain_end) / 3)
    for name in kept:
        loops[name].stop()
    closed = _closed(server, end)
    report = ShutdownReport(
        drained=sum(run not in released for run in told),
        released=tuple(run for run in released if run not in unsent),
        abandoned=tuple(sorted(unsent)),
        claim_open=worker.claim_open,
        closed=closed,
        took=timedelta(seconds=lease_time() - began),
    )
    log.log(logging.INFO if report.clean else logging.WARNING, "shut down: %s", _words(report))
    return report


def _flushed(worker: Worker, until: float) -> set[RunId]:
    """The ends are with the store; those that are not, when time is up."""
    pause = threading.Event()
    while len(worker.flusher) and lease_time() < until:
        pause.wait(_LOOK_EVERY)
    return {checkout.run for checkout in worker.flusher.unsent()}


def _closed(server: Closable, end: float) -> bool:
    """Everything was let go in time. A store that hangs is left to a thread that dies with the process."""

    def close() -> None:
        server.worker.close(timedelta(seconds=max(0.0, end - lease_time())))
        for loop in server.loops.values():
            loop.join(end - lease_time())
        server.presence.leave()
        if server.owns_runner:
            server.runner.close()

    return _bounded(close, until=end)


def _bounded(call: Callable[[], object], *, until: float) -> bool:
    """True: the call has returned in time, with or without an error, which is logged."""
    done = threading.Event()

    def run() -> None:
        try:
            call()
        except Exception:
            log.exception("while shutting down")
        done.set()

    threading.Thread(target=run, name="onceward-closing", daemon=True).start()
    return done.wait(max(0.0, until - lease_time()))


def _words(report: ShutdownReport) -> str:
    text = f"{report.drained} runs ended meanwhile"
    if report.released:
        text += f", {len(report.released)} given back unfinished ({', '.join(map(str, report.released[:5]))})"
    if report.abandoned:
        text += f", {len(report.abandoned)} left to lapse ({', '.join(map(str, report.abandoned[:5]))})"
    if report.claim_open:
        text += ", and whatever the latest claim took, which the store did not answer"
    return text + ("" if report.closed else ", the store did not close in time")
