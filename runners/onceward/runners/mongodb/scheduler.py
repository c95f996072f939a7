"""What should run and when, and configuration documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from onceward.contracts import checks, transitions
from onceward.contracts.errors import OncewardError
from onceward.contracts.records import ConfigDoc, RunId
from onceward.contracts.requests import Cancelled, ConfigWrite, Interest, RunSpec
from onceward.contracts.scheduler import Scheduler, Watch
from onceward.contracts.times import span_ms
from onceward.runners.encoding import decode
from onceward.runners.mongodb import documents
from onceward.runners.mongodb.base import Base, due, unless_duplicate, unless_there
from onceward.runners.mongodb.link import WHOLE
from onceward.runners.mongodb.terms import Doc, literal
from onceward.runners.mongodb.watch import MongoWatch


class SchedulerPart(Base, Scheduler):
    """``Scheduler`` on the server."""

    _watches: set[MongoWatch]

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        """See ``Scheduler.submit``. One round trip; one more if some of the runs were known already."""
        payloads = [documents.text_of(spec.payload, "payload") for spec in specs]
        left = list(range(len(specs)))
        made: set[int] = set()
        while left:
            tie = self._terms.tie()
            updates = [
                UpdateOne(
                    {"_id": self._key(specs[i].id)},
                    self._create(specs[i], payloads[i], self._terms.sequence(at, tie)),
                    upsert=True,
                )
                for at, i in enumerate(left)
            ]
            left = [left[at] for at in self._sent(updates, left, made)]
        known = [i for i in range(len(specs)) if i not in made]
        origins = self._origins([specs[i] for i in known])
        made |= {i for i in known if origins.get(specs[i].id) == specs[i].request}
        return [i in made for i in range(len(specs))]

    def _sent(self, updates: Sequence[UpdateOne], which: Sequence[int], made: set[int]) -> Sequence[int]:
        """The updates are done, but for those whose places are the answer: another one was faster."""

        def write() -> None:
            inserted = self._link.runs.bulk_write(updates, ordered=False).upserted_ids or {}
            made.update(which[at] for at in inserted)

        with self._link.writing():
            return unless_duplicate(write)

    def _create(self, spec: RunSpec, payload: str | None, sequence: Doc) -> list[Doc]:
        """The run is made, unless there is one; then nothing changes."""
        now = self._terms.now
        given: Doc = {"v": 1, "status": "scheduled", "queued": True, "origin": spec.request, "priority": spec.priority}
        if payload is not None:
            given["payload"] = payload
        if spec.max_crashes is not None:
            given["max_crashes"] = spec.max_crashes
        run_at: object = now if spec.after is None else self._terms.after(span_ms(spec.after))
        if spec.run_at is not None:
            run_at = due(spec.run_at)
        made = {
            "_id": "$_id",
            "run_at": run_at,
            "created": now,
            "seq": sequence,
            "floor": self._terms.token,
        }
        return [unless_there({"$mergeObjects": [made, literal(given)]})]

    def _origins(self, specs: Sequence[RunSpec]) -> dict[RunId, str]:
        """Who made these runs."""
        if not specs:
            return {}
        keys = [self._key(spec.id) for spec in specs]
        with self._link.writing():  # something may have been written just before
            found = list(self._link.runs.find({"_id": {"$in": keys}}, {"origin": 1, "seq": 1}, batch_size=WHOLE))
        for doc in found:
            self._terms.seen(doc.get("seq", 0))
        return {
            RunId(doc["_id"]["job"], doc["_id"]["key"], doc["_id"]["stamp"]): doc["origin"]
            for doc in found
            if "origin" in doc
        }

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        checks.instant("run_at", run_at)
        with self._link.writing():
            moved = self._link.runs.update_one(
                {"_id": self._key(run), "status": "scheduled"}, {"$set": {"run_at": due(run_at)}, "$inc": {"v": 1}}
            )
        return moved.matched_count == 1

    def cancel(self, run: RunId) -> Cancelled:
        return self._change(run, transitions.cancel)

    def watch(self, interest: Interest) -> Watch:
        return MongoWatch(self._link, self._terms, self.namespace, interest, self._watches)

    def read_config(self, name: str) -> ConfigDoc | None:
        with self._link.reading():
            configs = self._link.strictly(self._link.configs)
            doc = configs.find_one({"_id": self._config_key(name), "live": True})
        return None if doc is None else _document(doc)

    def configs(self) -> Sequence[ConfigDoc]:
        with self._link.reading():
            found = list(self._link.configs.find({"_id.ns": self.namespace, "live": True}).sort("_id.name", 1))
        return [_document(doc) for doc in found]

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        """See ``Scheduler.write_config``. One round trip; the document stays after its deletion, with its version."""
        text = documents.text_of(write.document, "document")
        creates = write.expected_version == 0 and text is not None
        while True:
            try:
                with self._link.writing():
                    doc = self._link.configs.find_one_and_update(
                        {"_id": self._config_key(write.name)},
                        self._next_version(write, text),
                        upsert=creates,
                        return_document=ReturnDocument.AFTER,
                    )
                return None if doc is None or doc["request"] != write.request else _document(doc)
            except OncewardError as error:
                if not isinstance(error.__cause__, DuplicateKeyError):
                    raise  # two made the document at the same moment: once more, it is there now

    def _next_version(self, write: ConfigWrite, text: str | None) -> list[Doc]:
        """The next version, if the expected one is the newest (G11) and this is no repetition."""
        live = {"$ifNull": ["$live", False]}
        version = {"$ifNull": ["$version", 0]}
        fits = {
            "$and": [
                {"$ne": ["$request", literal(write.request)]},
                {"$eq": [{"$cond": [live, version, 0]}, write.expected_version]},
                *([live] if text is None else []),
            ]
        }
        given: Doc = {"live": text is not None, "request": write.request}
        if text is not None:
            given["document"] = text
        written = {"version": {"$add": [version, 1]}, "updated": self._terms.now}
        return [{"$replaceWith": {"$cond": [fits, {"$mergeObjects": ["$$ROOT", written, literal(given)]}, "$$ROOT"]}}]

    def _config_key(self, name: str) -> Doc:
        return {"ns": self.namespace, "name": name}


def _document(doc: Doc) -> ConfigDoc:
    return ConfigDoc(
        name=doc["_id"]["name"], version=doc["version"], document=decode(doc["document"]), updated=doc["updated"]
    )
