"""Other people's lock on etcd as a contest for the message scheduler; see ``peer_locks``."""

from __future__ import annotations

import base64
import contextlib
import re
from urllib.parse import urlsplit

import etcd3gw
from etcd3gw.exceptions import ConnectionFailedError, ConnectionTimeoutError
from etcd3gw.utils import LOCK_PREFIX

from onceward.conformance.faults.contest import Contender, Contest, Memory, Said, Standing
from onceward.conformance.faults.frames import Framer
from onceward.conformance.faults.framing import Dialect
from onceward.conformance.faults.proxy import Address
from onceward.contracts import new_request

LEASE = 600


class Http(Framer):
    """HTTP/1.1 with bodies that say how long they are, as etcd's gateway and its client send them."""

    _length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

    def _end(self) -> int | None:
        body = self._buffer.find(b"\r\n\r\n") + 4
        if body < 4:
            return None
        length = self._length.search(self._buffer, 0, body)
        end = body + (int(length[1]) if length else 0)
        return end if len(self._buffer) >= end else None


class Etcd3gwBlock(Contest):
    """``with client.lock(name):`` of etcd3gw, on a key of its own in each case; whoever is inside has it."""

    dialect = Dialect("http", Http, Http)
    noun = "lock"
    resends = False
    memory = Memory.NEVER  # nobody claims that late copies are recognised

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = Address(parts.hostname or "127.0.0.1", parts.port or 2379)
        self._prefix = self.name = f"peer-{new_request()}"
        whole = f"{LOCK_PREFIX}{self._prefix}".encode()
        self.mention = base64.b64encode(whole[: len(whole) // 3 * 3])  # three bytes are four letters, whatever follows
        self.requests: dict[bytes, str] = {}
        self.direct = self.connect(self.address)

    @staticmethod
    def connect(address: Address) -> etcd3gw.Etcd3Client:
        return etcd3gw.client(host=address.host, port=address.port)

    def begin(self, case: int) -> None:
        self.lapse()
        self.name = f"{self._prefix}-{case}"

    def standing(self) -> Standing:
        found = self.direct.get(LOCK_PREFIX + self.name)
        return Standing(self.requests[found[0]] if found else None)

    def lapse(self) -> None:
        self.direct.delete(LOCK_PREFIX + self.name)  # what the server does when the time is over

    def close(self) -> None:
        self.lapse()
        self.direct.session.close()

    def contender(self, address: Address, name: str) -> Contender:
        return _Contender(self, address)


class _Contender(Contender):
    """A client that enters the block, and leaves it. An error that says that etcd was not reached is "unknown"."""

    def __init__(self, contest: Etcd3gwBlock, address: Address) -> None:
        self._contest = contest
        self._client = contest.connect(address)

    def acquire(self, request: str) -> Said:
        self._lock = self._client.lock(self._contest.name, ttl=LEASE)
        self._contest.requests[self._lock.uuid.encode()] = request
        with contextlib.suppress(ConnectionFailedError, ConnectionTimeoutError):
            self._lock.__enter__()  # the scheduler does other things before it is left
            return Said.GRANTED
        return Said.UNKNOWN

    def release(self, request: str) -> Said:
        with contextlib.suppress(ConnectionFailedError, ConnectionTimeoutError):
            return Said.RELEASED if self._lock.release() else Said.LOST
        return Said.UNKNOWN

    def close(self) -> None:
        self._client.session.close()
