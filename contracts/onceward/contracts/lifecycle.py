"""The store itself: open, close, look, clean up, and what only an operator does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from onceward.contracts.records import Lease, LockId, LockState, Record, Run, RunId, Status
from onceward.contracts.requests import Purge, Rearm, RunQuery
from onceward.contracts.traits import Traits


class Health(Record, frozen=True, kw_only=True):
    """Whether a round trip to the store works now, how long it took, and what the store says of itself."""

    ok: bool
    latency: timedelta
    details: Mapping[str, str | int | float | bool]


class Lifecycle(ABC):
    """The store itself. Same rules for errors as ``Executor``."""

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What this store promises as it is configured; final once it is open."""

    @abstractmethod
    def open(self) -> None:
        """The store is reachable and has what the runner needs (tables, indexes, scripts). May be called twice.

        Raises:
            StoreMisconfigured: it can never work like this; says what to do.
            StoreUnavailable: not now.
        """

    @abstractmethod
    def close(self) -> None:
        """No connection and no thread of ours is left; waiting watches end. Leases stay. May be called twice (G17)."""

    @abstractmethod
    def now(self) -> datetime:
        """The store's clock, in UTC."""

    @abstractmethod
    def health(self) -> Health:
        """One round trip; never raises: a store that is gone is ``ok=False`` with the reason in ``details``."""

    @abstractmethod
    def runs(self, query: RunQuery) -> Sequence[Run]:
        """The runs that match, in order of submission (newest first unless asked otherwise)."""

    @abstractmethod
    def locks(self) -> Sequence[LockState]:
        """Locks that are held, by name; lapsed ones that nobody has taken since are among them."""

    @abstractmethod
    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        """How many runs each job has in each status; of one job, under one stamp (canonical text), if asked so.

        Statuses without a run are left out.
        """

    @abstractmethod
    def purge(self, request: Purge) -> int:
        """Ended runs that match are gone, and their number is the answer; tokens go on behind them (G2, G14).

        The key of a purged run may be admitted again: retention is the window in which duplicates are known.
        """

    @abstractmethod
    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        """The holder has lost it at once, fenced off by a larger token; the answer is the lease that it had.

        A run can be taken over at once, as after a lapse. With ``token``, only if that is still the newest.
        None: nobody held it (or not with that token), and nothing changed.
        """

    @abstractmethod
    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        """Ended runs are SCHEDULED again, due now, with failures and crashes forgiven; attempts and tokens go on.

        False: absent, not ended, or the token is not its newest; nothing changed. True again when repeated before
        anything else happened to the run.
        """
