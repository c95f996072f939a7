"""Locks: exclusive rights to names. A document stays after its end, so that late copies of requests are recognised.

Each verb is one pipeline on one document, and one round trip; the moment is that of the write.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta

from pymongo import ReturnDocument, UpdateOne

from onceward.contracts.executor import Executor
from onceward.contracts.locking import LockEntry, known, state
from onceward.contracts.records import Lease, LockId, LockState
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.times import span, span_ms
from onceward.runners.mongodb import documents
from onceward.runners.mongodb.base import Base
from onceward.runners.mongodb.link import Link
from onceward.runners.mongodb.terms import Doc, Terms, literal


class LockPart(Base, Executor):
    """The part of ``Executor`` that is about locks."""

    def lock(self, request: LockRequest) -> LockAnswer:
        shown = self._settled(
            lambda: self._link.locks.find_one_and_update(
                {"_id": lock_key(self.namespace, request.lock)},
                _take(self._terms, request),
                self._shown(),
                upsert=True,
                return_document=ReturnDocument.AFTER,
            ),
            made="acquired",
        )
        found, now = entry_of(shown["doc"]), documents.now_of(shown["now"])
        return known(found, request, now) or LockAnswer(acquired=False)  # refused while it was held

    def unlock(self, lease: Lease) -> bool:
        if not isinstance(lease.resource, LockId):
            return False
        newest = {"_id": lock_key(self.namespace, lease.resource), **documents.proof(lease)}
        freed = [{"$set": {"held": {"$cond": [_live(self._terms), False, "$held"]}}}]
        with self._link.writing():
            doc = self._link.locks.find_one_and_update(newest, freed, return_document=ReturnDocument.AFTER)
        return doc is not None and not doc["held"]  # freed now, or before


def lock_key(ns: str, lock: LockId) -> Doc:
    """The ``_id`` of a lock. The order of its fields is part of it."""
    return {"ns": ns, "name": lock.name}


def _live(terms: Terms) -> Doc:
    """An expression: somebody holds the lock."""
    return {"$and": [{"$ifNull": ["$held", False]}, {"$gt": ["$until", terms.now]}]}


def _take(terms: Terms, request: LockRequest) -> list[Doc]:
    """The lock is the caller's, unless it is held or this is a late copy of its last holder's request.

    Guarantees G2, G3, G5.
    """
    ms = span_ms(request.lease)
    given = {"holder": request.holder, "request": request.request, "lease_ms": ms, "held": True, "note": request.note}
    taken = {"_id": "$_id", "token": terms.token, "until": terms.after(ms), "acquired": terms.now}
    refused = {"$or": [_live(terms), {"$eq": ["$request", literal(request.request)]}]}
    return [{"$replaceWith": {"$cond": [refused, "$$ROOT", {"$mergeObjects": [taken, literal(given)]}]}}]


def entry_of(doc: Doc) -> LockEntry:
    """The lock of a document."""
    until = documents.now_of(doc["until"]).elapsed
    lease = Lease(
        resource=LockId(doc["_id"]["name"]),
        holder=doc["holder"],
        token=int(doc["token"]),
        request=doc["request"],
        duration=span(doc["lease_ms"]),
        expires=doc["until"],
    )
    acquired = documents.now_of(doc["acquired"]).wall
    return LockEntry(lease=lease, until=until, acquired=acquired, held=doc["held"], note=doc.get("note"))


def renew(link: Link, terms: Terms, ns: str, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
    """Leases on locks end later; see ``Executor.renew``. One round trip for one; one more for many, to tell which."""
    mark = secrets.token_hex(8)
    keys, updates = [], []
    for each in renewals:
        assert isinstance(each.lease.resource, LockId)  # runs are renewed elsewhere
        keys.append(lock_key(ns, each.lease.resource))
        held = {"_id": keys[-1], "held": True, **documents.proof(each.lease), **terms.future("until")}
        updates.append(UpdateOne(held, _extension(terms, each.duration or each.lease.duration, mark)))
    with link.writing():
        if link.locks.bulk_write(updates, ordered=False).matched_count == len(updates):
            return [Renewed.HELD] * len(updates)
        extended = {doc["_id"]["name"]: doc for doc in link.locks.find({"_id": {"$in": keys}, "renewal": mark})}
    return [_renewed(extended.get(key["name"]), each.lease) for key, each in zip(keys, renewals, strict=True)]


def _renewed(doc: Doc | None, lease: Lease) -> Renewed:
    mine = doc is not None and (doc["token"], doc["request"]) == (lease.token, lease.request)
    return Renewed.HELD if mine else Renewed.LOST


def _extension(terms: Terms, duration: timedelta | None, mark: str) -> list[Doc]:
    ms: object = "$lease_ms" if duration is None else span_ms(duration)
    return [{"$set": {"lease_ms": ms, "until": {"$add": [terms.now, ms]}, "renewal": mark}}]


def force(link: Link, terms: Terms, ns: str, lock: LockId, token: int | None) -> Lease | None:
    """Nobody holds the lock any more; see ``Lifecycle.force_unlock``."""
    fence = {"$add": ["$token", 1]}
    held: Doc = {"_id": lock_key(ns, lock), "held": True, **terms.future("until")}
    if token is not None:
        held["token"] = documents.storable(token)
    fenced = {"held": False, "token": fence, "request": {"$concat": ["forced:", {"$toString": fence}]}}
    with link.writing():
        doc = link.locks.find_one_and_update(held, [{"$set": fenced}], return_document=ReturnDocument.BEFORE)
    return None if doc is None else entry_of(doc).lease


def held(link: Link, shown: Doc, ns: str) -> Sequence[LockState]:
    """Locks that are held; see ``Lifecycle.locks``."""
    with link.reading():
        found = list(link.locks.find({"_id.ns": ns, "held": True}, shown).sort("_id.name", 1))
    return [state(entry_of(each["doc"]), documents.now_of(each["now"])) for each in found]


def purge(link: Link, terms: Terms, ns: str, *, older_than_ms: int) -> None:
    """Locks that ended so long ago are forgotten, but for their tokens; see ``terms``."""
    over = {"$expr": {"$lte": ["$until", {"$subtract": [terms.now, older_than_ms]}]}}
    with link.writing():
        link.locks.update_many({"_id.ns": ns, **over}, [tombstone(terms)])


def tombstone(terms: Terms) -> Doc:
    """A stage: nothing is left but the token, and where there is a cluster time, that goes too after a day."""
    kept: Doc = {"_id": "$_id", "token": {"$max": ["$token", "$floor"]}}
    if terms.replicated:
        kept["gone"] = terms.now
    return {"$replaceWith": kept}
