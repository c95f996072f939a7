"""Submit, claim and check-out, one run at a time and a hundred; and a queue of a given length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from onceward.benchmarks.measures.measure import JOB, LEASE, Measure, expect, raw_again, raw_fresh
from onceward.benchmarks.rounds import Task
from onceward.contracts import CheckOut, Claim, Lease, Run, Runner, RunSpec, new_holder

_CHUNK = 1_000
_PRIORITIES = (0, 5, -5, 1, 0)


class Queue:
    """The runs of one job in a fresh store: fills it in bulk, takes from it, and checks out what was taken."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._holder = new_holder()
        self._names = itertools.count()
        self._taken: list[Run] = []

    def fill(self, count: int, *, told: Callable[[int], object] | None = None) -> None:
        """So many more runs are due, in mixed priorities; ``told`` hears how many there are so far."""
        filled = 0
        while filled < count:
            chunk = min(_CHUNK, count - filled)
            names = itertools.islice(self._names, chunk)
            specs = [RunSpec.of(JOB, f"run-{n}", priority=_PRIORITIES[n % len(_PRIORITIES)]) for n in names]
            expect(all(self._runner.scheduler.submit(specs)), "a new run was not made")
            filled += chunk
            if told is not None:
                told(filled)

    def take(self, count: int) -> Sequence[Run]:
        """So many runs, claimed in one call."""
        runs = self._runner.executor.claim(Claim.of(JOB, holder=self._holder, lease=LEASE, limit=count))
        expect(len(runs) == count, "due runs were not claimed")
        self._taken.extend(runs)
        return runs

    def settle(self) -> None:
        """Everything that was taken is checked out."""
        while self._taken:
            chunk, self._taken = self._taken[:_CHUNK], self._taken[_CHUNK:]
            expect(all(self._runner.executor.checkout([checkout(run) for run in chunk])), "a check-out was refused")

    def forget(self) -> None:
        """What was taken is no longer ours to check out."""
        self._taken.clear()


def checkout(run: Run) -> CheckOut:
    """The success of a claimed run."""
    return CheckOut.succeeded(lease_of(run))


def lease_of(run: Run) -> Lease:
    """The lease that a claim gave."""
    if run.lease is None:
        raise ValueError(f"{run.id} is not held")
    return run.lease


def submit(runner: Runner, batch: int) -> Task:
    """New runs."""

    def step(index: int) -> None:
        specs = [RunSpec.of(JOB, f"run-{index}-{item}") for item in range(batch)]
        expect(all(runner.scheduler.submit(specs)), "a new run was not made")

    return Task(step)


def claim(runner: Runner, batch: int, *, length: int = 0, told: Callable[[int], object] | None = None) -> Task:
    """Claims from a queue that holds ``length`` further runs at the end of each lap."""
    queue = Queue(runner)
    queue.fill(length, told=told)

    def prepare(indexes: range) -> None:
        queue.settle()
        queue.fill(len(indexes) * batch)

    return Task(lambda _: queue.take(batch), prepare=prepare)


def check_out(runner: Runner, batch: int) -> Task:
    """Check-outs of claimed runs."""
    queue = Queue(runner)
    held: list[Lease] = []

    def prepare(indexes: range) -> None:
        expect(not held, "leases of the lap before are left")
        count = len(indexes) * batch
        while count:
            chunk = min(_CHUNK, count)
            queue.fill(chunk)
            held.extend(lease_of(run) for run in queue.take(chunk))
            count -= chunk
        queue.forget()

    def step(_: int) -> None:
        leases = [held.pop() for _ in range(batch)]
        recorded = runner.executor.checkout([CheckOut.succeeded(lease) for lease in leases])
        expect(all(recorded), "a check-out was refused")

    return Task(step, prepare=prepare)


def claim_checkout(runner: Runner, batch: int) -> Task:
    """Claims of due runs, and their check-outs."""
    queue = Queue(runner)

    def step(_: int) -> None:
        queue.take(batch)
        queue.settle()

    return Task(step, prepare=lambda indexes: queue.fill(len(indexes) * batch))


QUEUE = (
    Measure(name="submit-1", title="submit", of_runner=submit, of_raw=raw_fresh),
    Measure(name="submit-100", title="submit", of_runner=submit, of_raw=raw_fresh, batch=100),
    Measure(name="claim-1", title="claim", of_runner=claim, of_raw=raw_again),
    Measure(name="claim-100", title="claim", of_runner=claim, of_raw=raw_again, batch=100),
    Measure(name="checkout-1", title="check-out", of_runner=check_out, of_raw=raw_again),
    Measure(name="checkout-100", title="check-out", of_runner=check_out, of_raw=raw_again, batch=100),
)
