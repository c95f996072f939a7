"""The soak in a small size, on every store that processes can share; and its verdict, which must find what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import etcd_support
import mongodb_support
import pytest
import zookeeper_support
from msgspec import structs
from redis_support import shared_url

from onceward.conformance.engine.effects import Body, Effect
from onceward.conformance.engine.soak import SoakPlan, soak
from onceward.conformance.engine.verdict import Ends, judge
from onceward.conformance.harness import (
    Harness,
    MemoryHarness,
    SqliteHarness,
    UrlHarness,
    harness_for_url,
    load_target,
)
from onceward.contracts import Run, RunId, Status, StoreMisconfigured
from onceward.toolkit.jobs.launch import occurrence_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SMALL = SoakPlan(runs=120, kills=1, pauses=1, lease=timedelta(seconds=2), patience=timedelta(seconds=60))
NOBODY = Ends(died={}, paused=frozenset())


SERVERS: dict[str, Callable[[], str]] = {
    "redis": shared_url,
    "mongodb": mongodb_support.shared_url,
    "etcd": etcd_support.shared_url,
    "zookeeper": zookeeper_support.shared_url,
}


@pytest.fixture(params=["sqlite", *SERVERS])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param == "sqlite":
        found: Harness = SqliteHarness(tmp_path / "soak.db")
    else:
        found = harness_for_url(SERVERS[request.param]())
    yield found
    found.close()


@pytest.mark.timeout(180)
def test_three_servers_under_fire_end_every_run_once(harness: Harness) -> None:
    report = soak(harness, SMALL)
    assert report.judged.problems == ()
    assert report.stuck == 0
    assert report.judged.runs >= SMALL.runs
    assert report.judged.takeovers > 0
    assert report.faults["server process killed (SIGKILL)"] == 1
    assert report.faults["server process stopped past its lease (SIGSTOP)"] == 1
    assert report.faults["server process ended by its job"] >= 1


@pytest.mark.timeout(180)
def test_where_no_other_process_can_reach_the_store_servers_are_threads_that_are_cut_off() -> None:
    report = soak(MemoryHarness(), structs.replace(SMALL, runs=600, kills=2))
    assert report.judged.problems == ()
    assert report.stuck == 0
    assert report.judged.runs >= 600
    assert report.faults == {"server cut off for good": 2, "server cut off past its lease": 1}


@pytest.mark.timeout(240)
def test_messages_may_be_lost_and_late_too() -> None:
    plan = structs.replace(SMALL, runs=80, messages=True, pauses=0, seed=2)
    report = soak(UrlHarness(shared_url()), plan)
    assert report.judged.problems == ()
    assert report.stuck == 0
    assert any("lost" in fault or "reset" in fault for fault in report.faults), report.faults


def test_messages_that_go_nowhere_cannot_be_lost() -> None:
    with pytest.raises(StoreMisconfigured, match="listens"):
        soak(MemoryHarness(), structs.replace(SMALL, messages=True))


def test_a_store_may_be_named_and_a_server_of_it_is_started() -> None:
    shared_url()  # or the test is skipped
    assert isinstance(load_target("memory"), MemoryHarness)
    with closing(load_target("sqlite")) as harness:
        assert isinstance(harness, SqliteHarness)
    assert load_target("redis").name == shared_url()
    with pytest.raises(StoreMisconfigured, match="zookeeper"):
        load_target("oracle")


# -- the verdict ----------------------------------------------------------------------------------------------------


def run(job: str, key: str, *, token: int = 1, status: Status = Status.SUCCEEDED, failures: int = 0, n: int = 1) -> Run:
    return Run(
        id=RunId(job, key),
        status=status,
        run_at=NOW,
        created=NOW,
        sequence=n,
        token=token,
        failures=failures,
        attempt=1,
    )


def body(
    job: str, key: str, begin: float, end: float | None, *, token: int = 1, attempt: int = 1, pid: int = 1
) -> Body:
    def effect(what: str, at: float) -> Effect:
        return Effect(what=what, at=at, pid=pid, job=job, key=key, attempt=attempt, token=token)

    return Body(begin=effect("begin", begin), end=None if end is None else effect("end", end))


def problems(runs: Sequence[Run], bodies: Sequence[Body], ends: Ends = NOBODY) -> str:
    return " ".join(judge(runs, bodies, ends).problems)


def test_a_good_history_has_no_problem() -> None:
    runs = [run("Short", "1"), run("Short", "2", token=4), run("Hopeless", "3", status=Status.FAILED, failures=4)]
    bodies = [
        body("Short", "1", 0, 1),
        body("Short", "2", 0, None, token=2, pid=7),
        body("Short", "2", 5, 6, token=4, attempt=2),
        body("Hopeless", "3", 1, 2),
    ]
    assert problems(runs, bodies, Ends(died={7: 3.0}, paused=frozenset())) == ""


@pytest.mark.parametrize(
    ("law", "runs", "bodies"),
    [
        ("J6", [run("Short", "1", status=Status.RUNNING)], [body("Short", "1", 0, 1)]),
        ("J6", [run("Fatal", "1", failures=1)], [body("Fatal", "1", 0, 1)]),
        ("G6", [run("Short", "1", token=9)], [body("Short", "1", 0, 1)]),
        ("retry law", [run("Failing", "1", failures=3)], [body("Failing", "1", 0, 1)]),
        ("G1", [run("Short", "1")], [body("Short", "1", 0, 1), body("Short", "1", 2, 3, token=2)]),
        ("G2", [run("Short", "1")], [body("Short", "1", 0, 1, token=5), body("Short", "1", 2, 3, attempt=2)]),
        ("G9", [run("Short", "1", token=2)], [body("Short", "1", 0, 5), body("Short", "1", 3, 6, token=2, attempt=2)]),
        (
            "G9",
            [run("Short", "1", token=2)],
            [body("Short", "1", 0, None), body("Short", "1", 3, 6, token=2, attempt=2)],
        ),
        ("G12", [run("Limited", k) for k in "123"], [body("Limited", k, 0, 9, pid=int(k)) for k in "123"]),
        ("G12", [run("Ordered", k) for k in "12"], [body("Ordered", k, 0, 9, pid=int(k)) for k in "12"]),
        ("G12", [run("Short", k) for k in "12345"], [body("Short", k, 0, 9) for k in "12345"]),
        (
            "G13",
            [run("Ordered", "1", n=1), run("Ordered", "2", n=2)],
            [body("Ordered", "2", 0, 1), body("Ordered", "1", 2, 3)],
        ),
        (
            "G10",
            [run("Ticking", occurrence_key(NOW + timedelta(seconds=n))) for n in (0, 1, 3)],
            [body("Ticking", occurrence_key(NOW + timedelta(seconds=n)), n, n) for n in (0, 1, 3)],
        ),
    ],
)
def test_each_broken_promise_is_found(law: str, runs: list[Run], bodies: list[Body]) -> None:
    assert law in problems(runs, bodies)


def test_what_a_stopped_process_did_is_not_held_against_the_store() -> None:
    bodies = [body("Short", "1", 0, 5), body("Short", "1", 3, 6, token=2, attempt=2, pid=2)]
    assert problems([run("Short", "1", token=2)], bodies, Ends(died={}, paused=frozenset({1}))) == ""
