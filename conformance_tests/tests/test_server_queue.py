"""Content-keyed jobs, and the job runner by the seed's names, on any store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engine_store import KINDS, make_store
from waiting import PATIENCE

from onceward.contracts import InvalidRequest, Json, Runner, Status, Store
from onceward.runners.clock import ManualClock
from onceward.toolkit.jobs import Job, JobContext, Retry
from onceward.toolkit.schedules import parse
from onceward.toolkit.server import JobQueue, JobRunner

PROMPT = timedelta(seconds=PATIENCE)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
    store = make_store(request.param, clock, tmp_path)
    store.open()
    yield store
    store.close()


def over(store: Store) -> Runner:
    return Runner.of(store, namespace="test")


# -- T items ------------------------------------------------------------------------------------------------------


def test_equal_data_is_done_once_however_often_it_is_created(store: Store) -> None:
    done: list[Json] = []
    queue = JobQueue(over(store), {"mail": done.append})
    producers = [JobQueue(over(store)) for _ in range(3)]
    when = datetime(2026, 5, 1, tzinfo=UTC)
    for producer in producers:
        producer.create("mail", {"to": "a", "at": when})
        producer.create("mail", {"at": when, "to": "a"})
        producer.create("mail", {"to": "b", "at": when})
    assert queue.run_all() == 2
    assert queue.run_all() == 0
    assert done == [{"to": "a", "at": when}, {"to": "b", "at": when}]
    assert not queue.create("mail", {"to": "a", "at": when}).new


def test_an_id_of_one_s_own_is_used_instead(store: Store) -> None:
    queue = JobQueue(over(store), {"t": lambda data: data})
    assert queue.create("t", 1, id="mine").new
    assert not queue.create("t", 2, id="mine").new
    run = queue.run("t")
    assert run is not None
    assert (run.key, run.result) == ("mine", 1)
    assert queue.find("t", id="mine") is not None
    assert queue.find("t", 1) is None


def test_run_does_one_and_says_how_it_went(store: Store) -> None:
    queue = JobQueue(over(store), {"double": lambda data: data * 2})
    queue.create_many([("double", 1), ("double", 2), ("double", 1)])
    first = queue.run("double")
    assert first is not None
    assert (first.status, first.result) == (Status.SUCCEEDED, 2)
    assert queue.run("double") is not None
    assert queue.run("double") is None
    assert len(queue.runs("double")) == 2


def test_workers_may_specialise_and_a_producer_needs_no_executor(store: Store) -> None:
    cook = JobQueue(over(store), {"cook": lambda data: None})
    both = JobQueue(over(store), {"cook": lambda data: None, "wash": lambda data: None})
    both.create("cook", 1)
    both.create("wash", 2)
    assert cook.run_all() == 1
    assert both.run_all("cook") == 0
    assert both.run_all("wash") == 1
    with pytest.raises(InvalidRequest, match="wash"):
        cook.run("wash")


def test_a_job_may_create_jobs_and_run_all_does_them_too(store: Store) -> None:
    def tree(data: int, queue: JobQueue) -> None:
        for child in (2 * data, 2 * data + 1):
            if child < 16:
                queue.create("tree", child)

    async def leaf(data: int, queue: JobQueue) -> int:
        return data

    queue = JobQueue(over(store), {"tree": tree, "leaf": leaf})
    queue.create("tree", 1)
    assert queue.run_all("tree") == 15
    queue.create("leaf", 7)
    run = queue.run()
    assert run is not None
    assert run.result == 7


def test_what_fails_is_tried_three_times_and_then_kept(store: Store) -> None:
    tries: list[int] = []

    def poison(data: Json) -> None:
        tries.append(1)
        raise ValueError("no")

    queue = JobQueue(over(store), {"poison": poison})
    queue.create("poison", 1)
    assert queue.run_all() == 3
    found = queue.find("poison", 1)
    assert found is not None
    assert (found.status, found.failures, len(tries)) == (Status.FAILED, 3, 3)


def test_priority_and_time_are_kept(store: Store, clock: ManualClock) -> None:
    done: list[Json] = []
    queue = JobQueue(over(store), {"t": done.append})
    queue.create("t", "low", priority=-5)
    queue.create("t", "later", after=timedelta(minutes=1))
    queue.create("t", "high", priority=5)
    queue.run_all()
    assert done == ["high", "low"]
    clock.advance(timedelta(minutes=1))
    queue.run_all()
    assert done == ["high", "low", "later"]


def test_a_watch_does_what_comes_until_it_is_stopped(tmp_path: Path) -> None:
    done = threading.Event()
    with JobQueue(f"sqlite:///{tmp_path}/q.db", {"t": lambda data: done.set()}) as queue:
        server = queue.watch("t")
        with pytest.raises(InvalidRequest):
            queue.watch("t")
        run = queue.create("t", 1).run
        assert server.wait(run, PROMPT).status is Status.SUCCEEDED
        assert done.is_set()
        assert server.health().live
        queue.stop()
        queue.create("t", 2)
        assert queue.run_all() == 1


def test_an_executor_may_be_a_job_with_settings_of_its_own(store: Store) -> None:
    class Careful(Job):
        retry = Retry(attempts=1)

        def run(self, ctx: JobContext) -> None:
            raise ValueError("no")

    queue = JobQueue(over(store), {"Careful": Careful()})
    queue.create("Careful", 1)
    assert queue.run_all() == 1
    with pytest.raises(InvalidRequest, match="Careful"):
        JobQueue(over(store), {"other": Careful()})


# -- the seed's names -----------------------------------------------------------------------------------------------


class Report(Job):
    def run(self, ctx: JobContext) -> Json:
        return {"data": ctx.data, "attempt": ctx.attempt}


def test_the_job_runner_has_the_seed_s_methods(tmp_path: Path) -> None:
    runner = JobRunner(f"sqlite:///{tmp_path}/jobs.db", max_concurrency=2)
    runner.create_job("api:report", Report)
    runner.configure_retry("api:report", {"attempts": 5, "delay": 120_000})
    runner.schedule("api:report", {"type": "schedule", "value": "0 3 * * *"}, {"kind": "nightly"})
    runner.disable_job("api:report")
    runner.enable_job("api:report")
    runner.start()
    settings = runner.server.manager.settings("api:report")
    assert settings is not None
    assert settings.schedule is not None
    assert (settings.retry.attempts, settings.schedule.text, settings.data) == (5, "0 3 * * *", {"kind": "nightly"})
    runner.update_schedule("api:report", "every 2 hours")
    run = runner.run_job_now("api:report", {"kind": "now"})
    found = runner.server.wait(run, PROMPT)
    assert found.result == {"data": {"kind": "now"}, "attempt": 1}
    with pytest.raises(InvalidRequest, match="schedule"):
        runner.update_schedule("api:report", "never ever")
    assert runner.close().clean


def test_a_schedule_that_names_no_zone_has_the_job_s() -> None:
    class Nightly(Job):
        schedule = "0 3 * * *"
        timezone = "Europe/Vienna"

    runner = JobRunner("memory://")
    runner.create_job("nightly", Nightly)
    for schedule in ("0 4 * * *", {"type": "schedule", "value": "0 4 * * *"}):
        runner.update_schedule("nightly", schedule)
        settings = runner.server.manager.settings("nightly")
        assert settings is not None
        assert settings.schedule == parse("0 4 * * *", timezone="Europe/Vienna")
    runner.close()
