"""Configuration documents of jobs: what holds for a job, for all servers, changed while they run.

A document is the record of one job: its defaults as the newest code says them, and beside them whatever somebody wants
otherwise. Every change is a compare-and-set of the whole document, so that none is ever lost (G11).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from onceward.contracts import ConfigDoc, ConfigWrite, InvalidRequest, Json, Runner, StoreUnavailable, new_request
from onceward.contracts.records import Record
from onceward.toolkit.jobs.settings import JobSettings, job_name
from onceward.toolkit.resend import resend

_PREFIX = "job:"
#: So many earlier checksums are remembered, so that old processes do not bring old code's settings back.
_EARLIER_KEPT = 20
_TRIES = 50
#: A wish for a run that somebody wrote as a bare ``true``: it gets an id before it is served.
UNNAMED = "true"
OVERRIDES = (*JobSettings.__struct_fields__, "timezone")


class JobConfig(Record, frozen=True, kw_only=True):
    """What a job's document says.

    Attributes:
        job: the job's name.
        enabled: False: no run of it is started anywhere, and its schedule makes none.
        enabled_at: when it was enabled last; what its schedule missed before that stays missed.
        checksum: of the code whose defaults stand here.
        earlier: checksums of older code.
        generation: how often new code has replaced the defaults.
        defaults: what that code says.
        overrides: what somebody wants otherwise.
        run_now: id of a wish for one run at once, or None. Consumed by exactly one submission, however many see it.
        version: of the document; 0: not stored yet.
    """

    job: str
    enabled: bool = True
    enabled_at: datetime | None = None
    checksum: str = ""
    earlier: tuple[str, ...] = ()
    generation: int = 1
    defaults: Mapping[str, Json]
    overrides: Mapping[str, Json] = {}
    run_now: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0

    def settings(self) -> JobSettings:
        """What holds for the job.

        Raises:
            InvalidRequest: an entry cannot be; names it.
        """
        return JobSettings().overridden(self.defaults).overridden(self.overrides)

    def to_document(self) -> dict[str, Json]:
        """The document; overrides stand at its top."""
        return {
            "job_name": self.job,
            "enabled": self.enabled,
            "enabled_at": self.enabled_at,
            "checksum": self.checksum,
            "earlier_checksums": list(self.earlier),
            "generation": self.generation,
            "default_config": self.defaults,
            "run_now": True if self.run_now == UNNAMED else self.run_now,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            **self.overrides,
        }


_OWN = frozenset(JobConfig(job="x", defaults={}).to_document())


def read(found: ConfigDoc) -> JobConfig:
    """What a document says, whoever wrote it.

    Raises:
        InvalidRequest: an entry is unknown, or its value cannot be; names it.
    """
    document = found.document
    if not isinstance(document, Mapping):
        raise InvalidRequest(found.name, document, "a mapping")
    for name, value in document.items():
        if name not in _OWN and name not in OVERRIDES:
            raise InvalidRequest(name, value, f"any of {', '.join(sorted({*_OWN, *OVERRIDES}))}")
    wish = document.get("run_now")
    config = JobConfig(
        job=found.name.removeprefix(_PREFIX),
        enabled=_typed(document, "enabled", bool, True),
        enabled_at=_typed(document, "enabled_at", datetime, None),
        checksum=_typed(document, "checksum", str, ""),
        earlier=tuple(map(str, _typed(document, "earlier_checksums", list, []))),
        generation=_typed(document, "generation", int, 1),
        defaults=_typed(document, "default_config", Mapping, {}),
        overrides={name: value for name, value in document.items() if name in OVERRIDES and name not in _OWN},
        run_now=UNNAMED if wish is True else _typed(document, "run_now", str, None) if wish else None,
        created_at=_typed(document, "created_at", datetime, None),
        updated_at=_typed(document, "updated_at", datetime, None),
        version=found.version,
    )
    config.settings()
    return config


class Configs:
    """The documents of all jobs in a store."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def get(self, job: str) -> JobConfig | None:
        """The job's document; None: no server has ever known the job."""
        found = self._runner.scheduler.read_config(_PREFIX + job_name(job))
        return None if found is None else read(found)

    def documents(self) -> dict[str, ConfigDoc]:
        """All of them as they stand, by job."""
        return {
            found.name.removeprefix(_PREFIX): found
            for found in self._runner.scheduler.configs()
            if found.name.startswith(_PREFIX)
        }

    def edit(self, job: str, change: Callable[[JobConfig | None], JobConfig | None]) -> JobConfig | None:
        """The document is what ``change`` makes of it as it stands; nobody else's change is lost.

        ``change`` is called again with what somebody else wrote in the meantime; it answers None to leave all as it is.
        The answer is the document as it is now.

        Raises:
            InvalidRequest: what it would say cannot be; nothing was changed.
        """
        for _ in range(_TRIES):
            present = self.get(job)
            wanted = change(present)
            if wanted is None or wanted == present:
                return present
            wanted = replace(wanted, updated_at=self._runner.lifecycle.now())
            wanted.settings()
            write = ConfigWrite(
                name=_PREFIX + job, document=wanted.to_document(), expected_version=present.version if present else 0
            )
            if written := resend(lambda write=write: self._runner.scheduler.write_config(write)):  # type: ignore[misc]
                return replace(wanted, version=written.version)
            time.sleep(random.uniform(0, 0.01))
        raise StoreUnavailable(f"the configuration of {job!r} is written by others all the time; nothing was changed")

    def change(self, job: str, change: Callable[[JobConfig], JobConfig]) -> JobConfig:
        """Like ``edit``, for a job that some server has known.

        Raises:
            InvalidRequest: no server has ever known the job.
        """
        changed = self.edit(job, lambda present: change(_known(job, present)))
        assert changed is not None  # _known saw to it
        return changed

    # -- what people change -------------------------------------------------------------------------------------

    def enable(self, job: str) -> JobConfig:
        """The job's runs start again; what its schedule missed meanwhile stays missed."""
        now = self._runner.lifecycle.now()
        return self.change(
            job, lambda present: present if present.enabled else replace(present, enabled=True, enabled_at=now)
        )

    def disable(self, job: str) -> JobConfig:
        """No further run of the job starts anywhere; those that run go on."""
        return self.change(job, lambda present: replace(present, enabled=False))

    def override(self, job: str, document: Mapping[str, Json]) -> JobConfig:
        """These settings hold from now on; None takes an override back. Others stay.

        Raises:
            InvalidRequest: an entry is unknown, or its value cannot be; nothing was changed.
        """
        for name, value in document.items():
            if name not in OVERRIDES:
                raise InvalidRequest(name, value, f"any of {', '.join(OVERRIDES)}")

        def change(present: JobConfig) -> JobConfig:
            merged = {**present.overrides, **document}
            return replace(present, overrides={name: value for name, value in merged.items() if value is not None})

        return self.change(job, change)

    def ask_run_now(self, job: str) -> JobConfig:
        """One run of the job starts as soon as a server sees this; a wish that is not served yet is not doubled."""
        wish = new_request()
        return self.change(job, lambda present: replace(present, run_now=present.run_now or wish))

    def registered(
        self, job: str, *, checksum: str, settings: JobSettings, keep_overrides: bool = False, take_back: bool = False
    ) -> JobConfig:
        """The job's document exists, with the defaults of the newest code that is known.

        New code resets the overrides and keeps whether the job is enabled. Code whose checksum stands among the earlier
        ones is old: in a rolling deployment it does not bring its settings back, unless it is to ``take_back`` them,
        since no server has the newer code any more.
        """
        defaults = settings.to_document()
        now = self._runner.lifecycle.now()

        def change(present: JobConfig | None) -> JobConfig | None:
            if present is None:
                return JobConfig(job=job, checksum=checksum, defaults=defaults, enabled_at=now, created_at=now)
            if checksum == present.checksum or (checksum in present.earlier and not take_back):
                return None
            earlier = [each for each in (present.checksum, *present.earlier) if each != checksum]
            return replace(
                present,
                checksum=checksum,
                earlier=tuple(earlier[:_EARLIER_KEPT]),
                generation=present.generation + 1,
                defaults=defaults,
                overrides=present.overrides if keep_overrides else {},
            )

        found = self.edit(job, change)
        assert found is not None  # it is made where it was absent
        return found


def _known(job: str, present: JobConfig | None) -> JobConfig:
    if present is None:
        raise InvalidRequest("job", job, "a job that a server of this namespace has known; see: onceward jobs")
    return present


def _typed(document: Mapping[str, Json], name: str, kind: type, otherwise: Any) -> Any:
    """The entry, if it is of that kind; the default if there is none."""
    value: Any = document.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequest(name, value, f"a {kind.__name__}")
    return value
