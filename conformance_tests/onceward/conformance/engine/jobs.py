"""The jobs of the soak: short, long, failing, crashing, keeping the interpreter, limited, ordered."""

from __future__ import annotations

import os
from datetime import timedelta

from onceward.conformance.engine.effects import Journal
from onceward.contracts import Json
from onceward.toolkit.jobs import FatalError, Job, JobContext, Misfire, MisfirePolicy, Overlap, Retry, RetryableError
from onceward.toolkit.jobs.retry import Backoff

#: Failures are tried again at once, so that a soak does not wait.
SWIFT = Retry(attempts=4, delay=timedelta(milliseconds=20), backoff=Backoff.FIXED, jitter=0.0, max_crashes=None)
CLUSTER_LIMIT = 2
IN_PROCESS = 4


class SoakJob(Job):
    """Its body is written down at its begin and its end."""

    abstract = True
    retry = SWIFT
    concurrency = IN_PROCESS

    def __init__(self, journal: Journal, lease: timedelta) -> None:
        self.journal, self.lock_lifetime = journal, lease

    def run(self, ctx: JobContext) -> Json:
        with self.journal.body(ctx):
            return self.work(ctx)

    def work(self, ctx: JobContext) -> Json:
        """What is different about it."""
        return {"attempt": ctx.attempt}


class Short(SoakJob):
    """Ends at once."""


class Long(SoakJob):
    """Takes a while, and says how far it is."""

    def work(self, ctx: JobContext) -> Json:
        for done in range(1, 4):
            ctx.stopping.wait(0.05)
            ctx.progress(3, done)
        return {"attempt": ctx.attempt}


class Failing(SoakJob):
    """Fails twice, then ends well."""

    def work(self, ctx: JobContext) -> Json:
        if ctx.run.failures < 2:
            raise RetryableError(f"failure {ctx.run.failures + 1}")
        return {"attempt": ctx.attempt}


class Hopeless(SoakJob):
    """Fails each time it is tried."""

    def work(self, ctx: JobContext) -> Json:
        raise ValueError("always")


class Fatal(SoakJob):
    """Fails once, for good."""

    def work(self, ctx: JobContext) -> Json:
        raise FatalError("for good")


class Crashing(SoakJob):
    """Ends its whole process in its first attempt."""

    def work(self, ctx: JobContext) -> Json:
        if ctx.run.crashes == 0:
            os._exit(70)
        return {"attempt": ctx.attempt}


class Greedy(SoakJob):
    """Keeps the interpreter for itself: no other thread of the process runs meanwhile."""

    def work(self, ctx: JobContext) -> Json:
        number = 3**200_000
        return {"digits": len(f"{number:x}") + len(f"{number * number * number:x}")}


class Limited(SoakJob):
    """Runs at most ``CLUSTER_LIMIT`` times at once in all processes together."""

    max_running = CLUSTER_LIMIT

    def work(self, ctx: JobContext) -> Json:
        ctx.stopping.wait(0.01)
        return {"attempt": ctx.attempt}


class Ordered(SoakJob):
    """One at a time, so that the order in which they begin can be seen."""

    max_running = 1
    concurrency = 1


class Ticking(SoakJob):
    """Runs by its schedule; each occurrence, also those that were missed."""

    schedule = "every 1 second"
    misfire = Misfire(policy=MisfirePolicy.ALL, limit=10_000)
    overlap = Overlap.ALLOW


class Parent(SoakJob):
    """Launches three children, crashing or failing on the way; its children run once all the same."""

    def work(self, ctx: JobContext) -> Json:
        for number in range(3):
            ctx.launch("Short", {"parent": ctx.key, "number": number})
            if number == 1 and ctx.run.failures == 0:
                raise RetryableError("between the children")
        return {"attempt": ctx.attempt}


#: Which jobs, and how many of 100 runs are of each.
MIX: dict[type[SoakJob], int] = {
    Short: 50,
    Long: 6,
    Failing: 10,
    Hopeless: 4,
    Fatal: 4,
    Limited: 10,
    Ordered: 8,
    Greedy: 4,
    Parent: 4,
}
EVERY: tuple[type[SoakJob], ...] = (*MIX, Crashing, Ticking)
