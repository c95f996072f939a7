"""The indexes, each with what it is for. They are made when a store is opened, and cost nothing when they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.database import Database

from onceward.contracts.records import PRIORITY_LOWEST
from onceward.runners.mongodb.terms import Doc

#: So long the last token of what was purged is kept.
_TOMBSTONES_KEPT_SECONDS = 24 * 60 * 60

_NS, _JOB = ("_id.ns", ASCENDING), ("_id.job", ASCENDING)
_CLAIM_ORDER = [("priority", DESCENDING), ("run_at", ASCENDING), ("seq", ASCENDING)]
_QUEUED: Doc = {"queued": True}
#: These two say more than a claim of one job asks for, so that such a claim cannot be led to their indexes.
_QUEUED_ANY: Doc = {"queued": True, "priority": {"$gte": PRIORITY_LOWEST}}
_SCHEDULED: Doc = {"queued": True, "status": "scheduled"}
_RUNNING: Doc = {"status": "running", "queued": False}

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    "runs": (
        # claims of one job; claims of any
        IndexModel([_NS, _JOB, *_CLAIM_ORDER], name="claim", partialFilterExpression=_QUEUED),
        IndexModel([_NS, *_CLAIM_ORDER], name="claim_any", partialFilterExpression=_QUEUED_ANY),
        # when the next run of a job becomes due, for watches
        IndexModel([_NS, _JOB, ("run_at", ASCENDING)], name="due", partialFilterExpression=_SCHEDULED),
        # leases by their end: those that have lapsed, those that live
        IndexModel([_NS, _JOB, ("until", ASCENDING)], name="leases", partialFilterExpression=_RUNNING),
        # what a claim holds, for its repetition
        IndexModel([_NS, ("claim", ASCENDING)], name="held", partialFilterExpression={"claim": {"$exists": True}}),
        # G12: no two runs of a job have the same place
        IndexModel(
            [_NS, _JOB, ("slot", ASCENDING)],
            name="slot",
            unique=True,
            partialFilterExpression={"slot": {"$exists": True}},
        ),
        # listings in the order of submission, and that no two submissions are equal
        IndexModel(
            [_NS, ("seq", ASCENDING)], name="sequence", unique=True, partialFilterExpression={"seq": {"$exists": True}}
        ),
        # purges: what has ended, the first to end first
        IndexModel(
            [_NS, _JOB, ("ended", ASCENDING), ("seq", ASCENDING)],
            name="ended",
            partialFilterExpression={"ended": {"$exists": True}},
        ),
        IndexModel([("gone", ASCENDING)], name="tombstones", sparse=True, expireAfterSeconds=_TOMBSTONES_KEPT_SECONDS),
    ),
    "locks": (
        IndexModel([_NS, ("_id.name", ASCENDING)], name="held", partialFilterExpression={"held": True}),
        IndexModel([_NS, ("until", ASCENDING)], name="until", partialFilterExpression={"until": {"$exists": True}}),
        IndexModel([("gone", ASCENDING)], name="tombstones", sparse=True, expireAfterSeconds=_TOMBSTONES_KEPT_SECONDS),
    ),
    "configs": (IndexModel([_NS, ("_id.name", ASCENDING)], name="names"),),
}


def ensure(database: Database[Doc]) -> None:
    """Collections and indexes are there."""
    for name, models in INDEXES.items():
        database[name].create_indexes(list(models))
