"""Several servers on this machine that are one store: who leads, and what may be done to each of them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from onceward.conformance.harness import new_namespace
from onceward.conformance.servers.process import PORTS_TRIED, ServerProcess

#: So long may servers take to start and to agree, on a machine that is busy with other things.
PATIENCE = 60.0
_LOOK_EVERY = 0.05


class Cluster(ABC):
    """Servers that copy each other, each with a port and a folder of its own. Ends with this process.

    Attributes:
        members: those that have the data. They may be killed, paused and started again one by one: ``kill``, ``stop``,
            ``pause``, ``resume``, and ``spawn`` for one that has ended.
    """

    name = "cluster"

    def __init__(self) -> None:
        self.members: Sequence[ServerProcess] = ()
        self.helpers: Sequence[ServerProcess] = ()
        """Servers without data, which nobody disturbs."""

    @property
    @abstractmethod
    def url(self) -> str:
        """How clients reach it, whoever leads."""

    @abstractmethod
    def create(self) -> None:
        """``members`` and ``helpers`` are new ones on free ports, not started yet."""

    @abstractmethod
    def leader(self) -> ServerProcess | None:
        """Who takes the writes now; None: nobody, or nobody that answers says so."""

    @abstractmethod
    def whole(self) -> bool:
        """True if one leads, all others follow it, and all can take over."""

    def namespace(self) -> str:
        """A new namespace that ``leader`` serves."""
        return new_namespace()

    def form(self) -> None:
        """The members, which all answer, are made into one."""
        return

    def start(self) -> Self:
        """All members run and are one; on other ports, if one was taken the first time."""
        for _ in range(PORTS_TRIED):
            self.close()
            self.create()
            if self._answering(self.members):
                self.form()
                if self._answering(self.helpers) and self.await_(self.whole):
                    return self
            if not any("in use" in server.log for server in (*self.members, *self.helpers)):
                break
        logs = "\n".join(server.log[-1000:] for server in (*self.members, *self.helpers))
        self.close()
        raise RuntimeError(f"{self.name} did not start within {PATIENCE:.0f} seconds:\n{logs}")

    def _answering(self, servers: Sequence[ServerProcess]) -> bool:
        """They were started, and answer."""
        for server in servers:
            server.spawn()
        self.await_(lambda: all(map(_ready_or_ended, servers)))
        return all(server.running and server.ready() for server in servers)

    def await_(self, state: Callable[[], bool], *, within: float = PATIENCE) -> bool:
        """True once ``state()`` is; False if it never was."""
        until = time.monotonic() + within
        while not state():
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_EVERY)
        return True

    def close(self) -> None:
        """No process and no file of it is left. May be called twice."""
        for server in (*self.helpers, *self.members):
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ready_or_ended(server: ServerProcess) -> bool:
    return not server.running or server.ready()
