"""Watches: told by the server through publish and subscribe, and woken by the time of what comes due or lapses.

A message is the instant from which on it is worth looking again. Nothing is published when time passes, so a watch
also knows the next such instant of its interest. It is subscribed before it looks, so nothing falls in between; and
it asks again every few seconds, which also finds out about a jump of the server's clock and a dead connection.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import hiredis

from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch
from onceward.runners.redis.errors import refusal, unreachable
from onceward.runners.redis.names import escaped, run_text
from onceward.runners.redis.rows import listed, number
from onceward.runners.redis.wire import Reply, Wire, packed

_ASK_AFTER = 5.0


class RedisWatch(Watch):
    """A connection of its own that is subscribed to what is of interest."""

    def __init__(
        self,
        interest: Interest,
        prefix: str,
        *,
        connect: Callable[[], Wire],
        ask: Callable[..., Reply],
        forget: Callable[[RedisWatch], None],
    ) -> None:
        jobs, locks = sorted(map(escaped, interest.jobs)), sorted(map(escaped, interest.locks))
        topics = [f"j:{job}" for job in jobs] + [f"l:{name}" for name in locks]
        topics += sorted(f"r:{run_text(run)}" for run in interest.runs) + ["c:"] * interest.configs
        self._channels = [f"{prefix}!{topic}" for topic in topics]
        self._timed = [len(jobs), *jobs, *locks]
        self._connect, self._ask, self._forget = connect, ask, forget
        self._lock = threading.Lock()
        self._closed = False
        self._wire: Wire | None = self._subscribed()
        self._seen: int | None = None
        """Moments up to this one have been told."""
        self._ahead = 0.0
        """Server's milliseconds minus ours."""
        self._next = math.inf
        """The server's time from which on it is worth looking again."""
        self._learn()

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        deadline = time.monotonic() + timeout
        if self._closed:
            return False
        try:
            if self._learn():
                return True
            return self._listen(deadline)
        except OSError as error:
            if self._closed:
                return False
            return self._resubscribe(error)

    def _listen(self, deadline: float) -> bool:
        asked = time.monotonic()
        while not self._closed:
            now = time.monotonic()
            due = (self._next - self._ahead) / 1000
            if now >= due or now >= asked + _ASK_AFTER:
                if self._learn():
                    return not self._closed
                asked, due = now, (self._next - self._ahead) / 1000
            if self._told(max(0.0, min(deadline, due, asked + _ASK_AFTER) - now)):
                return not self._closed
            if time.monotonic() >= deadline:
                return False
        return False

    def close(self) -> None:
        """See ``Watch.close``."""
        with self._lock:
            self._closed = True
            wire = self._wire
        self._forget(self)
        if wire is not None:
            wire.interrupt()  # a thread that waits sees the end; the socket goes with the watch

    def _learn(self) -> bool:
        """Ask for the next moment; True if it has passed already."""
        sent = time.monotonic()
        reply = listed(self._ask("next", "" if self._seen is None else self._seen, *self._timed))
        now = number(reply[0])
        self._ahead = now - sent * 1000
        self._next = math.inf if reply[1] is None else number(reply[1])
        if self._seen is None:
            self._seen = now
        if self._next > now:
            return False
        self._seen = now
        return True

    def _told(self, seconds: float) -> bool:
        """True if somebody says that it is worth looking now."""
        wire = self._wire
        if wire is None:
            raise ConnectionResetError("not connected")
        message = wire.poll(math.ceil(seconds * 1000) / 1000)
        look = False
        while message is not False:
            if isinstance(message, list) and message[0] == "smessage":
                instant = number(message[2])
                look = look or instant <= time.monotonic() * 1000 + self._ahead
                self._next = min(self._next, instant) if instant else self._next
            message = wire.poll(0)
        return look

    def _subscribed(self) -> Wire:
        wire = self._connect()
        try:
            replies: list[Reply] = []
            if self._channels:
                wire.exchange(packed(("SSUBSCRIBE", *self._channels)), len(self._channels), replies)
            for reply in replies:
                if isinstance(reply, hiredis.ReplyError):
                    raise refusal(reply, wire.where)
        except (OSError, hiredis.HiredisError) as error:
            wire.close()
            raise unreachable(error, wire.where) from error
        except BaseException:
            wire.close()
            raise
        return wire

    def _resubscribe(self, error: OSError) -> bool:
        """Connected again; something may have changed meanwhile."""
        if self._wire is not None:
            self._wire.close()
        self._wire = None
        wire = self._subscribed()
        with self._lock:
            if self._closed:
                wire.close()
                return False
            self._wire = wire
        return True
