"""What the tests of the MongoDB runner share: a server, stores on a clock that is moved by hand, and counted trips."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import pymongo.common
import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from onceward.conformance.servers.mongodb import MongoServer, mongodb_url
from onceward.conformance.servers.process import ServerMissing
from onceward.contracts import new_request
from onceward.contracts.clock import Clock
from onceward.contracts.times import from_ms
from onceward.runners.clock import ManualClock
from onceward.runners.mongodb import MongoStore
from onceward.runners.mongodb.terms import Terms

T = TypeVar("T")

#: After each connection that a test cuts, the driver looks at the server again only after so many seconds.
pymongo.common.MIN_HEARTBEAT_INTERVAL = 0.02


def available(make: Callable[[], T]) -> T:
    """What ``make`` makes; where the server is missing, the test is skipped, or fails where CI is set."""
    try:
        return make()
    except ServerMissing as error:
        if error.excusable:
            pytest.skip(str(error))
        pytest.fail(str(error))


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


class OneClock(ManualClock):
    """MongoDB has but one clock: leases go by the wall, too."""

    def elapsed_ms(self) -> int:
        return self.wall_ms()


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
