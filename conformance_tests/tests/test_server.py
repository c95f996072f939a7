"""The job server as it runs: its loops, its health, its signals, and stores that come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_store import KINDS, Flaky
from redis_support import shared_url
from waiting import PATIENCE, until

from onceward.contracts import (
    InvalidRequest,
    Json,
    Runner,
    RunQuery,
    Status,
    StoreMisconfigured,
    WaitTimeout,
    new_request,
)
from onceward.runners.factory import open_runner
from onceward.toolkit.jobs import FunctionJob, Job, JobContext, Retry, RetryableError, job
from onceward.toolkit.jobs.job import Body
from onceward.toolkit.jobs.launch import Launcher
from onceward.toolkit.server import JobEvent, JobServer
from onceward.toolkit.server.loops import Loop, LoopState

MS = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return f"memory://{tmp_path}"
        case "sqlite":
            return f"sqlite:///{tmp_path}/jobs.db"
        case _:
            return f"{shared_url()}?namespace={new_request()}"


@pytest.fixture
def started() -> Iterator[Callable[..., JobServer]]:
    """Starts servers, and shuts down what is still up at the end."""
    servers: list[JobServer] = []

    def start(source: Any, *jobs: Any, **changes: Any) -> JobServer:
        server = JobServer.create(source, jobs, **changes).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown(5 * SECOND)


def named(name: str, **options: Any) -> Callable[[Body], FunctionJob]:
    return job(name=name, **options)


# -- working ----------------------------------------------------------------------------------------------------


def test_three_servers_share_the_work_and_each_run_is_run_once(url: str, started: Callable[..., JobServer]) -> None:
    ran: Counter[str] = Counter()
    lock = threading.Lock()

    def count(ctx: JobContext) -> Json:
        with lock:
            ran[ctx.key] += 1
        if ctx.key.endswith("7") and ctx.attempt == 1:
            raise RetryableError("once", after=MS)
        return ctx.key

    @job(name="threads", retry=Retry(attempts=2))
    def threads(ctx: JobContext) -> Json:
        return count(ctx)

    @job(name="coroutines", retry=Retry(attempts=2))
    async def coroutines(ctx: JobContext) -> Json:
        return count(ctx)

    servers = [
        started(url, threads, coroutines, max_concurrency=8, default_concurrency=8, process_every=100 * MS)
        for _ in range(3)
    ]
    runs = [servers[n % 3].launch(name, key=f"{name}{n}").run for n in range(100) for name in ("threads", "coroutines")]
    ended = [servers[0].wait(run, timedelta(seconds=PATIENCE)) for run in runs]
    assert {run.status for run in ended} == {Status.SUCCEEDED}
    assert ran == {run.key: 1 + run.key.endswith("7") for run in runs}
    assert all(run.result == run.key for run in ended)


def test_a_launch_wakes_an_idle_server(url: str, started: Callable[..., JobServer]) -> None:
    """It does not wait for its next look, which would be in an hour."""

    @job(name="j")
    def body() -> None: ...

    server = started(url, body, process_every=timedelta(hours=1))
    assert server.wait_ready()
    until(lambda: server.worker.fruitless > 0)
    assert server.wait(server.launch("j").run, timedelta(seconds=PATIENCE)).status is Status.SUCCEEDED


def test_an_idle_server_is_woken_for_a_job_that_was_added_or_enabled_later(
    url: str, started: Callable[..., JobServer]
) -> None:
    """By somebody else's launch: it listens for what it knows now, not for what it knew at its last look."""

    @job(name="first")
    def first() -> None: ...

    @job(name="second")
    def second() -> None: ...

    server = started(url, first, process_every=timedelta(hours=1))
    assert server.wait_ready()
    until(lambda: server.worker.fruitless > 1)  # it has looked after its listener was ready
    server.manager.add([second])
    server.follow()
    with open_runner(url) as other:
        runs = [Launcher(other.scheduler).launch("second").run]
        assert server.wait(runs[0], timedelta(seconds=PATIENCE)).status is Status.SUCCEEDED
        server.manager.configs.disable("first")
        until(lambda: not server.manager.plans()["first"].enabled)
        server.manager.configs.enable("first")
        until(lambda: server.manager.plans()["first"].enabled)
        runs.append(Launcher(other.scheduler).launch("first").run)
        assert server.wait(runs[1], timedelta(seconds=PATIENCE)).status is Status.SUCCEEDED


def test_a_retry_that_comes_due_wakes_an_idle_server(url: str, started: Callable[..., JobServer]) -> None:
    @job(name="j")
    def body(ctx: JobContext) -> None:
        if ctx.attempt < 3:
            raise RetryableError("again", after=20 * MS)

    server = started(url, body, process_every=timedelta(hours=1))
    run = server.wait(server.launch("j").run, timedelta(seconds=PATIENCE))
    assert (run.status, run.attempt) == (Status.SUCCEEDED, 3)


def test_a_schedule_runs_by_itself(url: str, started: Callable[..., JobServer]) -> None:
    ticks: list[object] = []

    @job(schedule="every 1 second")
    def tick(ctx: JobContext) -> None:
        ticks.append(ctx.scheduled_for)

    for _ in range(2):
        started(url, tick)
    until(lambda: len(ticks) >= 2)
    assert len(set(ticks)) == len(ticks)


def test_a_configuration_is_followed_while_the_server_runs(url: str, started: Callable[..., JobServer]) -> None:
    @job(name="j")
    def body() -> None: ...

    one = started(url, body)
    two = started(url, body)
    assert one.wait_ready()
    assert two.wait_ready()
    one.manager.configs.disable("j")
    until(lambda: not one.manager.plans()["j"].enabled and not two.manager.plans()["j"].enabled)
    run = one.launch("j").run
    two.manager.configs.enable("j")
    assert one.wait(run, timedelta(seconds=PATIENCE)).status is Status.SUCCEEDED


def test_a_running_job_is_told_that_somebody_asked_it_to_stop(url: str, started: Callable[..., JobServer]) -> None:
    began = threading.Event()

    @job(name="j", lock_lifetime=3 * SECOND)  # told by a renewal, after a third of it
    def body(ctx: JobContext) -> str:
        began.set()
        assert ctx.cancelled.wait(PATIENCE)
        return "stopped well"

    server = started(url, body)
    run = server.launch("j").run
    assert began.wait(PATIENCE)
    server.runner.scheduler.cancel(run)
    assert server.wait(run, timedelta(seconds=PATIENCE)).result == "stopped well"


def test_events_are_told_once_the_store_knows(url: str, started: Callable[..., JobServer]) -> None:
    heard: list[JobEvent] = []

    @job(name="j", retry=Retry(attempts=1))
    def body() -> None:
        raise ValueError("no")

    server = started(url, body)
    server.on("fail", heard.append)
    run = server.launch("j").run
    server.wait(run, timedelta(seconds=PATIENCE))
    until(lambda: bool(heard))
    assert (heard[0].event, heard[0].run.id) == ("fail", run)
    assert server.health().events == {"fail": 1, "start": 1}


def test_waiting_for_a_run_that_does_not_end_says_so(url: str, started: Callable[..., JobServer]) -> None:
    server = started(url)
    with pytest.raises(WaitTimeout):
        server.wait(server.launch("nobody").run, MS)


# -- health, and stores that come and go ------------------------------------------------------------------------


def test_a_server_waits_for_a_store_that_is_down_at_the_start(started: Callable[..., JobServer]) -> None:
    store = Flaky()
    store.away.set()
    opened: list[int] = []
    store.open = lambda: opened.append(1) or (store.now() and None)  # type: ignore[func-returns-value, method-assign]

    @job(name="j")
    def body() -> None: ...

    server = started(Runner.of(store, namespace="n"), body)
    until(lambda: len(opened) > 1)
    health = server.health()
    assert (health.live, health.ready, health.degraded) == (True, False, True)
    assert any("store" in reason for reason in health.reasons)
    store.away.clear()
    assert server.wait_ready()
    assert server.wait(server.launch("j").run, timedelta(seconds=PATIENCE)).status is Status.SUCCEEDED


def test_a_loop_that_is_about_to_begin_is_not_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, seen, begin = Loop("loop", lambda: None), [], threading.Thread.start

    def start(thread: threading.Thread) -> None:
        seen.append(loop.health().state)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    loop.start()
    loop.stop()
    assert loop.join(PATIENCE)
    assert seen == [LoopState.IDLE]


def test_a_store_that_goes_away_costs_time_and_nothing_else(started: Callable[..., JobServer]) -> None:
    store = Flaky()
    began, go = threading.Event(), threading.Event()
    ran: list[str] = []

    @job(name="j")
    def body(ctx: JobContext) -> None:
        ran.append(ctx.key)
        began.set()
        go.wait()

    server = started(Runner.of(store, namespace="n"), body, process_every=20 * MS)
    first, second = server.launch("j", key="1").run, server.launch("j", key="2").run
    assert began.wait(PATIENCE)
    store.away.set()
    go.set()
    until(lambda: server.health().loops["check-out"].state is LoopState.DEGRADED)
    health = server.health()
    assert (health.live, health.degraded, health.unsent) == (True, True, 1)
    store.away.clear()
    for run in (first, second):
        found = server.wait(run, timedelta(seconds=PATIENCE))
        assert (found.status, found.attempt) == (Status.SUCCEEDED, 1)
    until(lambda: not server.health().degraded)
    assert ran == ["1", "2"]


def test_a_body_that_goes_on_without_its_lease_makes_the_server_say_so(started: Callable[..., JobServer]) -> None:
    go = threading.Event()

    @job(name="j")
    def body() -> None:
        go.wait()

    server = started("memory://", body)
    server.launch("j", key="k")
    until(lambda: bool(server.worker.running()))
    server.worker.running()[0].held.lost.set()
    assert any("j/k" in reason for reason in server.health().reasons)
    go.set()


# -- the end ----------------------------------------------------------------------------------------------------


def test_g17_a_shutdown_waits_for_what_runs_and_starts_nothing_new(url: str, started: Callable[..., JobServer]) -> None:
    began = threading.Event()

    @job(name="j")
    def body(ctx: JobContext) -> str:
        began.set()
        assert ctx.stopping.wait(PATIENCE)
        return "finished"

    server = started(url, body)
    first, second = server.launch("j").run, server.launch("j").run
    assert began.wait(PATIENCE)
    report = server.shutdown(timedelta(seconds=PATIENCE))
    assert (report.drained, report.clean, report.released) == (1, True, ())
    assert server.shutdown() is report
    with open_runner(url) as runner:
        statuses = sorted(run.status for run in runner.lifecycle.runs(RunQuery()) if run.id in (first, second))
        assert statuses == [Status.SCHEDULED, Status.SUCCEEDED]


@pytest.mark.parametrize("hurried", [True, False])
def test_g17_what_does_not_end_is_given_back_and_reported(
    url: str, started: Callable[..., JobServer], hurried: bool
) -> None:
    """By a second signal, or when time is up; only a store that is too slow for the rest of the time keeps it."""
    go, began = threading.Event(), threading.Event()

    @job(name="j")
    def body() -> None:
        began.set()
        go.wait()

    server = started(url, body)
    run = server.launch("j").run
    assert began.wait(PATIENCE)
    if hurried:
        server.force()
        report = server.shutdown(timedelta(seconds=PATIENCE))
        assert (report.released, report.abandoned) == ((run,), ())
    else:
        report = server.shutdown(400 * MS)
        assert (*report.released, *report.abandoned) == (run,)
    assert not report.clean
    with open_runner(url) as runner:
        found = runner.executor.check(run)
        assert found is not None
        assert (found.failures, found.crashes) == (0, 0)
        assert found.status is Status.SCHEDULED or not report.released
    go.set()


def test_g17_a_shutdown_returns_also_when_the_store_hangs(started: Callable[..., JobServer]) -> None:
    store = Flaky()
    hang, began = threading.Event(), threading.Event()

    @job(name="j")
    def body(ctx: JobContext) -> None:
        began.set()
        ctx.stopping.wait()

    server = started(Runner.of(store, namespace="n"), body)
    run = server.launch("j").run
    assert began.wait(PATIENCE)
    for verb in ("claim", "checkout", "renew", "configs", "now"):
        setattr(store, verb, lambda *args: hang.wait())
    report = server.shutdown(SECOND)
    assert report.abandoned == (run,)
    assert report.took < 3 * SECOND
    hang.set()


def test_g17_a_claim_that_the_store_does_not_answer_is_reported(started: Callable[..., JobServer]) -> None:
    store = Flaky()
    hang, asked = threading.Event(), threading.Event()

    def claim(request: object) -> list[object]:
        asked.set()
        hang.wait()
        return []

    store.claim = claim  # type: ignore[assignment, method-assign]

    @job(name="j")
    def body() -> None: ...

    server = started(Runner.of(store, namespace="n"), body)
    assert asked.wait(PATIENCE)
    report = server.shutdown(SECOND)
    assert (report.claim_open, report.clean) == (True, False)
    hang.set()


def test_g17_a_second_wish_does_not_wait_for_bodies(url: str, started: Callable[..., JobServer]) -> None:
    go, began = threading.Event(), threading.Event()

    @job(name="j")
    def body() -> None:
        began.set()
        go.wait()

    server = started(url, body)
    run = server.launch("j").run
    assert began.wait(PATIENCE)
    threading.Timer(0.05, server.force).start()
    assert server.shutdown(timedelta(hours=1)).released == (run,)
    go.set()


def test_a_server_that_was_never_started_shuts_down(url: str) -> None:
    assert JobServer.create(url).shutdown(SECOND).clean


PROGRAM = """
import sys, threading
from onceward.toolkit.jobs import job
from onceward.toolkit.server import JobServer

@job(name="slow")
def slow(ctx):
    print("began", flush=True)
    ctx.stopping.wait()
    print("asked to stop", flush=True)
    if not {stops}:
        threading.Event().wait()

server = JobServer.create({url!r}, [slow])
server.start()
server.launch("slow")
report = server.run()
print("clean" if report.clean else "released", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("stops", "signals", "said"), [(True, 1, "clean"), (False, 2, "released")])
def test_sigterm_drains_and_a_second_one_forces(tmp_path: Path, stops: bool, signals: int, said: str) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    program = PROGRAM.format(url=url, stops=stops)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "asked to stop\n"  # two signals at once could arrive as one
        for _ in range(signals - 1):
            os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == f"{said}\n"
        assert process.wait(PATIENCE) == 0


def test_a_server_s_death_frees_its_run_after_the_lease(tmp_path: Path, started: Callable[..., JobServer]) -> None:
    """G8, with a real process and a real SIGKILL."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    program = (
        PROGRAM.format(url=url, stops=False)
        .replace('name="slow"', 'name="slow", lock_lifetime=LEASE')
        .replace(
            "import sys, threading",
            "import sys, threading\nfrom datetime import timedelta\nLEASE = timedelta(milliseconds=600)",
        )
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.kill()

    @job(name="slow", lock_lifetime=600 * MS)
    def slow(ctx: JobContext) -> int:
        return ctx.attempt

    server = started(url, slow)
    [run] = server.runner.lifecycle.runs(RunQuery(job="slow"))
    found = server.wait(run.id, timedelta(seconds=PATIENCE))
    assert (found.result, found.crashes) == (2, 1)


# -- making one -------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_when_the_server_is_made(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        JobServer.create(url, max_concurency=3)
    assert refused.value.field == "max_concurency"
    with pytest.raises(InvalidRequest) as refused:
        JobServer.create(url, max_concurrency=0)
    assert refused.value.field == "max_concurrency"
    with pytest.raises(InvalidRequest, match=r"no\.such\.module"):
        JobServer.create(url, ["no.such.module"])
    with pytest.raises(StoreMisconfigured):
        JobServer.create("nosuch://x")
    with pytest.raises(StoreMisconfigured, match="safe_failover"):
        JobServer.create(url, needs=["safe_failover"]).start()


def test_jobs_are_found_in_modules_folders_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    (folder / "inner").mkdir(parents=True)
    (folder / "one.py").write_text(
        "from onceward.toolkit.jobs import Job, job\n"
        "class Base(Job):\n    abstract = True\n"
        "class One(Base):\n    def run(self, ctx): ...\n"
        "@job\ndef two(ctx): ...\n"
    )
    (folder / "inner" / "three.py").write_text("from onceward.toolkit.jobs import job\n@job\nasync def three(): ...\n")
    (folder / "inner" / "__init__.py").touch()
    (folder / "_skipped.py").write_text("raise RuntimeError\n")
    server = JobServer.create("memory://", [folder])
    assert sorted(server.manager.jobs()) == ["One", "three", "two"]
    assert sorted(JobServer.create("memory://", [str(folder / "one.py")]).manager.jobs()) == ["One", "two"]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sorted(JobServer.create("memory://", ["work"]).manager.jobs()) == ["One", "three", "two"]
    assert sorted(JobServer.create("memory://", ["work.one:One"]).manager.jobs()) == ["One"]
    with pytest.raises(InvalidRequest, match="nosuch"):
        JobServer.create("memory://", ["work.one:nosuch"])
    with pytest.raises(InvalidRequest, match=r"work\.one"):
        JobServer.create("memory://", ["work.one", folder / "one.py"])


def test_two_different_jobs_of_one_name_are_refused() -> None:
    class Same(Job):
        def run(self, ctx: JobContext) -> None: ...

    @job(name="Same")
    def same() -> None: ...

    with pytest.raises(InvalidRequest, match="Same"):
        JobServer.create("memory://", [Same, same])
    assert list(JobServer.create("memory://", [Same, Same]).manager.jobs()) == ["Same"]
