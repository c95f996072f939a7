"""The store on one SQLite file, put together from its parts."""

from __future__ import annotations

import os
from datetime import timedelta

from onceward.contracts import checks
from onceward.contracts.clock import Clock
from onceward.contracts.errors import StoreMisconfigured
from onceward.contracts.runner import Store
from onceward.contracts.traits import Traits
from onceward.runners.clock import SystemClock, boot_id
from onceward.runners.sqlite import boots
from onceward.runners.sqlite.base import MAX_PAYLOAD_BYTES
from onceward.runners.sqlite.claims import ClaimPart
from onceward.runners.sqlite.database import Database
from onceward.runners.sqlite.executor import ExecutorPart
from onceward.runners.sqlite.lifecycle import LifecyclePart
from onceward.runners.sqlite.locks import LockPart
from onceward.runners.sqlite.options import Synchronous
from onceward.runners.sqlite.scheduler import SchedulerPart
from onceward.runners.sqlite.watch import SqliteWatch

BUSY_TIMEOUT = timedelta(seconds=5)
_DURABLE = ("FULL", "EXTRA")

# The number of a namespace in this file.   Params: name.
ADD_NAMESPACE = "INSERT INTO namespaces (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
NAMESPACE = "SELECT id FROM namespaces WHERE name = ?"


class SqliteStore(ExecutorPart, ClaimPart, LockPart, SchedulerPart, LifecyclePart, Store):
    """A store in one file that many processes of one machine share, and threads within each of them.

    Args:
        path: of the file; its folder must exist.
        namespace: of the application; several share a file without seeing each other.
        clock: moves leases and due times; the machine's unless given.
        synchronous: see ``Options``.
        busy_timeout: how long a request waits for other processes' transactions.
        boot: tells one boot of the machine from another; the machine's own unless given.
        create: the file is made if it does not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        namespace: str = "default",
        clock: Clock | None = None,
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: timedelta = BUSY_TIMEOUT,
        boot: str | None = None,
        create: bool = True,
    ) -> None:
        checks.namespace("namespace", namespace)
        self.namespace = namespace
        self._clock = clock or SystemClock()
        self._boot = boot
        self._watches: set[SqliteWatch] = set()
        self._traits = Traits(durable=synchronous in _DURABLE, shared=True, max_payload_bytes=MAX_PAYLOAD_BYTES)
        self._database = Database(
            _absolute(path), synchronous=synchronous, busy_timeout=busy_timeout.total_seconds(), create=create
        )
        self._database.committed = self._tell

    @property
    def traits(self) -> Traits:
        return self._traits

    def open(self) -> None:
        """See ``Lifecycle.open``. The first one after a boot of the machine finds all leases lapsed."""
        self._database.open()
        known = self._database.glance(lambda connection: connection.execute(NAMESPACE, (self.namespace,)).fetchone())
        if known is None:
            with self._database.write() as connection:
                connection.execute(ADD_NAMESPACE, (self.namespace,))
                known = connection.execute(NAMESPACE, (self.namespace,)).fetchone()
        self._ns = known[0]
        boots.notice(self._database, boot_id() if self._boot is None else self._boot, self._clock)

    def close(self) -> None:
        for watch in list(self._watches):
            watch.close()
        self._database.close()

    def _tell(self) -> None:
        """Watches of this process look at once."""
        for watch in list(self._watches):
            watch.tell()


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if text == ":memory:" or text.startswith("file:") or not text:
        raise StoreMisconfigured(
            f"SQLite path {text!r} is not accepted: give the path of a file, or take memory:// for a store in memory"
        )
    if "\0" in text:
        raise StoreMisconfigured(f"SQLite path {text!r} holds a NUL character")
    return os.path.abspath(text)
