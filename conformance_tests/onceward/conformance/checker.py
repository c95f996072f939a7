"""From a history to a verdict, in O(n log n): tokens give the order, so sweeps suffice.

Every check errs on the safe side: it accuses the store only of what no order of events inside the operations' times
can explain. What a check relies on is written above it.
"""

from __future__ import annotations

import enum
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onceward.conformance.history import NEVER, Hold, Kind, Op, Outcome, by_resource, holds

TERMINAL = ("succeeded", "failed", "cancelled")


class Judgement(enum.StrEnum):
    """The three answers."""

    HOLDS = "holds"
    VIOLATED = "violated"
    OUT_OF_TIME = "ran out of time"


@dataclass(frozen=True)
class Finding:
    """One accusation, with the operations that prove it."""

    guarantee: str
    resource: str
    message: str
    evidence: tuple[Op, ...]


@dataclass
class Report:
    """What the checker found, and how often each promise was evaluated."""

    slack: float
    blind_from: float = NEVER
    """When the first claim was sent of which nobody knows what it took: from then on anything may be held unseen."""
    judgement: Judgement = Judgement.HOLDS
    findings: list[Finding] = field(default_factory=list)
    evaluated: Counter[str] = field(default_factory=Counter)

    def look(self, guarantee: str, holds: bool, resource: str, message: str, *evidence: Op) -> None:
        """The promise was evaluated once more."""
        self.evaluated[guarantee] += 1
        if not holds:
            self.judgement = Judgement.VIOLATED
            self.findings.append(Finding(guarantee, resource, message, evidence))


def judge(
    history: Sequence[Op],
    *,
    slack: float = 0.005,
    limits: Mapping[str, int] | None = None,
    ordered: bool = False,
    until: float | None = None,
) -> Report:
    """What the history proves.

    Args:
        history: in any order.
        slack: seconds by which leases may end late: the store's granularity and slack.
        limits: most live leases per job (the part of a run's resource name before ``/``).
        ordered: the claims wanted everything, without limits of their own, so that their order tells something.
        until: monotonic time at which to give up.
    """
    unknown = [op.inv for op in history if op.kind is Kind.CLAIM and not op.resource and op.outcome is Outcome.UNKNOWN]
    report = Report(slack, min(unknown, default=NEVER))
    grouped = by_resource(op for op in history if op.resource)
    by_name = {resource: holds(ops, slack) for resource, ops in grouped.items()}
    for resource, ops in grouped.items():
        if until is not None and time.monotonic() > until:
            if report.judgement is Judgement.HOLDS:
                report.judgement = Judgement.OUT_OF_TIME
            return report
        for check in _CHECKS:
            check(report, resource, ops, by_name[resource])
    for job, most in (limits or {}).items():
        _within_limit(report, job, most, [h for name, hs in by_name.items() if name.split("/")[0] == job for h in hs])
    if ordered:
        _in_order(report, history)
    return report


def _unique_admission(report: Report, resource: str, ops: Sequence[Op], _: Sequence[Hold]) -> None:
    """An attempt, and a token, belong to one request; relies on repetitions carrying the same request id."""
    owners: dict[tuple[str, int], Op] = {}
    for op in ops:
        if not op.kind.acquires or op.outcome is not Outcome.GRANTED:
            continue
        for guarantee, what, number in (("G1", "attempt", op.attempt), ("G2", "token", op.token)):
            if number is None:
                continue
            other = owners.setdefault((what, number), op)
            message = f"{what} {number} was granted to {other.client} and to {op.client}"
            report.look(guarantee, other.request == op.request, resource, message, other, op)


def _agreement(report: Report, resource: str, ops: Sequence[Op], _: Sequence[Hold]) -> None:
    """Whoever is shown an attempt, is shown the same token and request, and one that somebody had sent by then."""
    told: dict[int, tuple[int, str, Op]] = {}
    sent: dict[str, float] = {}
    for op in ops:
        if op.kind.acquires:
            sent[op.request] = min(op.inv, sent.get(op.request, op.inv))
    for op in ops:
        for attempt, token, request in _shown(op):
            first = told.setdefault(attempt, (token, request, op))
            agrees = first[:2] == (token, request)
            message = f"attempt {attempt} was shown with token {first[0]} of {first[1]}, and with {token} of {request}"
            report.look("C2", agrees, resource, message, first[2], op)
            known = sent.get(request, op.ret + 1) <= op.ret
            message = f"{op.client} was shown the request {request}, which nobody had sent yet"
            report.look("C3", known, resource, message, op)


def _shown(op: Op) -> Iterator[tuple[int, int, str]]:
    if op.kind.acquires and op.outcome is Outcome.GRANTED and op.attempt is not None and op.token is not None:
        yield op.attempt, op.token, op.request
    if op.seen is not None and op.seen.attempt:
        yield op.seen.attempt, op.seen.token, op.seen.request


def _token_order(report: Report, resource: str, _: Sequence[Op], held: Sequence[Hold]) -> None:
    """A lease that was granted before another was asked for has the smaller token."""
    grants = [(hold.first, hold.grant) for hold in held if hold.grant is not None and hold.grant.token is not None]
    events = [(op.ret, 1, op) for _, op in grants] + [(first, 0, op) for first, op in grants]
    events.sort(key=lambda event: event[:2])
    newest: Op | None = None
    for _time, returned, op in events:
        if returned:
            if newest is None or _token(op) > _token(newest):
                newest = op
        elif newest is not None:
            message = f"token {op.token} was granted after token {newest.token}"
            report.look("G2", _token(op) > _token(newest), resource, message, newest, op)


def _token(op: Op) -> int:
    return -1 if op.token is None else op.token


def _exclusive(report: Report, resource: str, _: Sequence[Op], held: Sequence[Hold]) -> None:
    """Two leases never overlap: not for the time in which each was held for certain."""
    sure = sorted((hold for hold in held if hold.certain), key=lambda hold: hold.begun)
    latest: Hold | None = None
    for hold in sure:
        if latest is not None:
            message = (
                f"{_client(latest)} held it with token {_of(latest)} for {latest.ended - hold.begun:.3f} s more "
                f"when {_client(hold)} was granted token {_of(hold)}"
            )
            report.look("G3", hold.begun >= latest.ended, resource, message, *latest.ops, *hold.ops)
        if latest is None or hold.ended > latest.ended:
            latest = hold


def _client(hold: Hold) -> str:
    return hold.ops[0].client


def _of(hold: Hold) -> int | None:
    return None if hold.grant is None else hold.grant.token


def _justified_refusals(report: Report, resource: str, ops: Sequence[Op], held: Sequence[Hold]) -> None:
    """Whoever was told that it is held was told so while somebody else can have held it."""
    starts = [hold.first for hold in held]
    tops = _two_latest(held)
    for op in ops:
        busy = op.outcome is Outcome.REFUSED and (op.seen is None or op.seen.status == "running")
        if not (busy and op.kind in (Kind.LOCK, Kind.CHECKIN)):
            continue
        before = bisect_right(starts, op.ret) - 1
        reasons = tops[before] if before >= 0 else ()
        others = any(hold.request != op.request and hold.last >= op.inv for hold in reasons)
        justified = others or report.blind_from < op.ret
        message = f"{op.client} was refused, though nobody else can have held it then"
        report.look("L6", justified, resource, message, op)


def _late_copies(report: Report, resource: str, ops: Sequence[Op], _: Sequence[Hold]) -> None:
    """Whoever was told that its own hold is over already had sent the request before, and it can be over."""
    own: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        own[op.request].append(op)
    for op in ops:
        if op.kind is not Kind.LOCK or op.outcome is not Outcome.LOST:
            continue
        others = [other for other in own[op.request] if other is not op]
        earlier = holds(others, report.slack)
        gave_back = any(other.kind.ends and other.inv < op.ret for other in others)
        possible = bool(earlier) and (gave_back or op.ret >= max(hold.ended for hold in earlier))
        message = f"{op.client} was told that its request is late, though it was not held before, or is held still"
        report.look("L6", possible, resource, message, op, *others)


def _two_latest(held: Sequence[Hold]) -> list[tuple[Hold, ...]]:
    """For each prefix of the holds, the two that can have lasted longest, of two requests: one is not the asker's."""
    tops: list[tuple[Hold, ...]] = []
    best: tuple[Hold, ...] = ()
    for hold in held:
        longest: dict[str, Hold] = {}
        for each in sorted((*best, hold), key=lambda each: -each.last):
            longest.setdefault(each.request, each)
        best = tuple(longest.values())[:2]
        tops.append(best)
    return tops


def _truthful_loss(report: Report, resource: str, ops: Sequence[Op], held: Sequence[Hold]) -> None:
    """Told "lost" means that it can have been lost: by lapse, or (a check-out) by somebody's later admission."""
    own = {(hold.request, _of(hold)): hold for hold in held}
    latecomers = sorted((hold.first, _of(hold) or 2**63, hold.request) for hold in held)
    newest = _running_max(latecomers)
    for op in ops:
        hold = own.get((op.request, op.token)) or own.get((op.request, None))
        if op.outcome is not Outcome.LOST or hold is None or op.kind not in (Kind.RENEW, Kind.UNLOCK, Kind.CHECKOUT):
            continue
        gave_back = any(o is not op and o.kind.ends and o.own != op.own and o.inv < op.ret for o in hold.ops)
        gave_back = gave_back or any(o is not op and o.kind is Kind.UNLOCK and o.inv < op.ret for o in hold.ops)
        if op.kind is Kind.CHECKOUT:
            index = bisect_right(latecomers, (op.ret, 2**64, "")) - 1
            superseded = index >= 0 and newest[index] > (op.token or 0)
            possible = superseded or gave_back or report.blind_from < op.ret
        else:
            unheard = holds([other for other in hold.ops if other is not op], report.slack)
            possible = gave_back or op.ret >= max(each.ended for each in unheard)
        message = f"{op.client} was told that token {op.token} is lost, though it was held for certain"
        report.look("L7", possible, resource, message, *hold.ops)


def _running_max(latecomers: Sequence[tuple[float, int, str]]) -> list[int]:
    found, most = [], -1
    for _, token, _request in latecomers:
        most = max(most, token)
        found.append(most)
    return found


def _no_stale_write(report: Report, resource: str, ops: Sequence[Op], held: Sequence[Hold]) -> None:
    """Nothing is accepted from a token when a larger one had been granted before it was sent."""
    granted = sorted((hold.grant.ret, _token(hold.grant)) for hold in held if hold.grant is not None)
    times = [moment for moment, _ in granted]
    newest: list[int] = []
    for _, token in granted:
        newest.append(max(token, newest[-1] if newest else -1))
    for op in _first_sent(ops):
        if op.kind not in (Kind.RENEW, Kind.CHECKOUT, Kind.UNLOCK) or op.token is None:
            continue
        index = bisect_right(times, op.inv) - 1
        stale = index >= 0 and newest[index] > op.token
        message = f"{op.client}'s {op.kind.value} with token {op.token} was accepted after token {newest[index]}"
        accepted = op.outcome is Outcome.DONE
        if stale or accepted:
            report.look("G4", not (stale and accepted), resource, message, op)


def _first_sent(ops: Sequence[Op]) -> Iterator[Op]:
    """Each operation, but a check-out that was sent again counts from its first sending."""
    sent: dict[str, float] = {}
    for op in ops:
        if op.kind is Kind.CHECKOUT and sent.setdefault(op.own, op.inv) != op.inv:
            continue
        yield op


def _one_checkout(report: Report, resource: str, ops: Sequence[Op], _: Sequence[Hold]) -> None:
    """One check-out per attempt is accepted, and after one that is final nothing is admitted."""
    accepted: dict[int | None, Op] = {}
    final: Op | None = None
    for op in ops:
        if op.kind is not Kind.CHECKOUT or op.outcome is not Outcome.DONE:
            continue
        other = accepted.setdefault(op.token, op)
        message = f"two check-outs of token {op.token} were accepted"
        report.look("G6", other.own == op.own, resource, message, other, op)
        if op.ending in TERMINAL and (final is None or _token(op) < _token(final)):
            final = op
    if final is None:
        return
    for op in ops:
        if op.kind.acquires and op.outcome is Outcome.GRANTED:
            message = f"{op.client} was admitted with token {op.token} after token {final.token} had ended it"
            fine = _token(op) <= _token(final)
            report.look("G6", fine, resource, message, final, op)


def _register(report: Report, resource: str, ops: Sequence[Op], _: Sequence[Hold]) -> None:
    """No write is accepted after a larger token was seen, and every accepted one counts one further."""
    writes = [op for op in ops if op.kind is Kind.WRITE and op.outcome is Outcome.DONE]
    values: dict[int, Op] = {}
    for op in writes:
        assert op.value is not None  # every write has one
        other = values.setdefault(op.value, op)
        message = f"value {op.value} was written twice: an update was lost"
        report.look("L4", other is op, resource, message, other, op)
    if writes:
        open_ended = sum(op.kind is Kind.WRITE and op.outcome is Outcome.UNKNOWN for op in ops)
        top = max(writes, key=lambda op: op.value or 0)
        message = f"the counter stands at {top.value} after {len(writes)} accepted increments"
        fine = top.value is not None and len(writes) <= top.value <= len(writes) + open_ended
        report.look("L4", fine, resource, message, *writes[-6:])


_CHECKS: tuple[Callable[[Report, str, Sequence[Op], Sequence[Hold]], None], ...] = (
    _unique_admission,
    _agreement,
    _token_order,
    _exclusive,
    _justified_refusals,
    _late_copies,
    _truthful_loss,
    _no_stale_write,
    _one_checkout,
    _register,
)


def _within_limit(report: Report, job: str, most: int, held: Sequence[Hold]) -> None:
    """Never more holds for certain at once than the job may have."""
    sure = [hold for hold in held if hold.certain]
    events = sorted([(h.begun, 1, i) for i, h in enumerate(sure)] + [(h.ended, 0, i) for i, h in enumerate(sure)])
    running: set[int] = set()
    for _, starts, index in events:
        (running.add if starts else running.discard)(index)
        if starts:
            message = f"{len(running)} runs of {job} were held at once, at most {most} may be"
            evidence = tuple(op for i in running for op in sure[i].ops)
            report.look("G12", len(running) <= most, job, message, *evidence)


def _in_order(report: Report, history: Sequence[Op]) -> None:
    """A claim that returned before another was sent got the better places; of runs submitted before any claim."""
    claims = [op for op in history if op.kind is Kind.CLAIM]
    if not claims:
        return
    opening = min(op.inv for op in claims)
    backlog = {
        op.resource for op in history if op.kind is Kind.SUBMIT and op.outcome is Outcome.DONE and op.ret < opening
    }
    # Each run by the first answer that brought it: later ones repeat it, or bring others, since a claim that is
    # repeated when it holds nothing any more is a claim anew.
    first: dict[tuple[str, str], Op] = {}
    for op in sorted(claims, key=lambda op: op.ret):
        if op.outcome is Outcome.GRANTED and op.attempt == 1 and op.resource in backlog and op.rank is not None:
            first.setdefault((op.call, op.resource), op)
    events = [(op.ret, 1, op) for op in first.values()] + [(op.inv, 0, op) for op in first.values()]
    worst: Op | None = None
    for _, returned, op in sorted(events, key=lambda event: event[:2]):
        if returned:
            worst = op if worst is None or _rank(op) > _rank(worst) else worst
        elif worst is not None:
            message = f"{op.resource} was claimed after {worst.resource}, which stands behind it"
            right = _rank(op) > _rank(worst)
            report.look("G13", right, op.resource, message, worst, op)


def _rank(op: Op) -> tuple[int, float, int]:
    assert op.rank is not None  # only ranked ones are compared
    return op.rank
