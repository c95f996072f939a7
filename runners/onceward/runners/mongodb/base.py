"""What the parts of the store share: the link to the server, the terms that it understands, guarded changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from pymongo.errors import BulkWriteError, DuplicateKeyError

from onceward.contracts.errors import OncewardError
from onceward.contracts.records import RunId
from onceward.contracts.times import due_ms, from_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.mongodb import documents
from onceward.runners.mongodb.errors import DUPLICATE
from onceward.runners.mongodb.link import Link
from onceward.runners.mongodb.terms import Doc, Terms

Answer = TypeVar("Answer")


class Base:
    """State of a store that each part works with; made and opened by ``MongoStore``."""

    namespace: str
    _link: Link
    _terms: Terms

    def _shown(self) -> Doc:
        """A projection: the document as it is, and the store's now."""
        return {"_id": 0, "doc": "$$ROOT", "now": self._terms.now}

    def _settled(self, send: Callable[[], Doc | None], made: str) -> Doc:
        """What an upsert shows by ``_shown``: the document after it, and the moment of the write.

        It is sent once more where two have made the same document at the same moment, or drew the same sequence. Where
        the driver had to repeat it after a lost reply, the server answers with what the first one made of the document,
        without the projection; then the moment stands in the document's field ``made``.
        """
        while True:
            try:
                with self._link.writing():
                    shown = send()
            except OncewardError as error:
                if isinstance(error.__cause__, DuplicateKeyError):
                    continue
                raise
            assert shown is not None  # an upsert leaves a document
            return shown if "now" in shown else {"doc": shown, "now": shown[made]}

    def _server_time(self) -> datetime:
        """The store's clock, by a round trip."""
        return self._link.server_time()

    def _past(self, field: str) -> Doc:
        """A condition that uses the index: the instant in ``field`` is not after the store's now."""
        if self._terms.ranges:
            return self._terms.past(field)
        return {field: {"$lte": self._server_time()}}  # before 5.0, only constants do

    def _find(self, run: RunId, *, strictly: bool = False) -> tuple[Entry, Now, Doc] | None:
        """The run as it stands, the store's now, and the guard of a write that rests on them."""
        runs = self._link.strictly(self._link.runs) if strictly else self._link.runs
        with self._link.reading():
            shown = runs.find_one({"_id": self._key(run), "status": {"$exists": True}}, self._shown())
        if shown is None:
            return None
        doc = shown["doc"]
        return documents.entry_of(doc), documents.now_of(shown["now"]), documents.guard(doc)

    def _change(self, run: RunId, step: Callable[[Entry | None, Now], tuple[Answer, Entry | None]]) -> Answer:
        """The answer of a transition, once it is written; decided anew where somebody else was faster.

        The moment is that of the reading: whoever has changed the run since, a renewal included, fails the guard.
        """
        while True:
            found = self._find(run)
            entry, now, guard = found or (None, Now(0, 0), {})
            answer, changed = step(entry, now)
            if changed is None or changed is entry or self._write(changed, guard, entry):
                return answer

    def _write(self, entry: Entry, guard: Doc, before: Entry | None) -> bool:
        """The entry stands in the store; False: the run was changed since it was read, and nothing was done."""
        with self._link.writing():
            done = self._link.runs.update_one(guard, documents.changes(entry, before))
        return done.matched_count == 1

    def _key(self, run: RunId) -> Doc:
        return documents.run_key(self.namespace, run)


def due(moment: datetime) -> datetime:
    """The instant as the store keeps due times: up to whole milliseconds, so that nothing starts before it."""
    return from_ms(due_ms(moment))


def unless_there(made: Doc) -> Doc:
    """A stage: the document becomes ``made`` where there is none, or only what a purge has left of one."""
    return {"$replaceWith": {"$cond": [{"$ifNull": ["$status", False]}, "$$ROOT", made]}}


def unless_duplicate(write: Callable[[], object]) -> Sequence[int]:
    """A batch is written; the places of those that a unique index has refused, and nothing else has."""
    try:
        write()
    except BulkWriteError as error:
        refused = error.details.get("writeErrors") or []
        unconfirmed = error.details.get("writeConcernErrors")
        if unconfirmed or not refused or any(each["code"] != DUPLICATE for each in refused):
            raise
        return [each["index"] for each in refused]
    return []


def identity(key: Doc) -> tuple[str, ...]:
    """An ``_id`` as something that can be a key of a dict."""
    return tuple(key.values())
