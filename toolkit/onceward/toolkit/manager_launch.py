"""Functions as managed jobs: called under their lock, or launched in the background with arguments."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Generic, ParamSpec, Protocol, TypeVar

from onceward.contracts import OncewardError, checks
from onceward.contracts.records import Record
from onceward.toolkit.keys import Template
from onceward.toolkit.manager_history import JobView
from onceward.toolkit.manager_job import ManagedJob

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TIMEOUT = timedelta(hours=1)


class DependencyFailed(OncewardError):
    """A job that had to succeed first has failed. Nothing was started."""

    def __init__(self, view: JobView) -> None:
        super().__init__(f"job {view.name!r}, which had to succeed first, failed: {view.error}")
        self.view = view


class Terms(Record, frozen=True, kw_only=True):
    """How a job is started.

    Attributes:
        timeout: the longest it may run; then its lock is not renewed any more.
        lease: how long its lock outlives a process that died; None: the manager's.
        wait: how long to wait for the lock; zero: try once; None: the manager's.
        note: shown to whoever looks at the lock.
    """

    timeout: timedelta = DEFAULT_TIMEOUT
    lease: timedelta | None = None
    wait: timedelta | None = None
    note: str | None = None


class Starts(Protocol):
    """What a managed function needs of its manager."""

    def start_on(self, name: str, terms: Terms) -> ManagedJob:
        """The job ``name`` has started."""
        ...

    def wait_for(self, name: str, *, timeout: timedelta) -> JobView:
        """The latest start of a job has ended."""
        ...


class Managed(Generic[P, T]):
    """A function that runs under the lock of its name, with a record of every call.

    Its name may be a template over the function's arguments: ``"batch-{batch_id}"``. Calls raise what
    ``Manager.start`` raises, and what the function does.
    """

    def __init__(
        self, manager: Starts, body: Callable[P, T], *, name: str, terms: Terms, after: Sequence[str] = ()
    ) -> None:
        self.body = body
        self.name = name
        self.terms = terms
        self.after = tuple(after)
        self._manager = manager
        self._template = Template(name)
        self._signature = inspect.signature(body)
        functools.update_wrapper(self, body)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, run under the lock."""
        name = self.lock_name(*args, **kwargs)
        for earlier in self.after:
            view = self._manager.wait_for(earlier, timeout=self.terms.timeout)
            if view.in_error:
                raise DependencyFailed(view)
        with self._manager.start_on(name, self.terms):
            return self.body(*args, **kwargs)

    def lock_name(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The name of the lock and record for a call with these arguments."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        name = self._template.fill(_by_name(self._signature, bound.arguments))
        checks.name("name", name)
        return name


def _by_name(signature: inspect.Signature, arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Arguments by name, those collected by ``**kwargs`` under their own names."""
    named = dict(arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            extra = named.pop(parameter.name)
            assert isinstance(extra, Mapping)  # that is what ** collects
            named |= extra
    return named


def in_background(body: Callable[[], T], *, called: str) -> Future[T]:
    """The body runs in a thread of its own; the future has its result or its error.

    A thread each, not a pool: a job that waits for another one must not keep that from starting.
    """
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(body())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=f"onceward-{called}").start()
    return future
