"""What a benchmark says, line by line. As JSON each line names its ``kind``; programs skip kinds they do not know."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TypeAlias

import msgspec

from onceward.benchmarks.stats import Spread

#: The measures that are no rounds of one lane per contestant: claims against queue length, memory of a process.
LENGTH, FOOTPRINT = "claim-length", "footprint"
#: Of whole job servers: jobs worked off and queued per second, from submission to start, memory, and doing nothing.
DRAIN, ENQUEUE, LATENCY, SERVER_MEMORY, IDLE = "jobs-drain", "jobs-enqueue", "jobs-latency", "jobs-memory", "jobs-idle"
#: Claim and check-out one by one and a hundred at a time, in the same rounds.
BATCHING = "claim-checkout"


class Row(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all lines."""


class Role(enum.StrEnum):
    """What a contestant is in a measure."""

    RUNNER = "runner"
    RAW = "raw"
    """The raw driver's round trips with the same durability: what runners are compared to."""
    PEER = "peer"


class Environment(Row, frozen=True, kw_only=True, tag="environment"):
    """Where and how it was measured. ``load`` is the load average of the last minute, before the start."""

    started: datetime
    onceward: str
    python: str
    sqlite: str
    system: str
    machine: str
    cpus: int
    load: float | None
    quick: bool
    rounds: int
    lap_seconds: float


class Result(Row, frozen=True, kw_only=True, tag="result"):
    """One contestant in one measure.

    Attributes:
        length: runs in the queue while it was measured; None: does not matter.
        rate: items per second, over the rounds.
        p50_us, p99_us: of the single calls of all rounds; a call handles ``batch`` items.
        ratio: rate in relation to ``against`` in the same round; None: there is nothing to compare to.
        complete: False if the measure was interrupted after ``rounds`` rounds.
    """

    measure: str
    title: str
    contestant: str
    role: Role
    batch: int
    threads: int
    length: int | None = None
    rounds: int
    calls: int
    rate: Spread
    p50_us: float
    p99_us: float
    against: str | None = None
    ratio: Spread | None = None
    note: str = ""
    complete: bool = True


class Growth(Row, frozen=True, kw_only=True, tag="growth"):
    """How many times a claim costs at the longest queue what it costs at the shortest, in the same round."""

    measure: str
    contestant: str
    shortest: int
    longest: int
    factor: Spread
    complete: bool = True


class Comparison(Row, frozen=True, kw_only=True, tag="comparison"):
    """How many times the rate of ``against`` the contestant's is, in the same rounds."""

    measure: str
    title: str
    contestant: str
    against: str
    ratio: Spread
    rounds: int
    complete: bool = True


class Point(msgspec.Struct, frozen=True, array_like=True):
    """So many check-ins done, so many bytes of the process resident."""

    done: int
    resident: int


class Footprint(Row, frozen=True, kw_only=True, tag="footprint"):
    """Memory of a process of its own over many check-ins of new keys, or over many jobs.

    Attributes:
        what: what was done so often.
        inside: the store's own records lie in that process, so it grows with them.
    """

    contestant: str
    asked: int
    points: tuple[Point, ...]
    inside: bool
    what: str = "check-ins"
    complete: bool = True


class Idle(Row, frozen=True, kw_only=True, tag="idle"):
    """A job server in a process of its own that has nothing to do: how many seconds of a core it takes in how many."""

    contestant: str
    seconds: float
    cpu: float

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu / self.seconds


class Absent(Row, frozen=True, kw_only=True, tag="absent"):
    """A peer that was not measured, since it is not installed."""

    contestant: str
    install: str


class Broken(Row, frozen=True, kw_only=True, tag="broken"):
    """A measure that ended in an error: it has no figures."""

    measure: str
    reason: str


class Standing(enum.StrEnum):
    """Whether a target was reached."""

    MET = "met"
    MISSED = "missed"
    PARTLY = "met as far as it was measured"
    UNMEASURED = "not measured"


class Verdict(Row, frozen=True, kw_only=True, tag="verdict"):
    """A target, and what this run says about it. ``measured`` is None where nothing was measured."""

    target: str
    contestant: str
    measured: float | None
    bound: str
    standing: Standing
    note: str = ""


class End(Row, frozen=True, kw_only=True, tag="end"):
    """The last line. ``complete`` False: interrupted; what stands above was measured before."""

    ended: datetime
    seconds: float
    load: float | None
    complete: bool


AnyRow: TypeAlias = Environment | Result | Comparison | Growth | Footprint | Idle | Absent | Broken | Verdict | End


def encode(row: Row) -> str:
    """The row as one line of JSON."""
    return msgspec.json.encode(row).decode()


def decode(line: str) -> AnyRow:
    """The row that a line of JSON holds."""
    row: AnyRow = msgspec.json.decode(line, type=AnyRow)
    return row
