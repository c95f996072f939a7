"""What the tests of the MongoDB runner share: a server, stores on a clock that is moved by hand, and counted trips."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pymongo.common
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from servers_support import available

from onceward.conformance.servers.mongodb import MongoServer, mongodb_url
from onceward.contracts import new_request
from onceward.contracts.clock import Clock
from onceward.contracts.times import from_ms
from onceward.runners.mongodb import MongoStore
from onceward.runners.mongodb.terms import Terms

#: After each connection that a test cuts, the driver looks at the server again only after so many seconds.
pymongo.common.MIN_HEARTBEAT_INTERVAL = 0.02


def shared_url() -> str:
    return available(mongodb_url)


def own_server(*settings: str, replicated: bool = True, user: str = "", password: str = "") -> MongoServer:
    return available(lambda: MongoServer(*settings, replicated=replicated, user=user, password=password))


def fresh(url: str | None = None, **more: object) -> MongoStore:
    """An open store on a namespace of its own."""
    store = MongoStore(url or shared_url(), new_request(), **more)  # type: ignore[arg-type]
    store.open()
    return store


class Trips(CommandListener):
    """The commands that the driver has sent, but for those of its own housekeeping."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name not in ("endSessions", "killCursors"):
            self.names.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def of(self, action: Callable[[], object]) -> list[str]:
        """What ``action`` sends."""
        del self.names[:]
        action()
        return list(self.names)


class ClockedTerms(Terms):
    """The terms with one exchanged: the time is what the test says. Everything else is as it ships."""

    def __init__(self, clock: Clock, *, replicated: bool, version: tuple[int, ...]) -> None:
        super().__init__(replicated=replicated, version=version)
        self._clock = clock

    @property
    def now(self) -> object:
        return {"$literal": from_ms(self._clock.wall_ms())}


class ClockedMongoStore(MongoStore):
    """A store that goes by a clock of the test's."""

    def __init__(self, url: str, namespace: str, clock: Clock, *, listeners: tuple[object, ...] = ()) -> None:
        super().__init__(url, namespace, listeners=listeners)
        self._clock = clock

    def _terms_of(self, *, replicated: bool, version: tuple[int, ...]) -> Terms:
        return ClockedTerms(self._clock, replicated=replicated, version=version)

    def _server_time(self) -> datetime:
        return from_ms(self._clock.wall_ms())
