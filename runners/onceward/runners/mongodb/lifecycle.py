"""The store itself: looking, cleaning up, and what only an operator does."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import UpdateOne

from onceward.contracts import transitions
from onceward.contracts.errors import StoreError
from onceward.contracts.lifecycle import Health, Lifecycle
from onceward.contracts.records import Lease, LockId, LockState, Run, RunId, Status
from onceward.contracts.requests import Purge, Rearm, RunQuery
from onceward.contracts.times import from_ms, span_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.mongodb import documents, locks
from onceward.runners.mongodb.base import Base
from onceward.runners.mongodb.locks import tombstone
from onceward.runners.mongodb.server import Server
from onceward.runners.mongodb.terms import Doc


class LifecyclePart(Base, Lifecycle):
    """``Lifecycle`` on the server, but for opening and closing it."""

    _server: Server

    def now(self) -> datetime:
        return self._server_time()

    def health(self) -> Health:
        started = time.perf_counter()
        details: dict[str, str | int | float | bool] = {"store": "mongodb", "where": self._link.where}
        try:
            hello = self._link.hello()
            details |= {
                "kind": self._server.kind,
                "version": ".".join(map(str, self._server.version)),
                "primary": str(hello.get("primary", hello.get("me", ""))),
                "writable": bool(hello.get("isWritablePrimary")),
            }
        except StoreError as error:
            details["reason"] = str(error)
        latency = timedelta(seconds=time.perf_counter() - started)
        return Health(ok="reason" not in details, latency=latency, details=details)

    def runs(self, query: RunQuery) -> Sequence[Run]:
        direction = 1 if query.oldest_first else -1
        with self._link.reading():
            found = list(self._link.runs.find(self._matching(query)).sort("seq", direction).limit(query.limit))
        return [documents.public(documents.entry_of(doc)) for doc in found]

    def _matching(self, query: RunQuery) -> Doc:
        seen: Doc = {"$gt": 0}
        if query.after is not None:
            seen = {"$gt": query.after} if query.oldest_first else {"$lt": query.after}
        match: Doc = {"_id.ns": self.namespace, "seq": seen, "status": {"$in": [each.value for each in query.statuses]}}
        if query.job is not None and query.key is not None:
            match["_id"] = self._stamps_of(query.job, query.key)
        for part, value in (("job", query.job), ("key", query.key), ("stamp", query.stamp)):
            if value is not None:
                match[f"_id.{part}"] = value
        if query.lapsed:
            match = {"$and": [match, {"status": "running"}, self._terms.past("until")]}
        return match

    def _stamps_of(self, job: str, key: str) -> Doc:
        """The range of ``_id`` in which this key of the job is, whatever its stamp."""
        first = {"ns": self.namespace, "job": job, "key": key}
        return {"$gte": {**first, "stamp": MinKey()}, "$lte": {**first, "stamp": MaxKey()}}

    def locks(self) -> Sequence[LockState]:
        return locks.held(self._link, self._shown(), self.namespace)

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        match: Doc = {"_id.ns": self.namespace, "seq": {"$gt": 0}}
        for part, value in (("job", job), ("stamp", stamp)):
            if value is not None:
                match[f"_id.{part}"] = value
        group = {"_id": {"job": "$_id.job", "status": "$status"}, "count": {"$sum": 1}}
        counts: dict[str, dict[Status, int]] = {}
        with self._link.reading():
            for found in self._link.runs.aggregate([{"$match": match}, {"$group": group}]):
                counts.setdefault(found["_id"]["job"], {})[Status(found["_id"]["status"])] = found["count"]
        return counts

    def purge(self, request: Purge) -> int:
        """See ``Lifecycle.purge``. What is left of a run for a day is its last token; see ``terms``."""
        older_than_ms = span_ms(request.older_than)
        locks.purge(self._link, self._terms, self.namespace, older_than_ms=older_than_ms)
        before = from_ms(max(0, to_ms(self._server_time()) - older_than_ms))
        jobs = [request.job] if request.job is not None else self._ended_jobs()
        with self._link.reading():
            sources = [self._doomed(job, request, before) for job in jobs]
            doomed = [doc for _, doc in zip(range(request.limit), heapq.merge(*sources, key=_end), strict=False)]
        if not doomed:
            return 0
        updates = [UpdateOne(documents.guard(doc), [tombstone(self._terms)]) for doc in doomed]
        with self._link.writing():
            return self._link.runs.bulk_write(updates, ordered=False).matched_count

    def _ended_jobs(self) -> Sequence[str]:
        with self._link.reading():
            found = self._link.runs.distinct("_id.job", {"_id.ns": self.namespace, "ended": {"$gt": from_ms(0)}})
        return [str(job) for job in found]

    def _doomed(self, job: str, request: Purge, before: datetime) -> Iterator[Doc]:
        """The job's runs that may go (G14: only what has ended is in the index), the first to end first."""
        of_job: Doc = {"_id.ns": self.namespace, "_id.job": job}
        match: Doc = {
            **of_job,
            "ended": {"$gte": from_ms(0), "$lte": before},
            "status": {"$in": [each.value for each in request.statuses]},
        }
        if request.stamp is not None:
            match["_id.stamp"] = request.stamp
        if request.keep_last:
            kept = self._last_kept(of_job, request.keep_last)
            if kept is None:
                return iter(())
            same = {"ended": kept["ended"], "seq": {"$lt": kept["seq"]}}
            match["$or"] = [{"ended": {"$lt": kept["ended"]}}, same]
        found: Iterable[Doc] = self._link.runs.find(match, {"v": 1, "seq": 1, "ended": 1})
        return iter(found.sort([("ended", 1), ("seq", 1)]).limit(request.limit))  # type: ignore[attr-defined]

    def _last_kept(self, of_job: Doc, keep: int) -> Doc | None:
        """The earliest to end of the latest that are kept; None: there are no more than those."""
        if keep > 2**31 - 1:
            return None
        ended = {**of_job, "ended": {"$gte": from_ms(0)}}
        return next(iter(self._link.runs.find(ended).sort([("ended", -1), ("seq", -1)]).skip(keep - 1).limit(1)), None)

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        if isinstance(resource, LockId):
            return locks.force(self._link, self._terms, self.namespace, resource, token)

        def force(found: Entry | None, now: Now) -> tuple[Lease | None, Entry | None]:
            if found is None or found.run.lease is None or found.lapsed(now):
                return None, None
            if token not in (None, found.run.token):
                return None, None
            return found.run.lease, transitions.force_lapse(found, now, token=found.run.token + 1)

        return self._change(resource, force)

    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        """See ``Lifecycle.rearm``. Two round trips for each."""
        return [self._rearm(each) for each in rearms]

    def _rearm(self, request: Rearm) -> bool:
        return self._change(request.run, lambda found, now: transitions.rearm(found, request.token, now))


def _end(doc: Doc) -> tuple[datetime, int]:
    return doc["ended"], doc["seq"]
