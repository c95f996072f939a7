"""The manager: one run at a time under each name, a record of every start, and nothing of anybody else's touched."""

# ruff: noqa: PT012  what raises is the end of the block, so the block is the body of a job
from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from onceward.contracts import (
    InvalidRequest,
    LeaseLost,
    LockId,
    LockNotAcquired,
    LockRequest,
    OutcomeUnknown,
    Runner,
    RunQuery,
    Status,
    StoreMisconfigured,
    StoreUnavailable,
)
from onceward.contracts.requests import Admission, CheckIn, CheckOut
from onceward.runners.clock import ManualClock
from onceward.runners.factory import open_runner
from onceward.runners.memory import MemoryStore
from onceward.toolkit import manager as manager_module
from onceward.toolkit.audit import AUDIT_JOB
from onceward.toolkit.manager import DependencyFailed, JobState, ManagedJob, Manager, Ran, current_job

MINUTE = timedelta(minutes=1)


class Store(MemoryStore):
    """A memory store whose check-ins and check-outs can be made to fail."""

    checkin_error: Exception | None = None
    checkout_error: Exception | None = None

    def checkin(self, request: CheckIn) -> Admission:
        if self.checkin_error is not None:
            raise self.checkin_error
        return super().checkin(request)

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        if self.checkout_error is not None:
            raise self.checkout_error
        return super().checkout(checkouts)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return Store(namespace="tests", clock=clock)


@pytest.fixture
def runner(store: Store) -> Runner:
    return Runner.of(store, namespace="tests").open()


@pytest.fixture
def manager(runner: Runner) -> Iterator[Manager]:
    with Manager(runner) as manager:
        yield manager


def lock_names(runner: Runner) -> list[str]:
    return [str(lock.lease.resource) for lock in runner.lifecycle.locks()]


def records(runner: Runner, job: str) -> list[Status]:
    return [run.status for run in runner.lifecycle.runs(RunQuery(job=job, oldest_first=True))]


def somebody_elses(runner: Runner, name: str, lease: timedelta = MINUTE) -> None:
    assert runner.executor.lock(LockRequest(lock=LockId(name), holder="other", lease=lease)).acquired


# --- start, end, error ---


def test_a_job_runs_under_its_lock_and_is_recorded(manager: Manager, runner: Runner, clock: ManualClock) -> None:
    with manager.job("import", note="nightly") as job:
        assert lock_names(runner) == ["lock import"]
        assert runner.lifecycle.locks()[0].note == "nightly"
        assert records(runner, "import") == [Status.RUNNING]
        clock.advance(timedelta(seconds=2))
        job.progress(1, 3, "one down")
        job.result = {"rows": 7}
    assert lock_names(runner) == []
    (view,) = manager.jobs("import")
    assert view.state is JobState.COMPLETED
    assert view.duration == timedelta(seconds=2)
    assert view.run.result == {"rows": 7}
    assert view.run.payload == {"lock_token": job.token, "timeout_ms": 3_600_000, "note": "nightly"}


def test_the_bodys_error_is_recorded_and_goes_on(manager: Manager, runner: Runner) -> None:
    with pytest.raises(KeyError), manager.job("import"):
        raise KeyError("customer")
    (view,) = manager.jobs("import")
    assert (view.state, view.in_error, view.error) == (JobState.ERROR, True, "KeyError: 'customer'")
    assert view.run.error is not None
    assert "Traceback" in (view.run.error.trace or "")
    assert lock_names(runner) == []


def test_no_start_while_somebody_else_runs_it_and_no_side_effect_m33_r5(manager: Manager, runner: Runner) -> None:
    somebody_elses(runner, "import")
    with pytest.raises(LockNotAcquired) as refusal:
        manager.start("import")
    assert str(refusal.value) == "Can't lock to execute job 'import'."
    manager.error(refusal.value)  # what the seed's "catch" does next
    manager.error(refusal.value, "import")
    assert lock_names(runner) == ["lock import"]
    assert records(runner, "import") == []


def test_error_ends_only_what_the_caller_started_m36(manager: Manager, runner: Runner) -> None:
    elsewhere: list[ManagedJob] = []
    thread = threading.Thread(target=lambda: elsewhere.append(manager.start("b")))
    thread.start()
    thread.join()
    manager.start("a")
    manager.error(RuntimeError("a broke"))
    assert lock_names(runner) == ["lock b"]
    assert records(runner, "b") == [Status.RUNNING]
    with pytest.raises(InvalidRequest, match="this thread or task"):
        manager.end("b")
    with pytest.raises(LockNotAcquired) as refusal:
        manager.start("b")
    manager.error(refusal.value, "b")
    assert records(runner, "b") == [Status.RUNNING]
    elsewhere[0].end()
    assert records(runner, "b") == [Status.SUCCEEDED]


def test_error_ends_only_what_the_asyncio_task_started(manager: Manager, runner: Runner) -> None:
    async def fails() -> None:
        manager.start("fails")
        await asyncio.sleep(0)
        manager.error(RuntimeError("fails"))

    async def works(first: asyncio.Task[None]) -> None:
        manager.start("works")
        await first
        assert lock_names(runner) == ["lock works"]
        manager.end("works")

    async def both() -> None:
        first = asyncio.create_task(fails())
        await works(first)

    asyncio.run(both())
    assert records(runner, "works") == [Status.SUCCEEDED]
    assert records(runner, "fails") == [Status.FAILED]


def test_start_and_end_by_name(manager: Manager, runner: Runner) -> None:
    manager.start("a")
    manager.start("b")
    manager.end("a", {"n": 1})
    assert lock_names(runner) == ["lock b"]
    assert manager.history.last("a").run.result == {"n": 1}  # type: ignore[union-attr]
    manager.error(ValueError("no"), "b")
    assert records(runner, "b") == [Status.FAILED]
    with pytest.raises(InvalidRequest, match="not yet ended"):
        manager.end("a")


def test_a_job_ends_once(manager: Manager, runner: Runner) -> None:
    job = manager.start("a")
    job.end()
    with manager.job("a"):
        job.end()
        job.error(RuntimeError("too late"))
        assert lock_names(runner) == ["lock a"]
    assert records(runner, "a") == [Status.SUCCEEDED, Status.SUCCEEDED]


def test_a_result_that_is_no_json_is_recorded_as_an_error(manager: Manager, runner: Runner) -> None:
    with pytest.raises(InvalidRequest), manager.job("a") as job:
        job.result = {1, 2}  # type: ignore[assignment]
    assert records(runner, "a") == [Status.FAILED]
    assert lock_names(runner) == []


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OutcomeUnknown("who knows")])
def test_a_start_that_cannot_be_recorded_gives_its_lock_back(
    manager: Manager, runner: Runner, store: Store, error: Exception
) -> None:
    store.checkin_error = error
    with pytest.raises(type(error)):
        manager.start("a")
    assert lock_names(runner) == []
    store.checkin_error = None
    with manager.job("a"):
        pass


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OutcomeUnknown("who knows")])
def test_an_end_that_cannot_be_recorded_is_said_and_the_lock_is_released(
    manager: Manager, runner: Runner, store: Store, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    job = manager.start("a")
    store.checkout_error = error
    with pytest.raises(type(error)):
        job.end()
    assert lock_names(runner) == []
    with pytest.raises(KeyError), manager.job("a"):
        raise KeyError("the body's own")
    assert "was not recorded" in caplog.text
    assert lock_names(runner) == []


def test_a_record_that_was_given_up_meanwhile_is_said(manager: Manager, runner: Runner) -> None:
    with pytest.raises(LeaseLost, match="a/"), manager.job("a") as job:
        assert runner.lifecycle.force_unlock(job.run) is not None


def test_a_store_that_cannot_be_opened_leaves_none_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(store, "close", lambda: closed.append(True))
    monkeypatch.setattr(manager_module, "open_runner", lambda source, namespace: known(source, store))
    with pytest.raises(StoreMisconfigured):
        Manager("ours", "nosuch://")
    assert closed == [True]


def known(source: object, store: Store) -> Runner:
    return Runner.of(store, namespace="tests") if source == "ours" else open_runner("nosuch://")


@pytest.mark.parametrize("name", ["", "\n", "x" * 257, "a\0b"])
def test_names_that_are_not_accepted(manager: Manager, runner: Runner, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        manager.start(name)
    assert lock_names(runner) == []


def test_times_that_are_not_accepted(manager: Manager) -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        manager.start("a", timeout=timedelta(0))
    with pytest.raises(InvalidRequest, match="lease"):
        manager.start("a", lease=timedelta(0))
    with pytest.raises(InvalidRequest, match="wait"):
        manager.start("a", wait=timedelta(-1))


# --- losing the lock; the timeout ---


def test_a_lost_lock_is_recorded_as_failed_and_raised(manager: Manager, runner: Runner, clock: ManualClock) -> None:
    with pytest.raises(LeaseLost), manager.job("a"):
        clock.advance(timedelta(seconds=31))
        somebody_elses(runner, "a")
    (view,) = manager.jobs("a")
    assert view.in_error
    assert (view.error or "").startswith("LeaseLost")
    assert lock_names(runner) == ["lock a"]


def test_a_lost_lock_does_not_hide_the_bodys_own_error(manager: Manager, clock: ManualClock) -> None:
    with pytest.raises(ZeroDivisionError), manager.job("a"):
        clock.advance(timedelta(seconds=31))
        _ = 1 / 0
    assert (manager.jobs("a")[0].error or "").startswith("ZeroDivisionError")


def test_a_forced_unlock_stops_the_job(manager: Manager) -> None:
    with pytest.raises(LeaseLost), manager.job("a", lease=timedelta(milliseconds=300)) as job:
        assert not job.should_stop()
        manager.force_unlock("a", reason="it hangs", who="ann")
        assert job.lost.wait(60)
        assert job.time_remaining() == timedelta(0)
        assert job.should_stop()


def test_the_timeout_is_the_hard_limit_of_the_lock(manager: Manager, runner: Runner, clock: ManualClock) -> None:
    with pytest.raises(LeaseLost), manager.job("a", timeout=timedelta(milliseconds=200)) as job:
        assert job.should_stop()  # within the ten seconds before the timeout
        assert not job.should_stop(before=timedelta(0))
        assert job.deadline - job.started == timedelta(milliseconds=200)
        assert job.lost.wait(60)
        assert job.time_remaining() == timedelta(0)
        clock.advance(timedelta(milliseconds=200))
        somebody_elses(runner, "a")


def test_an_ending_after_the_timeout_but_under_the_lock_counts(manager: Manager, runner: Runner) -> None:
    job = manager.start("a", timeout=timedelta(hours=1))
    job._time_is_up()
    job.end()
    assert records(runner, "a") == [Status.SUCCEEDED]


def test_somebody_asks_the_job_to_stop(manager: Manager, runner: Runner) -> None:
    with manager.job("a") as job:
        runner.scheduler.cancel(job.run)
        job.progress(1)
        assert job.cancelled.is_set()
        assert job.should_stop()


# --- waiting, conditions, dependencies, launching ---


def test_try_start_and_try_run_are_one_atomic_decision_m52(manager: Manager, runner: Runner) -> None:
    assert manager.try_run("a", lambda: 41 + 1) == Ran(result=42)
    somebody_elses(runner, "a")
    assert manager.try_run("a", lambda: pytest.fail("must not run")) is None
    assert manager.try_start("a") is None


def test_only_one_of_many_threads_runs_the_job(manager: Manager) -> None:
    inside, most, lock, gate = 0, 0, threading.Lock(), threading.Barrier(8)
    refused = []

    def contend() -> None:
        nonlocal inside, most
        gate.wait()
        try:
            with manager.job("a"):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1
        except LockNotAcquired:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(refused) + len(manager.jobs("a")) == 8


def test_a_start_can_wait(manager: Manager, runner: Runner) -> None:
    first = manager.start("a")
    second: list[ManagedJob] = []
    waiting = threading.Thread(target=lambda: second.append(manager.start("a", wait=timedelta(minutes=5))))
    waiting.start()
    first.end()
    waiting.join(60)
    assert second[0].token > first.token
    second[0].end()
    two, one = manager.jobs("a")
    assert one.end_date is not None
    assert one.end_date <= two.start_date


def test_wait_for_the_end_of_another_job_m53(manager: Manager) -> None:
    job = manager.start("extract")
    with pytest.raises(TimeoutError, match="still running"):
        manager.wait_for("extract", timeout=timedelta(milliseconds=20))
    threading.Timer(0.05, job.end).start()
    assert manager.wait_for("extract", timeout=MINUTE).state is JobState.COMPLETED
    with pytest.raises(TimeoutError, match="has not run"):
        manager.wait_for("extract", timeout=timedelta(milliseconds=20), since=job.started + MINUTE)
    with pytest.raises(TimeoutError, match="has not run"):
        manager.wait_for("nobody", timeout=timedelta(0))


def test_wait_for_a_job_whose_process_died(manager: Manager, runner: Runner, clock: ManualClock) -> None:
    dead = Manager(runner)
    dead.start("extract", lease=timedelta(seconds=10))
    dead.close()
    clock.advance(timedelta(seconds=11))
    view = manager.wait_for("extract", timeout=MINUTE)
    assert view.in_error
    assert (view.error or "").startswith("Abandoned")


def test_launched_jobs_have_names_from_their_arguments_m45(manager: Manager, runner: Runner) -> None:
    @manager.managed("batch-{batch_id}", timeout=timedelta(minutes=30))
    def process_batch(batch_id: str, items: list[int], **more: object) -> int:
        job = current_job()
        assert job is not None
        assert job.name == f"batch-{batch_id}"
        return sum(items)

    futures = [manager.launch("process_batch", {"batch_id": f"00{i}", "items": [i, i]}) for i in (1, 2, 3)]
    assert [future.result(60) for future in futures] == [2, 4, 6]
    assert {view.name for view in manager.jobs()} == {"batch-001", "batch-002", "batch-003"}
    assert process_batch("004", items=[1]) == 1
    somebody_elses(runner, "batch-005")
    with pytest.raises(LockNotAcquired):
        manager.launch(process_batch, {"batch_id": "005", "items": []}).result(60)
    assert current_job() is None


def test_launching_any_function(manager: Manager) -> None:
    def load(table: str) -> str:
        return table

    assert manager.launch(load, {"table": "t"}, name="load-{table}").result(60) == "t"
    assert manager.launch(load, {"table": "t"}).result(60) == "t"
    assert [view.name for view in manager.jobs()] == ["load", "load-t"]
    with pytest.raises(InvalidRequest, match="managed"):
        manager.launch("unknown")
    with pytest.raises(InvalidRequest, match="tabel"):
        manager.launch(load, {"table": "t"}, name="load-{tabel}")


def test_a_pipeline_of_dependent_jobs_m54(manager: Manager) -> None:
    seen: list[str] = []

    @manager.managed("extract-data")
    def extract() -> None:
        seen.append("extract")

    @manager.managed("transform-data", after=["extract-data"])
    def transform() -> None:
        seen.append("transform")

    @manager.managed("load-data", after=["transform-data"])
    def load() -> None:
        seen.append("load")

    for _ in range(2):
        for future in [manager.launch(extract), manager.launch(transform), manager.launch(load)]:
            future.result(60)
    assert seen == ["extract", "transform", "load"] * 2


def test_a_launched_dependency_is_waited_for_also_before_it_has_started(manager: Manager, runner: Runner) -> None:
    """Its latest recorded start is yesterday's then, and that one ended well."""
    seen: list[str] = []

    @manager.managed("extract-data", wait=timedelta(minutes=5))
    def extract() -> None:
        seen.append("extract")

    @manager.managed("transform-data", after=["extract-data"])
    def transform() -> None:
        seen.append("transform")

    extract()
    held = runner.executor.lock(LockRequest(lock=LockId("extract-data"), holder="other", lease=MINUTE)).lease
    assert held is not None
    first, second = manager.launch(extract), manager.launch(transform)
    with pytest.raises(TimeoutError):
        second.result(0.2)
    assert runner.executor.unlock(held)
    first.result(60)
    second.result(60)
    assert seen == ["extract", "extract", "transform"]


def test_closing_waits_for_what_was_launched(runner: Runner) -> None:
    gate = threading.Event()
    manager = Manager(runner)
    future = manager.launch(lambda: gate.wait(60), name="slow")
    threading.Timer(0.05, gate.set).start()
    manager.close()
    assert future.done()
    assert future.result() is True


def test_a_failed_dependency_starts_nothing(manager: Manager) -> None:
    @manager.managed("transform", after=["extract"])
    def transform() -> None:
        pytest.fail("must not run")

    with pytest.raises(RuntimeError), manager.job("extract"):
        raise RuntimeError("no source")
    with pytest.raises(DependencyFailed, match="no source"):
        transform()
    broken = manager.launch(lambda: 1 / 0, name="broken")
    after = manager.launch(lambda: pytest.fail("must not run"), name="after", after=[broken])
    with pytest.raises(ZeroDivisionError):
        after.result(60)
    assert manager.jobs("transform") == manager.jobs("after") == []


# --- two stores; operators ---


def test_jobs_and_locks_in_two_stores_m8(runner: Runner, clock: ManualClock) -> None:
    locks = Runner.of(MemoryStore(namespace="locks", clock=clock), namespace="locks")
    with Manager(jobs=runner, locks=locks) as manager:
        with manager.job("a"):
            assert lock_names(locks) == ["lock a"]
            assert lock_names(runner) == []
        assert records(runner, "a") == [Status.SUCCEEDED]
        assert records(locks, "a") == []


def test_stores_by_url_and_mapping(tmp_path: Path) -> None:
    jobs, locks = {"type": "sqlite", "config": {"path": str(tmp_path / "jobs.db")}}, f"sqlite:///{tmp_path}/locks.db"
    with Manager(jobs, locks) as manager, manager.job("a"):
        pass
    with Manager(jobs, locks) as manager:
        assert [view.name for view in manager.jobs()] == ["a"]


def test_locks_that_are_not_shared_are_pointed_out_m58(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Manager(f"sqlite:///{tmp_path}/jobs.db", "memory://"):
        pass
    assert "each process has its own locks" in caplog.text


def test_force_unlock_is_written_down_and_fences_off_m56(manager: Manager, runner: Runner) -> None:
    job = manager.start("a")
    lease = manager.force_unlock("a", reason="host is gone", who="ann", token=job.token)
    assert lease is not None
    assert lease.token == job.token
    assert manager.force_unlock("a", reason="again", who="ann") is None
    with manager.job("a") as next_one:
        assert next_one.token > job.token + 1
        with pytest.raises(LeaseLost):
            job.end()
        assert lock_names(runner) == ["lock a"]
    second, first = runner.lifecycle.runs(RunQuery(job=AUDIT_JOB))
    assert (first.status, second.status) == (Status.SUCCEEDED, Status.SUCCEEDED)
    assert isinstance(first.payload, dict)
    assert isinstance(first.result, dict)
    assert first.payload["who"] == "ann"
    assert first.payload["reason"] == "host is gone"
    assert first.payload["lock"] == "a"
    assert first.result["unlocked"] is True
    assert first.result["token"] == job.token
    assert second.result == {"unlocked": False}


def test_force_unlock_with_a_token_spares_later_holders(manager: Manager, runner: Runner) -> None:
    job = manager.start("a")
    assert manager.force_unlock("a", reason="was it this one?", token=job.token - 1) is None
    assert lock_names(runner) == ["lock a"]
    job.end()
    assert records(runner, "a") == [Status.SUCCEEDED]


def test_force_unlock_needs_a_reason(manager: Manager, runner: Runner) -> None:
    manager.start("a")
    with pytest.raises(InvalidRequest, match="reason"):
        manager.force_unlock("a", reason="  ")
    assert lock_names(runner) == ["lock a"]
    assert records(runner, AUDIT_JOB) == []


def test_closing_with_a_job_still_running_is_reported(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(runner)
    job = manager.start("a")
    with caplog.at_level(logging.WARNING):
        manager.close()
    assert str(job.run) in caplog.text
