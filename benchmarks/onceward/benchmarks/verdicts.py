"""The targets, and what a run's rows say about each of them. Nothing here is known before it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onceward.benchmarks.records import (
    BATCHING,
    DRAIN,
    ENQUEUE,
    LATENCY,
    Comparison,
    Footprint,
    Growth,
    Idle,
    Result,
    Role,
    Row,
    Standing,
    Verdict,
)

MOST_GROWTH = 1.5
FULL_LENGTH = 1_000_000
FULL_CHECKINS = 1_000_000
#: "Flat": the process is at most so many times as large at the end as it was half-way, when caches are long full.
MOST_SWELLING = 1.05

FLAT_CLAIM = "cost of a claim, longest queue against shortest"
FLAT_MEMORY = "memory of the process, end against half-way"
FLAT_SERVER = "memory of a job server, end against half-way"
FULL_JOBS = 1_000_000
MOST_TRIPS = 3.0
QUICK_START = "idle job server, from submission to start, in bare round trips"
MOST_IDLE = 0.01
IDLE_SERVER = "share of a core of an idle job server"
#: On these a submission is told to idle servers; on the others the network is not what takes time.
_TOLD = ("redis", "mongodb", "etcd", "zookeeper")


@dataclass(frozen=True, slots=True)
class Target:
    """A rate that is to be so many times another one in the same rounds.

    Attributes:
        kind: what the names of its contestants begin with.
        against: with what they are compared; "": with the raw driver.
    """

    title: str
    kind: str
    measure: str
    least: float
    against: str = ""


RATIO = Target("SQLite check-in against the raw upsert", "sqlite", "checkin-new", 0.5)
#: What the raw drivers do is told in ``on_redis``, ``on_mongodb``, ``on_etcd`` and ``on_zookeeper``.
TARGETS = (
    RATIO,
    Target("Redis check-in against redis-py's SET NX", "redis", "checkin-new", 1.0),
    Target("Redis check-in, 16 threads, against redis-py's SET NX", "redis", "checkin-new-16-threads", 2.5),
    Target("Redis lock + unlock against redis-py's Lock", "redis", "lock-unlock", 1.3, "redis-py Lock"),
    Target("MongoDB check-in against a bare upsert", "mongodb", "checkin-new", 0.95),
    Target("MongoDB check-in, 16 threads, against bare upserts", "mongodb", "checkin-new-16-threads", 2.0),
    Target("MongoDB claim + check-out by the hundred against one by one", "mongodb", BATCHING, 10.0, "mongodb"),
    Target("etcd check-in against grpcio's transaction", "etcd", "checkin-new", 0.95),
    Target("etcd check-in, 16 threads, against grpcio's transactions", "etcd", "checkin-new-16-threads", 1.0),
    Target("etcd lock + unlock against etcd3gw's Lock", "etcd", "lock-unlock", 4.0, "etcd3gw Lock"),
    Target("etcd lock + unlock against python-etcd3's lock", "etcd", "lock-unlock", 2.0, "python-etcd3 Lock"),
    Target("etcd lock + unlock against tooz's lock", "etcd", "lock-unlock", 4.0, "tooz etcd3gw"),
    Target("etcd claim + check-out by the hundred against one by one", "etcd", BATCHING, 10.0, "etcd"),
    Target("ZooKeeper check-in against a bare create", "zookeeper", "checkin-new", 0.9),
    Target("ZooKeeper lock + unlock against two bare writes", "zookeeper", "lock-unlock", 0.95),
    Target("ZooKeeper lock + unlock against kazoo's Lock", "zookeeper", "lock-unlock", 1.25, "kazoo Lock"),
    Target("ZooKeeper claim + check-out by the hundred against one by one", "zookeeper", BATCHING, 10.0, "zookeeper"),
    Target("job server on Redis against BullMQ", "redis", DRAIN, 1.2, "BullMQ"),
    Target("jobs queued in bulk on Redis against BullMQ's addBulk", "redis", ENQUEUE, 2.0, "BullMQ"),
    *(
        Target(f"job server on Redis against {name}", "redis", DRAIN, 5.0, name)
        for name in ("arq", "saq", "dramatiq", "taskiq", "Celery")
    ),
    Target("job server on MongoDB against Agenda", "mongodb", DRAIN, 10.0, "Agenda"),
    Target("job server on MongoDB against Pulse", "mongodb", DRAIN, 10.0, "Pulse"),
    Target("job server on SQLite against huey", "sqlite", DRAIN, 1.3, "huey"),
)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One per target and contestant; a target that nobody was measured for stands there as such."""
    found = [*_ratios(rows), *_growth(rows), *_memory(rows), *_starts(rows), *_idle(rows)]
    bounds = {
        **{target.title: f"at least {target.least:g}" for target in TARGETS},
        FLAT_CLAIM: f"less than {MOST_GROWTH}",
        FLAT_MEMORY: f"at most {MOST_SWELLING}",
        FLAT_SERVER: f"at most {MOST_SWELLING}",
        QUICK_START: f"fewer than {MOST_TRIPS:g}",
        IDLE_SERVER: f"less than {MOST_IDLE}",
    }
    judged = {verdict.target for verdict in found}
    missing = [
        Verdict(target=target, contestant="", measured=None, bound=bound, standing=Standing.UNMEASURED)
        for target, bound in bounds.items()
        if target not in judged
    ]
    return [*found, *missing]


def _ratios(rows: Sequence[Row]) -> Iterator[Verdict]:
    for target in TARGETS:
        for row in rows:
            if not isinstance(row, Result | Comparison) or not _concerns(target, row) or row.ratio is None:
                continue
            yield Verdict(
                target=target.title,
                contestant=row.contestant,
                measured=row.ratio.median,
                bound=f"at least {target.least:g}",
                standing=_standing(row.ratio.median >= target.least, whole=row.complete),
                note=f"{row.rounds} rounds",
            )


def _concerns(target: Target, row: Result | Comparison) -> bool:
    if row.measure != target.measure or not row.contestant.startswith(target.kind):
        return False
    if isinstance(row, Comparison):
        return bool(target.against) and row.against.startswith(target.against)
    return not target.against and row.role is Role.RUNNER


def _growth(rows: Iterable[Row]) -> Iterator[Verdict]:
    for row in rows:
        if isinstance(row, Growth):
            yield Verdict(
                target=FLAT_CLAIM,
                contestant=row.contestant,
                measured=row.factor.median,
                bound=f"less than {MOST_GROWTH}",
                standing=_standing(row.factor.median < MOST_GROWTH, whole=row.complete and row.longest >= FULL_LENGTH),
                note=f"{row.shortest:,} to {row.longest:,} queued",
            )


def _memory(rows: Iterable[Row]) -> Iterator[Verdict]:
    for row in rows:
        if isinstance(row, Footprint) and not row.inside:
            swelling = swollen(row)
            if swelling is not None:
                of_jobs = row.what == "jobs"
                full = FULL_JOBS if of_jobs else FULL_CHECKINS
                yield Verdict(
                    target=FLAT_SERVER if of_jobs else FLAT_MEMORY,
                    contestant=row.contestant,
                    measured=swelling,
                    bound=f"at most {MOST_SWELLING}",
                    standing=_standing(swelling <= MOST_SWELLING, whole=row.complete and row.points[-1].done >= full),
                    note=f"{row.points[-1].done:,} {row.what}",
                )


def _starts(rows: Sequence[Row]) -> Iterator[Verdict]:
    """The median from submission to start, in medians of the raw driver's round trip in the same rounds."""
    results = [row for row in rows if isinstance(row, Result) and row.measure == LATENCY]
    raw = {row.contestant: row for row in results if row.role is Role.RAW}
    for row in results:
        trip = raw.get(row.against or "")
        if trip is not None and row.contestant.startswith(_TOLD):
            trips = row.p50_us / trip.p50_us
            yield Verdict(
                target=QUICK_START,
                contestant=row.contestant,
                measured=trips,
                bound=f"fewer than {MOST_TRIPS:g}",
                standing=_standing(trips < MOST_TRIPS, whole=row.complete),
                note=f"{row.calls:,} jobs",
            )


def _idle(rows: Iterable[Row]) -> Iterator[Verdict]:
    for row in rows:
        if isinstance(row, Idle):
            yield Verdict(
                target=IDLE_SERVER,
                contestant=row.contestant,
                measured=row.share,
                bound=f"less than {MOST_IDLE}",
                standing=_standing(row.share < MOST_IDLE, whole=True),
                note=f"{row.seconds:.0f} s",
            )


def swollen(row: Footprint) -> float | None:
    """The size at the end in relation to that after half of the check-ins; None: it did not get further."""
    later = [point for point in row.points if point.done >= row.asked / 2]
    return later[-1].resident / later[0].resident if len(later) > 1 else None


def _standing(reached: bool, *, whole: bool) -> Standing:
    if not reached:
        return Standing.MISSED
    return Standing.MET if whole else Standing.PARTLY
