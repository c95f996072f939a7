"""MongoDB in the benchmark: a place to measure at, and pymongo on its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from pymongo import MongoClient, ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from onceward.benchmarks.raw import Raw
from onceward.contracts import StoreMisconfigured
from onceward.runners.mongodb.options import options_of

Rows: TypeAlias = "Collection[dict[str, Any]]"

_CHANGE = {"$set": {"holder": "holder"}, "$inc": {"token": 1}}


class RawMongo(Raw):
    """pymongo as it comes, with the runner's write concern: one client, whose pool lends every thread a connection.

    One key is ``find_one_and_update`` with upsert. Several are one ``bulk_write``, which tells no tokens, and one
    ``find`` for them.
    """

    def __init__(self, url: str) -> None:
        self._client = client_of(url)
        database = self._client.get_database(options_of(url).database)
        concern = WriteConcern(w="majority", j=True)
        self._rows: Rows = database.get_collection(f"raw_{secrets.token_hex(6)}", write_concern=concern)

    def upsert(self, keys: Sequence[str]) -> list[int]:
        if len(keys) == 1:
            row = self._rows.find_one_and_update(
                {"_id": keys[0]}, _CHANGE, upsert=True, return_document=ReturnDocument.AFTER
            )
            assert row is not None  # it was there, or it was made
            return [row["token"]]
        self._rows.bulk_write([UpdateOne({"_id": key}, _CHANGE, upsert=True) for key in keys])
        tokens = {row["_id"]: row["token"] for row in self._rows.find({"_id": {"$in": list(keys)}})}
        return _as_they_grew(keys, tokens)

    def close(self) -> None:
        self._rows.drop()
        self._client.close()


def _as_they_grew(keys: Sequence[str], tokens: Mapping[str, int]) -> list[int]:
    """The token that each occurrence of a key got: the last has the newest."""
    later = dict.fromkeys(tokens, 0)
    found: list[int] = []
    for key in reversed(keys):
        found.append(tokens[key] - later[key])
        later[key] += 1
    return found[::-1]


def fresh_database(url: str) -> str:
    """The URL with a database that nobody has, so that it can be dropped when everything was measured."""
    return urlunsplit(urlsplit(url)._replace(path=f"/onceward_bench_{secrets.token_hex(6)}"))


def client_of(url: str) -> MongoClient[dict[str, Any]]:
    """A client of pymongo for the same servers, with the same options as the runner's."""
    options = options_of(url)
    hosts = [f"mongodb+srv://{options.hosts[0]}"] if options.srv else list(options.hosts)
    return MongoClient(host=hosts, **options.for_driver())  # type: ignore[arg-type]


def drop(url: str) -> None:
    """The database is gone."""
    with client_of(url) as client:
        client.drop_database(options_of(url).database)


def described(url: str) -> str:
    """Which server it is, for the reader of the figures.

    Raises:
        StoreMisconfigured: pymongo cannot reach it by this URL.
    """
    try:
        with client_of(url) as client:
            hello = client.admin.command("hello")
            version = client.server_info()["version"]
    except (PyMongoError, ValueError) as error:
        raise StoreMisconfigured(f"MongoDB cannot be measured here, pymongo says: {error}") from error
    kind = f"replica set of {len(hello['hosts'])}" if "setName" in hello else "no replica set"
    return f"MongoDB {version}, {kind}, write concern majority"


@contextmanager
def private() -> Iterator[str]:
    """The URL of a server of our own, a replica set of one, which is gone afterwards."""
    from onceward.conformance.servers.mongodb import MongoServer

    class OnDisk(MongoServer):
        on_disk = True

    with OnDisk() as server:
        yield server.url
