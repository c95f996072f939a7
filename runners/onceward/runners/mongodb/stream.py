"""A change stream that is read by whoever waits for it, in a way that costs the server little.

Where the server holds back its answer until there is something, each write of anybody wakes it to look, which costs it
about as much as the write. That is fine while there is little to do. While there is much, the stream is asked every few
milliseconds instead, for an answer at once. Whether there is much shows in the cluster time of the answers, which
counts the writes of a second.

The two commands are sent by hand, since the driver's own change stream waits for one and the same time at each reading.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import pymongo
from bson.int64 import Int64
from bson.timestamp import Timestamp
from pymongo.errors import PyMongoError

from onceward.runners.mongodb.link import Link
from onceward.runners.mongodb.terms import Doc

#: Milliseconds that the server may hold back its answer that there is nothing; and while there are many writes.
_AWAIT_MS, _AT_ONCE_MS = 200, 1
#: So many writes per second are many. How many there are is judged after so many seconds.
_MANY, _JUDGED_EVERY = 1_000, 0.1
#: Seconds between two questions while there are many.
_NAP = 0.02
#: Seconds for the server to hear that a stream is not needed any more. It forgets those that nobody reads.
_GOODBYE = 1.0


class Stream:
    """A change stream from now on, of a collection or of all. That there is something is all that it tells."""

    def __init__(self, link: Link, events: Doc, collection: str | None = None) -> None:
        self._link = link
        self._collection = collection or "$cmd.aggregate"
        self._pid = os.getpid()
        self._session = link.session()
        stages: Sequence[Doc] = ({"$changeStream": {}}, {"$match": events}, {"$project": {"_id": 1}})
        try:
            opened = link.database.command(
                "aggregate",
                collection or 1,
                pipeline=stages,
                cursor={},
                readConcern={"level": "majority"},
                session=self._session,
            )
        except BaseException:
            self._session.end_session()
            raise
        self._cursor = Int64(opened["cursor"]["id"])
        self._waiting = bool(opened["cursor"]["firstBatch"])
        self._busy = True
        self._mark: tuple[Timestamp | None, float] = opened.get("operationTime"), time.monotonic()
        """The cluster time at one moment of ours, from which on writes are counted."""

    def told(self, seconds: float, nap: Callable[[float], object]) -> bool:
        """True: something has happened. False: nothing for so many seconds, or a fraction of a second."""
        if self._waiting:
            self._waiting = False
            return True
        if self._busy:
            nap(max(0.0, min(seconds, _NAP)))
        longest = _AT_ONCE_MS if self._busy else _AWAIT_MS
        answer = self._link.database.command(
            "getMore",
            self._cursor,
            collection=self._collection,
            maxTimeMS=max(1, min(longest, math.ceil(seconds * 1_000))),
            session=self._session,
        )
        self._judge(answer.get("operationTime"))
        more = answer["cursor"]
        if not more["id"]:
            raise StreamEnded
        return bool(more["nextBatch"])

    def _judge(self, newest: Timestamp | None) -> None:
        """Are there many writes? Where a new second has begun, what held before goes on."""
        since, at = self._mark
        passed = time.monotonic() - at
        if passed < _JUDGED_EVERY:
            return
        self._mark = newest, at + passed
        if newest is None or since is None:
            self._busy = False
        elif newest.time == since.time:
            self._busy = newest.inc - since.inc > _MANY * passed
        elif newest.time > since.time + 1:
            self._busy = False

    @property
    def inherited(self) -> bool:
        """True in a forked child: it is the parent's."""
        return self._pid != os.getpid()

    def close(self) -> None:
        """Nothing of it is left in the server; whoever reads it now gets an error."""
        if self.inherited:
            return
        with suppress(PyMongoError), pymongo.timeout(_GOODBYE):
            self._link.database.command("killCursors", self._collection, cursors=[self._cursor])
        self._session.end_session()


class StreamEnded(PyMongoError):
    """The server has ended the stream: the database was dropped, say."""
