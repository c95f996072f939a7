"""Jobs that are added while the server runs, and one-offs that run once for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from waiting import PATIENCE

from onceward.contracts import InvalidRequest, Status, WaitTimeout
from onceward.toolkit.jobs import JobContext, Retry, job
from onceward.toolkit.server import OneOffJobs

PROMPT = timedelta(seconds=PATIENCE)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def jobs(url: str) -> Iterator[OneOffJobs]:
    with OneOffJobs(url, max_concurrency=2) as jobs:
        yield jobs


def test_a_job_without_a_time_runs_at_once_and_gets_its_data(jobs: OneOffJobs) -> None:
    def greet(ctx: JobContext) -> str:
        return f"hello {ctx.data}"

    assert jobs.add_job(greet, data="ann") == "greet"
    assert jobs.await_completion("greet", PROMPT).result == "hello ann"
    jobs.all_settled(PROMPT)
    with pytest.raises(InvalidRequest):
        jobs.await_completion("nosuch")
    with pytest.raises(InvalidRequest, match="Name parameter"):
        jobs.add_job(lambda: None)


def test_a_job_may_run_by_a_schedule_until_it_is_removed(jobs: OneOffJobs) -> None:
    ran = threading.Event()
    jobs.add_job(ran.set, name="tick", at="every 1 second")
    assert ran.wait(PATIENCE)
    jobs.remove_job("tick")
    jobs.all_settled(PROMPT)
    with pytest.raises(InvalidRequest, match="schedule"):
        jobs.add_job(ran.set, name="never", at="sometimes")
    jobs.add_job(ran.set, name="later", at=datetime(2100, 1, 1, tzinfo=UTC))
    jobs.all_settled(PROMPT)


def test_a_job_that_was_removed_waits_until_it_is_added_again(url: str, jobs: OneOffJobs) -> None:
    ran = threading.Event()
    jobs.add_job(ran.set, name="tick", at=datetime(2100, 1, 1, tzinfo=UTC))
    jobs.remove_job("tick")
    jobs.server.launch("tick")
    jobs.all_settled(PROMPT)  # it is due, but cannot start
    assert not ran.is_set()
    jobs.add_job(ran.set, name="tick", at=datetime(2100, 1, 1, tzinfo=UTC))
    assert ran.wait(PATIENCE)
    jobs.all_settled(PROMPT)
    jobs.server.manager.configs.disable("tick")  # by an operator: adding it again does not overrule that
    jobs.add_job(ran.set, name="tick", at=datetime(2100, 1, 1, tzinfo=UTC))
    assert not jobs.server.manager.plans()["tick"].enabled
    with pytest.raises(InvalidRequest, match="nosuch"):
        jobs.remove_job("nosuch")


def test_a_one_off_runs_once_for_ever_and_in_one_process(url: str, jobs: OneOffJobs) -> None:
    ran: list[int] = []
    jobs.add_one_off_job(lambda: ran.append(1), name="migration")
    jobs.await_one_off_completion("migration", PROMPT)
    assert jobs.has_executed_successfully("migration")
    with (
        OneOffJobs(url) as other,
        pytest.raises(InvalidRequest, match='A "migration" one off job has already been executed'),
    ):
        other.add_one_off_job(lambda: ran.append(2), name="migration")
    assert ran == [1]
    assert not jobs.has_executed_successfully("nosuch")
    with pytest.raises(WaitTimeout):
        jobs.await_one_off_completion("nosuch", timedelta(0))
    with pytest.raises(InvalidRequest, match="name parameter is required"):
        jobs.add_one_off_job(lambda: None, name="")


def test_r6_a_one_off_that_failed_runs_again_and_only_a_finished_one_was_successful(jobs: OneOffJobs) -> None:
    fixed: list[int] = []
    go = threading.Event()

    @job(retry=Retry(attempts=1))
    def backup() -> None:
        if not fixed:
            raise ValueError("disk full")
        go.wait(PATIENCE)

    jobs.add_one_off_job(backup, name="backup-2026")
    assert jobs.await_one_off_completion("backup-2026", PROMPT).status is Status.FAILED
    assert not jobs.has_executed_successfully("backup-2026", strict=False)
    fixed.append(1)
    jobs.add_one_off_job(backup, name="backup-2026")
    assert not jobs.has_executed_successfully("backup-2026")
    assert jobs.has_executed_successfully("backup-2026", strict=False)
    go.set()
    jobs.await_one_off_completion("backup-2026", PROMPT)
    assert jobs.has_executed_successfully("backup-2026")


def test_a_file_may_be_the_job_and_run_in_a_process(jobs: OneOffJobs, tmp_path: Path) -> None:
    file = tmp_path / "heavy.py"
    file.write_text("import os\nfrom onceward.toolkit.jobs import job\n@job\ndef heavy(ctx):\n    return os.getpid()\n")
    jobs.add_job(file, offloaded=True)
    first = jobs.await_completion("heavy", PROMPT).result
    assert isinstance(first, int)
    with pytest.raises(InvalidRequest, match="heavy"):
        jobs.add_job(file, name="other", offloaded=True)
