"""Bodies in processes of their own: whatever they do, the server goes on, and they can be ended from outside.

The child is started anew (never forked), loads the job by its module, and talks to the server by lines of JSON: what it
asks of its context (progress, touch, launch, a step) is done by the server, which alone holds the lease. It is told
when to stop; if it does not, it is terminated, and then killed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import IO, Any

from onceward.contracts import InvalidRequest, Json, LeaseLost, OncewardError, canonical, parse
from onceward.toolkit.jobs.context import JobContext
from onceward.toolkit.jobs.errors import Cancel, FatalError, RetryableError, Snooze
from onceward.toolkit.jobs.job import Job
from onceward.toolkit.jobs.once import Once
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.server.scanner import source_of

log = logging.getLogger("onceward.server")

CHILD = "onceward.toolkit.server.offload_child"
#: From being told to stop to SIGTERM, and from there to SIGKILL.
GRACE, KILL_AFTER = 5.0, 2.0
_LOOK_EVERY = 0.05


class OffloadedError(Exception):
    """What a body raised in its process; its type is called like the original's."""


class ProcessEnded(OncewardError):
    """The process of a body ended without a word."""


def run_in_process(job: Job, ctx: JobContext, *, grace: float = GRACE) -> Json:
    """What the body returned, in a process of its own; raises what it raised.

    Raises:
        ProcessEnded: the process ended before its body did.
        LeaseLost: the lease was lost, and the process was ended.
    """
    child = _Child(job, ctx)
    try:
        child.supervise(grace)
        return child.outcome()
    finally:
        child.close()


class _Child:
    """The process of one body, as the server sees it."""

    def __init__(self, job: Job, ctx: JobContext) -> None:
        self._ctx = ctx
        self._steps: dict[str, Once] = {}
        self._end: Mapping[str, Any] | None = None
        self._process = subprocess.Popen([sys.executable, "-m", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._told: set[str] = set()
        run = ctx.run
        self._say(
            job=job.name,
            source=source_of(job),
            path=sys.path,
            key=run.key,
            stamp=run.id.stamp,
            attempt=run.attempt,
            failures=run.failures,
            crashes=run.crashes,
            token=ctx.token,
            data=canonical(ctx.data),
        )
        self._listener = threading.Thread(target=self._listen, name="onceward-offload", daemon=True)
        self._listener.start()

    def supervise(self, grace: float) -> None:
        """The process has ended, by itself or because it had to."""
        stop_at: float | None = None
        while not self._over(_LOOK_EVERY):
            for what, event in (("lost", self._ctx.lost), ("cancelled", self._ctx.cancelled)):
                if event.is_set():
                    self._tell(what)
                    stop_at = stop_at or lease_time() + grace
            if self._ctx.stopping.is_set():
                self._tell("stopping")
            if stop_at is not None and lease_time() >= stop_at:
                log.warning("%s: its process does not stop by itself", self._ctx.id)
                self._process.terminate()
                if not self._over(KILL_AFTER):
                    self._process.kill()
                    self._process.wait()
                return

    def outcome(self) -> Json:
        """What came of it."""
        self._listener.join(KILL_AFTER)
        end = self._end
        if end is None:
            self._ctx.raise_if_lost()
            if self._ctx.cancelled.is_set():
                raise asyncio.CancelledError("its process was ended")
            raise ProcessEnded(f"the process of {self._ctx.id} ended with code {self._process.returncode}")
        if end["op"] == "returned":
            return parse(end["result"])
        raise _error(end)

    def close(self) -> None:
        """Nothing of it is left."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _over(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say(event=what)

    def _say(self, **message: object) -> None:
        with suppress(OSError):  # it is gone; supervise() notices
            pipe = _pipe(self._process.stdin)
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    def _listen(self) -> None:
        for line in _pipe(self._process.stdout):
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if message["op"] in ("returned", "raised"):
                self._end = message
            else:
                self._say(answer=message["id"], **self._answer(message))

    def _answer(self, message: Mapping[str, Any]) -> Mapping[str, object]:
        """What the body asked for has been done; or why not."""
        try:
            return {"result": canonical(self._do(message["op"], message))}
        except LeaseLost:
            return {"error": "lost"}
        except InvalidRequest as error:
            return {"error": "invalid", "field": error.field, "value": repr(error.value), "allowed": error.allowed}
        except Exception as error:
            return {"error": type(error).__name__, "message": str(error)}

    def _do(self, op: str, message: Mapping[str, Any]) -> Json:
        match op:
            case "touch":
                self._ctx.touch()
            case "time_remaining":
                left = self._ctx.time_remaining()
                return None if left is None else left.total_seconds()
            case "progress":
                self._ctx.progress(message["total"], message["done"], message["message"])
            case "launch":
                after = message["after_ms"]
                launched = self._ctx.launch(
                    message["job"],
                    parse(message["data"]),
                    key=message["key"],
                    priority=message["priority"],
                    run_at=None if message["run_at"] is None else datetime.fromisoformat(message["run_at"]),
                    after=None if after is None else timedelta(milliseconds=after),
                )
                return [launched.run.job, launched.run.key, launched.new]
            case "once":
                step = self._steps[message["operation"]] = self._ctx.once(message["operation"]).__enter__()
                return [step.first, step.result]
            case "step":
                step = self._steps.pop(message["operation"])
                step.result = parse(message["result"])
                error = None if message["failed"] is None else OffloadedError(message["failed"])
                step.__exit__(None if error is None else type(error), error, None)
        return None


def _error(end: Mapping[str, Any]) -> BaseException:
    """What the body raised, as the server understands it."""
    text, after = str(end["message"]), end.get("after_ms")
    delay = None if after is None else timedelta(milliseconds=after)
    error: BaseException
    match end["kind"]:
        case "RetryableError":
            error = RetryableError(text, after=delay)
        case "FatalError":
            error = FatalError(text)
        case "Snooze":
            error = Snooze(delay or timedelta(0), text)
        case "Cancel":
            error = Cancel(text)
        case "LeaseLost":
            error = LeaseLost(text, 0)
        case _:
            error = type(str(end["type"]), (OffloadedError,), {})(text)
    error.add_note(str(end["trace"]))
    return error


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # Popen was asked for it
    return pipe
