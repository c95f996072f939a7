"""What should run, and when; and how to hear of changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from onceward.contracts.records import ConfigDoc, RunId
from onceward.contracts.requests import Cancelled, ConfigWrite, Interest, RunSpec


class Watch(ABC):
    """Tells that something of interest may have changed since the watch was opened or last waited.

    Open it first, then look, then wait: a change between the look and the wait is not missed. A context manager.
    """

    @abstractmethod
    def wait(self, timeout: float) -> bool:
        """True: look again; something may have changed, or a run became due. False: nothing for ``timeout`` seconds.

        May answer True for nothing; never sleeps past a change it can see. Raises ``StoreUnavailable`` when the
        store is gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Nothing of the watch is left in the store; a thread that waits returns False soon. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Scheduler(ABC):
    """What should run, and when. Same rules for time, repetition and errors as ``Executor``."""

    @abstractmethod
    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        """Every run exists; True where this request made it, False where (job, key, stamp) was known already."""

    @abstractmethod
    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        """A SCHEDULED run is due at ``run_at``; False: it is absent, held or ended, and nothing changed."""

    @abstractmethod
    def cancel(self, run: RunId) -> Cancelled:
        """A SCHEDULED run will not start; a RUNNING one's holder is asked to stop at its next renewal."""

    @abstractmethod
    def watch(self, interest: Interest) -> Watch:
        """A watch for changes of interest from now on."""

    @abstractmethod
    def read_config(self, name: str) -> ConfigDoc | None:
        """The configuration document, or None."""

    @abstractmethod
    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        """The document is written, with the next version; None: its version was another one, nothing changed (G11).

        A deletion answers with the document deleted. After one, a new document starts behind the old versions, so
        that a version never comes back.
        """

    @abstractmethod
    def configs(self) -> Sequence[ConfigDoc]:
        """All configuration documents, by name."""
