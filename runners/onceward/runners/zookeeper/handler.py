"""Cheaper parts for kazoo, by its own interface for them: how its thread waits for sockets, and callers for answers.

Kazoo makes an epoll object for each wait, and there are five of them in a round trip; and a condition for each answer.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from typing import Any

from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler  # type: ignore[import-untyped]


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """Kazoo's threads, which wait for sockets by ``poll`` where there is one."""

    def select(
        self, rlist: Sequence[Any], wlist: Sequence[Any], xlist: Sequence[Any], timeout: float | None = None
    ) -> Any:
        """Those sockets that are ready."""
        if not hasattr(select, "poll"):
            return super().select(rlist, wlist, xlist, timeout)
        poll = select.poll()
        for sock in rlist:
            poll.register(sock, select.POLLIN)
        for sock in wlist:  # kazoo never waits for both of one socket
            poll.register(sock, select.POLLOUT)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        return (
            [sock for sock in rlist if sock.fileno() in ready],
            [sock for sock in wlist if sock.fileno() in ready],
            [],
        )


class Result:
    """What kazoo makes of one request, for one thread that waits for it."""

    __slots__ = ("_done", "_error", "_value")

    def __init__(self) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def set(self, value: Any = None) -> None:
        """The answer has come. Kazoo may give up a request twice; what comes first counts."""
        if self._done.locked():
            self._value = value
            self._done.release()

    def set_exception(self, error: BaseException) -> None:
        """There is none."""
        if self._done.locked():
            self._error = error
            self._done.release()

    def get(self, timeout: float) -> Any:
        """The answer; only one thread may ask, and once.

        Raises:
            KazooTimeoutError: it did not come in time.
        """
        if not self._done.acquire(timeout=timeout):
            raise KazooTimeoutError
        if self._error is not None:
            raise self._error
        return self._value
