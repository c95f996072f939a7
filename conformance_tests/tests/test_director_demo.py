"""The demonstration: its report comes from the store's records, and it can say no."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from onceward.contracts import Attempt, Ending, InvalidRequest, Run, RunId, Status, StoreMisconfigured
from onceward.toolkit.demo import DemoProgress, run_demo
from onceward.toolkit.demo_orders import make_orders, read_orders, validate, write_orders
from onceward.toolkit.demo_report import DemoReport, report

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.jsonl"
    write_orders(path, make_orders(100))
    return path


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a POSIX signal")
def test_every_order_is_checked_out_once_though_a_worker_is_killed(orders: Path) -> None:
    seen: list[DemoProgress] = []
    result = run_demo(orders, workers=3, lease=timedelta(seconds=3), on_progress=seen.append)
    assert result.ok, result
    assert result.checkouts_per_order == {1: 100}
    assert max(result.bodies_per_order) >= 2, "the order in whose middle a worker was killed is begun twice"
    assert result.takeovers >= 1
    assert result.admitted >= sum(times * orders for times, orders in result.bodies_per_order.items()) >= 101
    assert (result.completed, result.failed) == (98, 2)
    assert result.refused > 0
    assert result.killed is not None
    last = seen[-1]
    assert (last.ended, last.killed, [worker.alive for worker in last.workers]) == (100, result.killed, [False] * 3)
    assert sum(worker.killed for worker in last.workers) == 1


def test_without_a_kill_each_order_is_begun_once(orders: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/kept.db"
    for _ in range(2):  # a second demonstration on the same store begins anew
        result = run_demo(orders, url=url, workers=1, kill=False)
        assert result.ok, result
        assert result.bodies_per_order == {1: 100}
        assert (result.admitted, result.refused, result.takeovers, result.killed) == (100, 0, 0, None)


@pytest.mark.skipif(os.name != "posix", reason="signal 0 asks whether a process is there")
def test_an_interruption_leaves_no_process_behind(orders: Path) -> None:
    pids: list[int] = []

    def interrupt(progress: DemoProgress) -> None:
        pids.extend(worker.pid for worker in progress.workers)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(orders, on_progress=interrupt)
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_order_is_enough_to_kill_somebody_but_it_has_to_be_valid(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    write_orders(path, make_orders(1))
    result = run_demo(path, workers=2, lease=timedelta(seconds=1))
    assert (result.ok, result.killed, result.takeovers, result.bodies_per_order) == (True, "ORD-00001", 1, {2: 1})
    path.write_text('{"order_id": "a"}\n')
    with pytest.raises(InvalidRequest, match="at least one valid order"):
        run_demo(path)
    result = run_demo(path, workers=2, kill=False)
    assert (result.ok, result.failed, result.checkouts_per_order) == (True, 1, {1: 1})


def test_what_cannot_be_demonstrated_is_refused(orders: Path) -> None:
    with pytest.raises(InvalidRequest, match="workers"):
        run_demo(orders, workers=1)
    with pytest.raises(StoreMisconfigured, match="not shared between processes"):
        run_demo(orders, url="memory://")
    with pytest.raises(InvalidRequest, match="lease"):
        run_demo(orders, lease=timedelta(0))


# -- the report -------------------------------------------------------------------------------------------------


def run(key: str, *endings: Ending, status: Status = Status.SUCCEEDED) -> Run:
    attempts = tuple(
        Attempt(number=n, holder="h", token=n, request=f"r{n}", started=NOW, ended=NOW, ending=ending, takeover=n > 1)
        for n, ending in enumerate(endings, start=1)
    )
    return Run(
        id=RunId("j", key), status=status, run_at=NOW, created=NOW, sequence=1, attempt=len(attempts), attempts=attempts
    )


def judge(orders: Sequence[str], *runs: Run, problems: Sequence[str] = ()) -> DemoReport:
    bodies = dict.fromkeys(orders, 1)
    return report(orders, runs, bodies, workers=4, seconds=2.0, refused=3, killed=None, problems=problems)


def test_a_report_is_ok_only_if_each_order_has_one_check_out() -> None:
    failed = run("b", Ending.FAILED, status=Status.FAILED)
    good = judge(["a", "b"], run("a", Ending.ABANDONED, Ending.SUCCEEDED), failed)
    assert good.ok
    assert (good.completed, good.failed, good.admitted, good.takeovers, good.throughput) == (1, 1, 3, 1, 1.0)
    assert good.checkouts_per_order == {1: 2}


def test_a_report_names_orders_that_were_done_twice_or_not_at_all() -> None:
    bad = judge(
        ["twice", "absent", "running", "again"],
        run("twice", Ending.SUCCEEDED, Ending.SUCCEEDED),
        run("running", Ending.ABANDONED, status=Status.RUNNING),
        run("again", Ending.SUCCEEDED, status=Status.SCHEDULED),
    )
    assert not bad.ok
    assert (bad.twice, bad.missing) == (("twice",), ("absent", "running", "again"))
    assert bad.checkouts_per_order == {0: 3, 2: 1}
    assert not judge(["a"], run("a", Ending.SUCCEEDED), problems=["worker 2 ended with exit code 1"]).ok


# -- the orders -------------------------------------------------------------------------------------------------


def test_the_orders_are_those_in_the_examples_and_always_the_same() -> None:
    orders = make_orders()
    assert orders == make_orders()
    assert read_orders(EXAMPLES / "orders.jsonl") == orders
    assert len({str(order["order_id"]) for order in orders}) == len(orders) == 2_000


def test_one_to_two_percent_of_the_orders_are_invalid_in_both_ways() -> None:
    problems: list[str] = []
    for order in make_orders():
        try:
            validate(order)
        except ValueError as error:
            problems.append(str(error))
    assert 20 <= len(problems) <= 40
    assert set(problems) == {"Missing customer", "No items in order"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "orders"),
        ("\n\n", "orders"),
        ("{}", "line 1"),
        ('{"order_id": "a"}\nno', "line 2"),
        ("[1]", "line 1"),
    ],
)
def test_a_file_that_holds_no_orders_is_refused_with_the_line(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=field):
        run_demo(path)
    with pytest.raises(InvalidRequest, match="orders"):
        run_demo(tmp_path / "absent.jsonl")


def test_an_order_that_stands_in_the_file_twice_is_one_order(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps({"order_id": key}) + "\n" for key in ("a", "b", "a")))
    assert [order["order_id"] for order in read_orders(path)] == ["a", "b"]
