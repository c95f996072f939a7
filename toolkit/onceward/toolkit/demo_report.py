"""What the demonstration shows while it runs, and what is true at its end, by the store's own records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onceward.contracts import Ending, Run, Status
from onceward.contracts.records import Record

_RECORDED = (Ending.SUCCEEDED, Ending.FAILED)


class WorkerProgress(Record, frozen=True, kw_only=True):
    """One worker process, so far; ``killed``: it was, in the middle of an order."""

    worker: int
    pid: int
    ended: int = 0
    refused: int = 0
    alive: bool = True
    killed: bool = False


class DemoProgress(Record, frozen=True, kw_only=True):
    """Where the demonstration is.

    Attributes:
        ended: orders that were checked out.
        killed: the order in whose middle a worker was killed; None: not yet.
    """

    orders: int
    ended: int
    admitted: int
    refused: int
    takeovers: int
    killed: str | None
    seconds: float
    workers: tuple[WorkerProgress, ...]


class DemoReport(Record, frozen=True, kw_only=True):
    """What is true at the end.

    Attributes:
        orders: how many there were.
        completed, failed: how they ended; invalid orders fail, and that is recorded too.
        admitted: check-ins that were admitted, takeovers among them.
        refused: check-ins that were refused.
        takeovers: admissions after a lease had lapsed.
        checkouts_per_order: how many orders have how many recorded check-outs; must be {1: orders}.
        bodies_per_order: how often an order was begun; more than once where a worker was killed.
        twice, missing: the orders that were checked out more than once, or not at all.
        killed: the order in whose middle a worker was killed; None: nobody was.
        problems: what else went wrong.
    """

    orders: int
    workers: int
    seconds: float
    completed: int
    failed: int
    admitted: int
    refused: int
    takeovers: int
    checkouts_per_order: Mapping[int, int]
    bodies_per_order: Mapping[int, int]
    twice: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    killed: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def throughput(self) -> float:
        """Orders per second."""
        return self.orders / self.seconds if self.seconds > 0 else 0.0

    @property
    def ok(self) -> bool:
        """True if every order was checked out exactly once, and nothing else went wrong."""
        return not (self.twice or self.missing or self.problems)


def report(
    orders: Sequence[str],
    runs: Iterable[Run],
    bodies: Mapping[str, int],
    *,
    workers: int,
    seconds: float,
    refused: int,
    killed: str | None,
    problems: Sequence[str],
) -> DemoReport:
    """What the store's records and the file of effects say."""
    found = {run.key: run for run in runs}
    checkouts = {order: _checkouts(found.get(order)) for order in orders}
    statuses = Counter(run.status for run in found.values())
    return DemoReport(
        orders=len(orders),
        workers=workers,
        seconds=seconds,
        completed=statuses[Status.SUCCEEDED],
        failed=statuses[Status.FAILED],
        admitted=sum(run.attempt for run in found.values()),
        refused=refused,
        takeovers=sum(attempt.takeover for run in found.values() for attempt in run.attempts),
        checkouts_per_order=dict(sorted(Counter(checkouts.values()).items())),
        bodies_per_order=dict(sorted(Counter(bodies.get(order, 0) for order in orders).items())),
        twice=tuple(order for order, count in checkouts.items() if count > 1),
        missing=tuple(order for order, count in checkouts.items() if count == 0),
        killed=killed,
        problems=tuple(problems),
    )


def _checkouts(run: Run | None) -> int:
    """How many ends are recorded for an order; none that count while it has not ended."""
    if run is None or not run.status.ended:
        return 0
    return sum(attempt.ending in _RECORDED for attempt in run.attempts)


def count_bodies(effects: Path) -> Mapping[str, int]:
    """How often each order was begun, by all workers together."""
    begun: Counter[str] = Counter()
    for line in effects.read_text(encoding="utf-8").splitlines():
        effect = json.loads(line)
        begun[effect["order"]] += effect["effect"] == "started"
    return begun
