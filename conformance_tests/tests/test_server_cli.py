"""The command line of the job server, in processes of its own as people use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onceward.runners.factory import open_runner

JOBS = """
from onceward.toolkit.jobs import Retry, job

@job(schedule="0 3 * * *")
def nightly(ctx): ...

@job
def double(ctx):
    return ctx.data["n"] * 2

@job(retry=Retry(attempts=1))
def broken():
    raise ValueError("no such file")
"""
PATIENCE = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work_jobs.py").write_text(JOBS)
    return tmp_path


def onceward(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onceward.toolkit.cli", *arguments],
        cwd=folder,
        env={**os.environ, "ONCEWARD_RUNNER": f"sqlite:///{folder}/jobs.db"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, that is up."""
    with subprocess.Popen(
        [sys.executable, "-m", "onceward.toolkit.cli", "serve", "work_jobs", "-c", "2"],
        cwd=folder,
        env={**os.environ, "ONCEWARD_RUNNER": f"sqlite:///{folder}/jobs.db"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert "Serving broken, double, nightly" in next(lines)
        assert any("ready" in line for line in lines)
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_server_serves_and_people_look_and_change(folder: Path, server: subprocess.Popen[str]) -> None:
    done = onceward(folder, "run", "double", "--data", '{"n": 21}', "--key", "k", "--wait")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    again = onceward(folder, "run", "double", "--data", '{"n": 22}', "--key", "k")
    assert again.returncode == 1
    assert "known already" in again.stderr

    failed = onceward(folder, "run", "broken", "--key", "b", "--wait")
    assert failed.returncode == 1
    assert "ValueError: no such file" in failed.stderr
    assert "1 runs of broken are due again" in onceward(folder, "retry", "broken", "--all").stderr
    assert onceward(folder, "run", "broken", "--key", "b", "--wait").returncode == 1
    assert onceward(folder, "discard", "broken", "b", "--reason", "gone").returncode == 0
    assert onceward(folder, "discard", "broken", "b").returncode == 1

    assert onceward(folder, "disable", "double").returncode == 0
    rows = {row["job"]: row for row in map(json.loads, onceward(folder, "jobs", "--json").stdout.splitlines())}
    assert (rows["double"]["state"], rows["double"]["succeeded"]) == ("disabled", 1)
    assert (rows["nightly"]["schedule"], rows["nightly"]["next"][11:16]) == ("0 3 * * *", "03:00")
    assert "nightly" in onceward(folder, "jobs").stdout
    assert onceward(folder, "enable", "double").returncode == 0

    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE) == 0


def test_wrong_usage_names_what_is_wrong(folder: Path) -> None:
    open_runner(f"sqlite:///{folder}/jobs.db").close()
    for arguments, words in [
        (("run", "double", "--data", "{n: 1}"), "--data"),
        (("serve", "no_such_module"), "no_such_module"),
        (("enable", "nosuch"), "nosuch"),
        (("retry", "broken"), "--all"),
        (("discard", "broken", "k", "--all"), "--all"),
        (("serve", "work_jobs", "--deadline", "soon"), "--deadline"),
    ]:
        found = onceward(folder, *arguments)
        assert (found.returncode, words in found.stderr) == (2, True), found.stderr
        assert "Traceback" not in found.stderr


def test_a_run_of_an_unknown_job_waits_and_is_seen(folder: Path) -> None:
    found = onceward(folder, "run", "tomorrow", "--json")
    assert found.returncode == 0
    assert "tomorrow" in found.stderr
    assert json.loads(found.stdout)["status"] == "scheduled"
    [row] = map(json.loads, onceward(folder, "jobs", "--json").stdout.splitlines())
    assert (row["job"], row["state"], row["scheduled"]) == ("tomorrow", "unknown", 1)


@pytest.mark.parametrize("command", ["serve", "run", "jobs", "enable", "disable", "retry", "discard"])
def test_every_command_has_help(folder: Path, command: str) -> None:
    found = onceward(folder, command, "--help")
    assert found.returncode == 0
    assert "Usage" in found.stdout
