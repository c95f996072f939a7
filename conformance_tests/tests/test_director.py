"""The Director: exactly one check-in of (job, key) is admitted, and every end is recorded."""
# ruff: noqa: PT012 - how a body, and the error that leaves it, are treated is what is tested

import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from onceward.contracts import (
    CheckInOutcome,
    Ending,
    InvalidRequest,
    Json,
    LeaseLost,
    LockId,
    Run,
    RunId,
    Runner,
    RunSpec,
    Status,
    StoreError,
    WaitTimeout,
)
from onceward.runners.clock import ManualClock
from onceward.runners.factory import DEFAULT_NAMESPACE, open_runner
from onceward.runners.memory import MemoryStore
from onceward.runners.sqlite import SqliteStore
from onceward.toolkit import keys
from onceward.toolkit.director import CheckedIn, Director, NotAdmitted, Refused, current, seed_view

HOUR = timedelta(hours=1)
JOB = "order-processing"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def runner(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Runner]:
    if request.param == "memory":
        yield Runner.of(MemoryStore("orders", clock), namespace="orders")
        return
    with Runner.of(SqliteStore(tmp_path / "jobs.db", "orders", clock, synchronous="OFF"), namespace="orders") as made:
        yield made


@pytest.fixture
def director(runner: Runner) -> Iterator[Director]:
    with Director(runner, lease=HOUR) as made:
        yield made


@pytest.fixture
def other(runner: Runner) -> Iterator[Director]:
    """The Director of another process."""
    with Director(runner, lease=HOUR) as made:
        yield made


def found(director: Director, key: str, job: str = JOB) -> Run:
    run = director.check(job, key)
    assert run is not None
    return run


# -- the three forms --------------------------------------------------------------------------------------------


def test_d9_a_decorated_body_runs_once_per_key(director: Director, other: Director) -> None:
    ran: list[str] = []

    def process(order_id: str, amount: int = 1) -> int:
        ran.append(order_id)
        return amount

    here = director.checkin(JOB, key="{order_id}")(process)
    there = other.checkin(JOB, key="{order_id}")(process)
    assert (here("a", 5), there("b")) == (5, 1)
    answers = [there("a"), here(order_id="b"), here("a", amount=7)]
    assert ran == ["a", "b"]
    assert all(isinstance(answer, Refused) and not answer for answer in answers)
    assert isinstance(answers[0], Refused)
    assert (answers[0].outcome, answers[0].result) == (CheckInOutcome.DONE, 5)
    assert "has already executed... skipping." in str(answers[0])
    assert here.__name__ == "process"


def test_d9_the_body_of_a_with_never_runs_when_refused(director: Director, other: Director) -> None:
    with director.checkin(JOB, "a") as run:
        run.result = {"total": 3}
        with pytest.raises(NotAdmitted) as caught, other.checkin(JOB, "a"):
            pytest.fail("a refused body ran")
    assert (caught.value.outcome, caught.value.run.status) == (CheckInOutcome.RUNNING, Status.RUNNING)
    with pytest.raises(NotAdmitted, match="has already executed"), director.checkin(JOB, "a"):
        pytest.fail("a refused body ran")
    assert found(director, "a").result == {"total": 3}


def test_d10_a_check_in_is_a_value_too(director: Director, other: Director) -> None:
    mine, theirs = director.checkin(JOB, "a"), other.checkin(JOB, "a")
    assert mine.admitted
    assert mine
    assert not theirs
    assert theirs.outcome is CheckInOutcome.RUNNING
    with pytest.raises(NotAdmitted):
        theirs.checkout()
    mine.checkout({"n": 1})
    assert found(director, "a").result == {"n": 1}
    assert mine.ended


def test_g1_of_many_threads_one_is_admitted(runner: Runner) -> None:
    barrier, ran = threading.Barrier(8), []

    def instance() -> None:
        with Director(runner) as director:
            process = director.checkin(JOB, key="{key}")(lambda key: ran.append(key))
            barrier.wait(30)
            for key in range(50):
                process(key)

    threads = [threading.Thread(target=instance) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ran) == list(range(50))


def test_a_check_in_is_used_once(director: Director) -> None:
    checkin = director.checkin(JOB, "a")
    with checkin, pytest.raises(InvalidRequest, match="each check-in once"):
        checkin.__enter__()
    with pytest.raises(InvalidRequest, match="each check-in once"):
        checkin.__enter__()


def test_d12_a_body_sees_its_arguments_and_its_check_in(director: Director) -> None:
    @director.checkin(JOB, key="{{order.id}}-{{attempt}}")
    def process(order: dict[str, str], *, attempt: int = 1) -> str:
        run = current()
        assert run is not None
        assert run.token > 0
        with director.checkin("step", "inner"):
            assert current() is not run
        assert current() is run
        return order["id"]

    assert process({"id": "x"}) == "x"
    assert current() is None
    assert found(director, "x-1").status is Status.SUCCEEDED


def test_what_the_body_sets_is_kept_where_it_returns_nothing(director: Director) -> None:
    @director.checkin(JOB, key="{order_id}")
    def process(order_id: str) -> None:
        run = current()
        assert run is not None
        run.result = f"set by {order_id}"

    process("{order_id}")  # what comes in as data is no template
    assert found(director, "{order_id}").result == "set by {order_id}"


def test_a_method_can_be_decorated_and_a_callable_makes_the_key(director: Director) -> None:
    class Shop:
        @director.checkin(JOB, key=lambda shop, order_id: f"{type(shop).__name__}/{order_id}")
        def process(self, order_id: int) -> int:
            return order_id

    assert Shop().process(4) == 4
    assert not Shop().process(4)
    assert found(director, "Shop/4").result == 4


def test_a_body_that_would_run_later_cannot_be_decorated(director: Director) -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    class Callable:
        async def __call__(self) -> None: ...

    for function in (coroutine, generator, Callable()):
        with pytest.raises(InvalidRequest, match="a plain function"):
            director.checkin(JOB, key="x")(function)
    assert director.check(JOB, "x") is None


def test_a_check_in_that_nobody_looks_at_is_warned_of(director: Director) -> None:
    with pytest.warns(RuntimeWarning, match="never asked"):
        director.checkin(JOB, "a")
    assert director.check(JOB, "a") is None


# -- keys -------------------------------------------------------------------------------------------------------


def test_an_unfilled_template_is_never_taken_for_a_key(director: Director) -> None:
    for key in ("{order_id}", "{{order_id}}", lambda: "x"):
        with pytest.raises(InvalidRequest, match="key"):
            assert director.checkin(JOB, key).admitted
    with director.checkin(JOB, keys.literal("{order_id}")), director.checkin(JOB, '{"json": 1}'):
        assert {run.key for run in director.list()} == {"{order_id}", '{"json": 1}'}


def test_a_template_that_cannot_be_filled_is_refused_when_decorating(director: Director) -> None:
    with pytest.raises(InvalidRequest, match=r"\{orderId\}.*order_id"):
        director.checkin(JOB, key="{orderId}")(lambda order_id: None)


@pytest.mark.parametrize("job", ["", " ", "a\0b", "x" * 300, "\ud800", "a\nb", None, 7])
def test_g16_bad_job_names_are_refused(director: Director, job: str) -> None:
    with pytest.raises(InvalidRequest, match="job"):
        director.checkin(job, "a")


@pytest.mark.parametrize("key", ["", " ", "a\0b", "x" * 600, "\ud800", "a\nb", None, 7])
def test_g16_bad_keys_are_refused(director: Director, key: str) -> None:
    with pytest.raises(InvalidRequest, match="key"):
        director.checkin(JOB, key).ask()
    assert director.list() == ()


@pytest.mark.parametrize("text", ["a/b:c", "../x", "ключ", "a b", "%2F", "'; drop table runs; --", "🎉"])
def test_visible_text_is_a_fine_name_and_key(director: Director, text: str) -> None:
    with director.checkin(text, text) as run:
        run.result = text
    assert found(director, text, text).result == text


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"lease": timedelta(0)}, "lease"),
        ({"lease": -HOUR}, "lease"),
        ({"lease": 30}, "lease"),
        ({"on_failed": "retry"}, "on_failed"),
        ({"on_abandoned": "block"}, "on_abandoned"),
        ({"max_crashes": -1}, "max_crashes"),
        ({"max_crashes": True}, "max_crashes"),
        ({"leese": HOUR}, "policy"),
    ],
)
def test_g16_bad_policies_are_refused(runner: Runner, policy: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        Director(runner, **policy)  # type: ignore[arg-type]
    with Director(runner) as director, pytest.raises(InvalidRequest, match=field):
        director.checkin(JOB, "a", **policy)  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [{1, 2}, float("nan"), datetime(2026, 1, 1), object(), 2**70, b"x"])
def test_g16_bad_payloads_are_refused_before_anything_is_written(director: Director, payload: object) -> None:
    with pytest.raises(InvalidRequest, match="payload"):
        director.checkin(JOB, "a", payload=payload).ask()  # type: ignore[arg-type]
    assert director.list() == ()


# -- the handle -------------------------------------------------------------------------------------------------


def test_d24_d26_defaults_and_what_can_be_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Director("memory://") as director:
        assert (director.namespace, dict(director.stamp)) == (DEFAULT_NAMESPACE, {"type": "director"})
    with Director("memory://?namespace=mine") as director:
        assert director.namespace == "mine"
    with Director({"type": "memory", "namespace": "said"}, namespace="wins") as director:
        assert director.namespace == "wins"
    monkeypatch.setenv("ONCEWARD_RUNNER", f"sqlite:///{tmp_path}/default.db")
    with Director(namespace="x") as director, director.checkin(JOB, "a"):
        pass
    assert (tmp_path / "default.db").exists()


def test_d28_a_handle_never_changes_and_others_do_not_reset_it(runner: Runner) -> None:
    stamp = {"type": "director", "app": "one"}
    director = Director(runner, stamp=stamp)
    Director(runner)
    stamp["app"] = "changed"
    assert dict(director.stamp) == {"type": "director", "app": "one"}
    with pytest.raises(TypeError):
        director.stamp["app"] = "x"  # type: ignore[index]
    for name in ("stamp", "namespace", "policy", "runner"):
        with pytest.raises(AttributeError):
            setattr(director, name, None)
    with pytest.raises(InvalidRequest, match="namespace"):
        Director(runner, namespace="another")


@pytest.mark.parametrize("stamp", [{"a": {"b": 1}}, {"a": [1]}, {1: "a"}, {"": "a"}, {"a": "x" * 2000}, "text", None])
def test_d27_a_stamp_is_a_flat_mapping(runner: Runner, stamp: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="stamp"):
        Director(runner, stamp=stamp)


def test_d20_stamps_separate_runs(runner: Runner) -> None:
    live = Director(runner, stamp={"environment": "live"})
    test = Director(runner, stamp={"environment": "test"})
    same = Director(runner, stamp={"environment": "live"})
    assert live.checkin(JOB, "a").admitted
    assert test.checkin(JOB, "a").admitted
    assert not same.checkin(JOB, "a").admitted
    assert (live.stats().total, test.stats().total) == (1, 1)
    assert [run.id for run in test.list()] == [RunId.of(JOB, "a", {"environment": "test"})]


def test_a_runner_that_was_given_stays_open_and_one_opened_here_is_closed(tmp_path: Path) -> None:
    with open_runner(f"sqlite:///{tmp_path}/x.db", namespace="x") as given:
        with Director(given) as director, director.checkin(JOB, "a"):
            pass
        assert given.executor.check(director.run_id(JOB, "a")) is not None
    with Director(f"sqlite:///{tmp_path}/x.db", namespace="x") as opened:
        assert opened.check(JOB, "a") is not None
    opened.close()
    with pytest.raises(StoreError):
        opened.check(JOB, "a")


def test_g17_what_is_held_at_the_close_is_reported(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    with Director(runner) as director:
        director.checkin(JOB, "left-open").ask()
        with director.checkin(JOB, "done"):
            pass
    assert "1 runs still checked in: order-processing/left-open" in caplog.text


def test_m58_a_store_that_is_not_shared_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Director(f"sqlite:///{tmp_path}/x.db") as shared, shared.checkin(JOB, "a"):
        assert "not shared" not in caplog.text
    with Director("memory://") as director, director.checkin(JOB, "a"):
        assert caplog.text.count("not shared between processes") == 1


# -- the end of a run -------------------------------------------------------------------------------------------


def test_d55_a_failure_is_recorded_and_raised_again(director: Director) -> None:
    with pytest.raises(ValueError, match="Missing customer"), director.checkin(JOB, "a") as run:
        run.result = {"status": "failed"}
        raise ValueError("Missing customer")
    failed = found(director, "a")
    assert failed.error is not None
    assert (failed.status, failed.error.type, failed.result) == (Status.FAILED, "ValueError", {"status": "failed"})
    assert "Missing customer" in (failed.error.trace or "")
    assert director.checkin(JOB, "a").outcome is CheckInOutcome.FAILED


def test_r1_a_failed_run_is_run_again_where_the_policy_says_so(director: Director) -> None:
    @director.checkin(JOB, key="{key}", on_failed="rerun")
    def flaky(key: str) -> int:
        attempt = found(director, key).attempt
        if attempt < 3:
            raise ConnectionError
        return attempt

    for _ in range(2):
        with pytest.raises(ConnectionError):
            flaky("a")
    assert flaky("a") == 3
    assert not flaky("a")
    assert [each.ending for each in found(director, "a").attempts] == [Ending.FAILED, Ending.FAILED, Ending.SUCCEEDED]


def test_d11_checkout_from_inside_the_body_wins(director: Director) -> None:
    @director.checkin(JOB, key="{order_id}")
    def process(order_id: str) -> str:
        director.checkout(JOB, order_id, {"by": "hand"})
        return "returned"

    assert process("a") == "returned"
    assert found(director, "a").result == {"by": "hand"}


def test_d33_checkout_records_any_json_and_only_once(director: Director) -> None:
    results: list[Json] = [None, 0, "", [], {"deep": [{"x": 1.5}]}, True]
    for number, result in enumerate(results):
        director.checkin(JOB, str(number)).ask()
        director.checkout(JOB, str(number), result)
        with pytest.raises(InvalidRequest, match="checked in and not yet out"):
            director.checkout(JOB, str(number), "again")
    assert [found(director, str(number)).result for number in range(len(results))] == results


def test_d35_nobody_checks_out_what_he_has_not_checked_in(director: Director, other: Director) -> None:
    director.checkin(JOB, "a").ask()
    for key in ("a", "unknown"):
        with pytest.raises(InvalidRequest, match="this Director has checked in"):
            other.checkout(JOB, key, "mine")
    assert found(director, "a").status is Status.RUNNING


def test_a_failure_can_be_checked_out_by_hand(director: Director) -> None:
    director.checkin(JOB, "a").ask()
    director.checkout(JOB, "a", {"status": "failed"}, error=ValueError("no"))
    assert found(director, "a").status is Status.FAILED


def test_a_second_checkout_of_a_check_in_is_a_mistake(director: Director) -> None:
    run = director.checkin(JOB, "a")
    run.checkout(1)
    with pytest.raises(InvalidRequest, match="is succeeded already"):
        run.checkout(2)
    assert found(director, "a").result == 1


@pytest.mark.parametrize("result", [{1, 2}, float("inf"), object(), datetime(2026, 1, 1), "\ud800", b"x"])
def test_a_result_that_cannot_be_stored_is_the_bodys_failure(director: Director, result: object) -> None:
    with pytest.raises(InvalidRequest, match="result"):
        director.checkin(JOB, key="a")(lambda: result)()
    failed = found(director, "a")
    assert failed.error is not None
    assert (failed.status, failed.error.type) == (Status.FAILED, "InvalidRequest")


def test_a_result_that_cannot_be_stored_does_not_hide_the_bodys_own_error(director: Director) -> None:
    with pytest.raises(KeyError), director.checkin(JOB, "a") as run:
        run.result = object()  # type: ignore[assignment]
        raise KeyError("mine")
    failed = found(director, "a")
    assert failed.error is not None
    assert failed.error.type == "KeyError"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_body_gives_back_what_a_crash_would(
    director: Director, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption), director.checkin(JOB, "forgiven"):
        raise interruption
    with pytest.raises(interruption), director.checkin(JOB, "strict", lease=None):
        raise interruption
    with pytest.raises(interruption), director.checkin(JOB, "fail", on_abandoned="fail"):
        raise interruption
    assert found(director, "forgiven").status is Status.SCHEDULED
    assert director.checkin(JOB, "forgiven").admitted
    assert found(director, "strict").status is found(director, "fail").status is Status.FAILED


def test_a_run_can_be_given_back(director: Director, other: Director) -> None:
    with director.checkin(JOB, "a") as run:
        run.release()
    assert other.checkin(JOB, "a").admitted
    with director.checkin(JOB, "b") as run:
        run.release(after=HOUR)
    assert other.checkin(JOB, "b").outcome is CheckInOutcome.SCHEDULED


# -- leases -----------------------------------------------------------------------------------------------------


def test_without_a_lease_nobody_ever_takes_over(runner: Runner, clock: ManualClock) -> None:
    with Director(runner) as director:
        assert director.checkin(JOB, "a").admitted
        clock.advance(timedelta(days=1000))
        assert director.checkin(JOB, "a").outcome is CheckInOutcome.RUNNING


def test_g8_an_abandoned_run_is_taken_over_after_its_lease_and_not_before(
    director: Director, other: Director, clock: ManualClock
) -> None:
    first = director.checkin(JOB, "a")
    first.ask()
    clock.advance(HOUR - timedelta(milliseconds=1))
    assert not other.checkin(JOB, "a")
    clock.advance(timedelta(milliseconds=1))
    second = other.checkin(JOB, "a")
    assert second.outcome is CheckInOutcome.TAKEN_OVER
    assert second.token > first.token
    assert second.run.attempt == 2


def test_g4_whoever_lost_the_run_records_nothing(director: Director, other: Director, clock: ManualClock) -> None:
    with pytest.raises(LeaseLost), director.checkin(JOB, "a") as first:
        first.result = "late"
        clock.advance(HOUR)
        with other.checkin(JOB, "a") as second:
            second.result = "in time"
    run = found(director, "a")
    assert (run.status, run.result, first.lost.is_set()) == (Status.SUCCEEDED, "in time", True)


def test_a_director_that_took_over_from_itself_still_holds_the_newer_one(
    director: Director, clock: ManualClock
) -> None:
    first = director.checkin(JOB, "a")
    first.ask()
    clock.advance(HOUR)
    assert director.checkin(JOB, "a").outcome is CheckInOutcome.TAKEN_OVER
    with pytest.raises(LeaseLost):
        first.checkout("old")
    director.checkout(JOB, "a", "new")
    assert found(director, "a").result == "new"


def test_of_threads_that_check_out_at_once_one_succeeds(director: Director) -> None:
    for key in range(50):
        run, barrier = director.checkin(JOB, str(key)), threading.Barrier(2)
        run.ask()
        refused: list[str] = []

        def end(run: CheckedIn = run, barrier: threading.Barrier = barrier, refused: list[str] = refused) -> None:
            barrier.wait(30)
            try:
                run.checkout(1)
            except InvalidRequest as error:
                refused.append(str(error))

        threads = [threading.Thread(target=end) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(refused) == 1


def test_g4_an_error_in_a_lost_body_stays_the_callers_error(
    director: Director, other: Director, clock: ManualClock
) -> None:
    with pytest.raises(ValueError, match="mine") as caught, director.checkin(JOB, "a"):
        clock.advance(HOUR)
        other.checkin(JOB, "a").checkout("theirs")
        raise ValueError("mine")
    assert "could not be recorded" in caught.value.__notes__[0]
    assert found(director, "a").result == "theirs"


def test_work_that_ended_after_its_lease_still_counts_if_nobody_took_over(
    director: Director, clock: ManualClock
) -> None:
    with director.checkin(JOB, "a") as run:
        clock.advance(2 * HOUR)
        run.result = "done"
    assert found(director, "a").result == "done"


def test_a_body_that_stops_because_its_lease_is_lost_gives_the_run_back(director: Director) -> None:
    with pytest.raises(LeaseLost), director.checkin(JOB, "a") as run:
        run.held.lost.set()
        run.raise_if_lost()
    assert found(director, "a").status is Status.SCHEDULED


def test_a_lost_lock_of_the_bodys_own_is_an_ordinary_failure(director: Director) -> None:
    with pytest.raises(LeaseLost), director.checkin(JOB, "a"):
        raise LeaseLost(str(LockId("something else")), 7)
    assert found(director, "a").status is Status.FAILED


def test_r1_policies_for_abandoned_runs(director: Director, other: Director, clock: ManualClock) -> None:
    for key in ("hold", "fail", "rerun"):
        director.checkin(JOB, key).ask()
    clock.advance(HOUR)
    assert other.checkin(JOB, "hold", on_abandoned="hold").outcome is CheckInOutcome.ABANDONED
    assert other.checkin(JOB, "fail", on_abandoned="fail").outcome is CheckInOutcome.FAILED
    assert other.checkin(JOB, "rerun").outcome is CheckInOutcome.TAKEN_OVER
    assert found(director, "hold").status is Status.RUNNING
    assert found(director, "fail").status is Status.FAILED


def test_the_crash_budget_is_kept(runner: Runner, clock: ManualClock) -> None:
    with Director(runner, lease=HOUR, max_crashes=2) as director:
        outcomes = []
        for _ in range(4):
            outcomes.append(director.checkin(JOB, "a").outcome.value)
            clock.advance(HOUR)
    assert outcomes == ["admitted", "taken_over", "taken_over", "failed"]


def test_while_it_is_held(director: Director) -> None:
    with director.checkin(JOB, "a") as run:
        run.progress(3, 10, "a third")
        remaining = run.time_remaining()
        assert remaining is not None
        assert timedelta(0) < remaining <= HOUR
        progress = found(director, "a").progress
        assert progress is not None
        assert (progress.done, progress.total, progress.message) == (3, 10, "a third")
        run.touch(2 * HOUR)
        lease = found(director, "a").lease
        assert lease is not None
        assert lease.duration == 2 * HOUR
        director.runner.scheduler.cancel(director.run_id(JOB, "a"))
        run.touch()
        assert run.cancelled.is_set()
        assert not run.lost.is_set()
    with director.checkin(JOB, "b", lease=None) as run:
        assert run.time_remaining() is None


# -- looking ----------------------------------------------------------------------------------------------------


def test_d38_check_tells_what_is_known_and_changes_nothing(director: Director) -> None:
    assert director.check(JOB, "a") is None
    assert director.check(JOB, "a") is None
    with director.checkin(JOB, "a"):
        before = director.check(JOB, "a")
        assert director.check(JOB, "a") == before
        assert before is not None
        assert before.result is None
    assert found(director, "a").status is Status.SUCCEEDED


def test_d40_wait_returns_runs_that_ended_before(director: Director) -> None:
    with director.checkin(JOB, "a") as run:
        run.result = 7
    assert director.wait(JOB, "a", timeout=timedelta(0)).result == 7


def test_d40_wait_sees_the_end_of_a_run_that_does_not_exist_yet(director: Director, other: Director) -> None:
    ended: list[Run] = []
    waiter = threading.Thread(target=lambda: ended.append(other.wait(JOB, "a")))
    waiter.start()
    with director.checkin(JOB, "a") as run:
        run.result = "seen"
    waiter.join(30)
    assert [run.result for run in ended] == ["seen"]


def test_d40_wait_times_out_with_the_known_words(director: Director) -> None:
    with director.checkin(JOB, "a"), pytest.raises(WaitTimeout) as caught:
        director.wait(JOB, "a", timeout=timedelta(0))
    assert str(caught.value) == "Timeout waiting for job 'order-processing' for uuid 'a'."
    with pytest.raises(InvalidRequest, match="timeout"):
        director.wait(JOB, "a", timeout=-HOUR)


def test_d52_stats(director: Director, other: Director) -> None:
    with director.checkin(JOB, "a"):
        pass
    with pytest.raises(ValueError, match="x"), director.checkin(JOB, "b"):
        raise ValueError("x")
    director.checkin("another-job", "c").ask()
    director.runner.scheduler.submit([RunSpec(id=director.run_id(JOB, "d"), after=HOUR)])
    stats = other.stats()
    assert (stats.total, stats.completed, stats.failed, stats.processing, stats.waiting) == (4, 1, 1, 1, 1)
    assert str(other.stats("another-job")).startswith('{"total": 1, "completed": 0, "failed": 0, "processing": 1')


def test_d49_all_runs_are_listed_page_by_page(director: Director) -> None:
    for key in range(1_203):
        director.checkin(JOB, str(key)).ask()
    assert [run.key for run in director.list()] == [str(key) for key in reversed(range(1_203))]
    assert [run.key for run in director.list(limit=2)] == ["1202", "1201"]
    assert [run.key for run in director.runs(oldest_first=True)][:2] == ["0", "1"]
    assert director.list(statuses=[Status.SUCCEEDED]) == ()


def test_d50_g14_cleanup_removes_what_is_old_and_ended_under_this_stamp(
    runner: Runner, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    director, foreign = Director(runner), Director(runner, stamp={"type": "another"})
    with foreign.checkin(JOB, "foreign"):
        pass
    director.checkin(JOB, "running").ask()
    for key in range(1_100):
        director.checkin(JOB, str(key)).checkout()
    clock.advance(timedelta(hours=23))
    director.checkin(JOB, "young").checkout()
    assert director.cleanup() == 0
    clock.advance(HOUR)
    assert director.cleanup() == 1_100
    assert "Cleaned up 1100 old jobs" in caplog.text
    assert {run.key for run in director.list()} == {"running", "young"}
    assert foreign.stats().total == 1
    assert director.cleanup(timedelta(0), job="another-job") == 0
    assert director.checkin(JOB, "7").admitted, "retention is the window in which duplicates are known"


# -- as users of the oJob Director know it ----------------------------------------------------------------------


def test_d15_to_d21_the_seeds_record(runner: Runner) -> None:
    director = Director(runner, stamp={"type": "director", "app": "myapp", "name": "shadowed"})
    with director.checkin(JOB, "a") as run:
        running = seed_view(found(director, "a"))
        run.result = {"ok": True}
    ended = seed_view(found(director, "a"))
    assert running["type"], running["app"] == ("director", "myapp")
    assert (running["name"], running["uuid"], running["status"]) == (JOB, "a", "running")
    assert running["timestamp"] == 1_767_225_600_000
    assert "result" not in running
    assert ended["result"] == {"ok": True}
    attempts = ended["attempts"]
    assert isinstance(attempts, list)
    assert isinstance(attempts[0], dict)
    assert (attempts[0]["n"], attempts[0]["outcome"], attempts[0]["end"]) == (1, "succeeded", 1_767_225_600_000)


def test_d55_the_seeds_record_of_a_failure(director: Director) -> None:
    with pytest.raises(ValueError, match="no stock"), director.checkin(JOB, "a"):
        raise ValueError("no stock")
    view = seed_view(found(director, "a"))
    assert (view["status"], view["result"]) == ("failed", {"success": False, "error": "no stock"})


def test_d30_d51_what_is_logged(director: Director, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "onceward.director")
    with director.checkin(JOB, "a"):
        pass
    assert not director.checkin(JOB, "a")
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["Job named 'order-processing' for uuid 'a' has already executed... skipping."]
    assert "Checking in: order-processing / a" in caplog.text
    assert "Job is new, proceeding" in caplog.text
    assert 'Job already exists: {"type": "director", "name": "order-processing"' in caplog.text


def test_d53_a_vague_name_is_pointed_out_once(director: Director, caplog: pytest.LogCaptureFixture) -> None:
    for key in range(3):
        director.checkin("job1", str(key)).ask()
    assert caplog.text.count("does not say what is done") == 1
