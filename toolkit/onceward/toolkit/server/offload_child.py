"""The process of one offloaded body: ``python -m onceward.toolkit.server.offload_child``; see ``offload``.

What the body prints goes to standard error: standard output is for talking to the server.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Self

from onceward.contracts import Failure, InvalidRequest, Json, LeaseLost, OncewardError, RunId, canonical, parse
from onceward.contracts.times import span_ms
from onceward.toolkit.jobs.context import JobLogger
from onceward.toolkit.jobs.errors import Cancel, FatalError, RetryableError, Snooze
from onceward.toolkit.jobs.job import Job
from onceward.toolkit.jobs.launch import Launched, nominal_time
from onceward.toolkit.server.scanner import found_jobs

_KINDS = (Snooze, Cancel, FatalError, RetryableError, LeaseLost)
#: A body whose server is gone gets so long to notice that its lease is lost.
_ORPHANED = 5.0


class ChildContext:
    """What ``JobContext`` is in a server, in the process of an offloaded body: the same names, asked of the server."""

    def __init__(self, setup: Mapping[str, Any], line: Line) -> None:
        self.job, self.key = str(setup["job"]), str(setup["key"])
        self.id = RunId(self.job, self.key, str(setup["stamp"]))
        self.attempt, self.token = int(setup["attempt"]), int(setup["token"])
        self.failures, self.crashes = int(setup["failures"]), int(setup["crashes"])
        self.data: Json = parse(setup["data"])
        self.lost, self.cancelled, self.stopping = (
            line.events["lost"],
            line.events["cancelled"],
            line.events["stopping"],
        )
        fields = {"job": self.job, "key": self.key, "attempt": self.attempt, "token": self.token}
        self.logger = JobLogger(logging.getLogger(f"onceward.job.{self.job}"), fields)
        self._line = line

    @property
    def scheduled_for(self) -> datetime | None:
        """See ``JobContext``."""
        return nominal_time(self.key)

    def should_stop(self) -> bool:
        """See ``JobContext``."""
        return self.lost.is_set() or self.cancelled.is_set() or self.stopping.is_set()

    def raise_if_lost(self) -> None:
        """See ``JobContext``."""
        if self.lost.is_set():
            raise LeaseLost(str(self.id), self.token)

    @contextmanager
    def fenced(self) -> Iterator[int]:
        """See ``JobContext``."""
        self.touch()
        yield self.token
        self.raise_if_lost()

    def time_remaining(self) -> timedelta | None:
        """See ``JobContext``."""
        left = self._ask("time_remaining")
        return timedelta(seconds=left) if isinstance(left, float) else None

    def touch(self) -> None:
        """See ``JobContext``."""
        self._ask("touch")

    def progress(self, total: int | None, done: int, message: str = "") -> None:
        """See ``JobContext``."""
        self._ask("progress", total=total, done=done, message=message)

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
        """See ``JobContext``."""
        when = {
            "run_at": None if run_at is None else run_at.isoformat(),
            "after_ms": None if after is None else span_ms(after),
        }
        found = self._ask("launch", job=job, data=canonical(data), key=key, priority=priority, **when)
        assert isinstance(found, list)  # that is what the server answers
        return Launched(RunId(str(found[0]), str(found[1])), bool(found[2]))

    def once(self, operation_id: str) -> ChildStep:
        """See ``JobContext``."""
        return ChildStep(self, operation_id)

    def _ask(self, op: str, **more: object) -> Json:
        answer = self._line.ask(op, **more)
        match answer.get("error"):
            case None:
                return parse(answer["result"])
            case "lost":
                self.lost.set()
                raise LeaseLost(str(self.id), self.token)
            case "invalid":
                raise InvalidRequest(answer["field"], answer["value"], answer["allowed"])
            case "StepTaken":
                raise RetryableError(str(answer["message"]))
            case name:
                raise OncewardError(f"{name}: {answer['message']}")


class ChildStep:
    """See ``Once``."""

    def __init__(self, ctx: ChildContext, operation_id: str) -> None:
        self.first = False
        self.result: Json = None
        self._ctx, self._operation = ctx, operation_id

    def __enter__(self) -> Self:
        found = self._ctx._ask("once", operation=self._operation)
        assert isinstance(found, list)  # that is what the server answers
        self.first, self.result = bool(found[0]), found[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.first:
            failed = None if error is None else f"{type(error).__name__}: {error}"
            self._ctx._ask("step", operation=self._operation, result=canonical(self.result), failed=failed)


class Line:
    """The line to the server."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self.events = {name: threading.Event() for name in ("lost", "cancelled", "stopping")}
        self.signals: SimpleQueue[int] = SimpleQueue()
        """Signals that came; put there by their handler, which may do nothing else safely."""
        self._source, self._target = source, target
        self._writing = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, SimpleQueue[Mapping[str, Any]]] = {}

    def listen(self) -> None:
        """What the server says is heard, until it is gone; then the lease is lost, and soon this process ends."""
        for line in self._source:
            message = json.loads(line)
            if "event" in message:
                self.events[message["event"]].set()
            else:
                self._waiting.pop(message["answer"]).put(message)
        self.events["lost"].set()
        threading.Event().wait(_ORPHANED)
        os._exit(1)

    def mind_signals(self) -> None:
        """SIGTERM from the server, which has told us why, ends us; one to a whole group of processes: finish soon."""
        while number := self.signals.get():
            if self.events["lost"].is_set() or self.events["cancelled"].is_set():
                os._exit(128 + number)
            self.events["stopping"].set()

    def ask(self, op: str, **more: object) -> Mapping[str, Any]:
        """The server's answer."""
        number, answer = next(self._ids), SimpleQueue[Mapping[str, Any]]()
        self._waiting[number] = answer
        self.say(op=op, id=number, **more)
        return answer.get()

    def say(self, **message: object) -> None:
        """The server hears it."""
        with self._writing:
            self._target.write(json.dumps(message).encode() + b"\n")
            self._target.flush()


def main() -> None:
    """The body has run, and the server knows how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which says what is to be done
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so does a service manager's, to a whole group, until we can hear it
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = os.fdopen(os.dup(0), "rb")
    setup, own = json.loads(source.readline()), os.getpid()
    sys.path[:] = setup["path"]
    line = Line(source, target)
    for step in (line.listen, line.mind_signals):
        threading.Thread(target=step, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: line.signals.put(number))
    try:
        job = _job(str(setup["job"]), str(setup["source"]))
        context = ChildContext(setup, line)
        result = job.run(context)  # type: ignore[arg-type]  # the same names as JobContext
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        recorded = _recordable(result)
        _leave_if_forked(own)
        line.say(op="returned", result=recorded)
    except BaseException as error:  # also SystemExit: the server is told
        _leave_if_forked(own)
        line.say(op="raised", **_told(error))
    sys.stderr.flush()
    os._exit(0)  # threads that the body left behind do not keep it


def _job(name: str, source: str) -> Job:
    for job in found_jobs([Path(source) if source.endswith(".py") else source]):
        if job.name == name:
            return job
    raise FatalError(f"{source} has no job {name!r}; offloaded jobs stand in a module, with all they need")


def _told(error: BaseException) -> dict[str, object]:
    after = getattr(error, "after", None)
    said = Failure.of(error, traced=True)
    return {
        "kind": next((kind.__name__ for kind in _KINDS if isinstance(error, kind)), ""),
        "type": said.type,
        "message": said.message,
        "trace": said.trace,
        "after_ms": span_ms(after) if isinstance(after, timedelta) else None,
    }


def _leave_if_forked(own: int) -> None:
    """A child that the body forked, and that came back from it, has nothing to tell the server."""
    if os.getpid() != own:
        os._exit(0)


def _recordable(result: Any) -> str:
    """The result as it is recorded. One that cannot be is no reason to do the work again."""
    try:
        return canonical(result, field="result")
    except InvalidRequest as error:
        raise FatalError(str(error)) from error


async def _awaited(result: Any) -> Any:
    return await result


if __name__ == "__main__":
    main()
