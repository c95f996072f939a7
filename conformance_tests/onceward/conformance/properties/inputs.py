"""Bad input is refused with nothing changed; odd but valid names stay apart; everything comes back as it went in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, seed
from hypothesis import strategies as st

from onceward.conformance.machine import case_settings, finish
from onceward.conformance.property import Experiment, Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Violated
from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    ConfigWrite,
    InvalidRequest,
    Json,
    Lease,
    LockId,
    LockRequest,
    Renewal,
    Renewed,
    RunId,
    Runner,
    RunQuery,
    RunSpec,
    canonical,
)

HOUR = timedelta(hours=1)


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: What no store may take, however it is wrapped.
BAD: tuple[tuple[str, Any], ...] = (
    ("NaN", float("nan")),
    ("infinity", float("-inf")),
    ("a set", {1, 2}),
    ("bytes", b"x"),
    ("an object", object()),
    ("a naive datetime", datetime(2026, 1, 1)),
    ("a lone surrogate", "\ud800"),
    ("a lone surrogate as a key", {"\udfff": 1}),
    ("a number as a key", {1: "x"}),
    ("an int of 65 bits", 2**64),
    ("200 levels", _deep(200)),
    ("NaN deep inside", {"a": [1, {"b": float("nan")}]}),
)


def bad_input(trial: Trial) -> None:
    """Each bad value in each place where a caller can put one."""
    trial.begin_case()
    with trial.harness.fresh_runner() as runner:
        lease = _admit(trial, runner, "held")
        for what, value in BAD:
            _refused(trial, f"checkin(payload={what})", lambda v=value: _checkin(runner, "bad", v))  # type: ignore[misc]
            _refused(trial, f"submit(payload={what})", lambda v=value: _submit(runner, v))  # type: ignore[misc]
            _refused(
                trial,
                f"checkout(result={what})",
                lambda v=value: runner.executor.checkout([CheckOut.succeeded(lease, v)]),  # type: ignore[misc]
            )
            _refused(trial, f"write_config(document={what})", lambda v=value: _configure(runner, v))  # type: ignore[misc]
        _refused(
            trial,
            "reschedule(run_at=a naive datetime)",
            lambda: runner.scheduler.reschedule(RunId("job", "held"), run_at=datetime(2026, 1, 1)),
        )
        left = [str(run.id) for run in runner.lifecycle.runs(RunQuery())]
        trial.expect("G16", left == ["job/held"], lambda: f"bad input left runs behind: {left}")
        trial.expect("G16", not runner.scheduler.configs(), "bad input left a configuration behind")
        done = runner.executor.checkout([CheckOut.succeeded(lease)])[0]
        trial.expect("G16", done, "after refused check-outs the right one was refused")
        _forged(trial, runner, lease)


def _refused(trial: Trial, doing: str, call: Callable[[], object]) -> None:
    """The call raises InvalidRequest, and names the field."""
    try:
        answer = call()
    except InvalidRequest as error:
        trial.say(f"{doing} -> InvalidRequest")
        trial.expect("G16", bool(error.field and error.allowed), f"{doing}: the error does not say what is allowed")
        return
    except Exception as error:
        trial.say(f"{doing} -> {type(error).__name__}")
        raise trial.keep(Violated("G16", f"{doing} raised {type(error).__name__}: {error}")) from error
    trial.say(f"{doing} -> {answer!r:.80}")
    trial.expect("G16", False, lambda: f"{doing} was accepted")


def _checkin(runner: Runner, key: str, payload: Json) -> object:
    request = CheckIn(run=RunId("job", key), holder="ann", lease=HOUR, payload=payload)
    return runner.executor.checkin(request)


def _submit(runner: Runner, payload: Json) -> object:
    return runner.scheduler.submit([RunSpec.of("job", "good", 1), RunSpec.of("job", "bad", payload)])


def _configure(runner: Runner, document: Json) -> object:
    return runner.scheduler.write_config(ConfigWrite(name="c", document=document, expected_version=0))


def _admit(trial: Trial, runner: Runner, key: str) -> Lease:
    try:
        answer = runner.executor.checkin(CheckIn(run=RunId("job", key), holder="ann", lease=HOUR))
    except Exception as error:
        raise trial.blame(error, "checkin()") from error
    trial.expect("C2", answer.outcome.admitted and answer.run.lease is not None, f"a new key: {answer.outcome}")
    assert answer.run.lease is not None  # just checked
    return answer.run.lease


def _forged(trial: Trial, runner: Runner, lease: Lease) -> None:
    """Leases that were never issued move nothing."""
    for resource in (RunId("job", "nowhere"), RunId("job", "held"), LockId("nowhere")):
        forged = Lease(resource=resource, holder="eve", token=lease.token + 7, request="forged", duration=HOUR)
        try:
            renewed = runner.executor.renew([Renewal(lease=forged)])[0]
            ended = isinstance(resource, RunId) and runner.executor.checkout([CheckOut.succeeded(forged)])[0]
            freed = isinstance(resource, LockId) and runner.executor.unlock(forged)
        except Exception as error:
            raise trial.blame(error, f"using a forged lease on {resource}") from error
        moved = renewed is not Renewed.LOST or ended or freed
        trial.expect("G4", not moved, lambda r=resource: f"a forged lease on {r} was accepted")  # type: ignore[misc]


#: Pairs that careless keys, patterns, collations and statements mix up.
ODD_NAMES: Sequence[str] = (
    "a", "A", "a ", "a  ", "a/b", "a:b", "a\\b", "a%", "a_", "a*", "a?", "[a]", "{a}", "a'b", 'a"b', "a;b", "a--b",
    "%s", "$a", "a.b", "..", ".", "~", "null", "None", "0", "00", "1e3", "é", "e\u0301", "ß", "ss", "ﬁ", "fi", "Ω",
    "Ω", "漢字", "😀", "a\u200bb", "a\u2028b", "\u202ea", "İ", "i", "x" * 256, "x" * 255, "é" * 128,
)  # fmt: skip


def odd_names(trial: Trial) -> None:
    """Every pair of different names is a pair of different runs, locks and configurations."""
    trial.begin_case()
    names = list(dict.fromkeys(ODD_NAMES))
    with trial.harness.fresh_runner() as runner:
        try:
            runs = [RunId(name, "k") for name in names] + [RunId("k", name) for name in names]
            runs += [RunId("k", "s", canonical({name: name})) for name in names]
            for number, run in enumerate(runs):
                answer = runner.executor.checkin(CheckIn(run=run, holder=f"h{number}", lease=HOUR, payload=number))
                trial.expect("C2", answer.outcome.admitted, lambda r=run: f"{r!r} was taken for another run")  # type: ignore[misc]
            for number, run in enumerate(runs):
                found = runner.executor.check(run)
                same = found is not None and found.id == run and found.payload == number
                trial.expect("C2", same, lambda r=run, f=found: f"{r!r} became {f}")  # type: ignore[misc]
            for name in names:
                _odd_lock_and_config(trial, runner, name)
            shown = [state.lease.resource for state in runner.lifecycle.locks()]
            trial.expect("C2", shown == sorted(LockId(name) for name in names), lambda: f"locks listed: {shown}")
        except Exception as error:
            raise trial.blame(error, "using odd but valid names") from error
    trial.say(f"{len(runs)} runs, {len(names)} locks and configurations with odd names")


def _odd_lock_and_config(trial: Trial, runner: Runner, name: str) -> None:
    lock = runner.executor.lock(LockRequest(lock=LockId(name), holder="ann", lease=HOUR))
    trial.expect("C2", lock.acquired, f"the lock {name!r} was taken for another")
    written = runner.scheduler.write_config(ConfigWrite(name=name, document=name, expected_version=0))
    read = runner.scheduler.read_config(name)
    same = written is not None and read is not None and (read.name, read.document) == (name, name)
    trial.expect("C2", same, lambda: f"the configuration {name!r} became {read}")


_leaves = st.sampled_from(
    (
        None, True, False, 0, 1, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, 1.0, 0.1, -1.5, 5e-324,
        1.7976931348623157e308, 1e16, 1e22, "", "a", " ", "\x00", "\n\t", "\\", '"', "'", "é", "e\u0301", "😀",
        "\u2028", "\ufeff", "null", "NaN", "2026-01-01T00:00:00Z", "x" * 5000,
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC),
    )
)  # fmt: skip
_keys = st.sampled_from(("", "a", "b", "a.b", "$set", "$date", "$literal", "$oid", "__proto__", "é", "\x00", "0", "id"))
values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


def round_trip(trial: Trial) -> None:
    """Whatever JSON types and datetimes can say comes back, from everywhere."""
    runner = trial.harness.fresh_runner()

    @seed(trial.seed)
    @case_settings(cases=60)
    @given(value=values)
    def examine(value: Any) -> None:
        trial.begin_case()
        _everywhere(trial, runner, value)

    try:
        finish(trial, examine)
    finally:
        runner.close()


def _everywhere(trial: Trial, runner: Runner, value: Any) -> None:
    """The value as payload of a check-in and of a submission, as result, and as configuration."""
    key, pristine = f"k{trial.cases}", copy.deepcopy(value)
    trial.say(f"value {value!r:.200}")
    try:
        entered = runner.executor.checkin(CheckIn(run=RunId("in", key), holder="ann", lease=HOUR, payload=value)).run
        assert entered.lease is not None  # a key of its own
        runner.executor.checkout([CheckOut.succeeded(entered.lease, value)])
        ended = runner.executor.check(RunId("in", key))
        runner.scheduler.submit([RunSpec.of(f"out {key}", key, value)])
        claimed = runner.executor.claim(Claim.of(f"out {key}", holder="ann", lease=HOUR))
        listed = runner.lifecycle.runs(RunQuery(job="in", key=key))
        shown = runner.executor.check(RunId("in", key))
        for mine in (value, None if shown is None else shown.payload, None if shown is None else shown.result):
            _scribble(mine)
        ended = runner.executor.check(RunId("in", key))
        value = pristine
        read = None
        if value is not None:
            runner.scheduler.write_config(ConfigWrite(name=key, document=value, expected_version=0))
            read = runner.scheduler.read_config(key)
    except Exception as error:
        raise trial.blame(error, f"storing {value!r:.80}") from error
    places = {
        "the admission": entered.payload,
        "check()": None if ended is None else ended.payload,
        "the result": None if ended is None else ended.result,
        "the claim": claimed[0].payload if claimed else None,
        "the listing": listed[0].result if listed else None,
        "the configuration": None if read is None else read.document,
    }
    for place, got in places.items():
        _same(trial, place, value, got)


def _scribble(mine: Any) -> None:
    """The caller changes what it gave or got; the store must have copies of its own."""
    if isinstance(mine, list):
        mine.append("scribbled")
    elif isinstance(mine, dict):
        mine["scribbled"] = True


def _same(trial: Trial, place: str, value: Any, got: Any) -> None:
    same = got == value and canonical(got) == canonical(value)
    trial.expect("P1", same, lambda: f"{value!r:.200} came back from {place} as {got!r:.200}")


def _both(*experiments: Experiment) -> Experiment:
    def experiment(trial: Trial) -> None:
        for each in experiments:
            each(trial)

    return experiment


INPUTS = Property(
    id="store.inputs",
    statement="Bad input is refused with nothing changed, forged leases move nothing, and odd names stay apart.",
    guarantees=("G16", "G4", "C2"),
    experiment=_both(bad_input, odd_names),
    weight=0.4,
)
PAYLOADS = Property(
    id="store.payloads",
    statement="Payloads, results and configurations come back exactly as they went in.",
    guarantees=("P1",),
    experiment=round_trip,
    weight=0.6,
)
