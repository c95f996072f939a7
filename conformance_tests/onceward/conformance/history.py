"""What concurrent clients did and were told, and when: the raw material of the checker.

Times are seconds of CLOCK_MONOTONIC, which all threads and processes of a machine share. ``inv`` is read before the
request is sent, ``ret`` after its answer has come; whatever the store did happened in between.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onceward.contracts.records import Record

#: The return of a request whose answer never came.
NEVER = 1e18


class Kind(enum.StrEnum):
    """What was asked."""

    CHECKIN = "checkin"
    CLAIM = "claim"
    LOCK = "lock"
    RENEW = "renew"
    CHECKOUT = "checkout"
    UNLOCK = "unlock"
    SUBMIT = "submit"
    READ = "read"
    """Of the register that a lock guards; its fence is raised to the token."""
    WRITE = "write"

    @property
    def acquires(self) -> bool:
        """True if it asks for a lease."""
        return self in (Kind.CHECKIN, Kind.CLAIM, Kind.LOCK)

    @property
    def ends(self) -> bool:
        """True if it gives a lease back."""
        return self in (Kind.CHECKOUT, Kind.UNLOCK)


class Outcome(enum.StrEnum):
    """What was answered."""

    GRANTED = "granted"
    REFUSED = "refused"
    DONE = "done"
    LOST = "lost"
    """The token was stale, said the store."""
    FAILED = "failed"
    """Definitely not done."""
    UNKNOWN = "unknown"
    """No answer, or one that leaves it open."""


class Seen(Record, frozen=True, kw_only=True):
    """The run that a refused check-in was shown: its status, and its latest attempt."""

    status: str
    attempt: int = 0
    token: int = 0
    request: str = ""


class Op(Record, frozen=True, kw_only=True):
    """One request about one resource.

    Attributes:
        request: id of the request that acquired the lease (or wanted to): what names a hold.
        own: id of the check-out request, for check-outs.
        lease: seconds that were asked for, for what acquires and renews.
        call: of claims, which belong together; rank: the claimed run's place in the order.
        value: of reads and writes.
    """

    client: str
    kind: Kind
    resource: str
    request: str
    inv: float
    ret: float
    outcome: Outcome
    token: int | None = None
    attempt: int | None = None
    lease: float | None = None
    ending: str = ""
    own: str = ""
    seen: Seen | None = None
    call: str = ""
    rank: tuple[int, float, int] | None = None
    value: int | None = None

    def __str__(self) -> str:
        token = f" token {self.token}" if self.token is not None else ""
        attempt = f" attempt {self.attempt}" if self.attempt is not None else ""
        ending = f" {self.ending}" if self.ending else ""
        value = f" value {self.value}" if self.value is not None else ""
        seen = f" (saw {self.seen.status}, attempt {self.seen.attempt}, token {self.seen.token})" if self.seen else ""
        return (
            f"{self.client}.{self.kind.value}({self.resource}{ending}, {self.own or self.request}) -> "
            f"{self.outcome.value}{token}{attempt}{value}{seen}"
        )


@dataclass(frozen=True)
class Hold:
    """What a request's operations say about the time in which it held its resource.

    Attributes:
        begun, ended: it held the resource for certain from ``begun`` to ``ended`` (none: ``begun >= ended``).
        first, last: it can have held it at most from ``first`` to ``last``.
    """

    request: str
    grant: Op | None
    first: float
    begun: float
    ended: float
    last: float
    ops: tuple[Op, ...]

    @property
    def certain(self) -> bool:
        """True if there is a time at which it held the resource for sure."""
        return self.begun < self.ended


def by_resource(history: Iterable[Op]) -> Mapping[str, list[Op]]:
    """The operations about each resource, by time of asking."""
    found: dict[str, list[Op]] = defaultdict(list)
    for op in history:
        found[op.resource].append(op)
    for ops in found.values():
        ops.sort(key=lambda op: op.inv)
    return found


#: Clocks are read in milliseconds, so a lease may seem to end a little early; by no trait may it end earlier.
EARLY = 0.004


def holds(ops: Sequence[Op], slack: float) -> list[Hold]:
    """The holds that the operations about one resource tell of, by the time of their first request."""
    grouped: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        grouped[op.request].append(op)
    leases = [lease for group in grouped.values() for lease in _leases(group)]
    found = [hold for lease in leases if (hold := _hold(lease, slack)) is not None]
    found.sort(key=lambda hold: hold.first)
    return found


def _leases(group: Sequence[Op]) -> list[Sequence[Op]]:
    """A request's operations by the lease that they are about. Mostly it was given one.

    But a copy of it that comes when that lease is over, and somebody else had the resource since, is a request anew.
    What was asked without an answer counts for each of the leases: it may have been for any.
    """
    tokens = {op.token for op in group if op.kind.acquires and op.outcome is Outcome.GRANTED}
    if len(tokens) < 2:
        return [group]
    vague = [op for op in group if op.kind.acquires and op.outcome is Outcome.UNKNOWN]
    return [[*vague, *(op for op in group if op.token == token)] for token in tokens]


def _hold(group: Sequence[Op], slack: float) -> Hold | None:
    asked = [op for op in group if op.kind.acquires]
    granted = [op for op in asked if op.outcome is Outcome.GRANTED]
    open_ended = [op for op in asked if op.outcome is Outcome.UNKNOWN]
    if not granted and not open_ended:
        return None
    grant = min(granted, key=lambda op: op.ret) if granted else None
    lease = asked[0].lease if asked[0].lease is not None else NEVER
    first = min(op.inv for op in asked)
    begun = grant.ret if grant is not None else NEVER
    heard = open_ended if grant is None else [*open_ended, grant]
    latest = max(op.ret for op in heard)  # what was asked again may have been given again
    ended, last = first + lease - EARLY, latest + lease + slack
    for op in group:
        if op.kind is Kind.RENEW and op.outcome in (Outcome.DONE, Outcome.UNKNOWN):
            length = op.lease if op.lease is not None else lease
            ended = op.inv + length - EARLY if op.outcome is Outcome.DONE else min(ended, op.inv + length - EARLY)
            last = max(last, op.ret + length + slack)
    for op in group:
        if op.kind.ends and op.outcome is not Outcome.FAILED:
            ended = min(ended, op.inv)
            last = min(last, op.ret) if op.outcome is Outcome.DONE else last
    return Hold(asked[0].request, grant, first, begun, ended, last, tuple(group))
