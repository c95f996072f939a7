"""Done, definitely not done, unknown: what the Director makes of a store that loses requests and replies."""
# ruff: noqa: PT012 - how a body, and the error that leaves it, are treated is what is tested

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import pytest

from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Executor,
    InvalidRequest,
    Lease,
    LockAnswer,
    LockRequest,
    OutcomeUnknown,
    Renewal,
    Renewed,
    Run,
    RunId,
    Runner,
    Status,
    StoreError,
    StoreUnavailable,
)
from onceward.runners.memory import MemoryStore
from onceward.toolkit import director_checkin, resend
from onceward.toolkit.director import Director

HOUR = timedelta(hours=1)
JOB = "order-processing"
T = TypeVar("T")


class Faulty(Executor):
    """An executor whose check-ins and check-outs meet the faults that are planned, one per send.

    ``lost request``: not applied, unknown. ``lost reply``: applied, unknown. ``down``: not applied, and said so.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.plan: list[str] = []
        self.sent: list[CheckIn | CheckOut] = []
        self.renewed = threading.Semaphore(0)

    def _meet(self, request: CheckIn | CheckOut, apply: Callable[[], T]) -> T:
        self.sent.append(request)
        fault = self.plan.pop(0) if self.plan else ""
        if fault == "down":
            raise StoreUnavailable("planned")
        if fault == "lost request":
            raise OutcomeUnknown("planned")
        answer = apply()
        if fault == "lost reply":
            raise OutcomeUnknown("planned")
        return answer

    def checkin(self, request: CheckIn) -> Admission:
        return self._meet(request, lambda: self.store.checkin(request))

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        return self._meet(checkouts[0], lambda: self.store.checkout(checkouts))

    def claim(self, request: Claim) -> Sequence[Run]:
        return self.store.claim(request)

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        answers = self.store.renew(renewals)
        self.renewed.release()
        return answers

    def check(self, run: RunId) -> Run | None:
        return self.store.check(run)

    def lock(self, request: LockRequest) -> LockAnswer:
        return self.store.lock(request)

    def unlock(self, lease: Lease) -> bool:
        return self.store.unlock(lease)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return Faulty(MemoryStore("orders"))


@pytest.fixture
def director(faulty: Faulty) -> Iterator[Director]:
    store = faulty.store
    with Director(Runner(executor=faulty, scheduler=store, lifecycle=store, namespace="orders"), lease=HOUR) as made:
        yield made


def found(director: Director, key: str) -> Run:
    run = director.check(JOB, key)
    assert run is not None
    return run


@pytest.mark.parametrize(
    "plan", [["lost reply"], ["lost request"], ["lost reply", "lost request", "down", "lost reply"]]
)
def test_g7_a_check_in_whose_reply_is_lost_is_admitted_once(
    director: Director, faulty: Faulty, plan: list[str]
) -> None:
    faulty.plan = plan.copy()
    with director.checkin(JOB, "a") as run:
        assert run.outcome is CheckInOutcome.ADMITTED
        assert found(director, "a").attempt == 1
    assert len({request.request for request in faulty.sent[:-1]}) == 1, "a new request was sent instead of the same one"
    assert found(director, "a").status is Status.SUCCEEDED


def test_a_refusal_survives_lost_replies_too(director: Director, faulty: Faulty) -> None:
    director.checkin(JOB, "a").ask()
    faulty.plan = ["lost reply", "lost request"]
    assert director.checkin(JOB, "a").outcome is CheckInOutcome.RUNNING


def test_a_store_that_is_down_admits_nobody_and_runs_nothing(director: Director, faulty: Faulty) -> None:
    faulty.plan = ["down"]
    with pytest.raises(StoreUnavailable), director.checkin(JOB, "a"):
        pytest.fail("the body ran without an admission")
    assert len(faulty.sent) == 1
    assert director.check(JOB, "a") is None


def test_what_was_unknown_once_is_not_made_definite_by_a_store_that_is_down(director: Director, faulty: Faulty) -> None:
    faulty.plan = ["lost reply", *["down"] * 5]
    checkin = director.checkin(JOB, "a")
    with pytest.raises(OutcomeUnknown):
        checkin.ask()
    assert checkin.admitted, "asked again, the same request finds out"
    assert found(director, "a").attempt == 1


@pytest.mark.parametrize(
    "plan", [["lost reply"], ["lost request"], ["down"] * 4, ["lost reply", "down", "lost request"]]
)
def test_g7_a_check_out_is_sent_until_it_is_answered(director: Director, faulty: Faulty, plan: list[str]) -> None:
    with director.checkin(JOB, "a") as run:
        faulty.plan = plan.copy()
        run.result = "kept"
    assert found(director, "a").result == "kept"
    assert len({request.request for request in faulty.sent[1:]}) == 1


@pytest.mark.parametrize("fault", ["lost reply", "lost request", "down"])
def test_a_check_out_that_stays_without_an_answer_is_said(director: Director, faulty: Faulty, fault: str) -> None:
    with pytest.raises(StoreError) as caught, director.checkin(JOB, "a") as run:
        faulty.plan = [fault] * 6
    assert "has run to its end" in caught.value.__notes__[0]
    assert run.held.stopped, "the lease must be able to lapse"
    run.checkout()
    assert found(director, "a").status is Status.SUCCEEDED
    assert len({request.request for request in faulty.sent[1:]}) == 1


def test_an_unanswered_check_out_in_the_body_is_not_turned_into_a_failure(director: Director, faulty: Faulty) -> None:
    with pytest.raises(OutcomeUnknown), director.checkin(JOB, "a") as run:
        faulty.plan = ["lost request"] * 6
        run.checkout("done")
    assert found(director, "a").result == "done"
    assert found(director, "a").status is Status.SUCCEEDED


def test_the_bodys_error_is_not_hidden_by_a_store_that_is_down(director: Director, faulty: Faulty) -> None:
    with pytest.raises(KeyError) as caught, director.checkin(JOB, "a"):
        faulty.plan = ["down"] * 6
        raise KeyError("mine")
    assert "could not be recorded" in caught.value.__notes__[0]


def late(times: int) -> Callable[[float, timedelta | None], float | None]:
    """The local end of a lease, as if so many admissions had come after it."""
    left = [times]

    def local_end(sent: float, duration: timedelta | None) -> float | None:
        left[0] -= 1
        return sent - 1 if left[0] >= 0 else sent + 3_600

    return local_end


def test_an_admission_after_its_local_end_is_given_back_and_asked_anew(
    director: Director, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(director_checkin, "local_end", late(2))
    with director.checkin(JOB, "a"):
        run = found(director, "a")
        assert (run.attempt, run.crashes, run.failures) == (3, 0, 0)
    assert [request.ending.value for request in faulty.sent if isinstance(request, CheckOut)] == [
        "released",
        "released",
        "succeeded",
    ]


def test_an_admission_that_is_always_late_is_never_reported_as_held(
    director: Director, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(director_checkin, "local_end", late(99))
    with pytest.raises(StoreUnavailable, match="take a longer lease"), director.checkin(JOB, "a"):
        pytest.fail("a lease that had ended was reported as held")
    assert found(director, "a").status is Status.SCHEDULED
    assert len([request for request in faulty.sent if isinstance(request, CheckIn)]) == 3


def test_g9_a_lease_is_renewed_while_the_body_is_busy(director: Director, faulty: Faulty) -> None:
    with director.checkin(JOB, "a", lease=timedelta(seconds=0.6)) as run:
        assert all(faulty.renewed.acquire(timeout=60) for _ in range(3))
        run.touch()
    assert found(director, "a").attempt == 1


# -- resend itself ----------------------------------------------------------------------------------------------


class Script:
    """A call that raises or answers as written."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self) -> object:
        self.calls += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


UNKNOWN, DOWN, BAD = OutcomeUnknown("u"), StoreUnavailable("d"), InvalidRequest("f", 1, "2")


@pytest.mark.parametrize(
    ("script", "on", "answer", "calls"),
    [
        ([7], resend.UNKNOWN, 7, 1),
        ([UNKNOWN, UNKNOWN, 7], resend.UNKNOWN, 7, 3),
        ([DOWN, 7], resend.UNKNOWN, StoreUnavailable, 1),
        ([UNKNOWN, DOWN, 7], resend.UNKNOWN, 7, 3),
        ([DOWN, DOWN, 7], resend.UNKNOWN_OR_UNAVAILABLE, 7, 3),
        ([BAD, 7], resend.UNKNOWN_OR_UNAVAILABLE, InvalidRequest, 1),
        ([UNKNOWN, BAD, 7], resend.UNKNOWN, InvalidRequest, 2),
        ([UNKNOWN] * 4, resend.UNKNOWN, OutcomeUnknown, 4),
        ([DOWN] * 4, resend.UNKNOWN_OR_UNAVAILABLE, StoreUnavailable, 4),
        ([DOWN, UNKNOWN, DOWN, DOWN], resend.UNKNOWN_OR_UNAVAILABLE, OutcomeUnknown, 4),
    ],
)
def test_resend_says_what_is_known_of_all_sends_together(
    monkeypatch: pytest.MonkeyPatch, script: list[object], on: tuple[type[StoreError], ...], answer: object, calls: int
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    call = Script(*script)
    if isinstance(answer, type):
        with pytest.raises(answer):
            resend.resend(call, attempts=4, on=on)
    else:
        assert resend.resend(call, attempts=4, on=on) == answer
    assert call.calls == calls


def test_resend_pauses_longer_each_time_and_stops_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(OutcomeUnknown):
        resend.resend(Script(*[UNKNOWN] * 9), attempts=9, deadline=HOUR)
    bounds = [min(0.02 * 2**n, 1.0) for n in range(8)]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    call = Script(UNKNOWN, 7)
    with pytest.raises(OutcomeUnknown):
        resend.resend(call, deadline=timedelta(0))
    assert call.calls == 1
