"""Watches: told by a change stream where there is one, otherwise by looking; and woken when something comes due.

A change stream is opened before the watch is handed out, so what happens afterwards is in it. Whoever waits reads it.
Where it breaks, a new one is opened and the watch is told, since something may have happened in between. Nothing is
written when time passes, so a watch also asks for the next moment at which a run of interest comes due or a lease of
interest lapses, and asks again every second, which also finds out about a jump of the server's clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from pymongo.errors import OperationFailure, PyMongoError

from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch
from onceward.contracts.times import from_ms
from onceward.runners.mongodb.documents import run_key
from onceward.runners.mongodb.errors import translated
from onceward.runners.mongodb.link import Link, Pipeline
from onceward.runners.mongodb.stream import Stream
from onceward.runners.mongodb.terms import NEVER, Doc, Terms

#: Seconds between two looks where there is no change stream: short after a change, longer the longer nothing happens.
_SHORTEST, _LONGEST, _GROWTH = 0.02, 0.25, 1.3
#: Seconds after which a watch asks again in any case: that others take leases is not told, and they may be short.
_ASK_AFTER = 1.0
#: So many jobs are asked for at once; an index is read in its order for that many.
_JOBS_AT_ONCE = 100
_RUNNING_COUNTED = 1_000


class MongoWatch(Watch):
    """A change stream, or looks at what is of interest."""

    def __init__(self, link: Link, terms: Terms, ns: str, interest: Interest, watches: set[MongoWatch]) -> None:
        self._link, self._terms, self._ns = link, terms, ns
        self._interest = interest
        self._watches = watches
        self._closed = threading.Event()
        self._stream = self._opened() if link.replicated else None
        self._looks = self._stream is None
        self._state = self._look() if self._looks else None
        self._seen = from_ms(0)
        """Moments up to this one have been told."""
        self._seen, self._next_due = self._moments()
        watches.add(self)

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        deadline = time.monotonic() + timeout
        pause = _SHORTEST
        due, asked = self._ask()
        while not self._closed.is_set():
            left = min(deadline, due, asked + _ASK_AFTER) - time.monotonic()
            if self._differs(min(left, pause)) if self._looks else self._told(left):
                return not self._closed.is_set()
            now = time.monotonic()
            if now >= min(due, asked + _ASK_AFTER):
                if self._passed():
                    return not self._closed.is_set()
                due, asked = self._ask()
            if now >= deadline:
                return False
            pause = min(pause * _GROWTH, _LONGEST)
        return False

    def close(self) -> None:
        """See ``Watch.close``."""
        self._closed.set()
        self._watches.discard(self)
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    # -- what the server tells, or shows ----------------------------------------------------------------------------

    def _opened(self) -> Stream | None:
        """A stream from now on; None: this user may not have one, so the watch looks instead."""
        try:
            return self._made()
        except OperationFailure:
            return None
        except PyMongoError as error:
            raise translated(error, self._link.where, reads=True) from error

    def _told(self, seconds: float) -> bool:
        """True if something has happened, or may have while there was no stream; waits for it so long at the most."""
        stream = self._stream
        if stream is not None and not stream.inherited:
            try:
                return stream.told(seconds, self._closed.wait)
            except PyMongoError:
                stream.close()
        if not self._closed.is_set():
            with self._link.reading():
                self._stream = self._made()
            if self._closed.is_set():
                self.close()
        return True

    def _differs(self, seconds: float) -> bool:
        """True if something has changed since the last look; otherwise so many seconds have passed."""
        state = self._look()
        changed, self._state = state != self._state, state
        return changed or self._closed.wait(max(0.0, seconds))

    def _look(self) -> object:
        """Whatever differs after a change that is of interest."""
        interest, link = self._interest, self._link
        with link.reading():
            found: list[object] = []
            for job in sorted(interest.jobs):
                of_job = {"_id.ns": self._ns, "_id.job": job}
                first = {**of_job, "queued": True, **self._terms.past("run_at")}
                order = [("priority", -1), ("run_at", 1), ("seq", 1)]
                found.append(link.runs.find_one(first, {"v": 1, "seq": 1}, sort=order))
                newest = {**of_job, "queued": True, "status": "scheduled"}
                found.append(link.runs.find_one(newest, {"run_at": 1}, sort=[("run_at", 1)]))
                running = {**of_job, "status": "running", "queued": False}
                found.append(link.runs.count_documents(running, limit=_RUNNING_COUNTED))
            if interest.locks:
                which = {"_id": {"$in": self._lock_keys()}}
                found.append(sorted((d["_id"]["name"], d.get("token"), d.get("held")) for d in link.locks.find(which)))
            if interest.runs:
                runs = link.runs.find({"_id": {"$in": self._run_keys()}}, {"status": 1, "token": 1})
                found.append(sorted((*doc["_id"].values(), doc.get("status"), doc.get("token")) for doc in runs))
            if interest.configs:
                configs = link.configs.find({"_id.ns": self._ns}, {"version": 1})
                found.append(sorted((doc["_id"]["name"], doc["version"]) for doc in configs))
        return found

    def _lock_keys(self) -> Sequence[Doc]:
        return [{"ns": self._ns, "name": name} for name in sorted(self._interest.locks)]

    def _run_keys(self) -> Sequence[Doc]:
        return [run_key(self._ns, run) for run in sorted(self._interest.runs)]

    # -- time -------------------------------------------------------------------------------------------------------

    def _ask(self) -> tuple[float, float]:
        """When, by our monotonic clock, the next moment comes; and when this was asked."""
        asked = time.monotonic()
        now, self._next_due = self._moments()
        return asked + (self._next_due - now).total_seconds(), asked

    def _passed(self) -> bool:
        """True if a moment of interest has passed by the server's clock; it is told once."""
        now, following = self._moments()
        if following > now:
            return False
        self._seen = now
        return True

    def _moments(self) -> tuple[datetime, datetime]:
        """The store's now, and the first moment after the one seen last; that may have passed already."""
        later = {"$gt": self._seen, "$lt": NEVER}
        of_ns, jobs = {"_id.ns": self._ns}, sorted(self._interest.jobs)
        firsts = [
            _first("runs", field, {**of_ns, "_id.job": {"$in": jobs[at : at + _JOBS_AT_ONCE]}, **which}, later)
            for at in range(0, len(jobs), _JOBS_AT_ONCE)
            for field, which in _TIMED
        ]
        if self._interest.locks:
            firsts.append(_first("locks", "until", {"_id": {"$in": self._lock_keys()}, "held": True}, later))
        shown, found = self._link.glance({"now": self._terms.now}, firsts)
        return shown["now"], min((each["at"] for each in found), default=NEVER)

    # -- which events are of interest -------------------------------------------------------------------------------

    def _made(self) -> Stream:
        """A stream from now on, of one collection if that is all that is of interest: others' writes cost less then."""
        concerns = self._concerns()
        if len(concerns) == 1:
            ((collection, events),) = concerns.items()
            return Stream(self._link, events, collection)
        return Stream(self._link, {"$or": [{"ns.coll": name, **events} for name, events in concerns.items()]})

    def _concerns(self) -> Mapping[str, Doc]:
        """Changes of interest, by collection. Claims and ends of runs are none: they leave nothing to claim."""
        key, updated = "documentKey._id", "updateDescription.updatedFields"
        made = {"operationType": {"$in": ["insert", "replace"]}}
        claimable: Sequence[Doc] = (
            {**made, "fullDocument.queued": True},
            {f"{updated}.queued": True},
            {f"{updated}.run_at": {"$exists": True}},
            {"updateDescription.removedFields": "slot"},  # of a job that has a limit, another run may start
        )
        interest, of_ns = self._interest, {f"{key}.ns": self._ns}
        of_runs: list[Doc] = []
        if interest.jobs:
            of_runs.append({**of_ns, f"{key}.job": {"$in": sorted(interest.jobs)}, "$or": claimable})
        if interest.runs:
            changed = {"operationType": {"$ne": "update"}}, {f"{updated}.status": {"$exists": True}}
            of_runs.append({key: {"$in": self._run_keys()}, "$or": changed})
        concerns: dict[str, Doc] = {"runs": {"$or": of_runs}} if of_runs else {}
        if interest.locks:
            concerns["locks"] = {key: {"$in": self._lock_keys()}}
        if interest.configs:
            concerns["configs"] = of_ns
        return concerns


def _first(collection: str, field: str, which: Doc, later: Doc) -> tuple[str, Pipeline]:
    """A part of a glance: the first of the later instants in ``field``."""
    return collection, [
        {"$match": which | {field: later}},
        {"$sort": {field: 1}},
        {"$limit": 1},
        {"$project": {"_id": 0, "at": f"${field}"}},
    ]


#: What time alone changes: a run comes due, a lease lapses. By the field that says when, and which runs have it.
_TIMED: Sequence[tuple[str, Doc]] = (
    ("run_at", {"status": "scheduled", "queued": True}),
    ("until", {"status": "running", "queued": False}),
)
