"""G10, G11: any number of servers, each occurrence one run, each edit kept. Rounds are made by hand, time is moved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_store import KINDS, Flaky, make_store
from msgspec.structs import replace

from onceward.contracts import (
    ConfigWrite,
    InvalidRequest,
    Json,
    OutcomeUnknown,
    Purge,
    RunId,
    Runner,
    RunQuery,
    Status,
    Store,
    StoreUnavailable,
)
from onceward.runners.clock import ManualClock
from onceward.toolkit.jobs import Job, JobContext, Misfire, MisfirePolicy, Overlap, Retry, job
from onceward.toolkit.schedules import parse
from onceward.toolkit.server import JobServer
from onceward.toolkit.server.bodies import Inline
from onceward.toolkit.server.dead_letters import dead_letters, discard, discard_all, retry_all

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
    store = make_store(request.param, clock, tmp_path)
    store.open()
    yield store
    for server in servers:
        server.worker.close(timedelta(seconds=1))
    servers.clear()
    store.close()


servers: list[JobServer] = []


def serve(store: Store, *jobs: Job, **changes: Any) -> JobServer:
    """A server whose loops the test runs by hand."""
    changes = {"max_concurrency": 50, "default_concurrency": 50} | changes
    server = JobServer.create(Runner.of(store, namespace="test"), jobs, bodies=Inline(), **changes)
    server.presence.keep()
    server.manager.refresh()
    server.ticker.round()
    servers.append(server)
    return server


def hourly(done: list[str] | None = None, **options: Any) -> Job:
    @job(name="hourly", schedule="0 * * * *", **options)
    def body(ctx: JobContext) -> None:
        assert ctx.scheduled_for is not None
        if done is not None:
            done.append(f"{ctx.scheduled_for:%d-%H}")

    return body


def work(server: JobServer) -> int:
    started = server.worker.claim()
    server.worker.flusher.flush()
    return started


def tick(*many: JobServer) -> None:
    for server in many:
        server.ticker.round()
        while work(server):
            pass


def keys(store: Store, job: str) -> list[str]:
    return sorted(run.key for run in store.runs(RunQuery(job=job)))


# -- G10 --------------------------------------------------------------------------------------------------------


def test_g10_each_occurrence_makes_one_run_for_any_number_of_servers(store: Store, clock: ManualClock) -> None:
    done: list[str] = []
    many = [serve(store, hourly(done)) for _ in range(3)]
    for _ in range(5):
        clock.advance(HOUR)
        for server in many:
            server.ticker.round()
        tick(*many)
        many.append(serve(store, hourly(done)))  # a server that starts, or restarts, changes nothing
    assert done == [f"01-{hour:02}" for hour in range(1, 6)]
    assert {run.attempt for run in store.runs(RunQuery(job="hourly"))} == {1}


def test_a_round_says_when_the_next_one_is_due(store: Store, clock: ManualClock) -> None:
    server = serve(store, hourly())
    clock.advance(59 * MINUTE + timedelta(seconds=30))
    assert server.ticker.round() == 30.0


def test_g10_a_server_that_dies_between_submission_and_cursor_leaves_nothing_undone(clock: ManualClock) -> None:
    store, done = Flaky(clock), []
    first, second = serve(store, hourly(done)), serve(store, hourly(done))
    clock.advance(HOUR)
    real = store.write_config
    store.write_config = lambda write: (_ for _ in ()).throw(StoreUnavailable("gone"))  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        first.ticker.round()
    store.write_config = real  # type: ignore[method-assign]
    tick(second, first)
    assert done == ["01-01"]


def test_g10_lost_answers_make_no_second_run_and_lose_none(clock: ManualClock) -> None:
    store, done = Flaky(clock), []
    server = serve(store, hourly(done))
    clock.advance(HOUR)
    store.lose.update(submit=1, write_config=1)
    tick(server)
    clock.advance(HOUR)
    tick(server)
    assert done == ["01-01", "01-02"]


def test_g10_old_cursors_do_not_bring_purged_occurrences_back(store: Store, clock: ManualClock) -> None:
    done: list[str] = []
    paused, other = serve(store, hourly(done)), serve(store, hourly(done))
    clock.advance(HOUR)
    tick(other)
    clock.advance(MINUTE)
    assert store.purge(Purge(older_than=timedelta(0))) == 1
    tick(paused)
    assert done == ["01-01"]


@pytest.mark.parametrize(
    ("policy", "expected"), [("skip", []), ("once", ["01-05"]), ("all", [f"01-{n:02}" for n in range(1, 6)])]
)
def test_what_was_missed_is_served_as_the_policy_says(
    store: Store, clock: ManualClock, policy: str, expected: list[str]
) -> None:
    done: list[str] = []
    body = hourly(done, misfire=Misfire(policy=MisfirePolicy(policy)))
    serve(store, body)
    clock.advance(5 * HOUR + 30 * MINUTE)  # no server was there
    tick(serve(store, body), serve(store, body))
    assert sorted(done) == expected
    cursor = store.read_config("cursor:hourly")
    assert cursor is not None
    assert isinstance(cursor.document, dict)
    assert (cursor.document["skipped"] is None) == (policy == "all"), "what is missed is never silent"


def test_jitter_is_the_same_on_every_server_and_the_key_stays_nominal(store: Store, clock: ManualClock) -> None:
    many = [serve(store, hourly(jitter=10 * MINUTE)) for _ in range(2)]
    clock.advance(HOUR)
    for server in many:
        server.ticker.round()
    [run] = store.runs(RunQuery(job="hourly"))
    assert run.key == "@2026-01-01T01:00:00.000000Z"
    assert START + HOUR <= run.run_at <= START + HOUR + 10 * MINUTE


def test_now_and_once_run_once_whoever_starts_however_often(store: Store, clock: ManualClock) -> None:
    done: list[str] = []

    @job(schedule="now")
    def at_start(ctx: JobContext) -> None:
        done.append("now")

    @job(schedule={"type": "once", "value": "2025-12-31T00:00:00Z"})
    def migration(ctx: JobContext) -> None:
        done.append("once")

    for _ in range(3):
        tick(serve(store, at_start, migration), serve(store, at_start, migration))
        clock.advance(HOUR)
    assert sorted(done) == ["now", "once"]


# -- overlap ----------------------------------------------------------------------------------------------------


def running(store: Store, server: JobServer) -> RunId:
    """The occurrence that is due is claimed, and goes on."""
    server.ticker.round()
    asked = server.worker._ask()
    assert asked is not None
    [run] = store.claim(asked.claim)
    return run.id


@pytest.mark.parametrize(("overlap", "runs"), [("skip", 1), ("queue_one", 2), ("allow", 3), ("cancel_running", 3)])
def test_what_is_due_while_the_one_before_runs(store: Store, clock: ManualClock, overlap: str, runs: int) -> None:
    server = serve(store, hourly(overlap=Overlap(overlap), lock_lifetime=10 * HOUR))
    clock.advance(HOUR)
    first = running(store, server)
    for _ in range(2):
        clock.advance(HOUR)
        server.ticker.round()
    assert len(keys(store, "hourly")) == runs
    found = store.check(first)
    assert found is not None
    assert found.cancel_requested == (overlap == "cancel_running")
    assert work(server) == (2 if overlap == "allow" else 0), "G12: one at a time in the namespace"


def test_a_retry_that_waits_is_in_the_way_too(store: Store, clock: ManualClock) -> None:
    @job(name="hourly", schedule="0 * * * *", retry=Retry(attempts=2, delay=2 * HOUR, max_delay=3 * HOUR, jitter=0.0))
    def body(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            raise ValueError("no")

    server = serve(store, body)
    for _ in range(4):
        clock.advance(HOUR)
        tick(server)
    assert keys(store, "hourly") == ["@2026-01-01T01:00:00.000000Z", "@2026-01-01T04:00:00.000000Z"]


# -- configurations ---------------------------------------------------------------------------------------------


def test_a_disabled_job_makes_no_run_and_what_it_missed_stays_missed(store: Store, clock: ManualClock) -> None:
    done: list[str] = []
    one, two = serve(store, hourly(done)), serve(store, hourly(done))
    one.manager.configs.disable("hourly")
    assert two.manager.refresh()
    clock.advance(3 * HOUR + 30 * MINUTE)
    tick(two)
    waiting = one.launch("hourly", key="@2026-01-01T00:00:00.000000Z").run
    assert work(two) == 0, "what is in the queue waits, too"
    one.manager.configs.enable("hourly")
    two.manager.refresh()
    tick(two)
    assert done == ["01-00"]
    assert store.check(waiting) is not None
    clock.advance(HOUR)
    tick(two)
    assert done == ["01-00", "01-04"]


def test_an_edited_schedule_holds_for_all_and_does_not_look_back(store: Store, clock: ManualClock) -> None:
    done: list[str] = []
    one, two = serve(store, hourly(done)), serve(store, hourly(done))
    clock.advance(HOUR)
    tick(one, two)
    clock.advance(30 * MINUTE)
    one.manager.configs.override("hourly", {"schedule": "*/10 * * * *"})
    two.manager.refresh()
    two.ticker.round()
    clock.advance(10 * MINUTE)
    one.ticker.round()  # has not heard of it yet, and must not turn it back
    tick(two)
    one.manager.refresh()
    tick(one, two)
    assert done == ["01-01", "01-01"]
    assert keys(store, "hourly") == ["@2026-01-01T01:00:00.000000Z", "@2026-01-01T01:40:00.000000Z"]


def test_overrides_apply_at_once_and_one_that_cannot_be_names_its_field(store: Store) -> None:
    server = serve(store, hourly())
    configs = server.manager.configs
    configs.override(
        "hourly",
        {
            "retry": {"attempts": 5, "delay": 120_000},
            "concurrency": 3,
            "lock_lifetime": "45m",
            "timezone": "Asia/Tokyo",
        },
    )
    assert server.manager.refresh()
    settings = server.manager.settings("hourly")
    assert settings is not None
    assert (settings.retry.attempts, settings.retry.delay) == (5, 2 * MINUTE)
    assert (settings.concurrency, settings.lock_lifetime) == (3, 45 * MINUTE)
    assert settings.schedule == parse("0 * * * *", timezone="Asia/Tokyo")
    for document, field in [
        ({"priorty": 1}, "priorty"),
        ({"schedule": "61 * * * *"}, "schedule"),
        ({"retry": 1}, "retry"),
        ({"timezone": "Mars/Phobos"}, "timezone"),
        ({"schedule": "every 2 hours", "timezone": "Mars/Phobos"}, "timezone"),
        ({"schedule": parse("every 2 hours").to_dict(), "timezone": "Mars/Phobos"}, "timezone"),
    ]:
        with pytest.raises(InvalidRequest) as refused:
            configs.override("hourly", document)
        assert refused.value.field.startswith(field)
    configs.override("hourly", {"concurrency": None})
    server.manager.refresh()
    found = server.manager.settings("hourly")
    assert found is not None
    assert found.concurrency is None
    assert not server.manager.refresh(), "nothing has changed since"


def test_a_document_that_somebody_broke_is_reported_and_what_held_goes_on(store: Store, clock: ManualClock) -> None:
    done: list[str] = []
    server = serve(store, hourly(done))
    found = store.read_config("job:hourly")
    assert found is not None
    assert isinstance(found.document, dict)
    broken: Json = {**found.document, "concurrency": "many"}
    assert store.write_config(ConfigWrite(name=found.name, document=broken, expected_version=found.version))
    server.manager.refresh()
    assert "concurrency" in server.manager.problems["hourly"]
    assert any("hourly" in reason for reason in server.health().reasons)
    clock.advance(HOUR)
    tick(server)
    assert done == ["01-01"]


def test_g11_concurrent_edits_are_never_lost(store: Store) -> None:
    server = serve(store, hourly())
    configs = server.manager.configs
    inner: list[int] = []

    def slow_edit(present: Any) -> Any:
        if not inner:  # somebody else comes in between
            inner.append(1)
            configs.override("hourly", {"priority": 7})
        return replace(present, enabled=False)

    configs.change("hourly", slow_edit)
    found = configs.get("hourly")
    assert found is not None
    assert (found.enabled, found.overrides) == (False, {"priority": 7})


@pytest.mark.parametrize("by_hand", [True, False])
def test_g11_run_now_makes_exactly_one_run(store: Store, by_hand: bool) -> None:
    done: list[str] = []

    @job(name="report")
    def report(ctx: JobContext) -> None:
        done.append(ctx.key)

    many = [serve(store, report) for _ in range(3)]
    if by_hand:
        found = store.read_config("job:report")
        assert found is not None
        assert isinstance(found.document, dict)
        wish: Json = {**found.document, "run_now": True}
        store.write_config(ConfigWrite(name=found.name, document=wish, expected_version=found.version))
    else:
        many[0].manager.configs.ask_run_now("report")
        many[1].manager.configs.ask_run_now("report")
    many[0].manager.configs.override("report", {"priority": 3})  # an edit in between keeps the wish
    for server in many:
        server.manager.refresh()
        tick(server)
    assert len(done) == 1
    config = many[0].manager.configs.get("report")
    assert config is not None
    assert config.run_now is None
    many[1].manager.configs.ask_run_now("report")
    many[2].manager.refresh()
    tick(many[2])
    assert len(done) == 2


def test_g11_run_now_survives_a_server_that_dies_in_its_middle(clock: ManualClock) -> None:
    store, done = Flaky(clock), []

    @job(name="report")
    def report(ctx: JobContext) -> None:
        done.append(ctx.key)

    first, second = serve(store, report), serve(store, report)
    first.manager.configs.ask_run_now("report")
    store.lose["submit"] = 10
    with pytest.raises(OutcomeUnknown):
        first.manager.refresh()
    store.lose.clear()
    second.manager.refresh()
    tick(second)
    first.manager.refresh()
    tick(first)
    assert len(done) == 1


def test_r9_new_code_resets_overrides_once_and_old_code_does_not_bring_them_back(store: Store) -> None:
    class Report(Job):
        concurrency = 1

        def run(self, ctx: JobContext) -> None: ...

    old = Report()
    before = serve(store, old)
    before.manager.configs.override("Report", {"priority": 9})
    before.manager.configs.disable("Report")

    class Newer(Job):
        name = "Report"
        concurrency = 2

        def run(self, ctx: JobContext) -> None: ...

    after = serve(store, Newer())
    again = serve(store, old)
    for server in (before, again, after):
        server.manager.refresh()
        settings = server.manager.settings("Report")
        assert settings is not None
        assert (settings.concurrency, settings.priority) == (2, 0), "all follow the newest code"
        assert not server.manager.plans()["Report"].enabled, "whether it is enabled is kept"
    config = after.manager.configs.get("Report")
    assert config is not None
    assert config.generation == 2


def test_r9_old_code_takes_its_settings_back_once_no_server_has_the_newer_code(
    store: Store, clock: ManualClock
) -> None:
    """A rollback; also one after a server with newer code died, and nobody is left to say good-bye for it."""

    class Report(Job):
        concurrency = 1

        def run(self, ctx: JobContext) -> None: ...

    class Newer(Job):
        name = "Report"
        concurrency = 2

        def run(self, ctx: JobContext) -> None: ...

    def held(server: JobServer) -> int | None:
        server.manager.refresh()
        settings = server.manager.settings("Report")
        assert settings is not None
        return settings.concurrency

    before, after = serve(store, Report()), serve(store, Newer())
    before.manager.configs.disable("Report")
    assert (held(before), held(after)) == (2, 2)
    after.presence.leave()
    assert held(before) == 1, "the newer code is gone"
    assert not before.manager.plans()["Report"].enabled, "whether it is enabled is kept"
    after.presence.keep()
    assert (held(after), held(before)) == (1, 1), "while one lives whose settings hold, they hold"
    before.presence.leave()
    assert held(after) == 2
    before.presence.keep()
    assert held(before) == 2
    clock.advance(timedelta(minutes=2))  # the server with the newer code was killed: its lock lapses
    assert held(before) == 1


def test_what_is_not_known_cannot_be_configured(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="nosuch"):
        serve(store).manager.configs.disable("nosuch")


# -- dead letters, retention, what is parked ----------------------------------------------------------------------


def broken_job(fixed: list[int]) -> Job:
    @job(name="mail", retry=Retry(attempts=1))
    def mail() -> None:
        if not fixed:
            raise ValueError("no")

    return mail


def test_dead_letters_are_retried_and_discarded_one_by_one_and_in_bulk(store: Store) -> None:
    fixed: list[int] = []
    server = serve(store, broken_job(fixed))
    runs = [server.launch("mail", key=str(n)).run for n in range(6)]
    tick(server)
    assert [run.key for run in dead_letters(server.runner, "mail")] == [run.key for run in runs]
    assert discard(server.runner, runs[0], reason="spam", who="ann")
    assert not discard(server.runner, runs[0]), "it is none any more"
    found = store.check(runs[0])
    assert found is not None
    assert found.error is not None
    assert (found.status, found.error.message) == (Status.CANCELLED, "spam (by ann)")
    assert found.attempt == 2
    fixed.append(1)
    assert retry_all(server.runner, "mail") == 5
    tick(server)
    assert {run.status for run in map(store.check, runs[1:]) if run} == {Status.SUCCEEDED}
    assert (retry_all(server.runner), discard_all(server.runner)) == (0, 0)
    assert not discard(server.runner, RunId("mail", "absent"))
    assert store.check(RunId("mail", "absent")) is None


def test_g14_retention_takes_old_records_and_only_those_of_its_jobs(store: Store, clock: ManualClock) -> None:
    fixed = [1]
    server = serve(store, broken_job(fixed))
    server.launch("mail", key="good")
    other = server.launch("elsewhere", key="waits")
    tick(server)
    fixed.clear()
    server.launch("mail", key="bad")
    tick(server)
    clock.advance(timedelta(days=8))
    server.maintenance.round([])
    assert keys(store, "mail") == ["bad"]
    clock.advance(timedelta(days=23))
    server.maintenance.round([])
    assert keys(store, "mail") == []
    assert store.check(other.run) is not None


def test_retention_by_count_spares_what_is_young(store: Store, clock: ManualClock) -> None:
    from onceward.toolkit.server import Retention

    server = serve(store, broken_job([1]), retention=Retention(keep_last=2))
    for n in range(5):
        server.launch("mail", key=str(n))
        tick(server)
        clock.advance(timedelta(seconds=1))
    server.maintenance.round([])
    assert len(keys(store, "mail")) == 5
    clock.advance(HOUR)
    server.maintenance.round([])
    assert keys(store, "mail") == ["3", "4"]


def test_an_unknown_job_is_parked_and_visible_until_a_server_knows_it(store: Store) -> None:
    server = serve(store, broken_job([1]))
    server.launch("tomorrow", key="1", data={"x": 1})
    server.maintenance.round(server.manager.configs.documents())
    assert server.health().parked == {"tomorrow": 1}
    assert "tomorrow" in " ".join(server.health().reasons)

    @job(name="tomorrow")
    def tomorrow(ctx: JobContext) -> Json:
        return ctx.data

    newer = serve(store, tomorrow)
    tick(newer)
    found = store.check(RunId("tomorrow", "1"))
    assert found is not None
    assert found.result == {"x": 1}
    server.maintenance.round(server.manager.configs.documents())
    assert server.health().parked == {}


def test_what_nobody_takes_over_and_what_changed_on_the_disk_is_reported(
    store: Store, clock: ManualClock, tmp_path: Path
) -> None:
    server = serve(store, broken_job([1]))
    server.launch("mail", key="1")
    asked = server.worker._ask()
    assert asked is not None
    assert len(store.claim(asked.claim)) == 1  # by a server that dies
    clock.advance(HOUR)
    server.maintenance.round([])
    assert any("leases that are over" in reason for reason in server.health().reasons)
    tick(server)
    server.maintenance.round([])
    assert not any("leases that are over" in reason for reason in server.health().reasons)


def test_a_file_of_jobs_that_changed_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "jobs_here.py"
    file.write_text("from onceward.toolkit.jobs import job\n@job\ndef one(): ...\n")
    server = JobServer.create("memory://", [file])
    assert server.files.changed() == []
    file.write_text("from onceward.toolkit.jobs import job\n@job\ndef other_name(): ...\n")
    assert server.files.changed() == [file]
    assert any("jobs_here.py" in reason for reason in server.health().reasons)
    servers.append(server)
