"""The expressions that pipelines share: the store's now, tokens and sequences, as the server evaluates them.

A *token* is one more than the record's last, and never less than the replica set's cluster time in milliseconds times
1,024. The cluster time is a hybrid logical clock: it is at least that of every write before it, also after a jump of
the wall clock and after a failover. A purge leaves the last token in a tombstone for a day, so an operation that was
delayed in the server, or between reading the time and inserting, for less than that still counts on from it. What removes
the tombstone is itself a write, with a cluster time of a day later, so whoever comes after it is ahead. So tokens
strictly increase across purges, and nothing stays behind for ever. A standalone server has no cluster time; there the
wall clock is taken, and tombstones stay.

A *sequence* is the cluster time to the increment, which grows with each write of the replica set: of two submissions
that do not overlap, the later has the larger one. Those that do are told apart by a few random bits, and a unique
index sees to it that no two are equal. Where there is no increment (before MongoDB 5.1, or standalone), it is the
millisecond, and never less than the last one that this process was given.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

#: Documents and expressions as the driver takes and gives them: the one place where its untyped values come in.
Doc: TypeAlias = dict[str, Any]

#: The lease of who never lapses ends at the end of all dates, so that one comparison answers for all.
NEVER = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
NOW = "$$NOW"

_CLUSTER_TIME = "$$CLUSTER_TIME"
_TOKENS_PER_MS = 1_024
#: Sequences count from 2020 and stay below 2**53 until the year 2054: seconds, 23 bits for what is within one.
_EPOCH = 1_577_836_800
_SECOND_BITS, _TIE_BITS, _MS_BITS = 23, 9, 13


class Terms:
    """What the server at hand can evaluate.

    Attributes:
        replicated: it has a cluster time.
        counted: expressions may use its increment.
        ranges: ``$expr`` comparisons use indexes.
    """

    def __init__(self, *, replicated: bool, version: tuple[int, ...]) -> None:
        self.replicated = replicated
        self.counted = replicated and version >= (5, 1)
        self.ranges = version >= (5, 0)
        clock = {"$toDate": _CLUSTER_TIME} if replicated else NOW
        self.token: Doc = {
            "$max": [
                {"$add": [{"$ifNull": ["$token", 0]}, 1]},
                {"$multiply": [{"$toLong": clock}, _TOKENS_PER_MS]},
            ]
        }
        self._floor = 0

    @property
    def now(self) -> object:
        """The store's clock."""
        return NOW

    def seen(self, sequence: int) -> None:
        """The store has given this sequence; smaller ones are not given to this process any more."""
        if sequence > self._floor:
            self._floor = sequence

    def sequence(self, index: int = 0, tie: int | None = None) -> Doc:
        """The sequence of the ``index``-th run of a batch, whose runs share ``tie``."""
        if self.counted:
            return {
                "$add": [
                    {"$multiply": [{"$subtract": [{"$tsSecond": _CLUSTER_TIME}, _EPOCH]}, 1 << _SECOND_BITS]},
                    {"$multiply": [{"$tsIncrement": _CLUSTER_TIME}, 1 << _TIE_BITS]},
                    (self.tie() if tie is None else tie) + index,
                ]
            }
        ms = {"$multiply": [{"$subtract": [{"$toLong": NOW}, _EPOCH * 1_000]}, 1 << _MS_BITS]}
        return {"$add": [{"$max": [{"$add": [ms, self.tie() if tie is None else tie]}, self._floor + 1]}, index]}

    def tie(self) -> int:
        """A few random bits."""
        return secrets.randbits(_TIE_BITS)

    def after(self, ms: int) -> object:
        """So many milliseconds after now."""
        return {"$add": [self.now, ms]}

    def past(self, field: str) -> Doc:
        """A condition: the instant in ``field`` is not after now."""
        return {"$expr": {"$lte": [f"${field}", self.now]}}

    def future(self, field: str) -> Doc:
        """A condition: the instant in ``field`` is after now."""
        return {"$expr": {"$gt": [f"${field}", self.now]}}


class Moment(NamedTuple):
    """What the server has made of ``Terms`` at one moment: they are values now, for documents that are absent."""

    now: datetime
    token: int
    first: int

    def after(self, ms: int) -> datetime:
        """So many milliseconds after now."""
        return self.now + timedelta(milliseconds=ms)

    def sequence(self, index: int) -> int:
        """The sequence of the ``index``-th run of a batch."""
        return self.first + index


def literal(value: object) -> Doc:
    """A value of the user's, whatever it looks like."""
    return {"$literal": value}
