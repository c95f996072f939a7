"""Our job server as one more program: it queues jobs in bulk, works them off, and tells what the others tell."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Sequence

from onceward.benchmarks.contestants import Place
from onceward.benchmarks.job_servers.order import CHUNK, CONCURRENCY, GRACE, JOB, PATIENCE, Order
from onceward.toolkit.jobs import JobContext, job
from onceward.toolkit.server import JobServer


class Tally:
    """Counts every job's runs by its number. The end of a job counts once the store has recorded it.

    Time runs from when the server is ready, or from the first body's begin if that comes first. That is stricter than
    what the programs of the others count: from the first body's begin to the last one's end.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.runs = [0] * jobs
        self.done = threading.Event()
        self.first: float | None = None
        self.last = 0.0
        self._ends = itertools.count(1)

    def begin(self, number: int) -> None:
        """A job has run; this is all that its body does."""
        if self.first is None:
            self.first = time.perf_counter()
        self.runs[number] += 1

    def end(self, _: object) -> None:
        """A job's check-out was recorded."""
        if next(self._ends) == self.jobs:
            self.last = time.perf_counter()
            self.done.set()


def race(order: Order) -> dict[str, object]:
    """The figures of one lap."""
    tally = Tally(order.jobs)

    @job(name=JOB, concurrency=CONCURRENCY)
    def body(ctx: JobContext) -> None:
        assert isinstance(ctx.data, int)  # we queued it
        tally.begin(ctx.data)

    with Place(url=order.url, namespace=order.name).open() as runner:
        server = JobServer.create(runner, [body], max_concurrency=CONCURRENCY)
        server.on("success", tally.end)
        enqueue = queued(server, range(order.jobs))
        with server:
            server.wait_ready()
            ready = time.perf_counter()  # our first claim counts, since it takes many; theirs do not
            tally.done.wait(PATIENCE)
            time.sleep(GRACE)
    return {
        "version": "",
        "enqueue": enqueue,
        "drain": tally.last - (ready if tally.first is None else min(ready, tally.first)),
        "ran": sum(tally.runs),
        "distinct": sum(1 for runs in tally.runs if runs),
        "most": max(tally.runs),
    }


def queued(server: JobServer, numbers: Sequence[int]) -> float:
    """These jobs are in the queue, a thousand per trip; how long it took."""
    began = time.perf_counter()
    for first in range(0, len(numbers), CHUNK):
        some = numbers[first : first + CHUNK]
        server.launcher.submit([server.launcher.spec(JOB, number) for number in some])
    return time.perf_counter() - began


def main() -> None:
    """The child: figures as one line of JSON."""
    sys.stdout.write(json.dumps(race(Order.read(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
