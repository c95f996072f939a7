"""Check-in, renewal, check-out: the right to run one run."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pymongo import ReturnDocument, UpdateMany, UpdateOne

from onceward.contracts.executor import Executor
from onceward.contracts.records import Ending, LockId, Run, RunId
from onceward.contracts.requests import CheckOut, Renewal, Renewed
from onceward.contracts.times import span_ms
from onceward.runners.mongodb import documents, locks
from onceward.runners.mongodb.base import Base, due, identity
from onceward.runners.mongodb.link import WHOLE
from onceward.runners.mongodb.terms import NEVER, Doc, literal

#: The name of a run as one text; no part of it has such a character. Texts are compared much quicker than documents.
_NUL = "\0"
_ITS_NAME: Doc = {"$concat": ["$_id.job", _NUL, "$_id.key", _NUL, "$_id.stamp"]}


class ExecutorPart(Base, Executor):
    """The part of ``Executor`` that is about single runs."""

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        """See ``Executor.renew``. One round trip for one lease; two for many runs, and two for many locks."""
        answers = [Renewed.LOST] * len(renewals)
        for of_locks in (False, True):
            places = [i for i, each in enumerate(renewals) if isinstance(each.lease.resource, LockId) is of_locks]
            some = [renewals[i] for i in places]
            if some:
                renewed = self._renew_locks(some) if of_locks else self._renew_runs(some)
                for i, answer in zip(places, renewed, strict=True):
                    answers[i] = answer
        return answers

    def _renew_locks(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        return locks.renew(self._link, self._terms, self.namespace, renewals)

    def _renew_runs(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        mark = secrets.token_hex(8)
        updates = [(self._held(each), self._extension(each, mark)) for each in renewals]
        with self._link.writing():
            if len(updates) == 1:
                shown = self._link.runs.find_one_and_update(
                    *updates[0], {"cancel_requested": 1}, return_document=ReturnDocument.AFTER
                )
                return [_renewed(shown)]
            self._link.runs.bulk_write([UpdateOne(*update) for update in updates], ordered=False)
            extended = {
                identity(doc["_id"]): doc
                for doc in self._link.runs.find(
                    {"_id": {"$in": [update[0]["_id"] for update in updates]}, "renewal": mark},
                    {"cancel_requested": 1, "token": 1, "request": 1},
                    batch_size=WHOLE,
                )
            }
        return [_renewed(extended.get(identity(held["_id"])), held) for held, _ in updates]

    def _held(self, renewal: Renewal) -> Doc:
        """The run, if the lease is its newest and live. One that a claim has seen lapse is not, whatever the clock."""
        run = renewal.lease.resource
        assert isinstance(run, RunId)  # locks are renewed elsewhere
        newest = {"status": "running", "queued": False, **documents.proof(renewal.lease)}
        return {"_id": self._key(run), **newest, **self._terms.future("until")}

    def _extension(self, renewal: Renewal, mark: str) -> list[Doc]:
        """The lease ends later, counted from now; one that never ends stays so."""
        fields: Doc = {"v": {"$add": ["$v", 1]}, "renewal": mark}
        duration = renewal.duration or renewal.lease.duration
        if duration is not None:
            ms = span_ms(duration)
            ends = {"$lt": ["$until", NEVER]}
            fields["until"] = {"$cond": [ends, self._terms.after(ms), "$until"]}
            fields["lease_ms"] = {"$cond": [ends, ms, "$lease_ms"]}
        if renewal.progress is not None:
            fields["progress"] = literal(documents.progress_text(renewal.progress))
        return [{"$set": fields}]

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        """See ``Executor.checkout``. One round trip for any number; one more where a token was stale.

        Runs that ended well and came from one claim share an update: the server is much quicker with it than with one
        for each.
        """
        if not checkouts:
            return []
        updates: list[UpdateOne | UpdateMany] = []
        alike: dict[tuple[object, ...], list[tuple[CheckOut, str | None]]] = {}
        for each in checkouts:
            result = documents.text_of(each.result, "result")
            if each.ending is Ending.SUCCEEDED and each.error is None:
                lease = each.lease
                alike.setdefault((lease.token, lease.request, result is None), []).append((each, result))
            else:
                updates.append(UpdateOne(self._newest(each), self._end(each, literal(each.request), result)))
        updates += [self._end_alike(some) for some in alike.values()]
        with self._link.writing():
            ended = self._link.runs.bulk_write(updates, ordered=False).matched_count
        return [True] * len(checkouts) if ended == len(checkouts) else self._recorded(checkouts)

    def _end_alike(self, some: Sequence[tuple[CheckOut, str | None]]) -> UpdateOne | UpdateMany:
        """Runs with one token from one claim, all with a result or none, have ended well.

        If a run is among them twice, the first one counts.
        """
        first, result = some[0]
        if len(some) == 1:
            return UpdateOne(self._newest(first), self._end(first, literal(first.request), result))
        keys = [self._key(each.run) for each, _ in some]
        place = {"$indexOfArray": [literal([_name(each.run) for each, _ in some]), _ITS_NAME]}

        def own(values: Sequence[str | None]) -> Doc:
            return {"$arrayElemAt": [literal(list(values)), place]}

        requests, results = own([each.request for each, _ in some]), own([result for _, result in some])
        newest = {"_id": {"$in": keys}, "status": "running", **documents.proof(first.lease)}
        return UpdateMany(newest, self._end(first, requests, None if result is None else results))

    def _newest(self, request: CheckOut) -> Doc:
        return {"_id": self._key(request.run), "status": "running", **documents.proof(request.lease)}

    def _recorded(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        """Which of them stand in the store: these, or the same requests before."""
        keys = [self._key(each.run) for each in checkouts]
        with self._link.writing():  # something may have been written just before
            entries = [
                documents.entry_of(doc)
                for doc in self._link.runs.find({"_id": {"$in": keys}, "status": {"$exists": True}}, batch_size=WHOLE)
            ]
        ended = {(entry.run.id, attempt.token, attempt.checkout) for entry in entries for attempt in entry.run.attempts}
        return [(each.run, each.lease.token, each.request) in ended for each in checkouts]

    def _end(self, request: CheckOut, checkout: Doc, result: str | Doc | None) -> list[Doc]:
        """The attempt has ended. Guarantees G4, G6, by the condition that it comes with.

        ``checkout`` is an expression for the id of the request, ``result`` the result or an expression for it.
        """
        now, again = self._terms.now, request.ending in (Ending.RETRY, Ending.RELEASED)
        failed = request.ending in (Ending.FAILED, Ending.RETRY)
        fields: Doc = {
            "v": {"$add": ["$v", 1]},
            "status": "scheduled" if again else request.ending.value,
            "queued": again,
            "cancel_requested": False,
            "attempt_ended": now,
            "ending": request.ending.value,
            "checkout": checkout,
        }
        if failed:
            fields["failures"] = {"$add": [{"$ifNull": ["$failures", 0]}, 1]}
        if again:
            fields["run_at"] = self._due(request)
        else:
            fields["ended"] = now
        gone = ["until", "lease_ms", "claim", "slot", "renewal"]
        for name, value in (("result", None if again else result), ("error", documents.failure_text(request.error))):
            if value is None:
                gone.append(name)
            else:
                fields[name] = literal(value) if isinstance(value, str) else value
        return [{"$set": fields}, {"$unset": gone}]

    def _due(self, request: CheckOut) -> object:
        if request.at is not None:
            return due(request.at)
        return self._terms.after(span_ms(request.after)) if request.after is not None else self._terms.now

    def check(self, run: RunId) -> Run | None:
        found = self._find(run, strictly=True)
        return None if found is None else documents.public(found[0])


def _name(run: RunId) -> str:
    return _NUL.join((run.job, run.key, run.stamp))


def _renewed(doc: Doc | None, held: Doc | None = None) -> Renewed:
    if doc is None or (held is not None and (doc["token"], doc["request"]) != (held["token"], held["request"])):
        return Renewed.LOST
    return Renewed.CANCELLING if doc.get("cancel_requested") else Renewed.HELD
