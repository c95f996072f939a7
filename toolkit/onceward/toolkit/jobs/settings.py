"""What holds for a job: what its code says, and what a configuration document says instead."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from onceward.contracts import InvalidRequest, Json, canonical, checks
from onceward.contracts.records import PRIORITY_HIGHEST, PRIORITY_LOWEST, Record
from onceward.contracts.times import span_ms
from onceward.toolkit.jobs.retry import Retry, duration
from onceward.toolkit.schedules import Misfire, MisfirePolicy, Overlap, Schedule, parse
from onceward.toolkit.schedules.policies import MAX_LIMIT
from onceward.toolkit.zones import time_zone

#: Names of jobs leave room for the prefixes of the documents about them.
MAX_JOB_NAME_BYTES = 200
MAX_CONCURRENCY = 100_000


class Priority(enum.IntEnum):
    """Names for priorities; among runs that are due, a higher one goes first. Any number between them works, too."""

    LOWEST = -20
    LOW = -10
    NORMAL = 0
    HIGH = 10
    HIGHEST = 20


class Where(enum.StrEnum):
    """Where a body runs."""

    THREAD = "thread"
    """In a thread of the server; coroutine functions in an event loop of the server."""
    PROCESS = "process"
    """In a process of its own, which can be killed."""


class JobSettings(Record, frozen=True, kw_only=True):
    """What holds for a job. Every field can be overridden by the job's configuration document, while servers run.

    Attributes:
        schedule: when it runs by itself; None: only when somebody submits a run.
        misfire: what becomes of missed occurrences.
        overlap: what becomes of an occurrence while the one before it has not ended.
        jitter: an occurrence starts up to so much later, the same for every server.
        retry: when a failed run is tried again.
        priority: of its runs, unless a submission says otherwise.
        concurrency: at most so many runs at a time in one process; None: the server's default.
        max_running: at most so many runs at a time in the whole namespace; None: no limit, or one where the job is
            scheduled and its occurrences must not overlap.
        lock_limit: at most so many held leases in one process; None: as many as run.
        lock_lifetime: how long a run outlives the process that ran it; renewed while it lives. None: the server's.
        timeout: a body that takes longer is told to stop, and then given up. None: no limit.
        data: what ``ctx.data`` is in scheduled runs.
    """

    schedule: Schedule | None = None
    misfire: Misfire = Misfire()
    overlap: Overlap = Overlap.SKIP
    jitter: timedelta = timedelta(0)
    retry: Retry = Retry()
    priority: int = Priority.NORMAL
    concurrency: int | None = None
    max_running: int | None = None
    lock_limit: int | None = None
    lock_lifetime: timedelta | None = None
    timeout: timedelta | None = None
    data: Json = None

    def __post_init__(self) -> None:
        if self.schedule is not None:
            checks.kind("schedule", self.schedule, Schedule)
        checks.kind("misfire", self.misfire, Misfire)
        checks.kind("overlap", self.overlap, Overlap)
        checks.kind("retry", self.retry, Retry)
        _priority(self.priority)
        for name in ("concurrency", "max_running", "lock_limit"):
            limit: int | None = getattr(self, name)
            if limit is not None:
                checks.whole(name, limit, 1, MAX_CONCURRENCY)
        checks.delay("jitter", self.jitter)
        checks.lease("lock_lifetime", self.lock_lifetime)
        checks.delay("timeout", self.timeout)
        canonical(self.data, field="data")

    @property
    def cluster_limit(self) -> int | None:
        """How many runs of the job may run at a time in the whole namespace; None: any number."""
        if self.max_running is not None or self.schedule is None or self.overlap is Overlap.ALLOW:
            return self.max_running
        return 1

    def to_document(self) -> dict[str, Json]:
        """The settings as data; durations are milliseconds."""
        return {
            "schedule": None if self.schedule is None else self.schedule.to_dict(),
            "timezone": None if self.schedule is None else self.schedule.timezone,
            "misfire": _misfire_document(self.misfire),
            "overlap": self.overlap.value,
            "jitter": span_ms(self.jitter),
            "retry": self.retry.to_document(),
            "priority": int(self.priority),
            "concurrency": self.concurrency,
            "max_running": self.max_running,
            "lock_limit": self.lock_limit,
            "lock_lifetime": None if self.lock_lifetime is None else span_ms(self.lock_lifetime),
            "timeout": None if self.timeout is None else span_ms(self.timeout),
            "data": self.data,
        }

    def overridden(self, document: Mapping[str, object]) -> JobSettings:
        """These settings with what ``document`` says instead.

        Raises:
            InvalidRequest: an entry is unknown, or its value cannot be; names it.
        """
        fields: dict[str, object] = {name: getattr(self, name) for name in self.__struct_fields__}
        for name, value in document.items():
            if name not in fields and name != "timezone":
                raise InvalidRequest(str(name), value, f"any of {', '.join([*fields, 'timezone'])}")
            if name not in ("schedule", "timezone"):
                fields[name] = self._read(name, value)
        if "schedule" in document or "timezone" in document:
            fields["schedule"] = self._schedule(document)
        return JobSettings(**fields)  # type: ignore[arg-type]  # __post_init__ looks at every one

    def _read(self, name: str, value: object) -> object:
        match name:
            case "retry":
                return value if isinstance(value, Retry) else self.retry.overridden(value)
            case "misfire":
                return _misfire(self.misfire, value)
            case "overlap":
                return member(Overlap, name, value)
            case "jitter":
                return duration(name, value)
            case "lock_lifetime" | "timeout":
                return None if value is None else duration(name, value)
            case _:
                return value

    def _schedule(self, document: Mapping[str, object]) -> Schedule | None:
        """The schedule, if either it or its zone is another one."""
        present = None if self.schedule is None else self.schedule.to_dict()
        source, timezone = document.get("schedule", present), document.get("timezone")
        if timezone is None and self.schedule is not None:
            timezone = self.schedule.timezone
        if timezone is not None:
            timezone = time_zone(timezone).key  # type: ignore[arg-type]  # it refuses what is no name of one
        if "timezone" in document and "schedule" not in document and present is not None:
            source = {**present, "timezone": timezone}
        return read_schedule(source, timezone)


def read_schedule(source: object, timezone: str | None = None) -> Schedule | None:
    """The schedule that somebody wrote, None for none; a zone of its own wins over ``timezone``.

    Raises:
        InvalidRequest: it is not understood; says what is allowed.
    """
    if source is None or isinstance(source, Schedule):
        return source
    if not isinstance(source, (str, datetime, timedelta, Mapping)):
        raise InvalidRequest("schedule", source, "text such as '0 * * * *' or 'every 5 minutes', or a mapping")
    try:
        if isinstance(source, Mapping):
            return parse({"timezone": timezone, **source} if timezone is not None else source)
        return parse(source, timezone=timezone)
    except InvalidRequest as error:
        if error.field.startswith(("schedule", "timezone")):
            raise
        raise InvalidRequest(f"schedule, {error.field}", error.value, error.allowed) from None


def _misfire(present: Misfire, value: object) -> Misfire:
    """A rule for what was missed: the policy's name, or a mapping with policy, limit and grace."""
    if isinstance(value, Misfire):
        return value
    given = dict(value) if isinstance(value, Mapping) else {"policy": value}
    unknown = [name for name in given if name not in ("policy", "limit", "grace")]
    if unknown:
        raise InvalidRequest(f"misfire.{unknown[0]}", given[unknown[0]], "policy, limit or grace")
    limit, grace = given.get("limit", present.limit), given.get("grace")
    if not isinstance(limit, int):
        raise InvalidRequest("misfire.limit", limit, f"a whole number from 1 to {MAX_LIMIT}")
    return Misfire(
        policy=member(MisfirePolicy, "misfire.policy", given.get("policy", present.policy)),
        limit=limit,
        grace=present.grace if grace is None else duration("misfire.grace", grace),
    )


def _misfire_document(misfire: Misfire) -> dict[str, Json]:
    return {
        "policy": misfire.policy.value,
        "limit": misfire.limit,
        "grace": None if misfire.grace is None else span_ms(misfire.grace),
    }


_Kind = TypeVar("_Kind", bound=enum.StrEnum)


def member(kind: type[_Kind], field: str, value: object) -> _Kind:
    """The member of an enumeration, or the one with this value.

    Raises:
        InvalidRequest: there is none; names all.
    """
    try:
        return kind(str(value))
    except ValueError:
        raise InvalidRequest(field, value, " or ".join(each.value for each in kind)) from None


def _priority(value: int) -> None:
    checks.whole("priority", int(value) if isinstance(value, Priority) else value, PRIORITY_LOWEST, PRIORITY_HIGHEST)


def job_name(value: str) -> str:
    """The name, if a job may be called so."""
    checks.name("name", value)
    if len(value.encode()) > MAX_JOB_NAME_BYTES:
        checks.refuse("name", value, f"at most {MAX_JOB_NAME_BYTES} bytes in UTF-8")
    if value.startswith("onceward:"):
        checks.refuse("name", value, "a name that does not start with 'onceward:', which is kept for our own records")
    return value
