"""Bodies in processes of their own: what they can do, and how they are ended when they do not end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from waiting import PATIENCE

from onceward.contracts import InvalidRequest, RunId, RunQuery, Status
from onceward.toolkit.jobs import JobContext, Where, job
from onceward.toolkit.server import JobServer, offload
from onceward.toolkit.server.scanner import source_of

JOBS = """
import os, sys, time
from datetime import UTC, datetime, timedelta
from onceward.toolkit.jobs import Cancel, FatalError, Job, Retry, RetryableError, Where, job

ONCE = Retry(attempts=1)

@job(where=Where.PROCESS, retry=ONCE)
def facts(ctx):
    print("to whom it may concern")
    ctx.progress(3, 2, "two of three")
    ctx.touch()
    child = ctx.launch("note", {"from": ctx.key}, run_at=datetime.now(UTC) - timedelta(hours=1))
    with ctx.once("step") as step:
        if step.first:
            step.result = "done"
    with ctx.fenced() as token:
        assert token == ctx.token
    assert timedelta(0) < ctx.time_remaining() <= timedelta(minutes=2)
    return {"pid": os.getpid(), "data": ctx.data, "attempt": ctx.attempt, "new": child.new, "step": step.result}

@job(where=Where.PROCESS, retry=ONCE)
async def later(ctx):
    return ctx.data

@job(where=Where.PROCESS, retry=Retry(attempts=2, delay=timedelta(0)))
def raises(ctx):
    kinds = {"fatal": FatalError, "again": RetryableError, "other": KeyError, "cancel": Cancel}
    raise kinds[ctx.data]("as " + ctx.data)

@job(where=Where.PROCESS, retry=ONCE)
def dies(ctx):
    os._exit(9)

@job(where=Where.PROCESS, retry=ONCE)
def never(ctx):
    with open(ctx.data + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(ctx.data + ".new", ctx.data)
    while True:
        time.sleep(1)

@job(where=Where.PROCESS, retry=ONCE)
def polite(ctx):
    open(ctx.data, "w").close()
    while not ctx.cancelled.wait(0.02):
        pass
    return "stopped when asked"

@job(where=Where.PROCESS, retry=Retry(attempts=3, delay=timedelta(0)))
def unrecordable(ctx):
    return {1, 2}

@job(where=Where.PROCESS, retry=ONCE)
def patient(ctx):
    with open(ctx.data + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(ctx.data + ".new", ctx.data)
    while not ctx.stopping.wait(0.02):
        pass
    return "finished"

@job(where=Where.PROCESS, retry=ONCE)
def forks(ctx):
    child = os.fork()
    if not child:
        return "the child's"
    return ["the parent's", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

@job
def note(ctx):
    return ctx.data
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JobServer]:
    (tmp_path / "heavy.py").write_text(JOBS)
    with JobServer.create("memory://", [tmp_path / "heavy.py"], max_concurrency=4, default_concurrency=4) as server:
        yield server


PROMPT = timedelta(seconds=PATIENCE)


def test_a_body_has_its_context_in_its_own_process(server: JobServer) -> None:
    run = server.wait(server.launch("facts", {"x": [1, None]}, key="k").run, PROMPT)
    assert isinstance(run.result, dict), run
    assert run.result["pid"] != os.getpid()
    assert (run.result["data"], run.result["attempt"]) == ({"x": [1, None]}, 1)
    assert (run.result["new"], run.result["step"]) == (True, "done")
    assert run.progress is not None
    assert run.progress.message == "two of three"
    [child] = server.runner.lifecycle.runs(RunQuery(job="note"))
    assert child.run_at < child.created
    assert server.wait(child.id, PROMPT).result == {"from": "k"}
    assert server.wait(server.launch("later", 7).run, PROMPT).result == 7


@pytest.mark.parametrize(
    ("data", "status", "kind", "attempts"),
    [
        ("fatal", Status.FAILED, "FatalError", 1),
        ("again", Status.FAILED, "RetryableError", 2),
        ("other", Status.FAILED, "KeyError", 2),
        ("cancel", Status.CANCELLED, "Cancel", 1),
    ],
)
def test_what_it_raises_counts_as_if_it_were_raised_here(
    server: JobServer, data: str, status: Status, kind: str, attempts: int
) -> None:
    run = server.launch("raises", data).run
    found = server.wait(run, PROMPT)
    while found.status is Status.SCHEDULED:
        found = server.wait(run, PROMPT)
    assert found.error is not None
    assert (found.status, found.error.type, found.attempt) == (status, kind, attempts)
    assert f"as {data}" in found.error.message


def test_a_process_that_dies_fails_its_run_and_nothing_else(server: JobServer) -> None:
    run = server.wait(server.launch("dies").run, PROMPT)
    assert run.error is not None
    assert (run.status, run.error.type) == (Status.FAILED, "ProcessEnded")
    assert "code 9" in run.error.message
    assert server.wait(server.launch("later", 1).run, PROMPT).result == 1


def test_a_result_that_cannot_be_recorded_is_no_reason_to_do_the_work_again(server: JobServer) -> None:
    run = server.wait(server.launch("unrecordable").run, PROMPT)
    assert run.error is not None
    assert (run.status, run.attempt) == (Status.FAILED, 1)
    assert "{1, 2} is not accepted" in run.error.message


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_the_body_forked_does_not_answer_for_it(server: JobServer) -> None:
    assert server.wait(server.launch("forks").run, PROMPT).result == ["the parent's", 0]


def test_a_signal_to_the_whole_group_of_processes_lets_bodies_finish(server: JobServer, tmp_path: Path) -> None:
    """As service managers send it; the server's own SIGTERM comes after it has said why, and ends the body."""
    began = tmp_path / "pid"
    run = server.launch("patient", str(began)).run
    await_file(began)
    os.kill(int(began.read_text()), signal.SIGTERM)
    assert server.wait(run, PROMPT).result == "finished"


def await_file(path: Path) -> None:
    pause = threading.Event()
    while not path.exists():
        pause.wait(0.02)


def asked_to_stop(server: JobServer, job: str, began: Path) -> RunId:
    """A run that has begun, as its file says, and is asked to stop."""
    run = server.launch(job, str(began)).run
    await_file(began)
    server.runner.scheduler.cancel(run)
    server.worker.running()[0].held.touch()
    return run


def test_a_body_that_does_not_stop_is_ended(server: JobServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload.run_in_process, "__kwdefaults__", {"grace": 0.2})
    run = server.wait(asked_to_stop(server, "never", tmp_path / "pid"), PROMPT)
    assert run.status is Status.CANCELLED
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_body_that_is_asked_to_stop_may_end_well(server: JobServer, tmp_path: Path) -> None:
    assert server.wait(asked_to_stop(server, "polite", tmp_path / "began"), PROMPT).result == "stopped when asked"


def test_a_job_that_no_process_could_load_says_so() -> None:
    @job(where=Where.PROCESS)
    def local(ctx: JobContext) -> None: ...

    with pytest.raises(InvalidRequest, match="where"):
        source_of(local)
    with pytest.raises(InvalidRequest, match="local"):
        JobServer.create("memory://", [local])
