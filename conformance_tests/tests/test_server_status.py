"""How a job is, in one record (S14, S86, S87)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from engine_store import KINDS, Bench, close_benches, make_store

from onceward.contracts import Cancelled, Progress, Status, Store
from onceward.runners.clock import ManualClock
from onceward.toolkit.jobs import JobContext, Retry, job
from onceward.toolkit.server import JobQueue
from onceward.toolkit.server.configs import Configs
from onceward.toolkit.server.status import job_status

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


def test_a_job_s_status_tells_what_it_did_does_and_will_do(store: Store, clock: ManualClock) -> None:
    @job(name="j", schedule="0 * * * *", retry=Retry(attempts=1))
    def body(ctx: JobContext) -> None:
        during.append(job_status(bench.runner, "j"))
        ctx.progress(4, 2, "half")
        clock.advance(MINUTE)
        if ctx.key == "bad":
            raise ValueError("no such file")

    during: list[object] = []
    bench = Bench(store, body)
    nothing = job_status(bench.runner, "j")
    assert (nothing.enabled, nothing.status, nothing.last_run_at, nothing.next_run_at) == (None, None, None, None)

    Configs(bench.runner).registered("j", checksum="c", settings=body.settings())
    following = job_status(bench.runner, "j").next_run_at
    assert following is not None
    assert (following.minute, following > store.now()) == (0, True)

    good = bench.submit("j", "good")
    bench.work()
    found = job_status(bench.runner, "j")
    assert (found.status, found.progress, found.fail_count) == (
        Status.SUCCEEDED,
        Progress(done=2, total=4, message="half"),
        0,
    )
    assert (found.last_run_at, found.duration, found.locked_at) == (bench.run(good).started, MINUTE, None)
    [while_it_ran] = during
    assert while_it_ran.status is Status.RUNNING  # type: ignore[attr-defined]
    assert while_it_ran.locked_at == found.last_run_at  # type: ignore[attr-defined]

    bad = bench.submit("j", "bad")
    bench.work()
    later = bench.submit("j", "later", after=5 * MINUTE)
    found = job_status(bench.runner, "j")
    assert (found.status, found.fail_count, found.last_error) == (Status.FAILED, 1, "no such file")
    assert (found.failed_at, found.next_run_at) == (bench.run(bad).ended, bench.run(later).run_at)


def test_what_is_cancelled_in_a_queue_is_not_done_and_stays_known() -> None:
    done: list[int] = []
    with JobQueue("memory://", {"n": done.append}) as queue:
        queue.create("n", 1)
        queue.create("n", 2)
        assert queue.cancel("n", 1) is Cancelled.CANCELLED
        assert queue.cancel("n", 3) is Cancelled.ABSENT
        assert queue.run_all() == 1
        assert done == [2]
        assert not queue.create("n", 1).new
