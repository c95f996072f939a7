"""Jobs and listeners that do what nobody should: each attempt has an end all the same, and the server goes on."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from engine_store import Bench, Flaky, close_benches, failing
from waiting import PATIENCE

from onceward.contracts import InvalidRequest, OutcomeUnknown, Run, Runner, Status, StoreUnavailable
from onceward.runners.memory import MemoryStore
from onceward.toolkit import resend
from onceward.toolkit.jobs import Job, JobContext, Retry, RetryableError, Snooze, job
from onceward.toolkit.server import JobServer
from onceward.toolkit.server.attempt import Attempt
from onceward.toolkit.server.bodies import Mixed
from onceward.toolkit.server.loops import Loop, LoopState

ONCE = Retry(attempts=1)
TWICE = Retry(attempts=2)
PROMPT = timedelta(seconds=PATIENCE)


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    yield MemoryStore()
    close_benches()


def ended(store: MemoryStore, error: BaseException, retry: Retry = ONCE) -> Run:
    bench = Bench(store, failing(error, retry=retry))
    run = bench.submit("failing")
    assert bench.work() == 1
    return bench.run(run)


# -- exceptions that do not keep their word -----------------------------------------------------------------------


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class HalfMade(Snooze):
    """Lacks ``after``, since it never called its base class."""

    def __init__(self) -> None:
        pass


class Vague(RetryableError):
    def __init__(self) -> None:
        super().__init__("soon")
        self.after = "soon"  # type: ignore[assignment]


def test_an_exception_without_a_message_ends_its_attempt(store: MemoryStore) -> None:
    found = ended(store, Speechless())
    assert found.error is not None
    assert (found.status, found.error.type) == (Status.FAILED, "Speechless")
    assert "ValueError" in found.error.message


@pytest.mark.parametrize("error", [HalfMade(), Vague()])
def test_an_exception_that_cannot_say_when_to_go_on_is_retried_by_the_policy(
    store: MemoryStore, error: Exception
) -> None:
    found = ended(store, error, TWICE)
    assert (found.status, found.failures) == (Status.SCHEDULED, 1)
    assert found.error is not None
    assert found.error.type in ("AttributeError", "InvalidRequest")


class Broken(Retry, frozen=True):
    def delay_after(self, failures: int, **_: Any) -> timedelta:
        raise ZeroDivisionError


def test_a_policy_that_cannot_say_when_to_try_again_ends_the_run_with_what_happened(store: MemoryStore) -> None:
    found = ended(store, ValueError("bad"), Broken())
    assert found.error is not None
    assert (found.status, found.error.type, found.error.message) == (Status.FAILED, "ValueError", "bad")


def test_an_attempt_whose_end_cannot_be_told_keeps_no_place(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease lapses, and it is taken over, as after a crash."""

    def fails(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a defect of ours")

    @job(name="j", concurrency=1, lock_lifetime=timedelta(seconds=1))
    def body() -> str:
        return "done"

    monkeypatch.setattr(Attempt, "_badly", fails)
    monkeypatch.setattr(Attempt, "_well", lambda *_: 1 / 0)
    with JobServer.create(Runner.of(store, namespace="test"), [body]) as server:
        found = server.wait(server.launch("j").run, PROMPT)
    assert (found.status, found.crashes, found.attempt) == (Status.SUCCEEDED, 1, 2)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1)])
def test_exceptions_that_are_no_errors_are_failures_like_others(store: MemoryStore, error: BaseException) -> None:
    found = ended(store, error, TWICE)
    assert found.error is not None
    assert (found.status, found.failures, found.error.type) == (Status.SCHEDULED, 1, type(error).__name__)


def test_a_long_message_is_cut(store: MemoryStore) -> None:
    found = ended(store, ValueError("x" * 1_000_000))
    assert found.error is not None
    assert len(found.error.message) == 4_000


# -- results ------------------------------------------------------------------------------------------------------


def _endless() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


@pytest.mark.parametrize("result", [{1, 2}, b"x", _endless(), float("nan"), "\udcff", 2**70, threading.Lock()])
def test_a_result_that_cannot_be_recorded_fails_the_run_at_once(store: MemoryStore, result: object) -> None:
    """The work is done, and doing it again would bring the same."""

    @job(name="j", retry=TWICE)
    def body() -> Any:
        return result

    bench = Bench(store, body)
    run = bench.submit("j")
    bench.work()
    found = bench.run(run)
    assert found.error is not None
    assert (found.status, found.attempt, found.error.type) == (Status.FAILED, 1, "InvalidRequest")
    assert found.error.message.startswith("result")


# -- coroutines ---------------------------------------------------------------------------------------------------


@job(name="good")
async def good() -> str:
    await asyncio.sleep(0)
    return "good"


@job(name="stop", retry=ONCE)
async def stop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


@job(name="exit", retry=ONCE)
async def leave() -> None:
    async def inner() -> None:
        sys.exit(3)

    task = asyncio.create_task(inner())
    await asyncio.sleep(0)
    await task


@pytest.mark.parametrize("bad", ["stop", "exit"])
def test_a_coroutine_that_stops_the_event_loop_or_exits_in_a_task_does_not_end_the_others(
    store: MemoryStore, bad: str
) -> None:
    bench = Bench(store, good, stop, leave, bodies=Mixed())
    run = bench.submit(bad)
    bench.worker.claim()
    assert bench.worker.drain(PATIENCE)
    later = bench.submit("good")
    bench.worker.claim()
    assert bench.worker.drain(PATIENCE)
    bench.worker.flusher.flush()
    assert bench.run(run).status.ended
    assert bench.run(later).result == "good"


# -- listeners and loops ------------------------------------------------------------------------------------------


def test_a_listener_that_exits_disturbs_nobody() -> None:
    @job(name="j")
    def body() -> None: ...

    with JobServer.create("memory://", [body]) as server:
        for event in ("start", "success"):
            server.on(event, lambda happened: sys.exit(1))
        for _ in range(3):
            assert server.wait(server.launch("j").run, PROMPT).status is Status.SUCCEEDED
        assert server.health().live


def test_a_loop_survives_whatever_is_raised_in_it() -> None:
    rounds = threading.Semaphore(0)

    def step() -> float:
        rounds.release()
        sys.exit(1)

    loop = Loop("test", step)
    loop.start()
    try:
        for _ in range(3):
            assert rounds.acquire(timeout=PATIENCE)
        health = loop.health()
        assert (health.state, health.error) == (LoopState.DEGRADED, "SystemExit: 1")
    finally:
        loop.stop()
        loop.join(PATIENCE)


# -- requests whose answer is lost, and then the store is gone ----------------------------------------------------


def test_g7_a_claim_that_may_have_taken_something_is_not_forgotten_when_the_store_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its runs would lapse, and each would lose one of its crashes."""
    monkeypatch.setattr(resend.time, "sleep", lambda seconds: None)
    store = Flaky()

    @job(name="j")
    def body(ctx: JobContext) -> int:
        return ctx.attempt

    bench = Bench(store, body)
    run = bench.submit("j")
    store.lose["claim"] = 1_000
    with pytest.raises(OutcomeUnknown):
        bench.worker.claim()
    store.away.set()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            bench.worker.claim()
    assert bench.worker.claim_open
    store.away.clear()
    store.lose.clear()
    assert bench.work() == 1
    found = bench.run(run)
    assert (found.status, found.result, found.crashes) == (Status.SUCCEEDED, 1, 0)
    close_benches()


def test_an_invalid_cron_is_refused_with_its_field_before_anything_runs() -> None:
    class Broken(Job):
        schedule = "61 * * * *"

    with pytest.raises(InvalidRequest, match=r"schedule, minute field: '61'.*0 to 59"):
        JobServer.create("memory://", [Broken])
