"""The contracts' values: what they accept, and that they refuse the rest by name, before anything is sent (G16)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceward import contracts
from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    ConfigWrite,
    Ending,
    Failure,
    InvalidRequest,
    Lease,
    LeaseLost,
    LockId,
    LockNotAcquired,
    LockRequest,
    OncewardError,
    OnFailed,
    OutcomeUnknown,
    Progress,
    Purge,
    Rearm,
    Renewal,
    RunId,
    RunQuery,
    RunSpec,
    Status,
    StoreError,
    WaitTimeout,
    Want,
    new_holder,
    new_request,
)
from onceward.contracts.errors import shown
from onceward.contracts.times import from_ms, span, span_ms, to_ms

RUN = RunId("job", "key")
SECOND = timedelta(seconds=1)
LEASE = Lease(resource=RUN, holder="h", token=1, request="r", duration=SECOND)
LOCK_LEASE = Lease(resource=LockId("l"), holder="h", token=1, request="r", duration=SECOND)

BAD_NAMES: list[Any] = ["", " ", "\t", "a\nb", "a\0b", "\x7f", "\x85", "\ud800", "n" * 257, "é" * 129, None, 5, b"x"]
GOOD_NAMES = ["a", "a/b:c d", "{{x}}", "ünï", "🎉" * 64, "n" * 256, "'; DROP TABLE runs", "$where", "..", "a*?[b]"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_may_be_any_visible_text(name: str) -> None:
    assert RunId(name, name).job == name
    assert LockId(name).name == name
    assert Want(job=name).job == name


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("job", lambda name: RunId(name, "k")),
        ("lock name", lambda name: LockId(name)),
        ("job", lambda name: Want(job=name)),
        ("config name", lambda name: ConfigWrite(name=name, document={}, expected_version=0)),
        ("holder", lambda name: CheckIn(run=RUN, holder=name)),
        ("request", lambda name: CheckIn(run=RUN, holder="h", request=name)),
        ("holder", lambda name: Claim.of("j", holder=name, lease=SECOND)),
        ("holder", lambda name: LockRequest(lock=LockId("l"), holder=name, lease=SECOND)),
        ("request", lambda name: CheckOut(lease=LEASE, ending=Ending.SUCCEEDED, request=name)),
        ("request", lambda name: RunSpec(id=RUN, request=name)),
    ],
)
def test_g16_a_bad_name_is_refused_by_its_field(name: Any, field: str, make: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make(name)
    assert refused.value.field == field
    assert refused.value.value is name
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)
    str(refused.value).encode()


def test_a_key_may_be_longer_than_a_name() -> None:
    assert len(RunId("j", "k" * 512).key) == 512
    with pytest.raises(InvalidRequest, match="512 bytes"):
        RunId("j", "k" * 513)


def test_a_megabyte_of_name_is_shown_short() -> None:
    with pytest.raises(InvalidRequest) as refused:
        RunId("j" * 1_000_000, "k")
    assert len(str(refused.value)) < 400
    assert len(shown("x" * 10_000)) < 100


LEASES = [
    lambda value: CheckIn(run=RUN, holder="h", lease=value),
    lambda value: Claim.of("j", holder="h", lease=value),
    lambda value: LockRequest(lock=LockId("l"), holder="h", lease=value),
    lambda value: Renewal(lease=LEASE, duration=value),
    lambda value: Want(job="j", lease=value),
]


@pytest.mark.parametrize("make", LEASES)
@pytest.mark.parametrize("value", [timedelta(0), -SECOND, timedelta(microseconds=999), timedelta(days=367), 5, "1s"])
def test_g16_a_lease_is_a_sensible_timedelta(value: Any, make: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidRequest, match="from 1 millisecond to 366 days"):
        make(value)


@pytest.mark.parametrize("make", LEASES)
@pytest.mark.parametrize("value", [timedelta(milliseconds=1), timedelta(days=366)])
def test_the_shortest_and_the_longest_lease_are_accepted(value: timedelta, make: Callable[[Any], object]) -> None:
    make(value)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("run", lambda: CheckIn(run="job/key", holder="h")),  # type: ignore[arg-type]
        ("on_failed", lambda: CheckIn(run=RUN, holder="h", on_failed="block")),  # type: ignore[arg-type]
        ("on_abandoned", lambda: CheckIn(run=RUN, holder="h", on_abandoned="hold")),  # type: ignore[arg-type]
        ("max_crashes", lambda: CheckIn(run=RUN, holder="h", max_crashes=-1)),
        ("max_crashes", lambda: CheckIn(run=RUN, holder="h", max_crashes=True)),
        ("lock", lambda: LockRequest(lock="l", holder="h", lease=SECOND)),  # type: ignore[arg-type]
        ("lease", lambda: LockRequest(lock=LockId("l"), holder="h", lease=None)),  # type: ignore[arg-type]
        ("lease", lambda: Claim.of("j", holder="h", lease=None)),  # type: ignore[arg-type]
        ("note", lambda: LockRequest(lock=LockId("l"), holder="h", lease=SECOND, note="a\0")),
        ("note", lambda: LockRequest(lock=LockId("l"), holder="h", lease=SECOND, note="n" * 4_001)),
        ("limit", lambda: Claim.of("j", holder="h", lease=SECOND, limit=0)),
        ("limit", lambda: Claim.of("j", holder="h", lease=SECOND, limit=100_001)),
        ("wants", lambda: Claim.of("j", "j", holder="h", lease=SECOND)),
        ("max_running", lambda: Want(job="j", max_running=-1)),
        ("lease", lambda: CheckOut.succeeded(None)),  # type: ignore[arg-type]
        ("lease", lambda: CheckOut.succeeded(LOCK_LEASE)),
        ("lease", lambda: Renewal(lease="lease")),  # type: ignore[arg-type]
        ("ending", lambda: CheckOut(lease=LEASE, ending=Ending.ABANDONED)),
        ("ending", lambda: CheckOut(lease=LEASE, ending="succeeded")),  # type: ignore[arg-type]
        ("after", lambda: CheckOut.retry(LEASE, after=-SECOND)),
        ("after/at", lambda: CheckOut(lease=LEASE, ending=Ending.FAILED, after=SECOND)),
        ("at", lambda: CheckOut.retry(LEASE, after=SECOND, at=datetime(2026, 1, 1, tzinfo=UTC))),
        ("at", lambda: CheckOut.retry(LEASE, at=datetime(2026, 1, 1))),
        ("run_at", lambda: RunSpec(id=RUN, run_at=datetime(2026, 1, 1))),
        ("run_at", lambda: RunSpec(id=RUN, run_at=datetime(1969, 1, 1, tzinfo=UTC))),
        ("run_at", lambda: RunSpec(id=RUN, run_at=datetime(9999, 1, 1, tzinfo=UTC))),
        ("run_at", lambda: RunSpec(id=RUN, run_at=datetime(2026, 1, 1, tzinfo=UTC), after=SECOND)),
        ("run_at", lambda: RunSpec(id=RUN, run_at="tomorrow")),  # type: ignore[arg-type]
        ("priority", lambda: RunSpec(id=RUN, priority=101)),
        ("priority", lambda: RunSpec(id=RUN, priority=1.0)),  # type: ignore[arg-type]
        ("id", lambda: RunSpec(id=("j", "k"))),  # type: ignore[arg-type]
        ("expected_version", lambda: ConfigWrite(name="c", document={}, expected_version=-1)),
        ("run", lambda: Rearm(run="j/k", token=1)),  # type: ignore[arg-type]
        ("token", lambda: Rearm(run=RUN, token="1")),  # type: ignore[arg-type]
        ("statuses", lambda: Purge(older_than=SECOND, statuses=frozenset({Status.RUNNING}))),
        ("statuses", lambda: Purge(older_than=SECOND, statuses=frozenset({"failed"}))),  # type: ignore[arg-type]
        ("older_than", lambda: Purge(older_than=-SECOND)),
        ("keep_last", lambda: Purge(older_than=SECOND, keep_last=-1)),
        ("limit", lambda: RunQuery(limit=0)),
        ("after", lambda: RunQuery(after="x")),  # type: ignore[arg-type]
        ("statuses", lambda: RunQuery(statuses=frozenset({"running"}))),  # type: ignore[arg-type]
        ("stamp", lambda: RunQuery(stamp="not a stamp")),
        ("progress.done", lambda: Progress(done=-1)),
        ("progress.done", lambda: Progress(done=0.5)),  # type: ignore[arg-type]
        ("progress.message", lambda: Progress(message="\ud800")),
        ("error.message", lambda: Failure(type="E", message="\ud800")),
        ("error.message", lambda: Failure(type="E", message="m" * 4_001)),
    ],
)
def test_g16_a_bad_request_cannot_even_be_made(field: str, make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        make()
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")


def test_a_policy_given_as_text_is_not_taken_for_another_one() -> None:
    with pytest.raises(InvalidRequest, match=r"OnFailed\.BLOCK or OnFailed\.RERUN"):
        CheckIn(run=RUN, holder="h", on_failed="block")  # type: ignore[arg-type]
    assert CheckIn(run=RUN, holder="h", on_failed=OnFailed("block")).on_failed is OnFailed.BLOCK


def test_equal_stamps_are_one_identity_whatever_their_order() -> None:
    one, other = RunId.of("j", "k", {"app": "a", "env": 1}), RunId.of("j", "k", {"env": 1, "app": "a"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != RunId("j", "k")
    assert RunId.of("j", "k", {}) == RunId.of("j", "k") == RunId("j", "k")


@pytest.mark.parametrize(
    "stamp",
    [{"a": [1]}, {"a": {}}, {"a": float("nan")}, {"": 1}, {"a\n": 1}, {"a": "\ud800"}, {"a": "x" * 1_100}, "app", 5],
)
def test_g16_a_stamp_is_a_small_flat_mapping(stamp: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^stamp"):
        RunId.of("j", "k", stamp)


@pytest.mark.parametrize("text", ["x", '{"a":"\ud800"}', '{"a":"\0"}', "{" + "x" * 1_024, 5])
def test_g16_a_stamp_text_is_checked_too(text: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^stamp"):
        RunId("j", "k", text)


def test_failures_describe_any_exception() -> None:
    class Strange(Exception):
        def __str__(self) -> str:
            return "NUL \0, surrogate \ud800, " + "long " * 2_000

    error = Strange()
    error.add_note("t" * 20_000 + "end")
    failure = Failure.of(error, traced=True)
    assert failure.type == "Strange"
    assert len(failure.message) == 4_000
    assert failure.trace is not None
    assert len(failure.trace) == 16_000
    assert failure.trace.endswith("tend\n")
    failure.message.encode()
    assert "\0" not in failure.message
    assert Failure.of(type("E" * 300, (Exception,), {})()).type.endswith("…")


def test_a_failure_is_described_where_its_traceback_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[str]:
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("traceback.format_exception", fails)
    try:
        raise ValueError("bad")
    except ValueError as error:
        failure = Failure.of(error, traced=True)
    assert failure.message == "bad"
    assert failure.trace is not None
    first, place, *_ = failure.trace.splitlines()
    assert first == "(places only: SystemError while it was made)"
    assert place.endswith("in test_a_failure_is_described_where_its_traceback_cannot_be_made")


def test_records_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        RUN.job = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        LEASE.token = 2  # type: ignore[misc]


def test_holders_and_requests_are_never_the_same_twice() -> None:
    assert len({new_request() for _ in range(1_000)} | {new_holder() for _ in range(1_000)}) == 2_000


def test_a_holder_is_an_acceptable_name_on_any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("", "ünï\n", "h" * 300, "..", "\udcff"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        CheckIn(run=RUN, holder=new_holder())


def test_the_three_outcomes_are_kept_apart() -> None:
    assert not issubclass(OutcomeUnknown, contracts.StoreUnavailable)
    assert issubclass(OutcomeUnknown, StoreError)
    assert issubclass(contracts.StoreUnavailable, StoreError)
    assert not issubclass(LeaseLost, StoreError)
    assert issubclass(InvalidRequest, ValueError)
    assert issubclass(WaitTimeout, TimeoutError)
    assert all(
        issubclass(error, OncewardError)
        for error in vars(contracts).values()
        if isinstance(error, type) and issubclass(error, BaseException)
    )


def test_m20_the_message_of_a_lock_that_is_held_is_the_one_users_know() -> None:
    assert str(LockNotAcquired("nightly")) == "Can't lock to execute job 'nightly'."
    assert LockNotAcquired("nightly", "ann").__notes__ == ["It is held by ann."]


@given(st.integers(0, 2**42))
def test_milliseconds_survive_being_instants(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
    assert to_ms(from_ms(ms).astimezone(timezone(timedelta(hours=9)))) == ms
    assert span_ms(span(ms)) == ms


def test_a_lease_is_never_shorter_than_asked() -> None:
    assert span_ms(timedelta(microseconds=1)) == 1
    assert span_ms(timedelta(microseconds=1_001)) == 2
    assert span_ms(timedelta(0)) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_request_ids_of_a_forked_child_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceward.contracts.requests.time", SimpleNamespace(time_ns=lambda: 0))
    new_request()  # more are in store
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, new_request().encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 100).decode() not in [new_request() for _ in range(100)]
    os.close(read)
    os.close(write)


def test_request_ids_of_a_clone_with_the_same_bits_in_store_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for now in (1, 2):
        monkeypatch.setattr("onceward.contracts.requests.time", SimpleNamespace(time_ns=lambda now=now: now))
        monkeypatch.setattr("onceward.contracts.requests._drawn", [5, 7])
        ids += [new_request(), new_request()]
    assert len(set(ids)) == 4
    assert all(len(each) == 32 for each in ids)
