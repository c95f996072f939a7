"""The command line: answers on stdout, messages on stderr, exit codes that scripts can use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from onceward.contracts import (
    CheckIn,
    CheckOut,
    Failure,
    InvalidRequest,
    LeaseLost,
    LockId,
    LockRequest,
    OncewardError,
    OutcomeUnknown,
    RunId,
    RunSpec,
    StoreMisconfigured,
    StoreUnavailable,
)
from onceward.runners.factory import open_runner
from onceward.toolkit.cli import change, plugins
from onceward.toolkit.cli.answers import Exit, answering, complain
from onceward.toolkit.cli.app import build
from onceward.toolkit.cli.durations import parse_moment, short
from onceward.toolkit.durations import parse_duration

HOUR = timedelta(hours=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with one run in every state that matters, and a lock."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    with open_runner(url) as runner:
        for key in ("1", "2"):
            admission = runner.executor.checkin(CheckIn(run=RunId("import", key), holder="h1", payload={"n": 1}))
            assert admission.run.lease is not None
            lease = admission.run.lease
            failure = Failure(type="ValueError", message="bad\x1b[31m\n[red]row")
            end = CheckOut.succeeded(lease, {"ok": True}) if key == "1" else CheckOut.failed(lease, failure)
            runner.executor.checkout([end])
        runner.executor.checkin(CheckIn(run=RunId.of("import", "3", {"app": "shop"}), holder="h2", lease=HOUR))
        runner.scheduler.submit([RunSpec.of("export", "1")])
        runner.executor.lock(LockRequest(lock=LockId("nightly"), holder="h1", lease=HOUR, note="backup"))
    return url


class Answer(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


def onceward(*args: str, url: str | None = None, stdin: str | None = None) -> Answer:
    place = [] if url is None else ["--runner", url]
    result = CliRunner().invoke(build(), [*place, *args], input=stdin, prog_name="onceward")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def documents(result: Answer) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- looking ---


def test_runs_lists_the_newest_first(url: str) -> None:
    result = onceward("runs", url=url)
    assert result.exit_code == Exit.OK
    rows = [line.split()[:3] for line in result.stdout.splitlines() if line.split()[:1] in (["import"], ["export"])]
    assert rows == [
        ["export", "1", "scheduled"],
        ["import", "3", "running"],
        ["import", "2", "failed"],
        ["import", "1", "succeeded"],
    ]


def test_runs_in_json_are_one_document_per_line(url: str) -> None:
    found = documents(onceward("runs", "--json", "--job", "import", url=url))
    assert [run["key"] for run in found] == ["3", "2", "1"]
    assert found[0]["stamp"] == {"app": "shop"}
    assert found[2]["payload"] == {"n": 1}
    assert found[2]["result"] == {"ok": True}
    started = datetime.fromisoformat(str(found[2]["started"]))
    assert abs(datetime.now(UTC) - started) < HOUR


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["--status", "failed"], ["2"]),
        (["--status", "failed", "--status", "scheduled"], ["1", "2"]),
        (["--limit", "2"], ["1", "3"]),
        (["--since", "1h", "--job", "export"], ["1"]),
        (["--since", "2200-01-01"], []),
        (["--lapsed"], []),
        (["--job", "nobody"], []),
    ],
)
def test_runs_filters(url: str, options: list[str], keys: list[str]) -> None:
    result = onceward("runs", "--json", *options, url=url)
    assert result.exit_code == Exit.OK
    assert [run["key"] for run in documents(result)] == keys


def test_runs_limit_goes_beyond_one_page(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceward.toolkit.cli.look._PAGE", 2)
    assert len(documents(onceward("runs", "--json", url=url))) == 4
    assert len(documents(onceward("runs", "--json", "--limit", "3", url=url))) == 3


def test_text_of_users_plays_no_tricks_on_the_terminal(url: str) -> None:
    output = onceward("runs", url=url).stdout + onceward("show", "import", "2", url=url).stdout
    assert "\x1b" not in output
    assert "bad\\x1b[31m\\n[red]row" in output


def test_show_tells_everything(url: str) -> None:
    result = onceward("show", "import", "2", url=url)
    assert result.exit_code == Exit.OK
    assert "status    failed" in result.stdout
    (document,) = documents(onceward("show", "import", "2", "--json", url=url))
    assert document["error"] == {"type": "ValueError", "message": "bad\x1b[31m\n[red]row", "trace": None}
    assert [attempt["ending"] for attempt in document["attempts"]] == ["failed"]  # type: ignore[attr-defined]


def test_show_without_such_a_run_is_a_no(url: str) -> None:
    result = onceward("show", "import", "nope", "--json", url=url)
    assert (result.exit_code, result.stdout) == (Exit.NO, "")
    assert "There is no run import/nope" in result.stderr


def test_show_asks_for_the_stamp_where_several_runs_match(url: str) -> None:
    with open_runner(url) as runner:
        runner.executor.checkin(CheckIn(run=RunId("import", "3"), holder="h"))
    result = onceward("show", "import", "3", url=url)
    assert result.exit_code == Exit.USAGE
    assert "--stamp" in result.stderr
    (document,) = documents(onceward("show", "import", "3", "--stamp", '{ "app" : "shop" }', "--json", url=url))
    assert document["stamp"] == {"app": "shop"}
    (document,) = documents(onceward("show", "import", "3", "--stamp", "{}", "--json", url=url))
    assert document["stamp"] is None
    assert onceward("show", "import", "3", "--stamp", "shop", url=url).exit_code == Exit.USAGE


def test_locks(url: str) -> None:
    (lock,) = documents(onceward("locks", "--json", url=url))
    assert (lock["name"], lock["holder"], lock["note"], lock["lapsed"]) == ("nightly", "h1", "backup", False)
    assert "backup" in onceward("locks", url=url).stdout
    empty = onceward("--namespace", "empty", "locks", url=url)
    assert (empty.exit_code, empty.stdout) == (Exit.OK, "")


def test_the_runner_may_stand_behind_the_command_and_in_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(documents(onceward("locks", "--json", "--runner", url))) == 1
    monkeypatch.setenv("ONCEWARD_RUNNER", url)
    assert len(documents(onceward("locks", "--json"))) == 1


# --- changing ---


def test_unlock_takes_the_lock_away_and_writes_it_down(url: str) -> None:
    result = onceward("unlock", "nightly", "--reason", "host is gone", "--yes", "--json", url=url)
    assert result.exit_code == Exit.OK
    (answer,) = documents(result)
    assert (answer["unlocked"], answer["holder"]) == (True, "h1")
    assert documents(onceward("locks", "--json", url=url)) == []
    (audit,) = documents(onceward("runs", "--job", "onceward:audit", "--json", url=url))
    assert audit["payload"]["reason"] == "host is gone"  # type: ignore[index]
    again = onceward("unlock", "nightly", "--reason", "host is gone", "--yes", url=url)
    assert again.exit_code == Exit.NO
    assert "Nobody holds lock nightly" in again.stderr


def test_unlock_a_run(url: str) -> None:
    options = ["unlock", "--run", "import", "3", "--stamp", '{"app":"shop"}', "--reason", "hangs", "--yes"]
    assert onceward(*options, url=url).exit_code == Exit.OK
    assert [run["key"] for run in documents(onceward("runs", "--lapsed", "--json", url=url))] == ["3"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["nightly", "--reason", "x", "--token", "999999", "--yes"], Exit.NO),
        (["nightly", "--reason", " ", "--yes"], Exit.USAGE),
        (["nightly", "--yes"], Exit.USAGE),
        (["nightly", "--reason", "x"], Exit.USAGE),  # nobody to ask
        (["--reason", "x", "--yes"], Exit.USAGE),
        (["nightly", "--run", "import", "3", "--reason", "x", "--yes"], Exit.USAGE),
    ],
)
def test_unlock_refused(url: str, options: list[str], code: Exit) -> None:
    assert onceward("unlock", *options, url=url).exit_code == code
    assert len(documents(onceward("locks", "--json", url=url))) == 1


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_unlock_asks_a_person(url: str, monkeypatch: pytest.MonkeyPatch, answer: str, left: int) -> None:
    monkeypatch.setattr(change, "interactive", lambda: True)
    onceward("unlock", "nightly", "--reason", "x", url=url, stdin=answer)
    assert len(documents(onceward("locks", "--json", url=url))) == left


def test_purge_deletes_only_what_ended_long_ago(url: str) -> None:
    options = ["purge", "--older-than", "0s", "--json"]
    assert documents(onceward(*options, "--dry-run", url=url)) == [{"matching": 2}]
    assert documents(onceward("purge", "--older-than", "1h", "--dry-run", "--json", url=url)) == [{"matching": 0}]
    assert documents(onceward("purge", "--older-than", "1h", "--yes", "--json", url=url)) == [{"deleted": 0}]
    assert documents(onceward(*options, "--status", "failed", "--yes", url=url)) == [{"deleted": 1}]
    assert onceward(*options, url=url).exit_code == Exit.USAGE  # nobody to ask
    assert documents(onceward(*options, "--yes", url=url)) == [{"deleted": 1}]
    assert [run["status"] for run in documents(onceward("runs", "--json", url=url))] == ["scheduled", "running"]


def test_purge_goes_on_until_all_is_gone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "_BATCH", 1)
    options = ["purge", "--older-than", "0s", "--json"]
    assert documents(onceward(*options, "--dry-run", url=url)) == [{"matching": 2}]
    assert documents(onceward(*options, "--yes", url=url)) == [{"deleted": 2}]


@pytest.mark.parametrize("options", [["--older-than", "5"], ["--older-than", "1h", "--status", "running"], []])
def test_purge_refused(url: str, options: list[str]) -> None:
    assert onceward("purge", *options, "--yes", url=url).exit_code == Exit.USAGE
    assert len(documents(onceward("runs", "--json", url=url))) == 4


# --- errors, versions, other packages' commands ---


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("key", "", "text"), Exit.USAGE),
        (StoreMisconfigured("no such type"), Exit.USAGE),
        (StoreUnavailable("away"), Exit.STORE),
        (OutcomeUnknown("lost"), Exit.STORE),
        (LeaseLost("lock a", 3), Exit.NO),
    ],
)
def test_errors_are_a_readable_line_and_a_code(
    error: OncewardError, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    error.add_note("and this besides")
    assert complain(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"Error: {error}\n  and this besides\n")


@pytest.mark.parametrize("bad", ["nosuch://x", "sqlite:////no/such/folder/x.db", "sqlite:///x.db?synchron=FULL"])
def test_a_store_that_cannot_work(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = onceward("runs", url=bad)
    assert result.exit_code in (Exit.USAGE, Exit.STORE)
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["runs"],
        ["show", "import", "1"],
        ["locks"],
        ["jobs"],
        ["unlock", "nightly", "--reason", "stuck", "--yes"],
        ["purge", "--older-than", "1h", "--yes"],
        ["enable", "import"],
        ["disable", "import"],
        ["retry", "import", "--all"],
        ["discard", "import", "--all"],
    ],
    ids=lambda command: command[0],
)
def test_a_mistyped_path_makes_no_store(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{tmp_path}/job.db", None):
        result = onceward(*command, url=url)
        assert result.exit_code == Exit.STORE
        assert f"{tmp_path / ('job.db' if url else 'onceward.db')} does not exist" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_may_be_submitted_before_there_is_a_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    assert onceward("run", "import", url=url).exit_code == Exit.OK
    assert onceward("show", "import", "1", url=url).exit_code == Exit.NO


@pytest.mark.parametrize("args", [["--nosuch"], ["nosuch"], ["show", "import"], ["runs", "--status", "nosuch"]])
def test_wrong_usage(args: list[str], url: str) -> None:
    assert onceward(*args, url=url).exit_code == Exit.USAGE


def test_version() -> None:
    (document,) = documents(onceward("version", "--json"))
    assert onceward("--version").stdout == onceward("version").stdout == f"{document['onceward']}\n"


def test_help_lists_the_exit_codes() -> None:
    result = onceward("--help")
    assert result.exit_code == Exit.OK
    assert "130 interrupted" in " ".join(result.stdout.split())


@pytest.fixture
def other_package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with commands for us: one works, one needs what is not installed."""
    module = ModuleType("other_package")

    @answering
    def greet(name: str, loud: bool = False) -> Exit | None:
        if name == "bad":
            raise InvalidRequest("name", name, "a good one")
        if name == "missing":
            raise ModuleNotFoundError("No module named 'hypothesis'", name="hypothesis")
        if name == "seven":
            raise typer.Exit(7)
        typer.echo(name.upper() if loud else name)
        return Exit.NO if name == "no" else None

    module.greet = greet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_package", module)
    points = [
        EntryPoint("greet", "other_package:greet", plugins.GROUP),
        EntryPoint("gone", "no_such_package:x", plugins.GROUP),
        EntryPoint("ours", "onceward.nosuch.cli:x", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == plugins.GROUP else [])
    return module


@pytest.mark.usefixtures("other_package")
def test_other_packages_add_commands() -> None:
    assert onceward("greet", "ann", "--loud").stdout == "ANN\n"
    assert onceward("greet", "no").exit_code == Exit.NO
    assert onceward("greet", "seven").exit_code == 7
    assert onceward("greet", "bad").exit_code == Exit.USAGE
    assert onceward("greet", "--nosuch").exit_code == Exit.USAGE
    assert "--loud" in onceward("greet", "--help").stdout
    assert "greet" in onceward("--help").stdout


@pytest.mark.usefixtures("other_package")
@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["gone"], "pip install 'no_such_package'"),
        (["ours"], "pip install 'onceward[nosuch]'"),
        (["greet", "missing"], "pip install 'other_package'"),
    ],
)
def test_a_missing_extra_is_named(args: list[str], hint: str) -> None:
    result = onceward(*args)
    assert result.exit_code == Exit.USAGE
    assert hint in result.stderr


# --- durations ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5_400), ("500ms", 0.5), (" 1.5 H ", 5_400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "5 parsecs", "-5s", "h", "1h-30m", "1e3s", "9" * 30 + "d", "٣s٣"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRequest, match="30s"):
        parse_duration(text)


def test_moments() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert parse_moment("1d", now=now, field="f") == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_moment("2026-01-01", now=now, field="f") == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_moment("2026-01-01T01:00+01:00", now=now, field="f") == datetime(2026, 1, 1, tzinfo=UTC)
    for wrong in ("yesterday", "9999999d"):
        with pytest.raises(InvalidRequest):
            parse_moment(wrong, now=now, field="f")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12ms"), (1.25, "1.2s"), (65, "1m 05s"), (7_260, "2h 01m"), (100_000, "1d 3h"), (-5, "-5.0s")],
)
def test_short_durations(seconds: float, text: str) -> None:
    assert short(timedelta(seconds=seconds)) == text


# --- real processes ---


def process(*args: str) -> list[str]:
    return [sys.executable, "-c", "from onceward.toolkit.cli import main; main()", *args]


def test_a_real_process_answers_with_json_and_a_code(url: str) -> None:
    done = subprocess.run(process("--runner", url, "locks", "--json"), capture_output=True, text=True, timeout=120)
    assert done.returncode == Exit.OK
    assert json.loads(done.stdout)["name"] == "nightly"
    assert done.stderr == ""
    missing = subprocess.run(process("--runner", url, "show", "a", "b"), capture_output=True, text=True, timeout=120)
    assert (missing.returncode, missing.stdout) == (Exit.NO, "")


def test_a_corrupt_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    done = subprocess.run(
        process("--runner", f"sqlite:///{tmp_path}/x.db", "runs"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (Exit.USAGE, Exit.STORE)
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, Exit.INTERRUPTED, "Interrupted.\n"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_ends_a_command_and_what_it_has_begun(number: signal.Signals, code: int, said: str) -> None:
    """A command that would go on for minutes is interrupted once it has said that it is at work."""
    script = (
        "import time\n"
        "from onceward.toolkit.cli import change, main\n"
        "def slow(*args):\n"
        "    try:\n"
        "        print('at work', flush=True)\n"
        "        time.sleep(100)\n"
        "    finally:\n"
        "        print('ended', flush=True)\n"
        "change._count = slow\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "--runner", "memory://", "purge", "--older-than", "1h", "--dry-run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "at work\n"
        os.kill(running.pid, number)
        output, messages = running.communicate(timeout=60)
    assert output == "ended\n"
    assert running.returncode == code
    assert messages == said


def test_output_that_nobody_reads_is_no_traceback(url: str) -> None:
    """As in: onceward runs | head -0."""
    command = process("--runner", url, "runs", "--json")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert "Traceback" not in done.stderr
