"""Watches: told by a change stream where there is one, otherwise by looking; and woken when something comes due.

A change stream is opened before the watch is handed out, so what happens afterwards is in it. A thread of the watch's
own reads it. The driver resumes it after a failover; where it cannot, a new one is opened and the watch is told, since
something may have happened in between. Nothing is written when time passes, so a watch also asks for the next moment
at which a run of interest comes due or a lease of interest lapses, and asks again every few seconds, which also finds
out about a jump of the server's clock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime

from pymongo.change_stream import DatabaseChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from onceward.contracts.errors import OncewardError
from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch
from onceward.contracts.times import from_ms
from onceward.runners.mongodb.documents import run_key
from onceward.runners.mongodb.errors import translated
from onceward.runners.mongodb.link import Link
from onceward.runners.mongodb.terms import NEVER, Doc, Terms

#: Seconds between two looks where there is no change stream: short after a change, longer the longer nothing happens.
_SHORTEST, _LONGEST, _GROWTH = 0.02, 0.25, 1.3
#: Seconds after which a watch asks again in any case.
_ASK_AFTER = 5.0
#: Milliseconds that the server may hold back its answer that there is nothing; ``close`` waits that long at the most.
_AWAIT_MS = 200
_PAUSE = 0.5
_RUNNING_COUNTED = 1_000


class MongoWatch(Watch):
    """A change stream with a thread that reads it, or looks at what is of interest."""

    def __init__(self, link: Link, terms: Terms, ns: str, interest: Interest, watches: set[MongoWatch]) -> None:
        self._link, self._terms, self._ns = link, terms, ns
        self._interest = interest
        self._watches = watches
        self._closed = False
        self._signal = threading.Event()
        self._failure: OncewardError | None = None
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._seen = from_ms(0)
        """Moments up to this one have been told."""
        stream = self._opened() if link.replicated else None
        self._state: object = None
        if stream is None:
            self._state = self._look()
        self._seen, self._next_due = self._moments()
        watches.add(self)
        if stream is not None:
            self._start(stream)

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        deadline = time.monotonic() + timeout
        pause = _SHORTEST
        self._revive()
        due, asked = self._ask()
        while not self._closed:
            if self._told():
                return not self._closed
            now = time.monotonic()
            if now >= min(due, asked + _ASK_AFTER):
                if self._passed():
                    return not self._closed
                due, asked = self._ask()
            if now >= deadline:
                return False
            self._signal.wait(max(0.0, min(deadline, due, asked + _ASK_AFTER, self._next_look(now, pause)) - now))
            pause = min(pause * _GROWTH, _LONGEST)
        return False

    def close(self) -> None:
        """See ``Watch.close``."""
        self._closed = True
        self._signal.set()
        self._watches.discard(self)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(timeout=10 * _AWAIT_MS / 1000)

    # -- what the server tells, or shows ----------------------------------------------------------------------------

    def _told(self) -> bool:
        """True if something has changed."""
        if self._signal.is_set():
            self._signal.clear()
            failure, self._failure = self._failure, None
            if failure is not None and not self._closed:
                raise failure
            return True
        if self._thread is not None:
            return False
        state = self._look()
        changed, self._state = state != self._state, state
        return changed

    def _next_look(self, now: float, pause: float) -> float:
        return float("inf") if self._thread is not None else now + pause

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
        first = NEVER
        later = {"$gt": self._seen, "$lt": NEVER}
        with self._link.reading():
            now = self._link.server_time()
            for job in self._interest.jobs:
                of_job = {"_id.ns": self._ns, "_id.job": job}
                for field, state in (
                    ("run_at", {"queued": True, "status": "scheduled"}),
                    ("until", {"status": "running", "queued": False}),
                ):
                    found = self._link.runs.find_one({**of_job, **state, field: later}, {field: 1}, sort=[(field, 1)])
                    first = min(first, found[field]) if found else first
            if self._interest.locks:
                held = {"_id": {"$in": self._lock_keys()}, "held": True, "until": later}
                found = self._link.locks.find_one(held, {"until": 1}, sort=[("until", 1)])
                first = min(first, found["until"]) if found else first
        return now, first

    # -- the change stream ------------------------------------------------------------------------------------------

    def _opened(self) -> DatabaseChangeStream[Doc] | None:
        """A stream from now on; None: this user may not have one, so the watch looks instead."""
        try:
            return self._stream()
        except OperationFailure:
            return None
        except PyMongoError as error:
            raise translated(error, self._link.where, reads=True) from error

    def _stream(self) -> DatabaseChangeStream[Doc]:
        """That something has happened is all that it tells: an event is its place in the stream, and nothing else."""
        return self._link.database.watch(
            [{"$match": self._events()}, {"$project": {"_id": 1}}], max_await_time_ms=_AWAIT_MS
        )

    def _events(self) -> Doc:
        """Changes of interest: of a run, its status, its place in the queue or its time; of others, anything."""
        key = "documentKey._id"
        run_changed = {
            "$or": [
                {"operationType": {"$ne": "update"}},
                *({f"updateDescription.updatedFields.{name}": {"$exists": True}} for name in _RUN_FIELDS),
            ]
        }
        runs = {"ns.coll": "runs", f"{key}.ns": self._ns}
        concerns: list[Doc] = [{"operationType": {"$in": ["invalidate", "dropDatabase", "drop", "rename"]}}]
        if self._interest.jobs:
            concerns.append({**runs, f"{key}.job": {"$in": sorted(self._interest.jobs)}, **run_changed})
        if self._interest.runs:
            concerns.append({**runs, key: {"$in": self._run_keys()}, **run_changed})
        if self._interest.locks:
            concerns.append({"ns.coll": "locks", key: {"$in": self._lock_keys()}})
        if self._interest.configs:
            concerns.append({"ns.coll": "configs", f"{key}.ns": self._ns})
        return {"$or": concerns}

    def _start(self, stream: DatabaseChangeStream[Doc]) -> None:
        self._thread = threading.Thread(target=self._read, args=(stream,), name="onceward-mongodb-watch", daemon=True)
        self._thread.start()

    def _revive(self) -> None:
        """A forked child, where the thread is gone, gets a stream of its own; something may have happened."""
        if self._thread is None or self._pid == os.getpid() or self._closed:
            return
        self._pid, self._signal = os.getpid(), threading.Event()
        self._signal.set()
        stream = self._opened()
        if stream is not None:
            self._start(stream)

    def _read(self, stream: DatabaseChangeStream[Doc] | None) -> None:
        """Tell what the stream tells, until the watch is closed."""
        while not self._closed:
            try:
                if stream is None:
                    stream = self._stream()
                    self._signal.set()
                with stream:
                    while not self._closed and stream.alive:
                        if stream.try_next() is not None:
                            self._signal.set()
            except OncewardError as error:  # the store was closed
                self._tell_failure(error)
            except PyMongoError as error:
                self._tell_failure(translated(error, self._link.where, reads=True))
            stream = None

    def _tell_failure(self, error: OncewardError) -> None:
        if not self._closed:
            self._failure = error
            self._signal.set()
            time.sleep(_PAUSE)


#: What time alone changes: a run comes due, a lease lapses. By the field that says when, and which runs have it.
_TIMED: Sequence[tuple[str, Doc]] = (
    ("run_at", {"status": "scheduled", "queued": True}),
    ("until", {"status": "running", "queued": False}),
)
_RUN_FIELDS = ("status", "queued", "run_at")
