"""Jobs of which nothing runs and hardly anything waits: what a look has found of them, and what was told since.

A claim may go by that without a look of its own, if its transaction makes sure that it is all there is: no key among
the job's running or waiting runs is newer than the look, but for those that are known, which are as they are known.
Where nothing runs, nothing has lapsed and no limit is reached, so this is the whole truth about the job at that moment.

A run that this process has submitted is known as soon as the watch tells of it, which may be before the answer comes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from onceward.runners.etcd import names, wire
from onceward.runners.etcd.names import Names, behind
from onceward.runners.etcd.wire import Guard, Kv

#: With more runs waiting than this, a look is worth its trip: the server goes over all of them for each guard.
_FEW = 8
#: So many jobs are remembered, and so many submissions whose answer has not come.
_JOBS, _AWAITED = 64, 64


class Waiting(NamedTuple):
    """A run that waits: its key in q, the rest of its name, and the revision that has written both key and record."""

    key: bytes
    tail: bytes
    since: int


class _Job(NamedTuple):
    """All that waited for a job at a revision, as far as it is due by a moment, and what was told since."""

    revision: int
    until: int
    waiting: dict[bytes, Waiting]


class Quiet:
    """What is known of quiet jobs. Threads share it."""

    def __init__(self, keys: Names) -> None:
        self._names = keys
        self._lock = threading.Lock()
        self._jobs: dict[bytes, _Job] = {}
        self._awaited: dict[bytes, Kv] = {}

    def seen(self, job: bytes, revision: int, until: int, waiting: Iterable[Kv]) -> None:
        """Nothing of the job ran at this revision, and what is due by ``until`` (wall, ms) was just this."""
        found = {kv.key: Waiting(kv.key, kv.value, kv.modified) for kv in waiting}
        with self._lock:
            self._jobs.pop(job, None)
            if len(found) <= _FEW:
                self._jobs[job] = _Job(revision, until, found)
                if len(self._jobs) > _JOBS:
                    del self._jobs[next(iter(self._jobs))]

    def forget(self, jobs: Iterable[bytes]) -> None:
        """They are not quiet any more, or not as they were known."""
        with self._lock:
            for job in jobs:
                self._jobs.pop(job, None)

    def awaits(self, key: bytes, record: Kv) -> None:
        """A run is being submitted, which will have this key in q, and this record but for its revision."""
        with self._lock:
            self._awaited[key] = record
            if len(self._awaited) > _AWAITED:
                del self._awaited[next(iter(self._awaited))]

    def told(self, key: bytes, tail: bytes, revision: int) -> Kv | None:
        """A run waits, since this revision; its record, if we have submitted it."""
        job = self._names.parts(key)[0] + b"/"
        with self._lock:
            known = self._jobs.get(job)
            if known is not None and revision > known.revision:
                before = known.waiting.get(key)
                if before is None or before.since < revision:
                    known.waiting[key] = Waiting(key, tail, revision)
                if len(known.waiting) > _FEW:
                    del self._jobs[job]
            record = self._awaited.pop(key, None)
        return None if record is None else record._replace(created=revision, modified=revision)

    def all_of(self, jobs: Sequence[bytes], wall: int) -> tuple[list[Waiting], list[Guard]] | None:
        """All that waits for these jobs, and what must be true for that; None: something is not known."""
        waiting: list[Waiting] = []
        guards: list[Guard] = []
        with self._lock:
            for job in jobs:
                known = self._jobs.get(job)
                if known is None or wall >= known.until:
                    return None
                waiting += known.waiting.values()
                guards += self._guards(job, known)
        return waiting, guards

    def _guards(self, job: bytes, known: _Job) -> list[Guard]:
        running, scheduled = (self._names.prefix + kind + job for kind in (names.RUNNING, names.SCHEDULED))
        guards, start = [wire.none_newer(running, behind(running), known.revision)], scheduled
        for key, _, since in sorted(known.waiting.values()):
            guards += [wire.none_newer(start, key, known.revision), wire.unchanged(key, since)]
            start = key + b"\0"
        return [*guards, wire.none_newer(start, behind(scheduled), known.revision)]
