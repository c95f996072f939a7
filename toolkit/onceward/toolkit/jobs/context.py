"""What a job's body gets: its data, its attempt, its lease, and what it can do about them."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from onceward.contracts import Json, Progress, Run, RunId, canonical
from onceward.toolkit.jobs.launch import Launched, Launcher, child_key, nominal_time
from onceward.toolkit.jobs.once import Once
from onceward.toolkit.renewal import HeldLease, LostSignal, Renewer

#: Held while a context counts what it has launched: one for all, since few launch anything.
_counting = threading.Lock()
_current: contextvars.ContextVar[JobContext | None] = contextvars.ContextVar("onceward_job_context", default=None)


def current_job_context() -> JobContext | None:
    """The context of the job whose body runs here; None outside of one."""
    return _current.get()


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Says with every line which run it is about: as text, and as fields of the record for structured logs."""

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """The line names the run, and the record has the fields ``job``, ``key``, ``attempt``, ``token``."""
        fields = dict(self.extra or {})
        kwargs["extra"] = fields | dict(kwargs.get("extra") or {})
        return f"[{fields['job']}/{fields['key']} #{fields['attempt']}] {msg}", kwargs


class JobContext:
    """One attempt of a run, as its body sees it.

    Attributes:
        run: as it was claimed.
        data: what the run was submitted with.
        stopping: set when the server shuts down: finish soon, or raise ``Snooze``.
    """

    def __init__(
        self,
        run: Run,
        held: HeldLease,
        *,
        renewer: Renewer,
        launcher: Launcher,
        stopping: threading.Event | None = None,
        data: Json = None,
    ) -> None:
        self.run = run
        self.data = data
        self.stopping = threading.Event() if stopping is None else stopping
        self._held, self._renewer, self._launcher = held, renewer, launcher

    @cached_property
    def _children(self) -> Counter[str]:
        """How many runs of each kind it has launched."""
        return Counter()

    @cached_property
    def logger(self) -> JobLogger:
        """Logs with the run's name on every line."""
        fields = {"job": self.job, "key": self.key, "attempt": self.attempt, "token": self.token}
        return JobLogger(logging.getLogger(f"onceward.job.{self.job}"), fields)

    @property
    def id(self) -> RunId:
        """The run's identity."""
        return self.run.id

    @property
    def job(self) -> str:
        """The job's name."""
        return self.run.job

    @property
    def key(self) -> str:
        """The run's key."""
        return self.run.key

    @property
    def attempt(self) -> int:
        """Which try of the run this is, from 1; crashed ones are counted, too."""
        return self.run.attempt

    @property
    def scheduled_for(self) -> datetime | None:
        """The nominal time of a scheduled run; use this, not the present time, for what the run is about."""
        return nominal_time(self.run.key)

    # -- the right to go on -------------------------------------------------------------------------------------

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every earlier attempt. Give it to whatever the work writes to."""
        return self._held.token

    @property
    def lost(self) -> LostSignal:
        """Set when the lease is lost, or may be: somebody else may run this now, so stop."""
        return self._held.lost

    @property
    def cancelled(self) -> threading.Event:
        """Set when somebody asked for the run to stop, or its timeout has passed."""
        return self._held.cancelled

    def should_stop(self) -> bool:
        """True: end now. The lease is lost, somebody asked, or the server shuts down."""
        return self.lost.is_set() or self.cancelled.is_set() or self.stopping.is_set()

    def raise_if_lost(self) -> None:
        """Raise ``LeaseLost`` if the lease is lost; costs nothing, so ask often."""
        self._held.raise_if_lost()

    @contextmanager
    def fenced(self) -> Iterator[int]:
        """A block that is entered only while the store says that the lease is ours; gives the token.

        The lease is renewed before, so the block has a whole lifetime of it. Effects outside are safe only if they
        check the token: write ``... WHERE token <= :token`` and store it along. Raises ``LeaseLost`` before the block,
        or after it if the lease ran out in its middle.
        """
        self.touch()
        yield self.token
        self.raise_if_lost()

    def time_remaining(self) -> timedelta | None:
        """How long the lease may be trusted if it were not renewed any more; None: for ever."""
        return self._held.time_remaining()

    def touch(self) -> None:
        """The lease is renewed now. It is renewed by itself, too; this tells whether it is still ours.

        Raises:
            LeaseLost: it is not.
            StoreError: the store did not answer; the renewal goes on by itself.
        """
        self._held.touch()

    def progress(self, total: int | None, done: int, message: str = "") -> None:
        """Others can see that ``done`` of ``total`` units are done; the lease is renewed. Raises like ``touch``."""
        self._held.touch(progress=Progress(done=done, total=total, message=message))

    # -- other runs, and steps ----------------------------------------------------------------------------------

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
        """A run of another job (or of this one) is submitted.

        Without a key it gets one made of this run, the job and the data: when this run is tried again, what it
        launched before is not launched twice.

        Raises:
            LeaseLost: this attempt is not the run's any more, and nothing was submitted.
        """
        self.raise_if_lost()
        chosen = key if key is not None else self._child_key(job, data)
        return self._launcher.launch(job, data, key=chosen, priority=priority, run_at=run_at, after=after)

    def once(self, operation_id: str) -> Once:
        """A step that is done once, however often this job is tried, in any process; see ``Once``.

            with ctx.once("charge-42") as step:
                if step.first:
                    step.result = charge()

        The step's own crash is at-least-once, as everything outside the store is. It is known as long as its record is
        kept (see the server's retention).
        """
        self.raise_if_lost()
        return Once(self._renewer, self._held.lease, operation_id)

    def _child_key(self, job: str, data: Json) -> str:
        kind = canonical([job, canonical(data, field="data")])
        with _counting:
            self._children[kind] += 1
            return child_key(self.id, job, data, self._children[kind])

    def entered(self) -> _Entered:
        """Within it, this is ``current_job_context()``."""
        return _Entered(self)


class _Entered:
    """Says for a while whose body runs here. A class, since each run passes through and a generator costs more."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _current.set(self._context)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
