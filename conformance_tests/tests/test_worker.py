"""The worker: what it takes, how it stops, and what it does while the store is away."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from engine_store import KINDS, Bench, Flaky, close_benches, failing, make_store, statuses
from waiting import PATIENCE, until

from onceward.contracts import (
    Cancelled,
    Ending,
    Json,
    OutcomeUnknown,
    RunQuery,
    Status,
    Store,
    StoreUnavailable,
)
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore
from onceward.toolkit import resend
from onceward.toolkit.jobs import Job, JobContext, Retry, job
from onceward.toolkit.server.attempt import Attempt
from onceward.toolkit.server.bodies import Mixed
from onceward.toolkit.server.capacity import Plan
from onceward.toolkit.server.events import JobEvent
from onceward.toolkit.server.loops import Loop, LoopState
from onceward.toolkit.server.settings import ServerSettings

MINUTE = timedelta(minutes=1)


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


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending again does not wait: the tests say when the store answers."""
    monkeypatch.setattr(resend.time, "sleep", lambda seconds: None)


class Held:
    """Bodies that begin when the test says so: what was started waits here."""

    def __init__(self) -> None:
        self.attempts: list[object] = []

    def start(self, attempt: object) -> None:
        self.attempts.append(attempt)

    def close(self) -> None: ...


def named(name: str, order: list[str] | None = None, **options: int) -> Job:
    @job(name=name, **options)  # type: ignore[arg-type]
    def body(ctx: JobContext) -> None:
        if order is not None:
            order.append(ctx.key)

    return body


# -- what it takes ----------------------------------------------------------------------------------------------


def test_it_takes_only_what_can_start_now(store: Store) -> None:
    settings = ServerSettings(max_concurrency=5, default_concurrency=2)
    bench = Bench(store, named("a"), named("b", concurrency=4), bodies=Held(), settings=settings)
    for n in range(9):
        bench.submit("a", f"a{n}")
        bench.submit("b", f"b{n}")
    assert bench.worker.claim() + bench.worker.claim() == 5
    by_job = [attempt.run.job for attempt in bench.worker.running()]
    assert by_job.count("a") <= 2
    assert by_job.count("b") <= 4
    assert bench.worker.claim() == 0, "full"
    assert len([run for run in store.runs(RunQuery()) if run.status is Status.RUNNING]) == 5


def test_a_full_worker_does_not_even_ask(clock: ManualClock) -> None:
    store = Flaky(clock)
    bench = Bench(store, named("a"), bodies=Held(), settings=ServerSettings())
    bench.submit("a", "1")
    bench.submit("a", "2")
    assert [bench.worker.claim() for _ in range(3)] == [1, 0, 0]
    assert store.calls.count("claim") == 1


def test_lock_limit_bounds_what_is_held(store: Store) -> None:
    job_s = named("a", concurrency=5, lock_limit=3)
    for n in range(9):
        Bench(store, job_s).submit("a", f"{n}")
    server = ServerSettings(max_concurrency=9, lock_limit=2)
    assert Bench(store, job_s, bodies=Held(), settings=server).worker.claim() == 2
    assert Bench(store, job_s, bodies=Held(), settings=ServerSettings(max_concurrency=9)).worker.claim() == 3


def test_g12_the_cluster_limit_holds_between_servers(store: Store) -> None:
    body = named("a", max_running=2)
    benches = [Bench(store, body, bodies=Held()) for _ in range(3)]
    for n in range(9):
        benches[0].submit("a", f"{n}")
    assert sum(bench.worker.claim() for bench in benches) == 2
    for attempt in benches[0].worker.running():
        attempt.perform()
    benches[0].worker.flusher.flush()
    assert sum(bench.worker.claim() for bench in benches) == 2


def test_g13_priority_then_time_then_submission(store: Store, clock: ManualClock) -> None:
    order: list[str] = []
    bench = Bench(store, named("a", order), named("b", order), settings=ServerSettings(max_concurrency=1))
    now = store.now()
    bench.submit("a", "late", run_at=now)
    bench.submit("a", "early", run_at=now - MINUTE)
    bench.submit("b", "high", priority=10)
    bench.submit("b", "second", run_at=now)
    clock.advance(timedelta(seconds=1))
    assert bench.work_all() == 4
    assert order == ["high", "early", "late", "second"]


def test_an_unknown_or_disabled_job_waits_in_the_queue_untouched(store: Store) -> None:
    bench = Bench(store, named("a"))
    bench.plans["off"] = Plan(named("off"), named("off").settings(), enabled=False)
    known, unknown, off = bench.submit("a"), bench.submit("elsewhere", data={"x": 1}), bench.submit("off")
    assert bench.work_all() == 1
    assert bench.run(known).status is Status.SUCCEEDED
    for waiting in (unknown, off):
        assert (bench.run(waiting).status, bench.run(waiting).attempt) == (Status.SCHEDULED, 0)
    assert bench.run(unknown).payload == {"x": 1}


def test_a_run_that_was_cancelled_while_its_server_died_is_not_begun_again(store: Store, clock: ManualClock) -> None:
    body = named("a", order := [])
    bench = Bench(store, body, bodies=Held())
    run = bench.submit("a")
    bench.worker.claim()
    assert store.cancel(run) is Cancelled.REQUESTED
    clock.advance(timedelta(hours=1))
    Bench(store, body).work()
    assert bench.run(run).status is Status.CANCELLED
    assert order == []


# -- the store is away ------------------------------------------------------------------------------------------


def test_g7_a_claim_whose_answer_is_lost_is_asked_again_and_nothing_is_forgotten(clock: ManualClock) -> None:
    store = Flaky(clock)
    bench = Bench(store, named("a"))
    run = bench.submit("a")
    store.lose["claim"] = 1_000
    with pytest.raises(OutcomeUnknown):
        bench.worker.claim()
    assert bench.run(run).status is Status.RUNNING
    store.lose.clear()
    bench.submit("a", "later")
    assert bench.work() == 1
    assert (bench.run(run).status, bench.run(run).attempt) == (Status.SUCCEEDED, 1)


def test_g6_check_outs_wait_for_the_store_and_are_sent_once(clock: ManualClock) -> None:
    store = Flaky(clock)
    ran: list[str] = []
    bench = Bench(store, named("a", ran))
    runs = [bench.submit("a", str(n)) for n in range(3)]
    bench.worker.claim()
    store.away.set()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            bench.worker.flusher.flush()
    assert len(bench.worker.flusher) == 3
    store.away.clear()
    store.lose["checkout"] = 2
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            bench.worker.flusher.flush()
    bench.worker.flusher.flush()
    assert {bench.run(run).status for run in runs} == {Status.SUCCEEDED}
    assert (ran, bench.events.counts()["success"]) == (["0", "1", "2"], 3)


def test_an_end_that_the_store_refuses_ends_the_run_and_disturbs_no_other(store: Store) -> None:
    """A result larger than the store takes is refused by the store; the others of its batch are recorded."""
    limit = store.traits.max_payload_bytes

    @job(name="a")
    def body(ctx: JobContext) -> Json:
        return "x" * (limit + 1) if ctx.key == "big" else "small"

    bench = Bench(store, body)
    big, small = bench.submit("a", "big"), bench.submit("a", "small")
    bench.work()
    assert (bench.run(small).status, bench.run(small).result) == (Status.SUCCEEDED, "small")
    found = bench.run(big)
    assert found.status is Status.FAILED
    assert found.error is not None
    assert found.error.type == "InvalidRequest"


# -- bodies that misbehave --------------------------------------------------------------------------------------


def test_g9_a_body_that_keeps_the_interpreter_busy_keeps_its_lease() -> None:
    """Renewal does not depend on the body: the lease is shorter than the body takes, and nobody takes it over."""
    real = MemoryStore()
    spun = threading.Event()

    @job(name="busy", lock_lifetime=timedelta(seconds=2))
    async def busy(ctx: JobContext) -> int:
        n = 0
        while not spun.is_set():  # blocks its event loop, too
            n += 1
        return n

    bench, other = Bench(real, busy, bodies=Mixed()), Bench(real, busy)
    run = bench.submit("busy")
    bench.worker.claim()
    try:
        until(lambda: bench.worker.running()[0].took > timedelta(seconds=3))
        assert other.work() == 0
    finally:
        spun.set()
    assert bench.worker.drain(PATIENCE)
    bench.worker.flusher.flush()
    assert (bench.run(run).status, bench.run(run).attempt) == (Status.SUCCEEDED, 1)
    close_benches()


def test_a_coroutine_is_cancelled_at_its_timeout_and_retried(store: Store) -> None:
    @job(name="slow", timeout=timedelta(milliseconds=1), retry=Retry(attempts=2))
    async def slow(ctx: JobContext) -> None:
        import asyncio

        await asyncio.sleep(3600)

    bench = Bench(store, slow, bodies=Mixed())
    run = bench.submit("slow")
    bench.worker.claim()
    until(lambda: bench.worker.mind() is None)
    bench.worker.flusher.flush()
    found = bench.run(run)
    assert found.status is Status.SCHEDULED
    assert found.error is not None
    assert found.error.type == "TimedOut"
    bench.close()


def test_a_coroutine_is_cancelled_when_somebody_asks(store: Store) -> None:
    began = threading.Event()

    @job(name="slow")
    async def slow(ctx: JobContext) -> None:
        import asyncio

        began.set()
        await asyncio.sleep(3600)

    bench = Bench(store, slow, bodies=Mixed())
    run = bench.submit("slow")
    bench.worker.claim()
    assert began.wait(PATIENCE)
    assert store.cancel(run) is Cancelled.REQUESTED
    bench.worker.running()[0].held.touch()
    until(lambda: bench.worker.mind() is None)
    bench.worker.flusher.flush()
    assert bench.run(run).status is Status.CANCELLED
    bench.close()


def test_a_body_that_never_returns_is_given_up_and_somebody_else_takes_over(store: Store, clock: ManualClock) -> None:
    never = threading.Event()

    @job(name="stuck", timeout=timedelta(milliseconds=1), lock_lifetime=MINUTE)
    def stuck(ctx: JobContext) -> str:
        if ctx.attempt == 1:
            never.wait()
        return "second"

    bench = Bench(store, stuck, bodies=Mixed())
    run = bench.submit("stuck")
    bench.worker.claim()
    attempt = bench.worker.running()[0]
    until(lambda: attempt.took > timedelta(milliseconds=2))
    bench.worker.mind()
    bench.worker.mind()
    assert attempt.held.cancelled.is_set()
    assert attempt.held.stopped, "it is not renewed any more"
    clock.advance(MINUTE)
    assert Bench(store, stuck).work() == 1
    assert bench.run(run).result == "second"
    never.set()
    assert bench.worker.drain(PATIENCE)
    bench.worker.flusher.flush()
    assert bench.run(run).result == "second"
    assert bench.events.counts()["superseded"] == 1
    bench.close()


def test_a_body_that_stops_since_its_lease_is_lost_costs_a_crash_and_no_attempt(
    store: Store, clock: ManualClock
) -> None:
    @job(name="slow", lock_lifetime=MINUTE, retry=Retry(attempts=1))
    def slow(ctx: JobContext) -> int:
        if ctx.attempt == 1:
            ctx.lost.set()  # as after an outage of the store
            ctx.raise_if_lost()
        return ctx.attempt

    bench = Bench(store, slow)
    run = bench.submit("slow")
    assert bench.work() == 1
    assert (bench.run(run).status, bench.worker.running()) == (Status.RUNNING, [])
    assert bench.events.counts()["superseded"] == 1
    clock.advance(MINUTE)
    assert bench.work() == 1
    found = bench.run(run)
    assert (found.status, found.result, found.failures, found.crashes) == (Status.SUCCEEDED, 2, 0, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_a_body_forked_does_not_end_the_run(store: Store) -> None:
    reader, writer = os.pipe()

    @job(name="fork")
    def fork() -> int:
        child = os.fork()
        if not child:
            os.write(writer, b"c")  # and returns, like its parent
            return -1
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    bench = Bench(store, fork)
    run = bench.submit("fork")
    assert bench.work() == 1
    assert os.read(reader, 9) == b"c"
    assert bench.run(run).result == 0, "the child ended where it came back from the body"
    os.close(reader)
    os.close(writer)


def test_a_body_that_exits_does_not_end_its_thread(store: Store) -> None:
    @job(name="exit", retry=Retry(attempts=1))
    def leave(ctx: JobContext) -> None:
        sys.exit(3)

    bench = Bench(store, leave, bodies=Mixed())
    for n in range(3):
        bench.submit("exit", str(n))
    bench.worker.claim()
    assert bench.worker.drain(PATIENCE)
    bench.worker.flusher.flush()
    assert set(statuses(store.runs(RunQuery())).values()) == {"failed"}
    bench.close()


def test_a_listener_that_raises_disturbs_nobody(store: Store) -> None:
    heard: list[JobEvent] = []

    def bad(happened: JobEvent) -> None:
        raise ValueError("mine")

    bench = Bench(store, failing(ValueError("no"), retry=Retry(attempts=1)))
    bench.events.on("fail", bad)
    bench.events.on("fail", heard.append)
    run = bench.submit("failing")
    bench.work()
    assert [happened.run.id for happened in heard] == [run]
    assert bench.run(run).status is Status.FAILED


# -- the end ----------------------------------------------------------------------------------------------------


def test_g17_what_still_runs_at_the_end_is_given_back_and_its_late_end_is_dropped(store: Store) -> None:
    began, go = threading.Event(), threading.Event()
    lost: list[bool] = []

    @job(name="slow")
    def slow(ctx: JobContext) -> None:
        began.set()
        go.wait()
        lost.append(ctx.lost.is_set())

    bench = Bench(store, slow, bodies=Mixed())
    run = bench.submit("slow")
    bench.worker.claim()
    assert began.wait(PATIENCE)
    bench.worker.stop_claiming()
    assert not bench.worker.drain(0.0)
    assert bench.worker.give_up() == [run]
    bench.worker.flusher.flush()
    found = bench.run(run)
    assert (found.status, found.attempts[-1].ending) == (Status.SCHEDULED, Ending.RELEASED)
    go.set()
    until(lambda: bool(lost))
    bench.worker.flusher.flush()
    assert lost == [True]
    assert bench.run(run).attempt == 1
    bench.close()


def test_g13_what_is_given_back_keeps_its_place_in_the_queue(store: Store, clock: ManualClock) -> None:
    order: list[str] = []
    first, second = (Bench(store, named("a", order), settings=ServerSettings()) for _ in range(2))
    for key in ("1", "2"):
        first.submit("a", key)
        clock.advance(timedelta(seconds=1))
    first.worker.stop_claiming()
    assert first.work() == 1, "a claim that was under way is given back"
    assert second.work_all() == 2
    assert order == ["1", "2"]


def test_what_a_late_claim_brings_after_the_stop_is_given_back(store: Store) -> None:
    bench = Bench(store, named("a", ran := []))
    run = bench.submit("a")
    bench.worker.stop_claiming()
    assert bench.work() == 1
    assert (ran, bench.run(run).status) == ([], Status.SCHEDULED)


# -- loops ------------------------------------------------------------------------------------------------------


def test_a_loop_survives_errors_says_so_and_recovers() -> None:
    broken, rounds = threading.Event(), []
    broken.set()

    def step() -> float:
        rounds.append(1)
        if broken.is_set():
            raise StoreUnavailable("away")
        return 60.0

    loop = Loop("test", step)
    assert loop.health().state is LoopState.IDLE
    loop.start()
    until(lambda: loop.health().state is LoopState.DEGRADED)
    assert "away" in (loop.health().error or "")
    broken.clear()
    until(lambda: loop.health().state is LoopState.RUNNING)
    before = len(rounds)
    loop.wake()
    until(lambda: len(rounds) > before)
    loop.stop()
    assert loop.join(PATIENCE)
    assert loop.health().state is LoopState.IDLE


def test_a_loop_also_survives_a_defect_and_notices_that_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceward.toolkit.server.loops.STALLED_AFTER", -1.0)
    hang, began = threading.Event(), threading.Event()

    def step() -> None:
        if not began.is_set():
            began.set()
            raise ZeroDivisionError
        hang.wait()

    loop = Loop("test", step)
    loop.start()
    until(lambda: loop.health().state is LoopState.STALLED)
    loop.stop()
    assert not loop.join(0.0)
    hang.set()
    assert loop.join(PATIENCE)


def test_a_coroutine_that_is_stopped_before_it_began_ends_all_the_same(store: Store) -> None:
    class Never(Held):
        def start(self, attempt: object) -> None:
            assert isinstance(attempt, Attempt)
            attempt.held.cancelled.set()
            attempt.dropped()
            attempt.dropped()  # a second time changes nothing

    bench = Bench(store, named("a"), bodies=Never())
    run = bench.submit("a")
    assert bench.work() == 1
    assert bench.run(run).status is Status.CANCELLED
    assert bench.worker.running() == []
