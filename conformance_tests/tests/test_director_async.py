"""The Director for asyncio: the same promises, also when tasks are cancelled and the loop is blocked."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    InvalidRequest,
    Renewal,
    Renewed,
    Run,
    RunId,
    Runner,
    Status,
    WaitTimeout,
)
from onceward.runners.memory import MemoryStore
from onceward.toolkit.async_director import AsyncDirector
from onceward.toolkit.director import Director, NotAdmitted, Refused

HOUR = timedelta(hours=1)
JOB = "order-processing"
PATIENCE = 60


class Slow(MemoryStore):
    """A store whose check-ins or check-outs can be held up until the test lets them go."""

    def __init__(self) -> None:
        super().__init__("orders")
        self.hold_checkin = self.hold_checkout = self.hold_check = False
        self.arrived, self.go, self.done = threading.Event(), threading.Event(), threading.Event()
        self.renewed = threading.Semaphore(0)

    def _hold(self) -> None:
        self.arrived.set()
        assert self.go.wait(PATIENCE)

    def checkin(self, request: CheckIn) -> Admission:
        if self.hold_checkin:
            self._hold()
        return super().checkin(request)

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        if self.hold_checkout:
            self._hold()
        answers = super().checkout(checkouts)
        self.done.set()
        return answers

    def check(self, run: RunId) -> Run | None:
        if self.hold_check:
            self._hold()
        return super().check(run)

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        answers = super().renew(renewals)
        self.renewed.release()
        return answers


def play(
    scene: Callable[[AsyncDirector, Slow], Awaitable[None]], *, threads: int = 4, lease: timedelta | None = HOUR
) -> None:
    """The scene is played with a Director of its own."""

    async def main() -> None:
        store = Slow()
        async with AsyncDirector(Runner.of(store, namespace="orders"), threads=threads, lease=lease) as director:
            await scene(director, store)

    asyncio.run(main())


async def found(director: AsyncDirector, key: str) -> Run:
    run = await director.check(JOB, key)
    assert run is not None
    return run


def test_the_three_forms() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        @director.checkin(JOB, key="{order_id}")
        async def process(order_id: str, amount: int = 1) -> int:
            await asyncio.sleep(0)
            return amount

        assert await process("a", 5) == 5
        again = await process("a", 7)
        assert isinstance(again, Refused)
        assert (again.outcome, again.result) == (CheckInOutcome.DONE, 5)

        async with director.checkin(JOB, "b") as run:
            run.result = {"token": run.token}
            with pytest.raises(NotAdmitted):
                async with director.checkin(JOB, "b"):
                    pytest.fail("a refused body ran")
        assert (await found(director, "b")).result == {"token": run.token}

        if run := await director.checkin(JOB, "c"):
            await run.progress(1, 2)
            await run.checkout(3)
        await (await director.checkin(JOB, "d")).release()
        assert (await director.checkin(JOB, "d")).admitted
        await director.checkout(JOB, "d", 4)
        stats = await director.stats()
        assert (stats.total, stats.completed) == (4, 4)
        assert [run.key for run in await director.list(limit=1)] == ["d"]
        assert await director.cleanup() == 0

    play(scene)


def test_g1_of_many_tasks_one_is_admitted() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        ran = []

        @director.checkin(JOB, key="{key}")
        async def body(key: int) -> None:
            ran.append(key)

        await asyncio.gather(*(body(key % 10) for key in range(200)))
        assert sorted(ran) == list(range(10))

    play(scene)


def test_a_check_in_that_was_not_awaited_is_never_true() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        checkin = director.checkin(JOB, "a")
        looks: list[Callable[[], object]] = [lambda: bool(checkin), lambda: checkin.admitted, lambda: checkin.token]
        for look in looks:
            with pytest.raises(InvalidRequest, match="awaited"):
                look()
        await checkin
        assert checkin

    play(scene)


def test_failures_are_recorded_and_raised_again() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        with pytest.raises(ValueError, match="no stock"):
            async with director.checkin(JOB, "a"):
                raise ValueError("no stock")
        run = await found(director, "a")
        assert run.error is not None
        assert (run.status, run.error.message) == (Status.FAILED, "no stock")

    play(scene)


def test_a_plain_function_is_refused(recwarn: pytest.WarningsRecorder) -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        with pytest.raises(InvalidRequest, match="a coroutine function"):
            director.checkin(JOB, key="a")(lambda: None)  # type: ignore[arg-type,return-value]

    play(scene)


@pytest.mark.filterwarnings("error")
def test_a_check_in_cancelled_while_it_is_asked_is_given_back() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        store.hold_checkin = True
        task = asyncio.ensure_future(director.checkin(JOB, "a")._ask())
        await asyncio.to_thread(store.arrived.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await director.check(JOB, "a") is None, "it is still on its way"
        store.hold_checkin = False
        store.go.set()
        assert await asyncio.to_thread(store.done.wait, PATIENCE)
        run = await found(director, "a")
        assert (run.status, run.attempt) == (Status.SCHEDULED, 1)
        assert await director.checkin(JOB, "a"), "the next one is admitted"

    play(scene, lease=None)


def test_a_check_in_cancelled_before_it_is_sent_is_never_sent() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        store.hold_checkin = True
        first = asyncio.ensure_future(director.checkin(JOB, "a")._ask())
        await asyncio.to_thread(store.arrived.wait, PATIENCE)
        second = asyncio.ensure_future(director.checkin(JOB, "b")._ask())
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        store.go.set()
        assert await first
        assert await director.check(JOB, "b") is None

    play(scene, threads=1)


def test_a_check_out_under_way_comes_to_its_end_when_its_task_is_cancelled() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        @director.checkin(JOB, key="a")
        async def body() -> str:
            store.hold_checkout = True
            return "kept"

        task = asyncio.ensure_future(body())
        await asyncio.to_thread(store.arrived.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.go.set()
        assert await asyncio.to_thread(store.done.wait, PATIENCE)
        run = await found(director, "a")
        assert (run.status, run.result) == (Status.SUCCEEDED, "kept")

    play(scene)


def test_a_check_out_that_waits_for_its_turn_is_sent_though_its_task_is_cancelled() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        first, second = await director.checkin(JOB, "a"), await director.checkin(JOB, "b")
        store.hold_checkout = True
        busy = asyncio.ensure_future(first.checkout(1))
        await asyncio.to_thread(store.arrived.wait, PATIENCE)
        queued = asyncio.ensure_future(second.checkout(2))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        store.go.set()
        await busy
        assert (await found(director, "b")).result == 2

    play(scene, threads=1)


@pytest.mark.parametrize(("lease", "status"), [(HOUR, Status.SCHEDULED), (None, Status.FAILED)])
def test_a_cancelled_body_gives_back_what_a_crash_would(lease: timedelta | None, status: Status) -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        begun = asyncio.Event()

        @director.checkin(JOB, key="a")
        async def body() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(body())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await found(director, "a")).status is status

    play(scene, lease=lease)


def test_g9_a_blocked_loop_keeps_its_lease() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        async with director.checkin(JOB, "a") as run:
            assert all(store.renewed.acquire(timeout=PATIENCE) for _ in range(3)), "this blocks the loop"
            run.result = 1
        assert ((await found(director, "a")).attempt, (await found(director, "a")).result) == (1, 1)

    play(scene, lease=timedelta(seconds=0.6))


def test_waits_end_with_the_run_and_do_not_keep_check_outs_waiting() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        store.hold_check = True
        async with director.checkin(JOB, "a") as run:
            waits = [asyncio.ensure_future(director.wait(JOB, "a")) for _ in range(40)]
            await asyncio.to_thread(store.arrived.wait, PATIENCE)
            run.result = "seen"
        store.go.set()
        assert [each.result for each in await asyncio.gather(*waits)] == ["seen"] * 40

    play(scene, threads=1)


def test_a_wait_times_out_and_can_be_cancelled() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        with pytest.raises(WaitTimeout, match="Timeout waiting for job 'order-processing' for uuid 'a'"):
            await director.wait(JOB, "a", timeout=timedelta(0))
        with pytest.raises(InvalidRequest, match="timeout"):
            await director.wait(JOB, "a", timeout=-HOUR)
        task = asyncio.ensure_future(director.wait(JOB, "a"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(scene)


def test_a_director_that_was_given_stays_open(tmp_path: Path) -> None:
    async def scene(director: Director) -> None:
        async with AsyncDirector(director) as wrapped, wrapped.checkin(JOB, "a") as run:
            run.result = 1

    with Director(f"sqlite:///{tmp_path}/a.db") as director:
        asyncio.run(scene(director))
        assert director.stats().completed == 1


def test_nothing_is_left_running() -> None:
    async def scene(director: AsyncDirector, store: Slow) -> None:
        async with director.checkin(JOB, "a"):
            await director.list()

    play(scene)
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("onceward")]
