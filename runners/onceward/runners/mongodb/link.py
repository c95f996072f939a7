"""The driver's client and our collections. Threads share it; a forked child gets a client of its own by itself."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypeAlias

from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from onceward.contracts.errors import StoreMisconfigured, StoreUnavailable
from onceward.runners.mongodb.errors import mapped
from onceward.runners.mongodb.options import Options
from onceward.runners.mongodb.terms import Doc

Docs: TypeAlias = Collection[Doc]
Pipeline: TypeAlias = list[Doc]

_CODEC: CodecOptions[Doc] = CodecOptions(tz_aware=True, tzinfo=UTC, unicode_decode_error_handler="strict")
#: Answers have this much longer than the server's own time limit, so that the server's word is heard.
_GRACE_MS = 2_000

#: For batch sizes: more than any answer has. Without it, an answer of more than 101 documents takes two round trips.
WHOLE = 1_000_000

_CLOCK = {"_id": "clock"}

#: Clients that a forked child got from its parent. Closing them could disturb the parent, so they are kept.
_inherited: list[MongoClient[Doc]] = []


class Link:
    """One client for one database. ``listen`` is given to the driver as command listeners, for tests."""

    def __init__(self, options: Options, *, listeners: tuple[object, ...] = ()) -> None:
        self.where = options.url
        self._options = options
        self._listeners = listeners
        self._client: MongoClient[Doc] | None = None
        self._open = False
        self.replicated = False
        self.forked: Callable[[], None] = lambda: None
        """Called in a forked child."""
        _links.add(self)

    def open(self) -> None:
        """Requests are taken. Nothing is sent yet."""
        self._open = True
        self._connect()

    def close(self) -> None:
        """No connection and no thread of the driver is left."""
        self._open = False
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def after_fork(self) -> None:
        """In the child: the client is left to the parent."""
        client, self._client = self._client, None
        if client is not None:
            _inherited.append(client)
        self.forked()

    def learn(self, *, replicated: bool) -> None:
        """What the server is, is known: reads and writes get the concerns that fit."""
        self.replicated = replicated
        self._prepare()

    def reading(self) -> AbstractContextManager[None]:
        """Errors within become ours; nothing is changed in it."""
        return mapped(self.where, reads=True)

    def writing(self) -> AbstractContextManager[None]:
        """Errors within become ours; what was asked may have been done."""
        return mapped(self.where)

    def hello(self) -> Doc:
        """What the server says of itself; one round trip, without any lock."""
        with self.reading():
            return self.database.command("hello", codec_options=_CODEC)

    def server_time(self) -> datetime:
        """The server's clock, by a round trip."""
        found: datetime = self.hello()["localTime"]
        return found

    @property
    def database(self) -> Database[Doc]:
        """Our database, with the concerns that fit."""
        self._connect()
        return self._database

    def session(self) -> ClientSession:
        """One more session, which is to be ended."""
        self._connect()
        assert self._client is not None  # connected just before
        return self._client.start_session(causal_consistency=False)

    @property
    def runs(self) -> Docs:
        self._connect()
        return self._runs

    @property
    def locks(self) -> Docs:
        return self.database["locks"]

    @property
    def configs(self) -> Docs:
        return self.database["configs"]

    def confirm(self) -> None:
        """What was read before this was read from the primary: an empty write, which the majority has confirmed."""
        self.database["clock"].update_one(_CLOCK, {"$setOnInsert": _CLOCK})

    def ensure_clock(self) -> None:
        """There is the one document that is asked for the time."""
        self.database["clock"].update_one(_CLOCK, {"$setOnInsert": _CLOCK}, upsert=True)

    def glance(self, expressions: Doc, parts: Iterable[tuple[str, Pipeline]]) -> tuple[Doc, Sequence[Doc]]:
        """What the server makes of these expressions, and what these collections show, in one round trip."""
        stages = [{"$project": {"_id": 0, **expressions}}]
        stages += [{"$unionWith": {"coll": name, "pipeline": pipeline}} for name, pipeline in parts]
        with self.reading():
            shown = list(self.database["clock"].aggregate(stages, batchSize=WHOLE))
        if not shown or shown[0].keys() != expressions.keys():
            raise StoreMisconfigured(f"MongoDB at {self.where}: the database was dropped; open the runner again")
        return shown[0], shown[1:]

    def strictly(self, collection: Docs) -> Docs:
        """The collection for reads of one document that must not be stale, if the options want that."""
        if self._options.linearizable and self.replicated:
            return collection.with_options(read_concern=ReadConcern("linearizable"))
        return collection

    def _connect(self) -> None:
        if not self._open:
            raise StoreUnavailable(f"MongoDB at {self.where}: the runner is closed; open it first")
        if self._client is not None:
            return
        self._client = self._made()
        self._prepare()

    def _prepare(self) -> None:
        assert self._client is not None  # made just before
        level = "majority" if self.replicated else None
        self._database = self._client.get_database(
            self._options.database,
            codec_options=_CODEC,
            read_preference=ReadPreference.PRIMARY,
            write_concern=self._write_concern(),
            read_concern=ReadConcern(level),
        )
        self._runs = self._database["runs"]

    def _write_concern(self) -> WriteConcern:
        if self.replicated:
            return WriteConcern(w="majority", j=True, wtimeout=self._options.timeout_ms)
        return WriteConcern(w=1, j=True)

    def _made(self) -> MongoClient[Doc]:
        hosts = list(self._options.hosts)
        if self._options.srv:
            hosts = [f"mongodb+srv://{hosts[0]}"]
        given = self._options.for_driver() | {
            "retryWrites": True,
            "retryReads": True,
            "socketTimeoutMS": self._options.timeout_ms + _GRACE_MS,
            "event_listeners": list(self._listeners),
        }
        try:
            return MongoClient(host=hosts, **given)  # type: ignore[arg-type]
        except (ConfigurationError, InvalidURI, ValueError, TypeError, OSError) as error:
            raise StoreMisconfigured(f"MongoDB at {self.where}: {self._hidden(str(error))}") from None

    def _hidden(self, text: str) -> str:
        """The driver's words without the password, should it repeat it."""
        for secret in (self._options.password, self._options.tls_certificate_key_file_password):
            text = text.replace(secret, "***") if secret else text
        return text


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
