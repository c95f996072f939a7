"""What each program in Python does alike: it reads what is asked of it, counts its jobs, and tells the figures.

A program is told as JSON: ``url`` of the store, ``name`` of the queue, how many ``jobs``, a ``folder`` for files, and
whether what it writes there has to be ``durable``. It queues the jobs, numbered from 0, then works them off in this
same process, and answers with one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from importlib.metadata import version
from typing import NamedTuple

#: Seconds: who runs a job twice does it soon after.
GRACE = 0.3
#: Seconds that all jobs may take; whatever was done by then is told.
PATIENCE = 300.0


class Tally:
    """Counts every job's runs by its number, and keeps the time from the first one's start to the last one's end."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.runs = [0] * jobs
        self.done = threading.Event()
        self._numbers = itertools.count(1)
        self._first = self._last = 0.0

    def __call__(self, number: int) -> None:
        """A job has run; this is all that its body does."""
        nth = next(self._numbers)  # one step, also with threads
        if nth == 1:
            self._first = time.perf_counter()
        self.runs[number] += 1
        if nth == self.jobs:
            self._last = time.perf_counter()
            self.done.set()

    def wait(self) -> None:
        """All jobs have run, and time has passed in which one could have run again."""
        self.done.wait(PATIENCE)
        time.sleep(GRACE)

    async def wait_async(self) -> None:
        """The same in an event loop."""
        end = time.monotonic() + PATIENCE
        while not self.done.is_set() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await asyncio.sleep(GRACE)

    def told(self, *, enqueue: float, package: str, leave: bool = True) -> None:
        """The figures are on standard output; with ``leave`` the process ends here, whatever still runs in it."""
        answer = {
            "version": version(package),
            "enqueue": enqueue,
            "drain": self._last - self._first,
            "ran": sum(self.runs),
            "distinct": sum(1 for runs in self.runs if runs),
            "most": max(self.runs),
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if leave:
            os._exit(0)


class Order(NamedTuple):
    """What a program is asked to do."""

    url: str
    name: str
    jobs: int
    folder: str
    durable: bool


def asked() -> Order:
    """The order that stands on the command line."""
    return Order(**json.loads(sys.argv[1]))
