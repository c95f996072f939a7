"""Mutants of what goes in and out: bad data that is taken, good data that is bent, errors that are not ours."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from onceward.contracts import (
    Admission,
    CheckIn,
    CheckOut,
    Json,
    LockAnswer,
    LockId,
    LockRequest,
    Renewal,
    Renewed,
    Run,
    RunId,
    RunSpec,
)
from onceward.contracts.transitions import Now

from .planted import planted
from .planted_store import Meddled


@planted("checkin", "store.inputs")
class NanAccepted(Meddled):
    """json.dumps as it comes: NaN is written, and other programs cannot read what they find."""

    def _text(self, value: object, field: str) -> str | None:
        if isinstance(value, float) and not math.isfinite(value):
            return json.dumps(value)
        return super()._text(value, field)


@planted("checkin", "store.inputs")
class NaiveDatesAccepted(Meddled):
    """A date without a zone is taken for UTC, and is an hour off for everybody who meant another one."""

    def _text(self, value: object, field: str) -> str | None:
        if isinstance(value, datetime) and value.tzinfo is None:
            return json.dumps(value.isoformat())
        return super()._text(value, field)


@planted("checkin", "store.inputs")
class BatchHalfDone(Meddled):
    """A batch is written one by one, and what came before the bad item stays (G16)."""

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        return [super(BatchHalfDone, self).submit([spec])[0] for spec in specs]


@planted("checkin", "store.inputs")
class KeyErrorComesOut(Meddled):
    """python-etcd3, tooz: a lease on something that is gone ends in a KeyError, and not in an answer."""

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        if isinstance(renewal.lease.resource, RunId) and self._runs.find(renewal.lease.resource) is None:
            raise KeyError(renewal.lease.resource)
        return super()._renew(renewal, now)


@planted("checkin", "store.inputs")
class NamesFolded(Meddled):
    """A column without a binary collation (MySQL's default): 'a' and 'A' are the same run."""

    def checkin(self, request: CheckIn) -> Admission:
        run = replace(request.run, key=request.run.key.casefold())
        return super().checkin(replace(request, run=run))

    def check(self, run: RunId) -> Run | None:
        found = super().check(replace(run, key=run.key.casefold()))
        return None if found is None else replace(found, id=run)


@planted("checkin", "store.inputs")
class NamesStripped(Meddled):
    """Names go through a strip(), or a file system: 'a' and 'a ' are the same lock."""

    def lock(self, request: LockRequest) -> LockAnswer:
        return super().lock(replace(request, lock=LockId(request.lock.name.strip())))


@planted("checkin", "store.payloads")
class FloatsBecomeInts(Meddled):
    """A store with one kind of number (Lua, JavaScript): 2.0 comes back as 2, and 2**53 + 1 as 2**53."""

    def _text(self, value: object, field: str) -> str | None:
        text = super()._text(value, field)
        return None if text is None else json.dumps(as_doubles(json.loads(text)), separators=(",", ":"))


def as_doubles(value: Json) -> Json:
    """What is left of it where every number is a double."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        double = float(value)
        return int(double) if double.is_integer() else double
    if isinstance(value, list):
        return [as_doubles(item) for item in value]
    assert isinstance(value, dict)  # json.loads makes nothing else
    return {name: as_doubles(item) for name, item in value.items()}


@planted("checkin", "store.payloads")
class EmptyIsNothing(Meddled):
    """Redis and Lua tables: an empty list or mapping comes back as nothing."""

    def _text(self, value: object, field: str) -> str | None:
        text = super()._text(value, field)
        return None if text in ("[]", "{}", '""') else text


@planted("checkin", "store.payloads")
class ResultShared(Meddled):
    """A store in memory that keeps what it was given, and not a copy: whoever changes it changes the record."""

    def prepare(self) -> None:
        self.given: dict[RunId, Json] = {}

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        answers = super().checkout(checkouts)
        self.given.update({each.run: each.result for each, done in zip(checkouts, answers, strict=True) if done})
        return answers

    def check(self, run: RunId) -> Run | None:
        found = super().check(run)
        given = self.given.get(run)
        return found if found is None or found.result is None or given is None else replace(found, result=given)


@planted("checkin", "store.payloads")
class PayloadShared(Meddled):
    """A cache that hands out the same object to everybody: one reader's change is seen by the next one."""

    def prepare(self) -> None:
        self.cache: dict[tuple[RunId, str], Json] = {}

    def check(self, run: RunId) -> Run | None:
        found = super().check(run)
        if found is None or found.payload is None:
            return found
        return replace(found, payload=self.cache.setdefault((run, repr(self.entry(run).run.payload)), found.payload))
