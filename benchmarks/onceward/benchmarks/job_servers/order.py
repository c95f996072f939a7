"""What a program is asked to do, and what it answers."""

from __future__ import annotations

import msgspec

JOB = "bench"
#: So many jobs at a time in our job server: many, as is documented for short jobs. The settings of the others, each the
#: best that is documented for it, stand in their programs.
CONCURRENCY = 500
#: So many jobs are queued at a time, in every job server that can do it in bulk.
CHUNK = 1_000
#: Seconds: who runs a job twice does it soon after.
GRACE = 0.3
#: Seconds that all jobs may take; the programs of the peers have the same.
PATIENCE = 300.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One lap: so many jobs through a queue that nobody has, on the store at ``url``; ``folder`` is for files."""

    url: str
    name: str
    jobs: int
    folder: str
    durable: bool = True

    @classmethod
    def read(cls, text: str) -> Order:
        """The order that this line of JSON is."""
        return msgspec.json.decode(text, type=cls)

    @property
    def text(self) -> str:
        """The order as a line of JSON."""
        return msgspec.json.encode(self).decode()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a program measured.

    Attributes:
        version: of the peer.
        enqueue: seconds to queue all jobs.
        drain: seconds from the start of the first job to the end of the last.
        ran: how many runs there were in all.
        distinct: how many jobs ran.
        most: how often the job ran that ran most often.
    """

    version: str
    enqueue: float
    drain: float
    ran: int
    distinct: int
    most: int

    def fault(self, jobs: int) -> str | None:
        """Why the figures do not count; None: each job ran exactly once."""
        if not self.ran == self.distinct == jobs or self.most != 1:
            return f"of {jobs} jobs {self.distinct} ran, {self.ran} times in all, one of them {self.most} times"
        if self.drain <= 0 or self.enqueue <= 0:
            return f"no time that can be: {self.enqueue} s to queue the jobs, {self.drain} s to run them"
        return None
