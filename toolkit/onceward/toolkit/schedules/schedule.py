"""What a schedule is: a series of instants, the *occurrences*, that every process computes alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import ClassVar

from onceward.contracts import InvalidRequest, Json, checks
from onceward.contracts.times import due_ms, from_ms
from onceward.toolkit.zones import time_zone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Schedule(ABC):
    """When something is to run. Immutable; equal schedules have equal occurrences, in every process.

    Attributes:
        timezone: the zone by whose clock local times are meant.
        start: no occurrence lies before it.
        end: no occurrence lies after it.
    """

    _: KW_ONLY
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None

    #: The name of the kind, in documents.
    type: ClassVar[str]
    #: A schedule that is seen for the first time owes what came before, too: it says "once", not "from now on".
    owes_the_past: ClassVar[bool] = False

    def __post_init__(self) -> None:
        time_zone(self.timezone)
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole_ms(name, getattr(self, name)))
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InvalidRequest("end", self.end, f"an instant not before start ({self.start.isoformat()})")

    @property
    @abstractmethod
    def text(self) -> str:
        """The canonical text; ``parse`` makes an equal schedule of it, given the same zone, dates and rules."""

    @abstractmethod
    def explain(self) -> str:
        """Plain English for it, with what happens when the clock is changed."""

    @abstractmethod
    def _after(self, moment: datetime) -> datetime | None:
        """``next_after`` without start and end; ``moment`` is in UTC."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first occurrence strictly after ``moment``, in UTC; None: never again.

        Occurrences are nominal: what runs late, or jittered, still belongs to the occurrence for which it runs.
        """
        return self.following(in_utc("moment", moment))

    def occurrences(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The occurrences after ``start``, up to and including ``end``, in order."""
        return self._between(in_utc("start", start), in_utc("end", end))

    def lateness(self, occurrence: datetime, now: datetime) -> timedelta:
        """How late an occurrence is that starts now."""
        return now - occurrence

    def latest(self, start: datetime, end: datetime) -> datetime | None:
        """The last occurrence after ``start``, up to and including ``end``; None: there is none.

        Halves the span again and again, so that years of missed seconds take no longer than a minute of them.
        """
        found = self.following(start.astimezone(UTC))
        if found is None or found > end:
            return None
        low, high = found, end.astimezone(UTC)
        while low < high:
            middle = low + (high - low) // 2
            candidate = self.following(middle)
            if candidate is not None and candidate <= end:
                found = low = candidate
            elif middle == low:
                break
            else:
                high = middle
        return found

    def preview(self, count: int, after: datetime | None = None) -> list[datetime]:
        """The next ``count`` occurrences after a moment (by default now), by the clock of the schedule's zone."""
        checks.whole("count", count, 0, 10_000)
        zone = time_zone(self.timezone)
        found = self.occurrences(datetime.now(UTC) if after is None else after, datetime(9998, 12, 31, tzinfo=UTC))
        return [occurrence.astimezone(zone) for occurrence in islice(found, count)]

    def to_dict(self) -> dict[str, Json]:
        """A JSON document from which ``from_dict`` makes an equal schedule."""
        document: dict[str, Json] = {"type": self.type, "value": self.text, "timezone": self.timezone}
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None:
                document[name] = utc_text(value)
        return document

    @staticmethod
    def from_dict(document: Mapping[str, Json]) -> Schedule:
        """The schedule of a document; see ``parsing.from_dict``."""
        from onceward.toolkit.schedules.parsing import from_dict  # which imports this module

        return from_dict(document)

    @cached_property
    def _first_candidate(self) -> datetime | None:
        return None if self.start is None else self.start - _TICK

    def following(self, moment: datetime) -> datetime | None:
        """``next_after`` for a moment that is known to be one in UTC; it may also lie before 1970."""
        if self._first_candidate is not None and moment < self._first_candidate:
            moment = self._first_candidate
        found = self._after(moment)
        return None if found is None or (self.end is not None and found > self.end) else found

    def _between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        found = self.following(start)
        while found is not None and found <= end:
            yield found
            found = self.following(found)


def in_utc(field: str, moment: datetime) -> datetime:
    """The instant in UTC; refused if it is none."""
    if moment is None:
        checks.refuse(field, moment, "a datetime with a time zone")
    checks.instant(field, moment)
    return moment.astimezone(UTC)


def whole_ms(field: str, moment: datetime) -> datetime:
    """The instant in UTC, not before ``moment``, in whole milliseconds: stores give it back as it is."""
    return from_ms(due_ms(in_utc(field, moment)))


def utc_text(moment: datetime) -> str:
    """An instant in ISO 8601, in UTC, as short as it is exact."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
