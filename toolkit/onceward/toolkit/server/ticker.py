"""The schedule loop: every server runs one, none is the leader, and each occurrence makes one run (G10).

What has become due is judged by the store's clock and by a cursor that all servers share. A run's key is the
occurrence's nominal time, so that two servers that submit the same occurrence make one run of it; then the cursor
moves on, by compare-and-set. A server that dies between the two leaves nothing undone: the next one submits the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from onceward.contracts import ConfigDoc, ConfigWrite, InvalidRequest, Json, Run, RunId, Runner, RunSpec, Status
from onceward.contracts.records import Record
from onceward.toolkit.jobs.launch import Launcher, occurrence_key
from onceward.toolkit.jobs.settings import JobSettings
from onceward.toolkit.resend import resend
from onceward.toolkit.schedules import Overlap, Schedule, jittered
from onceward.toolkit.schedules.policies import Due, judge
from onceward.toolkit.server.manager import Scheduled

log = logging.getLogger("onceward.server")

_PREFIX = "cursor:"
_LONGEST = timedelta(seconds=60)


class Cursor(Record, frozen=True, kw_only=True):
    """How far a job's schedule has been dealt with.

    Attributes:
        schedule: of which this is the cursor; another schedule begins anew.
        config_version: of the job's document that said so; who has read an older one does nothing.
        at: the latest occurrence that was dealt with; None: none was.
        last: key of the latest run that was submitted.
        skipped: the latest occurrences that made no run: first, last, and why.
    """

    schedule: Json
    config_version: int
    at: datetime | None = None
    last: str | None = None
    skipped: Json = None
    version: int = 0

    def to_document(self) -> dict[str, Json]:
        """The document."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "version"}


class Ticker:
    """Submits what schedules say. ``round`` is one look at all of them."""

    def __init__(self, runner: Runner, launcher: Launcher, scheduled: Callable[[], Mapping[str, Scheduled]]) -> None:
        self._runner, self._launcher, self._scheduled = runner, launcher, scheduled
        self._cursors: dict[str, Cursor] = {}
        self.problems: dict[str, str] = {}

    def round(self) -> float:
        """Every occurrence that is due has its run; the seconds until the next one.

        Raises:
            StoreError: some may not have; the next round goes on with them.
        """
        found = {
            name: each
            for name, each in self._scheduled().items()
            if each.plan.enabled and each.plan.settings.schedule is not None
        }
        if not found:
            return _LONGEST.total_seconds()
        now = self._runner.lifecycle.now()
        nearest = min((self._serve_or_say(each, now) for each in found.values()), default=_LONGEST)
        return max(0.0, nearest.total_seconds())

    def _serve_or_say(self, each: Scheduled, now: datetime) -> timedelta:
        """Like ``_serve``; what is wrong with one job does not keep the others from their runs."""
        job = each.config.job
        try:
            wait = self._serve(each, now)
        except InvalidRequest as error:
            if self.problems.get(job) != str(error):
                log.error("job %r: its schedule cannot be served: %s", job, error)
            self.problems[job] = str(error)
            return _LONGEST
        self.problems.pop(job, None)
        return wait

    def _serve(self, each: Scheduled, now: datetime) -> timedelta:
        """The job's occurrences up to now have been dealt with; how long until its next one."""
        job, settings = each.config.job, each.plan.settings
        schedule = settings.schedule
        assert schedule is not None  # round() left the others out
        cursor = self._cursors.get(job) or self._load(job)
        present = self._present(cursor, each, schedule, now)
        if present is None:
            return _LONGEST  # somebody has read a newer document than we have
        due = judge(schedule, present.at, now, settings.misfire)
        if due.cursor != present.at or cursor is None or present.schedule != cursor.schedule:
            present = self._present(self._load(job), each, schedule, now)  # what we know may be old
            if present is None:
                return _LONGEST
            due = judge(schedule, present.at, now, settings.misfire)
            if due.cursor != present.at:
                self._move(job, settings, present, due, each.config.version)
        following = schedule.next_after(max(due.cursor, now))
        return _LONGEST if following is None else min(following - now, _LONGEST)

    def _present(self, cursor: Cursor | None, each: Scheduled, schedule: Schedule, now: datetime) -> Cursor | None:
        """The cursor from which to go on; None: leave it to servers that know more."""
        document = schedule.to_dict()
        if cursor is None:
            return Cursor(schedule=document, config_version=each.config.version)
        if cursor.schedule != document:
            if each.config.version <= cursor.config_version:
                self._cursors.pop(each.config.job, None)
                return None
            return Cursor(
                schedule=document, config_version=each.config.version, last=cursor.last, version=cursor.version
            )
        enabled = each.config.enabled_at
        if cursor.at is not None and enabled is not None and cursor.at < enabled <= now:
            missed = schedule.latest(cursor.at, enabled)
            return cursor if missed is None else replace(cursor, at=missed)
        return cursor

    def _move(self, job: str, settings: JobSettings, cursor: Cursor, due: Due, config_version: int) -> None:
        """What is due is submitted, then the cursor moves; if somebody else moved it, theirs is read next time."""
        specs, why = self._to_submit(job, settings, cursor, due)
        if specs:
            self._launcher.submit(specs)
        skipped: Json = cursor.skipped
        if why is not None:
            skipped = {"first": why[0], "last": why[1], "why": why[2]}
            log.info("job %r: occurrences from %s to %s make no run: %s", job, *why)
        moved = Cursor(
            schedule=cursor.schedule,
            config_version=max(config_version, cursor.config_version),
            at=due.cursor,
            last=specs[-1].id.key if specs else cursor.last,
            skipped=skipped,
        )
        write = ConfigWrite(name=_PREFIX + job, document=moved.to_document(), expected_version=cursor.version)
        written = resend(lambda: self._runner.scheduler.write_config(write))
        if written is None:
            self._cursors.pop(job, None)
        else:
            self._cursors[job] = _read(written)

    def _to_submit(
        self, job: str, settings: JobSettings, cursor: Cursor, due: Due
    ) -> tuple[list[RunSpec], tuple[datetime, datetime, str] | None]:
        """The runs to be, and what is passed over, and why."""
        missed = None if due.skipped is None else (*due.skipped, "missed")
        occurrences = due.occurrences
        if occurrences and self._in_the_way(job, settings, cursor):
            return [], (occurrences[0], occurrences[-1], "the one before has not ended")
        specs = [
            self._launcher.spec(
                job, settings.data, key=occurrence_key(occurrence), run_at=jittered(occurrence, job, settings.jitter)
            )
            for occurrence in occurrences
        ]
        return specs, missed

    def _in_the_way(self, job: str, settings: JobSettings, cursor: Cursor) -> bool:
        """True: the run before has not ended, and the job's policy says that nothing starts meanwhile."""
        if cursor.last is None or settings.overlap is Overlap.ALLOW:
            return False
        run = RunId(job, cursor.last)
        before: Run | None = self._runner.executor.check(run)
        if before is None or before.status.ended:
            return False
        match settings.overlap:
            case Overlap.QUEUE_ONE:
                return before.status is Status.SCHEDULED and before.attempt == 0
            case Overlap.CANCEL_RUNNING:
                self._runner.scheduler.cancel(run)
                return False
            case _:
                return True

    def _load(self, job: str) -> Cursor | None:
        found = self._runner.scheduler.read_config(_PREFIX + job)
        if found is None:
            return None
        self._cursors[job] = _read(found)
        return self._cursors[job]


def cursors(documents: Iterable[ConfigDoc]) -> dict[str, Cursor]:
    """How far the schedule of each job has been dealt with, by these documents of its namespace."""
    return {found.name.removeprefix(_PREFIX): _read(found) for found in documents if found.name.startswith(_PREFIX)}


def _read(found: ConfigDoc) -> Cursor:
    """The cursor as it was written; only servers write it."""
    document = found.document
    assert isinstance(document, Mapping)
    at, last, version = document.get("at"), document.get("last"), document.get("config_version")
    return Cursor(
        schedule=document.get("schedule"),
        config_version=version if isinstance(version, int) else 0,
        at=at if isinstance(at, datetime) else None,
        last=last if isinstance(last, str) else None,
        skipped=document.get("skipped"),
        version=found.version,
    )
