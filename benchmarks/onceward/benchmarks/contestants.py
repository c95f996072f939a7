"""The one table of runners: where each kind gets a fresh place, and which raw driver it is measured against.

A new store adds one function and one line to ``KINDS``; every measure, report and test follows from it.
"""

from __future__ import annotations

import itertools
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

from onceward.benchmarks.raw import Raw, RawMemory, RawSqlite
from onceward.contracts import Runner, StoreMisconfigured
from onceward.runners.factory import make_runner, open_runner, redacted, runner_type

#: What is measured unless somebody asks for something else: every embedded store, in each durability worth having.
DEFAULT_URLS = ("memory://", "sqlite:///bench.db?synchronous=FULL", "sqlite:///bench.db?synchronous=NORMAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A fresh, empty namespace, as another process could open it too."""

    url: str
    namespace: str

    def open(self) -> Runner:
        """A runner on it."""
        return open_runner(self.url, namespace=self.namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A runner to measure.

    Attributes:
        kind: contestants of one kind differ in durability only.
        fresh: makes an empty place for one measure.
        raw: the raw driver with the same durability, on a store of its own; None: ratios are left out.
        inside: the store lives in the process that uses it.
        folder: a place on the same disk, where peers may keep their files.
        server: the URL of the server, where peers may use it too; "": there is none.
        private: the server is one of our own, which nobody else uses.
        durable: what is acknowledged is on the disk, where contestants of this kind differ in that.
        note: what a reader must know of the store to make sense of the figures.
        close: removes what is left on the server.
    """

    name: str
    kind: str
    fresh: Callable[[], Place]
    folder: Path
    raw: Callable[[], Raw] | None = None
    inside: bool = False
    server: str = ""
    private: bool = False
    durable: bool | None = None
    note: str = ""
    close: Callable[[], object] = lambda: None


Make: TypeAlias = Callable[[str, Path], Contestant]


def memory(url: str, folder: Path) -> Contestant:
    """In the process, against a dict under a lock."""
    return Contestant(
        name="memory",
        kind="memory",
        fresh=lambda: Place(url="memory://", namespace=_namespace()),
        folder=folder,
        raw=RawMemory,
        inside=True,
    )


def sqlite(url: str, folder: Path) -> Contestant:
    """One file per measure in ``folder``, against ``sqlite3`` with the same pragmas on files of its own."""
    query = urlsplit(url).query
    synchronous = dict(parse_qsl(query)).get("synchronous", "FULL").upper()
    count = itertools.count(1)

    def fresh() -> Place:
        path = folder / f"{synchronous.lower()}-{next(count)}.db"
        return Place(url=f"sqlite:///{path}" + (f"?{query}" if query else ""), namespace=_namespace())

    def raw() -> Raw:
        return RawSqlite(folder / f"{synchronous.lower()}-raw-{next(count)}.db", synchronous=synchronous)

    return Contestant(
        name=f"sqlite {synchronous}",
        kind="sqlite",
        fresh=fresh,
        folder=folder,
        raw=raw,
        durable=synchronous in ("FULL", "EXTRA"),
    )


def _on_server(
    kind: str,
    url: str,
    folder: Path,
    *,
    raw: Callable[[str], Raw],
    forget: Callable[[str, Sequence[str]], object],
    note: str,
) -> Contestant:
    """Fresh namespaces on one server, which ``forget`` removes from it."""
    used = list[str]()

    def fresh() -> Place:
        used.append(_namespace())
        return Place(url=url, namespace=used[-1])

    return Contestant(
        name=kind,
        kind=kind,
        fresh=fresh,
        folder=folder,
        raw=lambda: raw(url),
        server=url,
        note=note,
        close=lambda: forget(url, used),
    )


def redis(url: str, folder: Path) -> Contestant:
    """Fresh namespaces on one server, against redis-py; the namespaces are gone afterwards."""
    from onceward.benchmarks import on_redis

    made = _on_server("redis", url, folder, raw=on_redis.RawRedis, forget=on_redis.forget, note=on_redis.described(url))
    return replace(made, name="redis durable") if made.note.endswith("on") else made


def mongodb(url: str, folder: Path) -> Contestant:
    """Fresh namespaces in a database of our own, against pymongo; the database is gone afterwards."""
    from onceward.benchmarks import on_mongodb

    own = on_mongodb.fresh_database(url)
    return Contestant(
        name="mongodb",
        kind="mongodb",
        fresh=lambda: Place(url=own, namespace=_namespace()),
        folder=folder,
        raw=lambda: on_mongodb.RawMongo(own),
        server=own,
        note=on_mongodb.described(own),
        close=lambda: on_mongodb.drop(own),
    )


def etcd(url: str, folder: Path) -> Contestant:
    """Fresh namespaces on one server, against grpcio; the namespaces are gone afterwards."""
    from onceward.benchmarks import on_etcd

    return _on_server("etcd", url, folder, raw=on_etcd.RawEtcd, forget=on_etcd.forget, note=on_etcd.described(url))


def zookeeper(url: str, folder: Path) -> Contestant:
    """Fresh namespaces on one server, against kazoo; the namespaces are gone afterwards."""
    from onceward.benchmarks import on_zookeeper

    return _on_server(
        "zookeeper",
        url,
        folder,
        raw=on_zookeeper.RawZooKeeper,
        forget=on_zookeeper.forget,
        note=on_zookeeper.described(url),
    )


def other(url: str, folder: Path) -> Contestant:
    """Any other store: fresh namespaces in it, and no raw driver known."""
    name = redacted(url)
    return Contestant(name=name, kind=name, fresh=lambda: Place(url=url, namespace=_namespace()), folder=folder)


KINDS: Mapping[str, Make] = {
    "etcd": etcd,
    "memory": memory,
    "mongodb": mongodb,
    "redis": redis,
    "sqlite": sqlite,
    "zookeeper": zookeeper,
}


def _redis(*, durable: bool = False) -> AbstractContextManager[str]:
    from onceward.benchmarks.on_redis import private

    return private(durable=durable)


def _mongodb() -> AbstractContextManager[str]:
    from onceward.benchmarks.on_mongodb import private

    return private()


def _etcd() -> AbstractContextManager[str]:
    from onceward.benchmarks.on_etcd import private

    return private()


def _zookeeper(*, durable: bool = False) -> AbstractContextManager[str]:
    from onceward.benchmarks.on_zookeeper import private

    return private(durable=durable)


#: Words that may stand instead of a URL: a server of our own is started, and ended afterwards.
PRIVATE: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "etcd": _etcd,
    "mongodb": _mongodb,
    "redis": _redis,
    "redis-durable": partial(_redis, durable=True),
    "zookeeper": _zookeeper,
    "zookeeper-durable": partial(_zookeeper, durable=True),
}


def _namespace() -> str:
    return f"bench-{secrets.token_hex(6)}"


@contextmanager
def contestants(urls: Sequence[str] = DEFAULT_URLS) -> Iterator[list[Contestant]]:
    """The contestants for these URLs; their temporary files and namespaces are gone afterwards.

    A word of ``PRIVATE`` instead of a URL means a server of our own. A SQLite URL says on which disk and with which
    options to measure: files are made beside the one that it names, which is itself left alone.

    Raises:
        StoreMisconfigured: a URL that no runner is for, a folder that cannot be written to, or no such server here.
    """
    with ExitStack() as folders:
        found: list[Contestant] = []
        for word in urls:
            url = folders.enter_context(_served(word)) if word in PRIVATE else word
            make_runner(url)  # its errors say what is wrong with the URL
            kind = runner_type(urlsplit(url).scheme).name
            folder = folders.enter_context(_folder(_disk(url) if kind == "sqlite" else None))
            made = replace(KINDS.get(kind, other)(url, folder), private=word in PRIVATE)
            found.append(_named_apart(made, found))
            folders.callback(found[-1].close)
        yield found


@contextmanager
def _served(word: str) -> Iterator[str]:
    """The URL of a server of our own."""
    from onceward.conformance.servers.process import ServerMissing

    with ExitStack() as stack:
        try:
            url = stack.enter_context(PRIVATE[word]())
        except ImportError as error:
            raise StoreMisconfigured(f"{word}: {error}; pip install 'onceward[all]'") from error
        except (ServerMissing, RuntimeError) as error:
            raise StoreMisconfigured(f"{word}: {error}") from error
        yield url


def _disk(url: str) -> Path:
    """The folder of the file that a SQLite URL names."""
    return Path(urlsplit(url).path.removeprefix("/")).parent


@contextmanager
def _folder(beside: Path | None) -> Iterator[Path]:
    """A folder for files of our own."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".onceward-bench-", dir=beside, ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreMisconfigured(f"no temporary files can be made in {beside}: {error.strerror}") from error
    with folder as name:
        yield Path(name).resolve()


def _named_apart(contestant: Contestant, others: Sequence[Contestant]) -> Contestant:
    """The contestant, with a number behind its name if another one has that name already."""
    names = [other.name for other in others]
    free = itertools.chain([contestant.name], (f"{contestant.name} #{number}" for number in itertools.count(2)))
    return replace(contestant, name=next(name for name in free if name not in names))
