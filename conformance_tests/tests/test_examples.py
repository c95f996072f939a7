"""The examples run as they stand, and say what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    """The output of an example, which ended well."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_d41_event_driven_handles_each_event_once() -> None:
    said = run("event_driven.py")
    assert re.findall(r"handling (\S+)", said) == ["evt-12345", "evt-12346"]
    assert '"completed": 2' in said


def test_d42_scheduled_ha_runs_once_per_hour_on_two_nodes_also_when_an_hour_comes_twice() -> None:
    said = run("scheduled_ha.py")
    hours = re.findall(r"^(\S+): done 1 time$", said, re.MULTILINE)
    assert hours == ["2026102501", "2026102502", "2026102502+0100", "2026102503", "2026102504"]
    assert '"total": 5, "completed": 5' in said


def test_d43_batch_is_shared_by_worker_processes() -> None:
    said = run("batch.py")
    batches = re.findall(r"batch-00(\d): (\d) items, \{'processed': (\d), 'worker': '([123])'\}, admitted 1 time", said)
    assert [int(number) for number, *_ in batches] == list(range(1, 10))
    assert all(number == items == processed for number, items, processed, _ in batches)
    assert '"completed": 9' in said


def test_d44_retries_remember_how_each_attempt_went() -> None:
    said = run("retry_with_state.py")
    assert re.findall(r"attempt (\d failed|\d succeeded)", said) == ["1 failed", "2 failed", "3 succeeded"]
    assert "already completed in attempt 3" in said
    assert '"completed": 1, "failed": 2' in said


def test_d58_to_d63_order_processing_records_every_end() -> None:
    said = run("order_processing.py")
    assert "Order failed: ORD-00017 - Missing customer" in said
    assert "Order failed: ORD-00093 - No items in order" in said
    assert "Freed what was reserved for order ORD-00017" in said
    assert "Order came again: ORD-00001, it has succeeded" in said
    assert '"total": 121, "completed": 119, "failed": 2, "processing": 0' in said


def test_d49_to_d52_monitoring() -> None:
    said = run("monitoring.py")
    assert '"uuid": "2026-02-01"' in said
    assert '"status": "running"' in said
    assert "Checking in: customer-import-daily / 2026-01-31" in said
    assert "Cleaned up 0 old jobs" in said
    assert "Cleaned up 1 old jobs" in said
    assert 'never removed: {"total": 1' in said


def test_an_example_takes_the_url_of_a_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mine.db"
    assert "task-7: attempt 3 succeeded" in run("retry_with_state.py", url)
    again = run("retry_with_state.py", url)
    assert "succeeded" not in again
    assert again.count("already completed in attempt 3") == 2


def test_the_orders_file_is_what_its_script_writes(tmp_path: Path) -> None:
    run("make_orders.py", str(tmp_path / "orders.jsonl"))
    assert (tmp_path / "orders.jsonl").read_bytes() == (EXAMPLES / "orders.jsonl").read_bytes()


def test_every_example_is_run_here() -> None:
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}, "an example without a test"


def test_job_server_hourly_clean_up_in_two_servers_runs_once_per_hour() -> None:
    said = run("hourly_cleanup.py")
    hours = re.findall(r"the clean-up of (\S+) ran in server (?:one|two)", said)
    assert len(hours) >= 3
    assert len(set(hours)) == len(hours)


def test_job_server_etl_goes_through_its_phases_and_a_retry_launches_nothing_twice() -> None:
    said = run("etl.py")
    assert "load ended as succeeded in attempt 1" in said
    assert "'total': 150" in said
    assert "transform needed 2 attempts" in said


def test_job_server_content_keyed_jobs_are_done_once_however_often_they_are_created() -> None:
    said = run("content_keyed.py")
    assert "1,000 jobs, created twice, are done in 1000 executions" in said
    assert "priorities: ['high', 'low']" in said
    assert "40 executions: 10 reports" in said
    assert "done by a worker that watches: late" in said


def test_job_server_fan_out_runs_each_part_once() -> None:
    said = run("fan_out.py")
    assert "the batch needed 2 attempts" in said
    assert "12 parts, {'succeeded': 12}, each run once" in said


def test_job_server_retry_with_state_charges_once() -> None:
    said = run("retry_with_state_server.py")
    assert "ended as succeeded" in said
    assert "charged 1 time" in said
