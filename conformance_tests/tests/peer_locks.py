"""Other people's locks on Redis as contests, so that the message scheduler can examine them as it examines ours.

They are used as their documents say, but with retries that do not wait, so that a case takes no time; they name their
holds by a text of the caller's, which is what the scheduler looks at. An error that says that the store could not be
reached counts as "unknown", never against them.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from urllib.parse import urlsplit

import redis
import redis.lock
import redis_lock  # type: ignore[import-untyped]
from redis.backoff import NoBackoff
from redis.exceptions import LockError
from redis.retry import Retry

from onceward.conformance.faults.contest import Contender, Contest, Memory, Said, Standing
from onceward.conformance.faults.framing import RESP
from onceward.conformance.faults.proxy import Address
from onceward.contracts import new_request

LEASE = 600


class PeerContest(Contest):
    """A lock of another library, on a key of its own in each case."""

    dialect = RESP
    noun = "lock"
    resends = False  # they do that themselves, or not
    memory = Memory.NEVER  # nobody claims that late copies are recognised

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = Address(parts.hostname or "127.0.0.1", parts.port or 6379)
        self._prefix = f"peer-{new_request()}"
        self.mention = self._prefix.encode()
        self.name = self._prefix
        self.direct = self.connect(self.address)

    @staticmethod
    def connect(address: Address) -> redis.Redis:
        return redis.Redis(host=address.host, port=address.port, retry=Retry(NoBackoff(), 3))

    def begin(self, case: int) -> None:
        self.direct.delete(self.key())
        self.name = f"{self._prefix}-{case}"

    def standing(self) -> Standing:
        found = self.direct.get(self.key())
        return Standing(found.decode() if isinstance(found, bytes) else None)

    def lapse(self) -> None:
        self.direct.delete(self.key())  # what the server does when the time is over

    def close(self) -> None:
        for key in self.direct.scan_iter(f"*{self._prefix}*"):
            self.direct.delete(key)
        self.direct.close()

    def key(self) -> str:
        """The key that has the holder's text while the lock is held."""
        return self.name

    @abstractmethod
    def contender(self, address: Address, name: str) -> PeerContender:
        """A client of the library."""


class PeerContender(Contender):
    """A client of such a library."""

    def __init__(self, contest: PeerContest, address: Address) -> None:
        self.contest = contest
        self.client = contest.connect(address)

    def acquire(self, request: str) -> Said:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return Said.GRANTED if self.lock(request) else Said.REFUSED
        return Said.UNKNOWN

    def release(self, request: str) -> Said:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return Said.RELEASED if self.unlock(request) else Said.LOST
        return Said.UNKNOWN

    @abstractmethod
    def lock(self, request: str) -> bool:
        """The library says that it has the lock."""

    @abstractmethod
    def unlock(self, request: str) -> bool:
        """The library says that it had the lock, and now has not."""

    def close(self) -> None:
        self.client.close()


class RedisPyLock(PeerContest):
    """``redis.lock.Lock``."""

    class _Contender(PeerContender):
        def lock(self, request: str) -> bool:
            self._lock = redis.lock.Lock(self.client, self.contest.name, timeout=LEASE, thread_local=False)
            return bool(self._lock.acquire(blocking=False, token=request))

        def unlock(self, request: str) -> bool:
            try:
                self._lock.release()
            except LockError:
                return False
            return True

    def contender(self, address: Address, name: str) -> PeerContender:
        return self._Contender(self, address)


class PythonRedisLock(PeerContest):
    """``redis_lock.Lock`` of python-redis-lock."""

    class _Contender(PeerContender):
        def lock(self, request: str) -> bool:
            self._lock = redis_lock.Lock(self.client, self.contest.name, expire=LEASE, id=request)
            return bool(self._lock.acquire(blocking=False))

        def unlock(self, request: str) -> bool:
            try:
                self._lock.release()
            except redis_lock.NotAcquired:
                return False
            return True

    def contender(self, address: Address, name: str) -> PeerContender:
        return self._Contender(self, address)

    def key(self) -> str:
        return f"lock:{self.name}"
