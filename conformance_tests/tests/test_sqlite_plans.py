"""Every statement of the SQLite store uses an index, and a claim costs the same however long the queue is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from onceward.contracts import CheckOut, Claim, Lease, RunId, RunQuery, RunSpec, Status, Want
from onceward.runners.clock import ManualClock
from onceward.runners.sqlite import (
    SqliteStore,
    boots,
    claims,
    executor,
    lifecycle,
    locks,
    priorities,
    rows,
    scheduler,
    store,
    watch,
)

HOUR = timedelta(hours=1)
MODULES = (boots, claims, executor, lifecycle, locks, priorities, rows, scheduler, store, watch)

#: These look at many rows because their answer is about many rows; nothing on the way of a run uses them.
LONG_WAYS = {
    ("boots", "LAPSE_LOCKS"),
    ("boots", "LAPSE_FUTURE_LOCKS"),
    ("boots", "LAPSE_RUNS"),
    ("boots", "LAPSE_FUTURE_RUNS"),
    ("lifecycle", "COUNTS"),
    ("lifecycle", "COUNTS_OF_JOB"),
    ("lifecycle", "DESCRIBE"),
}


def statements() -> Iterator[tuple[str, str]]:
    for module in MODULES:
        where = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            is_statement = isinstance(value, str) and name.isupper() and value.split(maxsplit=1)[0] in _VERBS
            if is_statement and (where, name) not in LONG_WAYS:
                yield f"{where}.{name}", value
    for oldest_first in (True, False):  # the others sort the few runs that share a key
        yield f"lifecycle.RUNS-{oldest_first}", lifecycle.RUNS[False, oldest_first]


_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")
STATEMENTS = [pytest.param(sql, id=name) for name, sql in statements()]


class Nulls(dict[str, None]):
    """Any named parameter."""

    def __missing__(self, name: str) -> None:
        return None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sqlite(tmp_path: Path, clock: ManualClock) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "plans.db", clock=clock, synchronous="OFF")
    made.open()
    yield made
    made.close()


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    params = Nulls() if ":" in sql else (None,) * sql.count("?")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", params)]


def test_there_are_statements_to_look_at() -> None:
    assert len(STATEMENTS) > 30


@pytest.mark.parametrize("sql", STATEMENTS)
def test_statements_use_indexes_and_sort_nothing(sqlite: SqliteStore, sql: str) -> None:
    steps = plan(sqlite._database.writer(), sql)
    sent = ("SCAN CONSTANT", "SCAN json", "SCAN ends")  # what comes with the statement
    tables = [step for step in steps if step.startswith("SCAN") and not step.startswith(sent)]
    assert [step for step in tables if not step.startswith("SCAN (subquery")] == []
    assert [step for step in steps if "TEMP B-TREE" in step] == []


class Steps:
    """Counts the virtual machine's instructions, which unlike time are the same in each run."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.count = 0

    def __enter__(self) -> Steps:
        self.connection.set_progress_handler(self._tick, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.set_progress_handler(None, 1)

    def _tick(self) -> int:
        self.count += 1
        return 0


def claim_cost(store: SqliteStore, *jobs: str | None, expected: int = 5) -> int:
    wants = None if None in jobs else tuple(Want(job=str(job), max_running=50) for job in jobs)
    with Steps(store._database.writer()) as steps:
        runs = store.claim(Claim(holder="me", lease=HOUR, limit=5, wants=wants))
    assert len(runs) == expected
    leases = [run.lease for run in runs if isinstance(run.lease, Lease)]
    assert store.checkout([CheckOut.succeeded(lease) for lease in leases]) == [True] * expected
    return steps.count


def fill(store: SqliteStore, count: int, start: int, *, job: str = "q", after: timedelta | None = None) -> None:
    """Runs of many priorities."""
    when = "now" if after is None else "later"
    ids = [RunId(job, f"{when} {start + i}") for i in range(count)]
    store.submit([RunSpec(id=run, priority=i % 7, after=after) for i, run in enumerate(ids)])


@pytest.mark.parametrize("jobs", [("q",), ("q", "other"), (None,)])
def test_a_claim_costs_the_same_in_a_queue_of_any_length(sqlite: SqliteStore, jobs: tuple[str | None, ...]) -> None:
    fill(sqlite, 200, 0)
    short = claim_cost(sqlite, *jobs)
    fill(sqlite, 20_000, 1_000)
    assert claim_cost(sqlite, *jobs) < short * 1.2


@pytest.mark.parametrize("jobs", [("q",), (None,)])
def test_runs_that_are_not_yet_due_do_not_stand_in_the_way(sqlite: SqliteStore, jobs: tuple[str | None, ...]) -> None:
    fill(sqlite, 200, 0)
    fill(sqlite, 200, 0, after=HOUR)
    short = claim_cost(sqlite, *jobs)
    fill(sqlite, 20_000, 1_000, after=HOUR)
    assert claim_cost(sqlite, *jobs) < short * 1.2


def checkout_cost(store: SqliteStore) -> int:
    runs = store.claim(Claim.of("q", holder="me", lease=HOUR, limit=5))
    leases = [run.lease for run in runs if isinstance(run.lease, Lease)]
    with Steps(store._database.writer()) as steps:
        assert store.checkout([CheckOut.succeeded(lease) for lease in leases]) == [True] * 5
    return steps.count


def test_a_checkout_costs_the_same_beside_any_number_of_runs(sqlite: SqliteStore) -> None:
    fill(sqlite, 200, 0)
    short = checkout_cost(sqlite)
    fill(sqlite, 20_000, 1_000)
    assert checkout_cost(sqlite) < short * 1.2


def test_a_statement_carries_no_more_results_than_sqlite_takes(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of results of 16 MiB would be more than a billion bytes; here the bound is smaller."""
    monkeypatch.setattr(executor, "_MOST_TEXT", 1_000)
    fill(sqlite, 6, 0)
    runs = sqlite.claim(Claim.of("q", holder="h", lease=HOUR, limit=6))
    ends = [CheckOut.succeeded(run.lease, "x" * 600) for run in runs if run.lease]
    traced: list[str] = []
    sqlite._database.writer().set_trace_callback(traced.append)
    assert sqlite.checkout(ends) == [True] * 6
    sqlite._database.writer().set_trace_callback(None)
    assert len([statement for statement in traced if statement.lstrip().startswith("UPDATE runs")]) == 3
    assert [found and found.result for found in map(sqlite.check, [run.id for run in runs])] == ["x" * 600] * 6


def test_many_lapsed_runs_are_looked_at_once(sqlite: SqliteStore, clock: ManualClock) -> None:
    fill(sqlite, 5_000, 0)
    assert len(sqlite.claim(Claim.of("q", holder="gone", lease=HOUR, limit=5_000))) == 5_000
    clock.advance(2 * HOUR)
    first = claim_cost(sqlite, "q")
    assert claim_cost(sqlite, "q") < first / 20


def test_runs_that_live_or_have_ended_do_not_stand_in_the_way(sqlite: SqliteStore) -> None:
    fill(sqlite, 100, 0)
    short = claim_cost(sqlite, "q")
    fill(sqlite, 4_000, 1_000, job="busy")
    assert len(sqlite.claim(Claim.of("busy", holder="other", lease=HOUR, limit=4_000))) == 4_000
    fill(sqlite, 4_000, 10_000, job="q")
    done = sqlite.claim(Claim.of("q", holder="other", lease=HOUR, limit=4_000))
    sqlite.checkout([CheckOut.succeeded(run.lease) for run in done if run.lease])
    fill(sqlite, 50, 20_000)
    assert sqlite.counts()["q"][Status.SUCCEEDED] > 4_000
    assert claim_cost(sqlite, "q") < short * 1.2


def test_a_page_of_runs_costs_the_same_in_a_table_of_any_length(sqlite: SqliteStore) -> None:
    costs = []
    for start in (0, 20_000):
        fill(sqlite, 200 + start, start)
        page = sqlite.runs(RunQuery(limit=10))
        reader = sqlite._database.borrow()
        sqlite._database.give_back(reader)
        with Steps(reader) as steps:
            assert len(sqlite.runs(RunQuery(limit=10, after=page[-1].sequence))) == 10
        costs.append(steps.count)
    assert 0 < costs[1] < costs[0] * 1.2
