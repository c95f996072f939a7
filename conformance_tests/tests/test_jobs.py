"""Jobs as their authors write them: classes and functions, retry policies, and what a body can do while it runs."""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_store import KINDS, Bench, close_benches, failing, make_store

from onceward.contracts import Ending, InvalidRequest, Json, LeaseLost, RunId, Status, Store
from onceward.runners.clock import ManualClock
from onceward.toolkit.jobs import (
    Backoff,
    Cancel,
    FatalError,
    Job,
    JobContext,
    JobSettings,
    Overlap,
    Priority,
    Retry,
    RetryableError,
    Snooze,
    StepTaken,
    current_job_context,
    job,
)
from onceward.toolkit.jobs.launch import child_key, nominal_time, occurrence_key
from onceward.toolkit.schedules import Misfire, MisfirePolicy, Source, parse
from onceward.toolkit.server.capacity import Plan

MINUTE = timedelta(minutes=1)
STEADY = Retry(attempts=3, delay=MINUTE, backoff=Backoff.FIXED, jitter=0.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
    store = make_store(request.param, clock, tmp_path)
    store.open()
    yield store
    close_benches()
    store.close()


# -- declaring --------------------------------------------------------------------------------------------------


def test_a_class_is_called_after_itself_and_its_getters_win() -> None:
    class Report(Job):
        retry = Retry(attempts=9)

        def get_schedule(self) -> Source:
            return {"type": "schedule", "value": "0 * * * *"}

        def get_retry_config(self) -> dict[str, object]:
            return {"enabled": True, "attempts": 5, "delay": 120_000, "backoff": {"type": "exponential", "factor": 3}}

        def get_priority(self) -> int:
            return Priority.HIGH

        def get_concurrency(self) -> int:
            return 2

        def get_lock_lifetime(self) -> int:
            return 2 * 60 * 60 * 1000

    settings = Report().settings()
    assert Report.name == "Report"
    assert settings.schedule == parse("0 * * * *")
    assert settings.retry == Retry(attempts=5, delay=2 * MINUTE, factor=3.0)
    assert (settings.priority, settings.concurrency) == (10, 2)
    assert settings.lock_lifetime == timedelta(hours=2)


def test_a_function_is_a_job_with_and_without_arguments() -> None:
    @job
    def plain() -> str:
        return "plain"

    @job(name="shop:named", priority=Priority.LOW, retry=STEADY)
    async def named(ctx: JobContext) -> str:
        return "named"

    assert (plain.name, plain(), plain.is_async) == ("plain", "plain", False)
    assert (named.name, named.is_async) == ("shop:named", True)
    assert named.settings().priority == -10


def test_what_a_document_may_say_code_may_say_too() -> None:
    @job(
        schedule="@daily",
        overlap="queue_one",
        misfire={"policy": "all", "limit": 3, "grace": "10s"},
        retry={"attempts": 2, "delay": "5m", "backoff": "linear"},
        timeout="90s",
        jitter=500,
        lock_lifetime="1m",
        where="process",
    )
    def body() -> None: ...

    settings = body.settings()
    assert settings.overlap is Overlap.QUEUE_ONE
    assert settings.misfire == Misfire(policy=MisfirePolicy.ALL, limit=3, grace=timedelta(seconds=10))
    assert settings.retry == Retry(attempts=2, delay=5 * MINUTE, backoff=Backoff.LINEAR)
    assert settings.timeout == timedelta(seconds=90)
    assert settings.jitter == timedelta(milliseconds=500)
    assert settings.lock_lifetime == MINUTE
    assert not Plan(body, settings).in_event_loop
    with pytest.raises(InvalidRequest, match=r"Backoff\.FIXED or Backoff\.LINEAR or"):
        Retry(backoff="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"max_running": True}, "max_running"),
        ({"priority": 101}, "priority"),
        ({"lock_lifetime": timedelta(0)}, "lock_lifetime"),
        ({"timezone": "Mars", "schedule": "@daily"}, "timezone"),
        ({"shedule": "* * * * *"}, "shedule"),
        ({"name": "onceward:mine"}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"overlap": "sometimes"}, "overlap"),
        ({"where": "elsewhere"}, "where"),
        ({"misfire": "perhaps"}, "misfire.policy"),
        ({"misfire": {"policy": "all", "most": 3}}, "misfire.most"),
        ({"retry": {"attempts": 3, "backoff": "wild"}}, "retry.backoff"),
        ({"retry": 3}, "retry"),
        ({"timeout": "soon"}, "timeout"),
        ({"jitter": -1}, "jitter"),
        ({"priority": "high"}, "priority"),
    ],
)
def test_what_cannot_be_is_refused_when_declared(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        job(**options)(lambda: None)
    assert refused.value.field == field


def test_a_function_of_two_arguments_is_no_job() -> None:
    with pytest.raises(InvalidRequest, match="JobContext"):
        job(lambda one, two: None)  # type: ignore[misc, arg-type]


def test_scheduled_jobs_do_not_overlap_in_the_namespace_unless_they_may() -> None:
    assert JobSettings().cluster_limit is None
    assert JobSettings(schedule=parse("0 * * * *")).cluster_limit == 1
    assert JobSettings(schedule=parse("0 * * * *"), max_running=3).cluster_limit == 3
    assert JobSettings(schedule=parse("0 * * * *"), overlap=Overlap.ALLOW).cluster_limit is None


def test_settings_survive_the_way_through_a_document() -> None:
    settings = JobSettings(
        schedule=parse("every 5 minutes"),
        jitter=timedelta(seconds=3),
        retry=STEADY,
        lock_lifetime=MINUTE,
        timeout=MINUTE,
    )
    assert JobSettings().overridden(settings.to_document()) == settings


def test_an_override_names_the_entry_that_is_wrong() -> None:
    for document, field in [
        ({"concurency": 3}, "concurency"),
        ({"retry": {"attempts": 0}}, "retry.attempts"),
        ({"retry": {"tries": 3}}, "retry.tries"),
        ({"retry": {"backoff": "quadratic"}}, "retry.backoff"),
        ({"retry": 3}, "retry"),
        ({"lock_lifetime": "soon"}, "lock_lifetime"),
    ]:
        with pytest.raises(InvalidRequest) as refused:
            JobSettings().overridden(document)
        assert refused.value.field == field


def test_the_checksum_is_the_same_while_other_threads_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython may raise SystemError then (gh-106905), although nothing is wrong."""

    class One(Job):
        def run(self, ctx: JobContext) -> None: ...

    first, source, fails = One().checksum(), inspect.getsource, itertools.count()

    def disturbed(code: Any) -> str:
        if next(fails) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=54, after=40)")
        return source(code)

    monkeypatch.setattr(inspect, "getsource", disturbed)
    assert One().checksum() == first
    assert next(fails) == 4


def test_the_checksum_follows_code_and_settings() -> None:
    class One(Job):
        def run(self, ctx: JobContext) -> None: ...

    first = One().checksum()
    assert One().checksum() == first
    One.priority = 5
    assert One().checksum() != first


# -- retry law --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "expected"), [("fixed", [1, 1, 1, 1]), ("linear", [1, 2, 3, 4]), ("exponential", [1, 2, 4, 5])]
)
def test_delays_grow_as_said_up_to_the_cap(backoff: str, expected: list[int]) -> None:
    retry = Retry(delay=MINUTE, backoff=Backoff(backoff), max_delay=5 * MINUTE, jitter=0.0)
    assert [retry.delay_after(n) / MINUTE for n in (1, 2, 3, 4)] == expected


def test_jitter_stays_within_its_share_and_the_cap() -> None:
    retry = Retry(delay=MINUTE, jitter=0.5, max_delay=MINUTE)
    assert retry.delay_after(1, draw=lambda: 0.0) == MINUTE / 2
    assert retry.delay_after(1, draw=lambda: 1.0) == MINUTE
    assert Retry(factor=1000.0).delay_after(10**6) <= timedelta(hours=1)


def test_attempts_are_executions_in_all(store: Store, clock: ManualClock) -> None:
    bench = Bench(store, failing(ValueError("no"), retry=STEADY))
    run = bench.submit("failing")
    for expected in (Status.SCHEDULED, Status.SCHEDULED, Status.FAILED):
        assert bench.work() == 1
        assert bench.run(run).status is expected
        assert bench.work() == 0
        clock.advance(MINUTE)
    found = bench.run(run)
    assert (found.attempt, found.failures) == (3, 3)
    assert found.error is not None
    assert (found.error.type, found.error.message) == ("ValueError", "no")
    assert "Traceback" in (found.error.trace or "")
    assert bench.work() == 0


@pytest.mark.parametrize(
    ("error", "retry", "status", "ending"),
    [
        (FatalError("never"), STEADY, Status.FAILED, Ending.FAILED),
        (ValueError("off"), Retry(enabled=False), Status.FAILED, Ending.FAILED),
        (RetryableError("on"), Retry(enabled=False), Status.SCHEDULED, Ending.RETRY),
        (RetryableError("last"), Retry(attempts=1), Status.FAILED, Ending.FAILED),
        (Snooze(MINUTE), STEADY, Status.SCHEDULED, Ending.RELEASED),
        (Cancel("not needed"), STEADY, Status.CANCELLED, Ending.CANCELLED),
        (SystemExit(3), Retry(attempts=1), Status.FAILED, Ending.FAILED),
        (KeyboardInterrupt(), STEADY, Status.SCHEDULED, Ending.RETRY),
        (GeneratorExit(), STEADY, Status.SCHEDULED, Ending.RETRY),
    ],
)
def test_what_a_body_raises_says_how_it_ends(
    store: Store, error: BaseException, retry: Retry, status: Status, ending: Ending
) -> None:
    bench = Bench(store, failing(error, retry=retry))
    run = bench.submit("failing")
    assert bench.work() == 1
    assert bench.run(run).status is status
    assert bench.run(run).attempts[-1].ending is ending


def test_a_snooze_counts_as_nothing_and_an_error_says_when(store: Store, clock: ManualClock) -> None:
    errors: list[Exception] = [Snooze(MINUTE), RetryableError("soon", after=timedelta(seconds=5))]

    @job(name="j", retry=STEADY)
    def body(ctx: JobContext) -> int:
        if errors:
            raise errors.pop(0)
        return ctx.attempt

    bench = Bench(store, body)
    run = bench.submit("j")
    bench.work()
    assert bench.run(run).failures == 0
    clock.advance(MINUTE)
    bench.work()
    assert bench.run(run).failures == 1
    clock.advance(timedelta(seconds=5))
    bench.work()
    assert (bench.run(run).status, bench.run(run).result) == (Status.SUCCEEDED, 3)


def test_crashes_have_a_budget_of_their_own(store: Store, clock: ManualClock) -> None:
    """A worker that dies with the run counts as a crash; the last one that is not forgiven ends it."""

    class Dead(Exception):
        pass

    class NeverEnding:
        def start(self, attempt: object) -> None:
            """The process is gone before the body does anything."""

        def close(self) -> None: ...

    body = failing(Dead(), retry=Retry(attempts=1, max_crashes=2), lock_lifetime=MINUTE)
    run = Bench(store, body).submit("failing")
    for crashes in range(3):
        assert Bench(store, body, bodies=NeverEnding()).worker.claim() == 1
        assert Bench(store, body, bodies=NeverEnding()).worker.claim() == 0, "G8: not before the lease is over"
        clock.advance(MINUTE)
        assert Bench(store, body).run(run).crashes == crashes
    assert Bench(store, body).work() == 0
    found = Bench(store, body).run(run)
    assert (found.status, found.crashes, found.failures) == (Status.FAILED, 3, 0)


# -- what a body can do -----------------------------------------------------------------------------------------


def test_a_body_sees_its_run(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    seen: dict[str, Any] = {}

    @job(name="j")
    def body(ctx: JobContext) -> None:
        seen.update(job=ctx.job, key=ctx.key, data=ctx.data, attempt=ctx.attempt, token=ctx.token)
        seen["current"] = current_job_context() is ctx
        seen["stop"] = ctx.should_stop()
        ctx.logger.info("working on %d", 7)
        ctx.progress(10, 4, "four of ten")
        seen["left"] = ctx.time_remaining()
        with ctx.fenced() as token:
            seen["fence"] = token

    bench = Bench(store, body)
    with caplog.at_level(logging.INFO, "onceward.job"):
        run = bench.submit("j", "a", {"n": 1})
        bench.work()
    found = bench.run(run)
    assert (seen["job"], seen["key"], seen["data"], seen["attempt"]) == ("j", "a", {"n": 1}, 1)
    assert seen["token"] == seen["fence"] == found.token
    assert (seen["current"], seen["stop"]) == (True, False)
    assert timedelta(0) < seen["left"] <= 2 * MINUTE
    assert current_job_context() is None
    assert found.progress is not None
    assert (found.progress.total, found.progress.done, found.progress.message) == (10, 4, "four of ten")
    line = next(record for record in caplog.records if record.name == "onceward.job.j")
    assert line.getMessage() == "[j/a #1] working on 7"
    assert (line.__dict__["job"], line.__dict__["token"]) == ("j", found.token)


def test_a_parent_that_is_tried_again_launches_no_child_twice(store: Store, clock: ManualClock) -> None:
    done: list[Json] = []

    @job(name="parent", retry=STEADY)
    def parent(ctx: JobContext) -> None:
        for data in (1, 2, 2):
            ctx.launch("child", data)
        if ctx.attempt == 1:
            raise RetryableError("after the launches")
        ctx.launch("child", 3)

    @job(name="child")
    def child(ctx: JobContext) -> None:
        done.append(ctx.data)

    bench = Bench(store, parent, child)
    bench.submit("parent")
    bench.work_all()
    clock.advance(MINUTE)
    bench.work_all()
    assert sorted(map(str, done)) == ["1", "2", "2", "3"]


def test_a_step_is_done_once_however_often_the_job_is_tried(store: Store, clock: ManualClock) -> None:
    charged: list[int] = []

    @job(name="pay", retry=STEADY)
    def pay(ctx: JobContext) -> Json:
        with ctx.once("charge-42") as step:
            if step.first:
                charged.append(ctx.attempt)
                step.result = {"receipt": 7}
        if ctx.attempt == 1:
            raise RetryableError("after the charge")
        return step.result

    bench = Bench(store, pay)
    run = bench.submit("pay")
    bench.work()
    clock.advance(MINUTE)
    bench.work()
    assert charged == [1]
    assert bench.run(run).result == {"receipt": 7}


def test_a_step_that_failed_is_done_again_and_one_that_is_taken_waits(store: Store, clock: ManualClock) -> None:
    tries: list[int] = []

    @job(name="pay", retry=STEADY)
    def pay(ctx: JobContext) -> None:
        with ctx.once("charge") as step:
            tries.append(ctx.attempt)
            if ctx.attempt == 1:
                raise RetryableError("in the step")
            with pytest.raises(StepTaken), ctx.once("charge"):
                raise AssertionError("two in one step")
            assert step.first

    bench = Bench(store, pay)
    run = bench.submit("pay")
    bench.work()
    clock.advance(MINUTE)
    bench.work()
    assert tries == [1, 2]
    assert bench.run(run).status is Status.SUCCEEDED


def test_g4_a_body_whose_lease_is_gone_is_told_at_its_next_step_and_its_end_is_refused(
    store: Store, clock: ManualClock
) -> None:
    told: list[str] = []

    @job(name="slow", lock_lifetime=MINUTE)
    def slow(ctx: JobContext) -> str:
        if ctx.attempt == 1:
            clock.advance(2 * MINUTE)
            assert Bench(store, slow).work() == 1  # another server takes it over and ends it
            for step in (ctx.touch, lambda: ctx.progress(2, 1), lambda: ctx.launch("child")):
                with pytest.raises(LeaseLost):
                    step()
                told.append("lost")
            assert ctx.lost.is_set()
            assert ctx.should_stop()
        return f"attempt {ctx.attempt}"

    bench = Bench(store, slow)
    run = bench.submit("slow")
    bench.work()
    assert told == ["lost"] * 3
    assert bench.run(run).result == "attempt 2"
    assert bench.events.counts() == {"start": 1, "superseded": 1}
    assert store.check(RunId("child", "x")) is None


def test_old_data_is_upgraded_or_the_run_fails_at_once(store: Store) -> None:
    class Mail(Job):
        retry = STEADY

        def upgrade(self, data: Json) -> Json:
            assert isinstance(data, dict)
            return {"to": data.get("to") or data["address"]}

        def run(self, ctx: JobContext) -> Json:
            return ctx.data

    bench = Bench(store, Mail())
    old, broken = bench.submit("Mail", "old", {"address": "a@b"}), bench.submit("Mail", "broken", {"x": 1})
    bench.work()
    assert bench.run(old).result == {"to": "a@b"}
    found = bench.run(broken)
    assert (found.status, found.payload) == (Status.FAILED, {"x": 1})
    assert found.error is not None
    assert found.error.type == "OutdatedData"


def test_a_result_that_is_no_json_fails_the_run_and_says_where(store: Store) -> None:
    @job(name="j")
    def body() -> Json:
        return {"when": {1, 2}}  # type: ignore[dict-item]

    bench = Bench(store, body)
    run = bench.submit("j")
    bench.work()
    found = bench.run(run)
    assert found.status is Status.FAILED
    assert found.error is not None
    assert "result.when" in found.error.message


def test_a_coroutine_runs_too(store: Store) -> None:
    @job(name="j")
    async def body(ctx: JobContext) -> Json:
        return ctx.data

    bench = Bench(store, body)
    run = bench.submit("j", data=[1])
    bench.work()
    assert bench.run(run).result == [1]


# -- keys -------------------------------------------------------------------------------------------------------


def test_an_occurrence_has_one_key_in_every_zone() -> None:
    utc = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert occurrence_key(utc) == "@2026-03-01T12:00:00.000000Z"
    assert occurrence_key(utc.astimezone()) == occurrence_key(utc)
    assert nominal_time(occurrence_key(utc)) == utc
    for other in ("k", "@", "@yesterday", "@2026-03-01"):
        assert nominal_time(other) is None


def test_a_child_s_key_tells_data_apart() -> None:
    parent = RunId("p", "k")
    values: list[Json] = [1, 1.0, "1", None, [1]]
    keys = {child_key(parent, "c", data, n) for data in values for n in (1, 2)}
    assert len(keys) == 10
    assert child_key(parent, "c", {"a": 1, "b": 2}, 1) == child_key(parent, "c", {"b": 2, "a": 1}, 1)
