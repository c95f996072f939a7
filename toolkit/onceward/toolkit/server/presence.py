"""Who is there: each server holds a lock of its own, which ends when the server does, however it ends."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from onceward.contracts import LockId, LockState, Runner, StoreError
from onceward.contracts.records import Record
from onceward.toolkit import versions
from onceward.toolkit.locks import Lock
from onceward.toolkit.renewal import Renewer

log = logging.getLogger("onceward.server")

#: Locks whose names start like this are ours, not a user's.
PREFIX = "onceward:server:"
#: So long a server that died is still taken for alive.
LEASE = timedelta(seconds=60)
_NOTE, _CHECKSUM = 3_500, 12


class ServerSeen(Record, frozen=True, kw_only=True):
    """A server as others see it.

    Attributes:
        holder: its name: host, process id, and what makes it unique.
        version: of Onceward there.
        jobs: which it has the code of, and the checksum of each; None: too many to say.
        max_concurrency: so many runs at a time.
    """

    holder: str
    version: str
    jobs: Mapping[str, str] | None
    max_concurrency: int

    def has(self, job: str, checksum: str) -> bool:
        """True if it has, or may have, this code of the job."""
        return self.jobs is None or self.jobs.get(job) == _shown(checksum)


class Presence:
    """One server's own lock. ``keep`` is called now and then; in between it is renewed like any lease."""

    def __init__(
        self,
        runner: Runner,
        holder: str,
        renewer: Renewer,
        jobs: Callable[[], Mapping[str, str]],
        max_concurrency: int,
    ) -> None:
        self._runner, self._holder, self._renewer = runner, holder, renewer
        self._jobs, self._max_concurrency = jobs, max_concurrency
        self._lock: Lock | None = None
        self._said = ""
        self._guard = threading.Lock()

    def keep(self) -> None:
        """Others can see this server, and what it has; also again, after the store was away for longer than a lease."""
        note = _note(self._jobs(), self._max_concurrency)
        with self._guard:
            if self._lock is not None and not self._lock.lost.is_set() and self._said == note:
                return
            self._release()
            lock = Lock(
                self._runner,
                PREFIX + self._holder,
                lease=LEASE,
                note=note,
                holder=self._holder,
                renewer=self._renewer,
            )
            if lock.try_acquire():
                self._lock, self._said = lock, note

    def leave(self) -> None:
        """Others see that this server is gone; where the store does not answer, they do when the lease has lapsed."""
        with self._guard:
            self._release()

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            try:
                lock.release()
            except StoreError as error:
                log.debug("others learn later that this server is gone: %s", error)


def seen(locks: Collection[LockState]) -> list[ServerSeen]:
    """The servers that live, by these locks of their namespace."""
    alive = [lock for lock in locks if is_server(lock) and (lock.remaining is None or lock.remaining > timedelta(0))]
    return [_read(lock) for lock in alive]


def is_server(lock: LockState) -> bool:
    """True for a server's own lock."""
    return isinstance(lock.lease.resource, LockId) and lock.lease.resource.name.startswith(PREFIX)


def _shown(checksum: str) -> str:
    return checksum[:_CHECKSUM]


def _note(jobs: Mapping[str, str], max_concurrency: int) -> str:
    known = {job: _shown(checksum) for job, checksum in sorted(jobs.items())}
    said = {"version": versions.of_onceward(), "max_concurrency": max_concurrency, "jobs": known}
    text = json.dumps(said, ensure_ascii=False)
    return text if len(text) <= _NOTE else json.dumps(said | {"jobs": None})


def _read(lock: LockState) -> ServerSeen:
    said = json.loads(lock.note or "{}")
    jobs = said.get("jobs")
    return ServerSeen(
        holder=lock.lease.holder,
        version=said.get("version", "unknown"),
        jobs=jobs,
        max_concurrency=said.get("max_concurrency", 0),
    )
