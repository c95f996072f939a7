"""Who is there: each server holds a lock of its own, which ends when the server does, however it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
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
_NOTE = 3_500


class ServerSeen(Record, frozen=True, kw_only=True):
    """A server as others see it.

    Attributes:
        holder: its name: host, process id, and what makes it unique.
        version: of Onceward there.
        jobs: which it has the code of; None: too many to say.
        max_concurrency: so many runs at a time.
    """

    holder: str
    version: str
    jobs: frozenset[str] | None
    max_concurrency: int


class Presence:
    """One server's own lock. ``keep`` is called now and then; in between it is renewed like any lease."""

    def __init__(
        self, runner: Runner, holder: str, renewer: Renewer, jobs: Callable[[], Collection[str]], max_concurrency: int
    ) -> None:
        self._runner, self._holder, self._renewer = runner, holder, renewer
        self._jobs, self._max_concurrency = jobs, max_concurrency
        self._lock: Lock | None = None

    def keep(self) -> None:
        """Others can see this server; also again, after the store was away for longer than the lease."""
        if self._lock is not None and not self._lock.lost.is_set():
            return
        self.leave()
        lock = Lock(
            self._runner,
            PREFIX + self._holder,
            lease=LEASE,
            note=_note(self._jobs(), self._max_concurrency),
            holder=self._holder,
            renewer=self._renewer,
        )
        if lock.try_acquire():
            self._lock = lock

    def leave(self) -> None:
        """Others see that this server is gone; where the store does not answer, they do when the lease has lapsed."""
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


def _note(jobs: Collection[str], max_concurrency: int) -> str:
    said = {"version": versions.of_onceward(), "max_concurrency": max_concurrency, "jobs": sorted(jobs)}
    text = json.dumps(said, ensure_ascii=False)
    return text if len(text) <= _NOTE else json.dumps(said | {"jobs": None})


def _read(lock: LockState) -> ServerSeen:
    said = json.loads(lock.note or "{}")
    jobs = said.get("jobs")
    return ServerSeen(
        holder=lock.lease.holder,
        version=said.get("version", "unknown"),
        jobs=None if jobs is None else frozenset(jobs),
        max_concurrency=said.get("max_concurrency", 0),
    )
