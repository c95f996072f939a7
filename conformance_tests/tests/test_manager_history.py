"""What the manager's records say: status, reports, stuck and dead jobs, cleaning up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from onceward.contracts import CheckIn, CheckOut, RunId, Runner, Status
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore
from onceward.toolkit.manager import JobState, Manager

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def runner(clock: ManualClock) -> Runner:
    return Runner.of(MemoryStore(namespace="tests", clock=clock), namespace="tests").open()


@pytest.fixture
def manager(runner: Runner) -> Iterator[Manager]:
    with Manager(runner, lease=timedelta(days=30)) as manager:
        yield manager


def run(manager: Manager, clock: ManualClock, name: str, took: timedelta, error: Exception | None = None) -> None:
    job = manager.start(name, timeout=timedelta(days=30))
    clock.advance(took)
    if error is None:
        job.end()
    else:
        job.error(error)


def test_status_text_m49(manager: Manager, clock: ManualClock) -> None:
    assert manager.status("a") == "Job not found or not running"
    job = manager.start("a")
    clock.advance(timedelta(milliseconds=1500))
    assert manager.status("a") == ("Job: a\nStarted: 2026-01-01T00:00:00+00:00\nStatus: Running\nRunning for: 1500ms")
    job.end()
    assert manager.status("a") == (
        "Job: a\nStarted: 2026-01-01T00:00:00+00:00\nEnded: 2026-01-01T00:00:01.500000+00:00\n"
        "Duration: 1500ms\nStatus: Success"
    )
    run(manager, clock, "a", timedelta(seconds=1), ValueError("bad row"))
    assert manager.status("a").endswith("Duration: 1000ms\nStatus: Failed\nError: ValueError: bad row")


def test_fields_under_the_seeds_names_m22(manager: Manager, clock: ManualClock) -> None:
    run(manager, clock, "a", timedelta(seconds=2), ValueError("bad row"))
    assert manager.jobs()[0].fields() == {
        "name": "a",
        "startTime": int(START.timestamp() * 1000),
        "startDate": START,
        "endTime": int(START.timestamp() * 1000) + 2000,
        "endDate": START + timedelta(seconds=2),
        "inError": True,
        "error": "ValueError: bad row",
    }
    manager.start("b")
    fields = manager.jobs("b")[0].fields()
    assert (fields["endTime"], fields["endDate"], fields["inError"]) == (None, None, False)


def test_report_by_name_m50(manager: Manager, clock: ManualClock) -> None:
    run(manager, clock, "b", timedelta(seconds=1))
    run(manager, clock, "b", timedelta(seconds=3))
    run(manager, clock, "b", timedelta(seconds=2), ValueError("no"))
    manager.start("b")
    manager.start("a")
    assert [report.fields() for report in manager.report()] == [
        {"name": "a", "totalRuns": 1, "successfulRuns": 0, "failedRuns": 0, "running": 1, "avgDuration": None},
        {"name": "b", "totalRuns": 4, "successfulRuns": 2, "failedRuns": 1, "running": 1, "avgDuration": 2000.0},
    ]


def test_monitoring_and_stuck_jobs_m46_m55(manager: Manager, clock: ManualClock) -> None:
    run(manager, clock, "done", timedelta(seconds=5))
    manager.start("slow", timeout=timedelta(days=1))
    clock.advance(HOUR)
    assert manager.stuck() == []
    clock.advance(timedelta(seconds=1))
    assert [view.name for view in manager.stuck()] == ["slow"]
    assert manager.stuck(timedelta(hours=2)) == []
    assert [view.line() for view in manager.jobs()] == [
        "Job: slow | Status: RUNNING | Duration: 3601s",
        "Job: done | Status: COMPLETED | Duration: 5s",
    ]
    assert [view.name for view in manager.jobs(running=True)] == ["slow"]


def test_cleanup_spares_what_runs_and_what_is_not_ours_m47(
    manager: Manager, runner: Runner, clock: ManualClock
) -> None:
    other = RunId.of("old", "1", {"type": "director"})
    admission = runner.executor.checkin(CheckIn(run=other, holder="h"))
    assert admission.run.lease is not None
    assert runner.executor.checkout([CheckOut.succeeded(admission.run.lease)]) == [True]
    for _ in range(3):
        run(manager, clock, "old", timedelta(seconds=1))
    manager.start("still-running", timeout=timedelta(days=30))
    clock.advance(timedelta(hours=25))
    run(manager, clock, "new", timedelta(seconds=1))
    assert manager.cleanup(name="new") == 0
    assert manager.cleanup() == 3
    assert [view.name for view in manager.jobs()] == ["new", "still-running"]
    assert runner.executor.check(other) is not None
    assert manager.cleanup(timedelta(0)) == 1


def test_cleanup_and_listing_go_on_beyond_one_page(
    manager: Manager, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onceward.toolkit.manager_history._PAGE", 2)
    for _ in range(5):
        run(manager, clock, "a", timedelta(seconds=1))
    assert len(manager.jobs()) == 5
    assert len({view.run.id for view in manager.jobs()}) == 5
    assert manager.cleanup(timedelta(0)) == 5


def test_the_next_start_ends_the_records_of_the_dead_m57(runner: Runner, clock: ManualClock) -> None:
    dead = Manager(runner)
    dead.start("a")
    dead.close()
    clock.advance(timedelta(seconds=31))
    with Manager(runner) as alive, alive.job("a"):
        running, buried = alive.jobs("a")
        assert running.state is JobState.RUNNING
        assert buried.state is JobState.ERROR
        assert (buried.error or "").startswith("Abandoned")


def test_reaping_leaves_a_job_alone_that_still_has_its_lock(runner: Runner, clock: ManualClock) -> None:
    """Its records' store was away for longer than the lease, its locks' store was not."""
    locks = Runner.of(MemoryStore(namespace="locks"), namespace="locks")
    with Manager(runner, locks) as manager:
        job = manager.start("a")
        clock.advance(timedelta(seconds=31))
        assert manager.history.reap() == []
        job.end()
        assert manager.jobs("a")[0].run.status is Status.SUCCEEDED
        manager.start("b")
        clock.advance(timedelta(seconds=31))
        manager.force_unlock("b", reason="test")
        assert [run.job for run in manager.history.reap()] == ["b"]
