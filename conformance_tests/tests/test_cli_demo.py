"""The commands ``demo`` and ``conform``: what they show, and the code that they end with."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from msgspec.structs import replace
from rich.console import Console
from typer.testing import CliRunner

from onceward.conformance import suite
from onceward.conformance.certificate import SUITE_VERSION, Certificate, Result, Verdict
from onceward.conformance.cli import conform
from onceward.conformance.disturb import Faults
from onceward.contracts.records import Record
from onceward.toolkit import demo as demo_module
from onceward.toolkit.cli import demo
from onceward.toolkit.cli.answers import Exit
from onceward.toolkit.cli.app import build
from onceward.toolkit.demo_orders import make_orders, write_orders
from onceward.toolkit.demo_report import DemoProgress, DemoReport, WorkerProgress

REPORT = DemoReport(
    orders=3,
    workers=2,
    seconds=1.5,
    completed=2,
    failed=1,
    admitted=4,
    refused=2,
    takeovers=1,
    checkouts_per_order={1: 3},
    bodies_per_order={1: 2, 2: 1},
    killed="ORD-2",
)


class Answer(Record, frozen=True, kw_only=True):
    exit_code: int
    stdout: str
    stderr: str


def call(app: typer.Typer, *args: str) -> Answer:
    result = CliRunner().invoke(app, list(args), prog_name="onceward")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(exit_code=result.exit_code, stdout=result.stdout, stderr=result.stderr)


# --- demo ---


def test_a_small_demonstration(tmp_path: Path) -> None:
    write_orders(tmp_path / "orders.jsonl", make_orders(40))
    result = call(build(), "demo", "--orders", str(tmp_path / "orders.jsonl"), "--workers", "2", "--no-kill", "--json")
    assert result.exit_code == Exit.OK
    report = json.loads(result.stdout)
    assert (report["ok"], report["orders"], report["checkouts_per_order"]) == (True, 40, {"1": 40})
    assert "40 of 40 orders done" in result.stderr


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        (REPORT, Exit.OK, "Every order was checked out exactly once."),
        (replace(REPORT, twice=("ORD-1",)), Exit.NO, "Checked out twice: 1, for example ORD-1"),
        (replace(REPORT, missing=("ORD-1",)), Exit.NO, "Not checked out: 1"),
        (replace(REPORT, problems=("worker 2 ended",)), Exit.NO, "Problem: worker 2 ended"),
    ],
)
def test_the_reports_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, report: DemoReport, code: Exit, said: str
) -> None:
    monkeypatch.setattr(demo_module, "run_demo", lambda *args, **kwargs: report)
    result = call(build(), "demo")
    assert result.exit_code == code
    assert said in result.stderr
    assert ("exactly once" in result.stderr) == report.ok
    assert "exactly 1: 3 orders" in result.stdout
    assert json.loads(call(build(), "demo", "--json").stdout)["ok"] == report.ok


def test_a_demonstration_that_cannot_run(tmp_path: Path) -> None:
    missing = call(build(), "demo", "--orders", str(tmp_path / "nope.jsonl"))
    assert missing.exit_code == Exit.USAGE
    assert missing.stderr.startswith("Error: ")
    private = call(build(), "demo", "--runner", "memory://")
    assert private.exit_code == Exit.USAGE
    assert "shared" in private.stderr


def test_the_live_picture_says_who_was_killed() -> None:
    workers = (
        WorkerProgress(worker=1, pid=11, ended=5, alive=False, killed=True),
        WorkerProgress(worker=2, pid=12, ended=7),
    )
    progress = DemoProgress(
        orders=20, ended=12, admitted=13, refused=3, takeovers=0, killed="ORD-9", seconds=1.0, workers=workers
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(demo._picture(progress))
    console.print(demo._picture(replace(progress, takeovers=1)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "12 of 20 orders" in text
    assert "killed (SIGKILL)" in text
    assert "its lease is running out" in text
    assert "another one took it over" in text


# --- conform ---


def certificate(*verdicts: Verdict) -> Certificate:
    results = tuple(Result(id=f"p{i}", statement="It holds.", verdict=verdict) for i, verdict in enumerate(verdicts))
    return Certificate(
        suite_version=SUITE_VERSION,
        onceward_version="0",
        python="3",
        platform="here",
        target="memory://",
        started=datetime.now(UTC),
        seconds=1.0,
        seed=7,
        budget_seconds=60.0,
        profiles={"lock": all(verdict is Verdict.HOLDS for verdict in verdicts)},
        results=results,
    )


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(conform)
    return app


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.HOLDS, Exit.OK), (Verdict.NOT_RUN, Exit.USAGE), (Verdict.SKIPPED, Exit.USAGE)]
)
def test_the_certificates_verdict_is_the_exit_code(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: Exit
) -> None:
    asked: dict[str, object] = {}

    def run(harness: object, **options: object) -> Certificate:
        asked.update(options)
        return certificate(Verdict.HOLDS, verdict)

    monkeypatch.setattr(suite, "run_suite", run)
    result = call(app, "memory://", "--profile", "lock", "--profile", "checkin", "--budget", "2m", "--seed", "7")
    assert result.exit_code == code
    assert asked.pop("progress")
    assert asked == {
        "profiles": ["lock", "checkin"],
        "budget": timedelta(minutes=2),
        "seed": 7,
        "out": None,
        "faults": Faults.MESSAGES,
    }
    assert "p1" in result.stdout
    found = json.loads(call(app, "memory://", "--json").stdout)
    assert found["exit_code"] == code
    assert found["results"][1]["verdict"] == verdict


def test_a_broken_promise_is_a_no(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = certificate(Verdict.HOLDS, Verdict.VIOLATED)
    monkeypatch.setattr(suite, "run_suite", lambda harness, **options: broken)
    assert call(app, "memory://").exit_code == Exit.NO


@pytest.mark.parametrize(
    "args", [["nowhere"], ["memory://", "--budget", "soon"], ["memory://", "--profile", "nope"], ["x:y"], []]
)
def test_what_cannot_be_examined(app: typer.Typer, args: list[str]) -> None:
    assert call(app, *args).exit_code == Exit.USAGE


def test_a_file_of_another_program_is_no_broken_promise(app: typer.Typer, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    result = call(app, f"sqlite:///{tmp_path}/other.db")
    assert result.exit_code == Exit.USAGE
    assert "another program" in result.stderr


def test_a_harness_of_ones_own_is_found_in_the_working_directory(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_harness_for_tests.py").write_text("from onceward.conformance import MemoryHarness as Own\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    seen: list[object] = []

    def run(harness: object, **options: object) -> Certificate:
        seen.append(harness)
        return certificate(Verdict.HOLDS)

    monkeypatch.setattr(suite, "run_suite", run)
    assert call(app, "own_harness_for_tests:Own").exit_code == Exit.OK
    assert type(seen[0]).__name__ == "MemoryHarness"
