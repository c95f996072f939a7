"""A Redis (or Valkey) server for tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import cache

from onceward.conformance.servers.containers import Image, or_contained
from onceward.conformance.servers.process import ServerMissing, ServerProcess, find_binary

VARIABLE = "ONCEWARD_TEST_REDIS_URL"
_ADVICE = (
    f"install it (Debian: apt-get install redis-server), or start Docker, or set {VARIABLE} to the URL of a running one"
)
IMAGE = Image("redis:7", 6379, "Ready to accept connections", "redis://{host}:{port}/0")

#: Every acknowledged write is on the disk.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
#: Nothing is written at all: for tests that do not stop the server.
FLEETING = ("--appendonly", "no", "--save", "")


class RedisServer(ServerProcess):
    """``redis-server`` (or ``valkey-server``) on 127.0.0.1.

    Args:
        settings: more of its command line, for example ``"--maxmemory", "5mb"``.
        durable: every write is synchronised with the disk before it is acknowledged.
    """

    name = "redis"

    def __init__(self, *settings: str, durable: bool = False, password: str = "") -> None:
        self._binary = _binary()
        super().__init__()
        self._password = password
        self.settings = (*(DURABLE if durable else FLEETING), *settings)
        if password:
            self.settings += ("--requirepass", password)

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        return (
            self._binary,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
            *self.settings,
        )

    def ready(self) -> bool:
        """True once PING is answered, with PONG or with the wish for a password."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def _binary() -> str:
    try:
        return find_binary("redis-server", advice=_ADVICE)
    except ServerMissing:
        return find_binary("valkey-server", advice=_ADVICE)


def redis_url() -> str:
    """The server that the environment names, else one of our own (or a container) that lives as long as this process.

    Raises:
        ServerMissing: there is none of these.
    """
    return os.environ.get(VARIABLE) or or_contained(lambda: _own().url, IMAGE)


@cache
def _own() -> RedisServer:
    return RedisServer().start()
