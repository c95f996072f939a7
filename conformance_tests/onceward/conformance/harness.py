"""What a store's author writes so that the suite can examine the store, and the ready harnesses.

The least is ``fresh_runner``; ten lines are enough for a store that several processes share::

    class MyHarness(Harness):
        name = "mystore://localhost"

        def fresh_runner(self) -> Runner:
            return self.opening_of(new_namespace()).open()

        def opening(self, runner: Runner) -> Opening:
            return self.opening_of(runner.namespace)

        def opening_of(self, namespace: str) -> Opening:
            return Opening(url="mystore://localhost", namespace=namespace)
"""

from __future__ import annotations

import importlib
import re
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

from onceward.contracts import InvalidRequest, Lease, Renewal, Runner, StoreMisconfigured
from onceward.contracts.records import Record

if TYPE_CHECKING:
    from onceward.conformance.servers.cluster import Cluster
    from onceward.runners.clock import ManualClock

_SECRET = re.compile("pass|secret|token|auth|key", re.IGNORECASE)

#: Stores whose messages a proxy can tell apart: how they talk, and their usual port.
_DIALECTS = {
    "redis": ("resp", 6379),
    "mongodb": ("mongo", 27017),
    "etcd": ("grpc", 2379),
    "zookeeper": ("zookeeper", 2181),
}

#: Stores by their bare name, and what starts a server of theirs.
_OWN: Mapping[str, str | None] = {
    "memory": None,
    "sqlite": None,
    "redis": "onceward.conformance.servers.redis:redis_url",
    "mongodb": "onceward.conformance.servers.mongodb:mongodb_url",
    "etcd": "onceward.conformance.servers.etcd:etcd_url",
    "zookeeper": "onceward.conformance.servers.zookeeper:zookeeper_url",
}

SHORTEST_WAIT = timedelta(milliseconds=40)


def new_namespace() -> str:
    """A namespace that nobody else uses."""
    return f"conform-{secrets.token_hex(6)}"


class Opening(Record, frozen=True, kw_only=True):
    """How another process opens the same store and namespace: a URL, or ``call`` (``module:callable``) by name.

    The callable is given ``arguments`` and answers with a Runner, opened or not.
    """

    url: str | None = None
    namespace: str = "default"
    call: str | None = None
    arguments: Mapping[str, str | int | float | bool | None] = {}

    def open(self) -> Runner:
        """A runner of its own on that store, opened."""
        if self.call is not None:
            made = resolve(self.call)
            if not callable(made):
                raise StoreMisconfigured(f"{self.call} is no callable that makes a Runner")
            runner = cast(Runner, made(**self.arguments))
            return runner.open()
        from onceward.runners.factory import open_runner

        return open_runner(self.url, namespace=self.namespace)


class Server(Record, frozen=True, kw_only=True):
    """Where a server listens, in the clear, and how it talks: the name of a dialect, ``whole`` for any other."""

    host: str
    port: int
    dialect: str = "whole"


class Harness(ABC):
    """Makes runners of one store for the suite, and makes time pass in it.

    Attributes:
        name: what the certificate calls the target; also what a reproduction command line names.
        movable: ``advance`` moves the clock that fresh runners go by, at once and exactly.
    """

    name: str = ""
    movable: bool = False

    @abstractmethod
    def fresh_runner(self) -> Runner:
        """An opened runner on an empty namespace; where ``movable``, on the clock that ``advance`` moves."""

    def timed_runner(self) -> Runner:
        """Like ``fresh_runner``, on the real clock: for clients that really run at the same time."""
        return self.fresh_runner()

    def another(self, runner: Runner) -> Runner:
        """A second client of the same store and namespace. By default: by the opening, else the same runner."""
        opening = None if self.movable else self.opening(runner)
        return runner if opening is None else opening.open()

    def opening(self, runner: Runner) -> Opening | None:
        """How another process opens the store and namespace of a timed runner; None: it cannot."""
        return None

    def advance(self, by: timedelta) -> None:
        """So much time has passed in the store. Without a movable clock this waits."""
        time.sleep(by.total_seconds())

    def lapse(self, runner: Runner, lease: Lease) -> None:
        """The lease has ended by the store's clock, while leases of an hour have not.

        Without a movable clock: as ``wait_out`` does it.
        """
        self._lapse(runner, lease, self.advance)

    def wait_out(self, runner: Runner, lease: Lease) -> None:
        """The lease of a timed runner has ended by the store's clock, while leases of an hour have not.

        By default a lock or run is renewed for the shortest time, which is then waited out.
        """
        self._lapse(runner, lease, lambda by: time.sleep(by.total_seconds()))

    def _lapse(self, runner: Runner, lease: Lease, advance: Callable[[timedelta], None]) -> None:
        traits = runner.lifecycle.traits
        brief = max(traits.min_lease, traits.lease_granularity, SHORTEST_WAIT)
        runner.executor.renew([Renewal(lease=lease, duration=brief)])
        advance(brief + traits.lease_granularity + traits.expiry_slack + timedelta(milliseconds=5))

    def reopen(self, runner: Runner) -> Runner:
        """The store was closed and opened again, on the same data. By default: by the opening."""
        opening = self.opening(runner)
        if opening is None:
            raise InvalidRequest("opening", None, "a way to open a durable store again: override opening() or reopen()")
        runner.close()
        return opening.open()

    def jump_wall(self, by: timedelta) -> bool:
        """Somebody set the wall clock that fresh runners see; False: this harness cannot."""
        return False

    def restart(self) -> bool:
        """The store's server was stopped hard and started again; False: this harness cannot."""
        return False

    def server(self) -> Server | None:
        """Where the store's server listens, so that a proxy can stand before it; None: there is none, or it cannot."""
        return None

    def through(self, address: tuple[str, int]) -> Harness | None:
        """A harness of the same store whose openings reach the server by that address; None: it cannot."""
        return None

    def cluster(self) -> Cluster | None:
        """The servers of the store, if they are the harness's own and may be killed and paused; None: they may not."""
        return None

    def close(self) -> None:
        """Nothing of the harness is left."""
        return


class MemoryHarness(Harness):
    """The store in this process's memory, on a clock moved by hand; concurrent clients use the real clock."""

    name = "memory://"
    movable = True

    def __init__(self) -> None:
        from onceward.runners.clock import ManualClock

        self.clock: ManualClock = ManualClock()

    def fresh_runner(self) -> Runner:
        return self.runner(self.clock)

    def timed_runner(self) -> Runner:
        return self.runner(None)

    def runner(self, clock: ManualClock | None) -> Runner:
        """An opened runner on that clock; override this to examine a store of yours in memory."""
        from onceward.runners.memory import MemoryStore

        namespace = new_namespace()
        return Runner.of(MemoryStore(namespace=namespace, clock=clock), namespace=namespace, url=self.name).open()

    def another(self, runner: Runner) -> Runner:
        return runner

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)

    def jump_wall(self, by: timedelta) -> bool:
        self.clock.jump_wall(by)
        return True


def open_sqlite(path: str, namespace: str) -> Runner:
    """A SQLite runner as other processes open it. Not opened yet."""
    from onceward.runners.sqlite import SqliteStore

    return Runner.of(SqliteStore(Path(path), namespace=namespace), namespace=namespace, url=f"sqlite:///{path}")


class SqliteHarness(Harness):
    """SQLite in a file, by default a temporary one; state machines move the clock, processes use the real one."""

    movable = True

    def __init__(self, path: Path | None = None, *, name: str | None = None) -> None:
        from onceward.runners.clock import ManualClock

        self._folder = Path(tempfile.mkdtemp(prefix="onceward-conform-"))
        self.path = path or self._folder / "conform.db"
        self.name = name or f"sqlite:///{self.path}"
        self.clock: ManualClock = ManualClock()

    def fresh_runner(self) -> Runner:
        return self._manual(new_namespace()).open()

    def timed_runner(self) -> Runner:
        return open_sqlite(str(self.path), new_namespace()).open()

    def another(self, runner: Runner) -> Runner:
        return self._manual(runner.namespace).open()

    def opening(self, runner: Runner) -> Opening:
        arguments = {"path": str(self.path), "namespace": runner.namespace}
        return Opening(call="onceward.conformance.harness:open_sqlite", arguments=arguments)

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)

    def jump_wall(self, by: timedelta) -> bool:
        self.clock.jump_wall(by)
        return True

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _manual(self, namespace: str) -> Runner:
        from onceward.runners.sqlite import SqliteStore

        # One client at a time and a clock of our own: nothing here depends on when the disk is written.
        path = self._folder / "manual.db"
        store = SqliteStore(path, namespace=namespace, clock=self.clock, synchronous="NORMAL")
        return Runner.of(store, namespace=namespace, url=self.name)


class UrlHarness(Harness):
    """Any store by its URL, through the factory, in namespaces of its own; time passes by itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = without_password(url)

    def fresh_runner(self) -> Runner:
        return self._opening(new_namespace()).open()

    def opening(self, runner: Runner) -> Opening | None:
        return self._opening(runner.namespace) if runner.lifecycle.traits.shared else None

    def server(self) -> Server | None:
        parts = urlsplit(self.url)
        if parts.scheme not in _DIALECTS or not parts.hostname or "," in parts.netloc or "tls=true" in parts.query:
            return None
        dialect, port = _DIALECTS[parts.scheme]
        return Server(host=parts.hostname, port=parts.port or port, dialect=dialect)

    def through(self, address: tuple[str, int]) -> Harness | None:
        parts = urlsplit(self.url)
        user, at, _ = parts.netloc.rpartition("@")
        netloc = f"{user}{at}{address[0]}:{address[1]}"
        options = [part for part in parts.query.split("&") if part]
        if parts.scheme == "mongodb":  # else the driver asks the replica set for its members, and goes round the proxy
            options = [part for part in options if not part.startswith(("replicaSet=", "directConnection="))]
            options.append("directConnection=true")
        return self._at(urlunsplit(parts._replace(netloc=netloc, query="&".join(options))))

    def _at(self, url: str) -> UrlHarness:
        """A harness of the same store, reached by another URL."""
        return UrlHarness(url)

    def _opening(self, namespace: str) -> Opening:
        return Opening(url=self.url, namespace=namespace)


def without_password(url: str) -> str:
    """The URL as reports show it: without its password, and without options that look like one."""
    from onceward.runners.factory import redacted

    _, mark, query = url.partition("?")
    options = [part.partition("=") for part in query.split("&") if part]
    shown = [f"{name}{equals}{'***' if _SECRET.search(name) else value}" for name, equals, value in options]
    return redacted(url) + mark + "&".join(shown)


def harness_for_url(url: str) -> Harness:
    """The harness that fits a URL: the embedded stores have clocks that move, others are waited for.

    ``cluster://mongodb`` and the like start servers of their own on this machine.
    """
    if url.partition("?")[0] in ("memory:", "memory:/", "memory://", "memory"):
        return MemoryHarness()
    scheme, _, path = url.partition("://")
    if scheme == "cluster":
        from onceward.conformance.servers.clusters import cluster_harness

        return cluster_harness(url)
    if scheme == "sqlite" and "?" not in url and path.strip("/"):
        return SqliteHarness(Path(path[1:] if path.startswith("/") else path), name=url)
    if scheme in ("etcd", "etcds"):
        from onceward.conformance.servers.etcd import EtcdHarness

        return EtcdHarness(url)
    return UrlHarness(url)


def load_target(target: str) -> Harness:
    """The harness that a command line names: a URL, or ``module:attribute`` of a Harness, its class, or its maker.

    A store's bare name (``redis``) is a server of our own that lives as long as this process, or the one that the
    environment names for tests.

    Raises:
        StoreMisconfigured: it is none of these; says what was looked for.
    """
    if target in _OWN:
        return _own_server(target)
    if "://" in target:
        return harness_for_url(target)
    found = resolve(target)
    made = found if isinstance(found, Harness) or not callable(found) else found()
    if not isinstance(made, Harness):
        raise StoreMisconfigured(
            f"{target} is {type(made).__name__}; expected an onceward.conformance Harness, its class, "
            "or a function that makes one"
        )
    if not made.name:
        made.name = target
    return made


def _own_server(name: str) -> Harness:
    from onceward.conformance.servers.process import ServerMissing

    if _OWN[name] is None:
        return MemoryHarness() if name == "memory" else SqliteHarness()
    try:
        return harness_for_url(str(cast(Callable[[], object], resolve(str(_OWN[name])))()))
    except ServerMissing as error:
        raise StoreMisconfigured(f"{name} cannot be started: {error}") from error


def resolve(target: str) -> object:
    """What ``module:attribute`` names.

    Raises:
        StoreMisconfigured: there is no such module or attribute.
    """
    module, mark, attribute = target.partition(":")
    if not mark or not module or not attribute:
        raise StoreMisconfigured(
            f"{target!r} is neither a URL (memory://), nor module:attribute (my.tests:MyHarness), "
            f"nor the name of a store ({', '.join(_OWN)})"
        )
    try:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise StoreMisconfigured(f"{target!r} cannot be loaded: {error}") from error
    return found
