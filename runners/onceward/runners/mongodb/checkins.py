"""Check-in: may the caller run this one run?

A caller's is one pipeline, and one round trip, and a few callers go side by side. Where there are more of them at once,
they share two trips: one reads those runs and the moment, one inserts what is absent. An insert costs the server a
tenth of a pipeline, and its unique ``_id`` guards it as well: whoever comes later is refused, and is carried by itself
then. The lease counts from the reading, so it ends early rather than late; and the token is ahead of all before, as
``terms`` explains.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace
from pymongo import ReturnDocument

from onceward.contracts import transitions
from onceward.contracts.errors import OncewardError
from onceward.contracts.executor import Executor
from onceward.contracts.requests import Admission, CheckIn
from onceward.contracts.times import span_ms
from onceward.runners.combining import Combiner
from onceward.runners.mongodb import documents
from onceward.runners.mongodb.base import Base, identity, unless_duplicate, unless_there
from onceward.runners.mongodb.terms import NEVER, Doc, Moment, Terms, literal

#: So many callers go side by side. For so few of them, a share in two trips takes longer than one trip each.
_FEW = 6
#: Payloads with more characters go by themselves.
_LARGE = 65_536


class CheckInPart(Base, Executor):
    """The part of ``Executor`` that is about check-ins."""

    _checkins: Combiner[CheckIn, Doc]
    _callers: set[int]

    def checkin(self, request: CheckIn) -> Admission:
        """See ``Executor.checkin``. One round trip, unless a run that was there is to be taken or ended."""
        if request.payload is not None:
            request = replace(request, payload=documents.text_of(request.payload, "payload"))
        while True:
            shown = self._carried(request)
            doc = shown["doc"]
            found, now = documents.entry_of(doc), documents.now_of(shown["now"])
            self._terms.seen(found.run.sequence)
            draw = partial(documents.next_token, doc)
            outcome, entry = transitions.checkin(found, request, now, token=draw, sequence=_no_sequence)
            if entry is found or self._write(entry, documents.guard(doc), found):
                return Admission(outcome=outcome, run=documents.public(entry), remaining=entry.remaining(now))

    def _carried(self, request: CheckIn) -> Doc:
        me = threading.get_ident()
        self._callers.add(me)
        try:
            if len(self._callers) <= _FEW or _large(request):
                return self._enter(request)
            return self._checkins.call(request)
        finally:
            self._callers.discard(me)

    def _carry_checkins(self, requests: Sequence[CheckIn]) -> Sequence[Doc | BaseException]:
        """The runs exist, and are read."""
        if len(requests) == 1:
            return [self._entered(requests[0])]
        try:
            return self._enter_all(requests)
        except OncewardError as error:
            return [type(error)(*error.args) for _ in requests]

    def _entered(self, request: CheckIn) -> Doc | BaseException:
        try:
            return self._enter(request)
        except OncewardError as error:
            return error

    def _enter(self, request: CheckIn) -> Doc:
        """The run as it is, after this request has made it if it was absent.

        Guarantees G1, G2: it is one document, written once; its token is larger than all before.
        """
        made = {"_id": "$_id", **_held(request, self._terms, self._terms.sequence())}
        return self._settled(
            lambda: self._link.runs.find_one_and_update(
                {"_id": self._key(request.run)},
                [unless_there({"$mergeObjects": [made, literal(_given(request))]})],
                self._shown(),
                upsert=True,
                return_document=ReturnDocument.AFTER,
            ),
            made="created",
        )

    def _enter_all(self, requests: Sequence[CheckIn]) -> Sequence[Doc | BaseException]:
        """As ``_enter`` for each; who comes too late, or behind a purge, goes by itself."""
        keys = [self._key(request.run) for request in requests]
        moment, found = self._glance(keys)
        first = {identity(key): at for at, key in reversed(list(enumerate(keys))) if identity(key) not in found}
        made = [
            {"_id": keys[at], **_held(requests[at], moment, moment.sequence(at)), **_given(requests[at])}
            for at in first.values()
        ]
        refused = self._inserted(made)
        found |= {identity(doc["_id"]): doc for at, doc in enumerate(made) if at not in refused}
        return [
            {"doc": doc, "now": moment.now} if doc is not None and "status" in doc else self._entered(request)
            for doc, request in zip((found.get(identity(key)) for key in keys), requests, strict=True)
        ]

    def _inserted(self, made: Sequence[Doc]) -> Sequence[int]:
        """The documents are written, but for those at these places; what was read before came from the primary."""
        with self._link.writing():
            if made:
                return unless_duplicate(lambda: self._link.runs.insert_many(made, ordered=False))
            self._link.confirm()
            return ()

    def _glance(self, keys: Sequence[Doc]) -> tuple[Moment, dict[tuple[str, ...], Doc]]:
        """The moment, and what there is of these runs, in one round trip."""
        terms = {"now": self._terms.now, "token": self._terms.token, "first": self._terms.sequence()}
        shown, docs = self._link.glance(terms, [("runs", [{"$match": {"_id": {"$in": list(keys)}}}])])
        return Moment(**shown), {identity(doc["_id"]): doc for doc in docs}


def _held(request: CheckIn, terms: Terms | Moment, sequence: object) -> Doc:
    """The fields of a run that is held from its first moment, where they come from the server."""
    return {
        "run_at": terms.now,
        "created": terms.now,
        "started": terms.now,
        "until": NEVER if request.lease is None else terms.after(span_ms(request.lease)),
        "token": terms.token,
        "seq": sequence,
    }


def _given(request: CheckIn) -> Doc:
    """The other fields of it."""
    given: Doc = {
        "v": 1,
        "status": "running",
        "queued": False,
        "origin": request.request,
        "priority": 0,
        "attempt": 1,
        "holder": request.holder,
        "request": request.request,
    }
    if request.lease is not None:
        given["lease_ms"] = span_ms(request.lease)
    if request.payload is not None:
        given["payload"] = request.payload
    if request.max_crashes is not None:
        given["max_crashes"] = request.max_crashes
    return given


def _large(request: CheckIn) -> bool:
    """True for what would make those wait that share its trip; and a batch always fits into one message."""
    return isinstance(request.payload, str) and len(request.payload) > _LARGE


def _no_sequence() -> int:
    """Never asked for: the run is there."""
    raise AssertionError
