"""The manager between real processes on one SQLite file: exclusion, a holder that is killed, one that is paused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from waiting import until

from onceward.contracts import LockNotAcquired
from onceward.toolkit.manager import JobState, Manager

PATIENCE = timedelta(seconds=90)

CONTENDER = """
import os, sys
from datetime import timedelta
from onceward.toolkit.manager import Manager
url, path, number = sys.argv[1:]
out = os.open(path, os.O_WRONLY | os.O_APPEND)
with Manager(url) as manager:
    for _ in range(10):
        with manager.job("shared", wait=timedelta(seconds=90)) as job:
            os.write(out, f"in {number} {job.token}\\n".encode())
            os.write(out, f"out {number} {job.token}\\n".encode())
"""

HOLDER = """
import sys
from datetime import timedelta
from onceward.contracts import LeaseLost
from onceward.toolkit.manager import Manager
with Manager(sys.argv[1], lease=timedelta(seconds=float(sys.argv[2]))) as manager:
    try:
        with manager.job("held") as job:
            print("holding", job.token, flush=True)
            sys.stdin.readline()
            print("lost" if job.lost.is_set() else "held", flush=True)
    except LeaseLost:
        print("told", flush=True)
"""


@contextmanager
def script(text: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", text, *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


def test_processes_never_run_the_same_job_at_once(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.touch()
    with Manager(url) as manager:
        with script(CONTENDER, url, str(trace), "1") as one, script(CONTENDER, url, str(trace), "2") as two:
            assert (one.wait(120), two.wait(120)) == (0, 0)
        lines = [line.split() for line in trace.read_text().splitlines()]
        assert len(lines) == 40
        for (entered, *who), (left, *also) in zip(lines[::2], lines[1::2], strict=True):
            assert (entered, left, who) == ("in", "out", also)
        tokens = [int(token) for _, _, token in lines[::2]]
        assert tokens == sorted(set(tokens))
        views = list(reversed(manager.jobs("shared")))
        assert [view.state for view in views] == [JobState.COMPLETED] * 20
        for earlier, later in pairwise(views):
            assert earlier.end_date is not None
            assert earlier.end_date <= later.start_date


def test_a_killed_holders_job_can_start_again_after_its_lease(url: str) -> None:
    with Manager(url) as manager, script(HOLDER, url, "1") as holder:
        token = int(said(holder).split()[1])
        with pytest.raises(LockNotAcquired):
            manager.start("held")
        holder.kill()
        with manager.job("held", wait=PATIENCE) as job:
            assert job.token > token
        latest, dead = manager.jobs("held")
        assert latest.state is JobState.COMPLETED
        if dead.end_time is None:  # its record's lease began a moment after the lock's, and ends as much later
            until(lambda: bool(manager.history.reap("held")))
            _, dead = manager.jobs("held")
        assert (dead.error or "").startswith("Abandoned")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGSTOP")
def test_a_paused_holder_is_fenced_off_and_told(url: str) -> None:
    with Manager(url) as manager, script(HOLDER, url, "1") as holder:
        said(holder)
        os.kill(holder.pid, signal.SIGSTOP)
        with manager.job("held", wait=PATIENCE) as job:
            os.kill(holder.pid, signal.SIGCONT)
            print(file=holder.stdin, flush=True)
            assert said(holder) == "lost"
            assert said(holder) == "told"
            assert not job.lost.is_set()
            with pytest.raises(LockNotAcquired):
                manager.start("held")
        assert [view.state for view in manager.jobs("held")] == [JobState.COMPLETED, JobState.ERROR]


def test_a_live_holder_keeps_its_lock_beyond_the_lease(url: str) -> None:
    """G9: renewed from a thread of its own while the body blocks in a read."""
    with Manager(url) as manager, script(HOLDER, url, "2") as holder:
        said(holder)
        with pytest.raises(LockNotAcquired):
            manager.start("held", wait=timedelta(seconds=5))
        print(file=holder.stdin, flush=True)
        assert said(holder) == "held"
        assert manager.wait_for("held", timeout=PATIENCE).state is JobState.COMPLETED
