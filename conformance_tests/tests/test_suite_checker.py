"""The checker itself: every planted violation is found, and healthy histories are not accused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from onceward.conformance.checker import Judgement, judge
from onceward.conformance.diagram import lanes, lines, shown
from onceward.conformance.history import NEVER, Kind, Op, Outcome, Seen


def op(client: str, kind: Kind, inv: float, ret: float, outcome: Outcome, **rest: Any) -> Op:
    """An operation on the lock, or run, "r" by a request named after its client."""
    rest.setdefault("resource", "r")
    rest.setdefault("request", f"q-{client}")
    return Op(client=client, kind=kind, inv=inv, ret=ret, outcome=outcome, **rest)


def lock(client: str, inv: float, ret: float, token: int, lease: float = 10.0, **rest: Any) -> Op:
    return op(client, Kind.LOCK, inv, ret, Outcome.GRANTED, token=token, lease=lease, **rest)


def enter(client: str, inv: float, ret: float, token: int, attempt: int, lease: float = 10.0, **rest: Any) -> Op:
    return op(client, Kind.CHECKIN, inv, ret, Outcome.GRANTED, token=token, attempt=attempt, lease=lease, **rest)


def leave(client: str, inv: float, ret: float, token: int, outcome: Outcome = Outcome.DONE, **rest: Any) -> Op:
    rest.setdefault("own", f"c-{client}")
    return op(client, Kind.CHECKOUT, inv, ret, outcome, token=token, ending=rest.pop("ending", "succeeded"), **rest)


def unlock(client: str, inv: float, ret: float, token: int, outcome: Outcome = Outcome.DONE) -> Op:
    return op(client, Kind.UNLOCK, inv, ret, outcome, token=token)


def saw_a(token: int) -> Seen:
    return Seen(status="running", attempt=1, token=token, request="q-a")


def claim(client: str, inv: float, ret: float, resource: str, place: int) -> Op:
    return op(
        client, Kind.CLAIM, inv, ret, Outcome.GRANTED, resource=resource, request=f"q-{client}-{inv}", token=place + 1,
        attempt=1, lease=10.0, call=f"{client}-{inv}", rank=(0, 0.0, place),
    )  # fmt: skip


def submitted(resource: str) -> Op:
    return op("p", Kind.SUBMIT, 0.0, 0.1, Outcome.DONE, resource=resource, request=f"s-{resource}")


def write(client: str, inv: float, value: int) -> Op:
    return op(client, Kind.WRITE, inv, inv + 0.1, Outcome.DONE, value=value, token=1)


PLANTED: dict[str, tuple[str, list[Op]]] = {
    "two admissions of one attempt": ("G1", [enter("a", 0, 1, 1, 1), enter("b", 0, 1, 2, 1)]),
    "one token for two": ("G2", [enter("a", 0, 1, 1, 1, 0.1), enter("b", 5, 6, 1, 2)]),
    "a token that goes back": ("G2", [lock("a", 0, 1, 7, 0.1), lock("b", 5, 6, 3)]),
    "two shown different owners": (
        "C2",
        [
            enter("a", 0, 1, 1, 1),
            op("b", Kind.CHECKIN, 2, 3, Outcome.REFUSED, seen=saw_a(9)),
        ],
    ),
    "an owner out of thin air": (
        "C3",
        [op("b", Kind.CHECKIN, 2, 3, Outcome.REFUSED, seen=Seen(status="running", attempt=1, token=1, request="q-x"))],
    ),
    "two holders at once": ("G3", [lock("a", 0, 1, 1), lock("b", 2, 3, 2)]),
    "one request given two leases at once": ("G3", [lock("a", 0, 1, 1), lock("a", 2, 3, 2)]),
    "two holders after a renewal": (
        "G3",
        [
            lock("a", 0, 0.1, 1, 1.0),
            op("a", Kind.RENEW, 0.5, 0.6, Outcome.DONE, token=1, lease=5.0),
            lock("b", 2, 2.1, 2),
        ],
    ),
    "a refusal for no reason": ("L6", [op("b", Kind.LOCK, 2, 3, Outcome.REFUSED)]),
    "a refusal after the unlock": (
        "L6",
        [lock("a", 0, 1, 1), unlock("a", 1, 2, 1), op("b", Kind.LOCK, 3, 4, Outcome.REFUSED)],
    ),
    "a refusal by oneself": (
        "L6",
        [op("b", Kind.LOCK, 2, 3, Outcome.UNKNOWN, lease=10.0), op("b", Kind.LOCK, 3, 4, Outcome.REFUSED)],
    ),
    "lost while held": (
        "L7",
        [lock("a", 0, 1, 1), op("a", Kind.RENEW, 2, 3, Outcome.LOST, token=1, lease=10.0)],
    ),
    "an unlock refused while held": ("L7", [lock("a", 0, 1, 1), unlock("a", 2, 3, 1, Outcome.LOST)]),
    "a check-out refused though nobody came after": (
        "L7",
        [enter("a", 0, 1, 1, 1, 0.5), leave("a", 5, 6, 1, Outcome.LOST)],
    ),
    "a stale check-out accepted": (
        "G4",
        [enter("a", 0, 1, 1, 1, 0.5), enter("b", 5, 6, 2, 2), leave("a", 7, 8, 1)],
    ),
    "a stale renewal accepted": (
        "G4",
        [lock("a", 0, 1, 1, 0.5), lock("b", 5, 6, 2), op("a", Kind.RENEW, 7, 8, Outcome.DONE, token=1, lease=1.0)],
    ),
    "a stale unlock accepted": ("G4", [lock("a", 0, 1, 1, 0.5), lock("b", 5, 6, 2), unlock("a", 7, 8, 1)]),
    "two check-outs of one attempt": (
        "G6",
        [enter("a", 0, 1, 1, 1), leave("a", 2, 3, 1), leave("a", 4, 5, 1, own="another")],
    ),
    "admitted after the end": ("G6", [enter("a", 0, 1, 1, 1), leave("a", 2, 3, 1), enter("b", 4, 5, 2, 2)]),
    "an update that was lost": ("L4", [write("a", 0, 1), write("b", 1, 1)]),
    "a counter that jumped": ("L4", [write("a", 0, 1), write("b", 1, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    guarantee, history = PLANTED[name]
    report = judge(history)
    assert report.judgement is Judgement.VIOLATED
    assert guarantee in {finding.guarantee for finding in report.findings}
    assert all(finding.evidence for finding in report.findings)


def test_more_running_than_allowed_is_found() -> None:
    history = [claim("a", 0, 1, "job/1", 0), claim("b", 0, 1, "job/2", 1), claim("c", 0, 1, "job/3", 2)]
    assert judge(history, limits={"job": 3}).judgement is Judgement.HOLDS
    assert [finding.guarantee for finding in judge(history, limits={"job": 2}).findings] == ["G12"]


def test_a_claim_out_of_order_is_found() -> None:
    history = [submitted("j/1"), submitted("j/2"), claim("a", 1, 2, "j/2", 2), claim("b", 3, 4, "j/1", 1)]
    assert [finding.guarantee for finding in judge(history, ordered=True).findings] == ["G13"]
    overlapping = [submitted("j/1"), submitted("j/2"), claim("a", 1, 4, "j/2", 2), claim("b", 3, 5, "j/1", 1)]
    assert judge(overlapping, ordered=True).judgement is Judgement.HOLDS


def test_a_claimed_run_is_judged_by_the_first_answer_that_brought_it() -> None:
    backlog = [submitted("j/1"), submitted("j/2"), submitted("j/3")]
    first, anew = claim("a", 1, 2, "j/1", 1), claim("a", 1, 9, "j/3", 3)
    assert first.call == anew.call
    history = [*backlog, first, anew, claim("b", 3, 4, "j/2", 2)]
    assert judge(history, ordered=True).judgement is Judgement.HOLDS
    batch = [claim("a", 1, 2, "j/1", 1), claim("a", 1, 2, "j/2", 2)]
    repeated = [*backlog, *batch, *(replace(each, inv=3.0, ret=4.0) for each in batch)]
    assert judge(repeated, ordered=True).judgement is Judgement.HOLDS


HEALTHY: dict[str, list[Op]] = {
    "one after the other": [lock("a", 0, 1, 1), unlock("a", 2, 3, 1), lock("b", 4, 5, 2), unlock("b", 6, 7, 2)],
    "taken over after the lapse": [
        enter("a", 0, 1, 1, 1, 2.0),
        op(
            "b", Kind.CHECKIN, 1.1, 1.2, Outcome.REFUSED, seen=Seen(status="running", attempt=1, token=1, request="q-a")
        ),
        enter("c", 3.1, 3.2, 2, 2),
        leave("a", 4, 5, 1, Outcome.LOST),
        leave("c", 5, 6, 2),
    ],
    "a late check-out that nobody took over": [enter("a", 0, 1, 1, 1, 0.5), leave("a", 7, 8, 1)],
    "an unknown acquire that was applied": [
        op("a", Kind.LOCK, 0, NEVER, Outcome.UNKNOWN, lease=10.0),
        op("b", Kind.LOCK, 5, 6, Outcome.REFUSED),
        lock("c", 20, 21, 2),
    ],
    "an unknown acquire that was asked again": [
        op("a", Kind.LOCK, 0, 1, Outcome.UNKNOWN, lease=10.0),
        lock("a", 2, 3, 1),
        unlock("a", 3, 4, 1),
        lock("b", 5, 6, 2),
    ],
    "a request that was sent again, and came when others had had the lock since": [
        lock("a", 0, 0.1, 1, 1.0),
        lock("b", 1.2, 1.3, 2, 1.0),
        unlock("b", 1.4, 1.5, 2),
        lock("a", 0.2, 2.0, 3, 1.0),
        op("c", Kind.LOCK, 2.5, 2.6, Outcome.REFUSED),
        op("a", Kind.RENEW, 2.7, 2.8, Outcome.DONE, token=3, lease=1.0),
        op("c", Kind.LOCK, 3.5, 3.6, Outcome.REFUSED, request="q-c2"),
        unlock("a", 3.65, 3.7, 3),
        lock("c", 3.8, 3.9, 4, request="q-c3"),
    ],
    "the same, and nobody heard the answer": [
        lock("a", 0, 0.1, 1, 1.0),
        lock("b", 1.2, 1.3, 2, 1.0),
        unlock("b", 1.4, 1.5, 2),
        op("a", Kind.LOCK, 0.2, 2.0, Outcome.UNKNOWN, lease=1.0),
        op("c", Kind.LOCK, 2.5, 2.6, Outcome.REFUSED),
    ],
    "an unknown renewal": [
        lock("a", 0, 0.1, 1, 1.0),
        op("a", Kind.RENEW, 0.5, 0.6, Outcome.UNKNOWN, token=1, lease=1.0),
        op("b", Kind.LOCK, 1.3, 1.4, Outcome.REFUSED),
        lock("b", 2, 2.1, 2),
    ],
    "a check-out sent twice": [
        enter("a", 0, 1, 1, 1, 0.5),
        leave("a", 2, 3, 1, Outcome.UNKNOWN, ending="retry"),
        enter("b", 4, 5, 2, 2),
        leave("a", 6, 7, 1, ending="retry"),
    ],
    "lost to a claim of which nobody heard again": [
        enter("a", 0, 1, 1, 1, 0.5),
        op("b", Kind.CLAIM, 2, NEVER, Outcome.UNKNOWN, resource="", lease=1.0),
        leave("a", 5, 6, 1, Outcome.LOST),
    ],
    "a counter": [write("a", 0, 1), write("b", 1, 2), write("a", 2, 3)],
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_history_is_not_accused(name: str) -> None:
    report = judge(HEALTHY[name])
    assert report.findings == []
    assert report.judgement is Judgement.HOLDS


def simulated(rng: random.Random, count: int) -> list[Op]:
    """What clients of a perfect lock see: each request takes effect at one moment between asking and answer."""
    history, now = [], 0.0
    for number, token in enumerate(range(1, count + 1)):
        client, lease = f"c{rng.randrange(5)}", rng.choice((0.5, 2.0))
        granted = lock(client, now - rng.random() * 0.2, now + rng.random() * 0.2, token, lease, request=f"q{number}")
        history.append(granted)
        moment = now + rng.random() * lease
        for other in range(rng.randrange(3)):
            inv = now + rng.random() * (moment - now)
            history.append(op(f"x{other}", Kind.LOCK, inv, inv + 0.01, Outcome.REFUSED, request=f"b{number}-{other}"))
        if rng.random() < 0.5:
            history.append(
                op(client, Kind.UNLOCK, moment, moment + 0.1, Outcome.DONE, token=token, request=f"q{number}")
            )
            now = moment + 0.05
        else:
            now += lease + 0.01
    return history


@pytest.mark.parametrize("seed", range(20))
def test_a_perfect_lock_is_never_accused_and_every_pushed_grant_is(seed: int) -> None:
    rng = random.Random(seed)
    history = simulated(rng, 60)
    assert judge(history).findings == []
    grants = [index for index, each in enumerate(history) if each.outcome is Outcome.GRANTED]
    victim = history[rng.choice(grants[:-1])]
    assert victim.token is not None
    thief = lock("thief", victim.ret + 0.001, victim.ret + 0.002, 10_000, request="stolen")
    held = [each for each in history if each.request == victim.request and each.kind is Kind.UNLOCK]
    end = min([each.inv for each in held] + [victim.inv + (victim.lease or 0)])
    if thief.ret < end - 0.01:
        found = {finding.guarantee for finding in judge([*history, thief]).findings}
        assert "G3" in found


def test_the_checker_gives_up_in_time() -> None:
    assert judge(HEALTHY["a counter"], until=0.0).judgement is Judgement.OUT_OF_TIME


def test_every_promise_that_was_evaluated_is_counted() -> None:
    counts = judge(HEALTHY["taken over after the lapse"]).evaluated
    assert counts["G1"] == 2
    assert counts["G3"] == 1
    assert counts["L6"] == 1
    assert counts["L7"] == 1
    assert judge([]).evaluated == {}


def test_the_picture_has_a_lane_per_client_and_a_number_per_operation() -> None:
    history = [lock("ann", 0, 1, 1), lock("bob", 2, 3, 2), replace(lock("cid", 9, 10, 3), resource="other")]
    finding = judge(history).findings[0]
    ops = shown(finding.evidence, history)
    picture = lanes(ops)
    assert [line.split()[0] for line in picture.splitlines()] == ["ann", "bob"]
    assert "[1" in picture
    assert "[2" in picture
    assert "0.0 to 1000.0 ms  ann.lock(r, q-ann) -> granted token 1" in lines(ops)[0]
