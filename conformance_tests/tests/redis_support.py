"""What the tests of the Redis runner share: a server, and stores on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from servers_support import available

from onceward.conformance.servers import RedisServer, redis_url
from onceward.contracts import new_request
from onceward.contracts.clock import Clock
from onceward.contracts.times import from_ms
from onceward.runners.redis import RedisStore
from onceward.runners.redis.scripts import Script, scripts
from onceward.runners.redis.wire import Reply


def shared_url() -> str:
    return available(redis_url)


def own_server(*settings: str, durable: bool = False, password: str = "") -> RedisServer:
    return available(lambda: RedisServer(*settings, durable=durable, password=password))


def fresh(url: str | None = None) -> RedisStore:
    """An open store on a namespace of its own."""
    store = RedisStore(url or shared_url(), new_request())
    store.open()
    return store


def moved_scripts() -> Mapping[str, Script]:
    """The scripts with one line exchanged: the time is what a key says. Everything else is as it ships."""
    read = 'local time = redis.call("TIME")\n'
    told = (
        'local told = redis.call("GET", P .. "clock-of-test")\n'
        "local time = {math.floor(told / 1000), told % 1000 * 1000}\n"
    )

    def moved(script: Script) -> Script:
        assert script.text.count(read) == (script.name not in ("configs", "counts", "count_stamp")), script.name
        return Script(script.name, script.text.replace(read, told))

    return {name: moved(script) for name, script in scripts().items()}


class ClockedRedisStore(RedisStore):
    """A store that goes by a clock of the test's."""

    def __init__(self, url: str, namespace: str, clock: Clock) -> None:
        super().__init__(url, namespace)
        self._clock = clock
        self._link.use(moved_scripts())

    def _run(self, script: str, *arguments: str | int) -> Reply:
        self._tell_time()
        return super()._run(script, *arguments)

    def _batch(self, script: str, arguments: list[str | int], width: int) -> list[Reply]:  # type: ignore[override]
        self._tell_time()
        return list(super()._batch(script, arguments, width))

    def _tell_time(self) -> None:
        self._link.ask("SET", f"{self._prefix}clock-of-test", self._clock.wall_ms())

    def now(self) -> datetime:
        return from_ms(self._clock.wall_ms())
