"""A runner: one store, composed of its executor, scheduler and lifecycle; and how a kind of runner is described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import SplitResult

import msgspec

from onceward.contracts.executor import Executor
from onceward.contracts.lifecycle import Lifecycle
from onceward.contracts.scheduler import Scheduler
from onceward.contracts.traits import Traits


class Store(Executor, Scheduler, Lifecycle):
    """All three in one class, for stores where they share a connection."""


@dataclass(frozen=True, slots=True)
class Runner:
    """One store as the toolkit uses it. The three parts may come from one object or from three.

    A context manager: opens the store and closes it.
    """

    executor: Executor
    scheduler: Scheduler
    lifecycle: Lifecycle
    namespace: str
    url: str = ""
    """Where it is, for people; never holds a password."""

    @classmethod
    def of(cls, store: Store, *, namespace: str, url: str = "") -> Runner:
        """A runner whose three parts are one object."""
        return cls(executor=store, scheduler=store, lifecycle=store, namespace=namespace, url=url)

    @property
    def traits(self) -> Traits:
        return self.lifecycle.traits

    def open(self) -> Self:
        """The store is ready; see ``Lifecycle.open``."""
        self.lifecycle.open()
        return self

    def close(self) -> None:
        """The store is let go; see ``Lifecycle.close``."""
        self.lifecycle.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FromUrl(Protocol):
    """Turns the parts of a URL that are no query options (path, host, user) into options."""

    def __call__(self, url: SplitResult, /) -> Mapping[str, object]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerType:
    """A kind of runner, as the factory knows it. Third parties offer one by an entry point in ``onceward.runners``.

    Attributes:
        name: the type's name and URL scheme, for example ``"sqlite"``.
        options: a msgspec Struct with one typed field per option; unknown options are refused with a suggestion.
        build: makes an unopened runner of options and a namespace; must import the driver here, not before.
        from_url: options that stand in the URL itself; the query adds to them.
        extra: the extra that installs its driver, named when the import fails; None: needs none.
    """

    name: str
    options: type[msgspec.Struct]
    build: Callable[[Any, str], Runner]
    from_url: FromUrl
    extra: str | None = None
