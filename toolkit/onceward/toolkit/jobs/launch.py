"""Submitting runs: which key they get, and what their job says about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from onceward.contracts import Json, RunId, RunSpec, Scheduler, canonical, new_request
from onceward.toolkit.jobs.retry import Retry
from onceward.toolkit.jobs.settings import JobSettings, Priority, job_name
from onceward.toolkit.resend import resend

_OCCURRENCE = "@"
_DEFAULT = Retry()


class Launched(NamedTuple):
    """A run that was submitted; ``new`` False: the key was known already, and nothing was changed."""

    run: RunId
    new: bool


class Launcher:
    """Submits runs as their jobs' settings say; jobs that only other servers know get the defaults."""

    def __init__(self, scheduler: Scheduler, settings: Callable[[str], JobSettings | None] = lambda name: None) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self.on_due: Callable[[], object] = lambda: None
        """Called when something was submitted that is due at once: a server here need not wait to hear of it."""

    def launch(
        self,
        job: str,
        data: Json = None,
        *,
        key: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        after: timedelta | None = None,
    ) -> Launched:
        """The run exists, made by this or before; without a key it gets one that nobody else has.

        Raises:
            InvalidRequest: the job's name, the data, the key or a time cannot be.
            StoreUnavailable: it was not submitted.
            OutcomeUnknown: it may have been submitted; with a key of your own, ask again.
        """
        spec = self.spec(job, data, key=key, priority=priority, run_at=run_at, after=after)
        return self.submit([spec])[0]

    def spec(
        self,
        job: str,
        data: Json = None,
        *,
        key: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        after: timedelta | None = None,
    ) -> RunSpec:
        """The run to be, as its job's settings say."""
        settings = self._settings(job)
        chosen = priority if priority is not None else settings.priority if settings else Priority.NORMAL
        return RunSpec(
            id=RunId(job_name(job), new_request() if key is None else key),
            payload=data,
            priority=int(chosen),
            run_at=run_at,
            after=after,
            max_crashes=(settings.retry if settings else _DEFAULT).max_crashes,
        )

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[Launched]:
        """All of them exist, in one round trip."""
        made = resend(lambda: self._scheduler.submit(specs))
        if any(spec.run_at is None and spec.after is None for spec in specs):
            self.on_due()
        return [Launched(spec.id, new) for spec, new in zip(specs, made, strict=True)]


def occurrence_key(nominal: datetime) -> str:
    """The key of the run that a schedule makes for this instant: the same on every server, so the store dedupes."""
    return _OCCURRENCE + nominal.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def nominal_time(key: str) -> datetime | None:
    """The instant for which a schedule made the run with this key; None: no schedule did."""
    if not key.startswith(_OCCURRENCE):
        return None
    try:
        found = datetime.fromisoformat(key[1:])
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def child_key(parent: RunId, job: str, data: Json, nth: int) -> str:
    """The key of the ``nth`` run with this job and data that the parent launches.

    A parent that is tried again launches the same children again: they get the same keys, so none runs twice, and
    other data is another child.
    """
    text = f"[{canonical([parent.job, parent.key, parent.stamp, job, nth])},{canonical(data, field='data')}]"
    return "child:v1:" + hashlib.sha256(text.encode()).hexdigest()
