"""The servers of a soak: processes of their own; or threads of this one, for a store that no other can reach."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec

from onceward.conformance.engine.child import SetUp, server_of
from onceward.conformance.engine.effects import Journal
from onceward.contracts import Executor, Lifecycle, Runner, Scheduler, StoreUnavailable

_numbers = itertools.count(1)


class Member(ABC):
    """One server.

    Attributes:
        number: by which the journal knows it.
        died: when it was seen to be gone, on the journal's clock; None: it is there.
    """

    killed: ClassVar[str]
    """What ``kill`` is called in reports."""
    paused: ClassVar[str]

    number: int
    died: float | None = None

    @property
    def alive(self) -> bool:
        """True while it is there."""
        return self.died is None

    @abstractmethod
    def kill(self) -> None:
        """It is gone, in the middle of whatever it did."""

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """It was away for so long, and has come back."""

    @abstractmethod
    def end(self) -> None:
        """It has shut down; or it is killed."""

    def close(self) -> None:
        """Nothing is left of one that is gone."""
        return


class ProcessMember(Member):
    """A process."""

    killed = "server process killed (SIGKILL)"
    paused = "server process stopped past its lease (SIGSTOP)"

    def __init__(self, setup: SetUp) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onceward.conformance.engine.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.number = self._process.pid
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(setup) + b"\n")
        self._process.stdin.flush()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def _wait(self) -> None:
        self._process.wait()
        self.died = time.monotonic()  # noted at once, since verdicts depend on it

    def kill(self) -> None:
        self._process.kill()
        self._waiter.join()

    def pause(self, seconds: float) -> None:
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        self._waiter.join(20)
        if self.alive:
            self.kill()
        self.close()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


class ThreadMember(Member):
    """A server in this process. It dies by being cut off from the store: bodies go on, and nothing of them counts."""

    killed = "server cut off for good"
    paused = "server cut off past its lease"

    def __init__(self, setup: SetUp, runner: Runner) -> None:
        self.number = -next(_numbers)  # no process has such an id
        self._away = threading.Event()
        self._server = server_of(_through(runner, self._away), Journal(Path(setup.journal), self.number), setup).start()

    def kill(self) -> None:
        self._away.set()
        self.died = time.monotonic()
        self._server.shutdown(timedelta(0))

    def pause(self, seconds: float) -> None:
        self._away.set()
        time.sleep(seconds)
        self._away.clear()

    def end(self) -> None:
        self._server.shutdown()


class _Part:
    """A part of a runner, out of reach while ``away`` is set."""

    def __init__(self, part: object, away: threading.Event) -> None:
        self._part, self._away = part, away

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._away.is_set():
                raise StoreUnavailable("the soak has cut this server off")
            return call(*args, **kwargs)

        return guarded


def _through(runner: Runner, away: threading.Event) -> Runner:
    return Runner(
        executor=cast(Executor, _Part(runner.executor, away)),
        scheduler=cast(Scheduler, _Part(runner.scheduler, away)),
        lifecycle=cast(Lifecycle, _Part(runner.lifecycle, away)),
        namespace=runner.namespace,
        url=runner.url,
    )
