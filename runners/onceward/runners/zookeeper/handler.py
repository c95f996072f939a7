"""Cheaper parts for kazoo, by its own interface for them: how its thread waits for sockets, and callers for answers.

Kazoo makes an epoll object for each wait, and there are five of them in a round trip; and a condition for each answer.
"""

from __future__ import annotations

import queue
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kazoo.exceptions import SessionClosedRequireSaslError  # type: ignore[import-untyped]
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler  # type: ignore[import-untyped]


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """Kazoo's threads, which wait for sockets by ``poll`` where there is one."""

    def spawn(self, func: Callable[..., None], *args: Any, **kwargs: Any) -> Any:
        """A thread of kazoo's. That a server wants SASL is told to callers; kazoo would print it, too."""

        def work() -> None:
            with suppress(SessionClosedRequireSaslError):
                func(*args, **kwargs)

        return super().spawn(work)

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

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def set(self, value: Any = None) -> None:
        """The answer has come. Kazoo may say more than once how a request ended; what comes first counts."""
        self._said.put((value, None))

    def set_exception(self, error: BaseException) -> None:
        """There is none."""
        self._said.put((None, error))

    def get(self, timeout: float) -> Any:
        """The answer; only one thread may ask, and once.

        Raises:
            KazooTimeoutError: it did not come in time.
        """
        try:
            value, error = self._said.get(timeout=timeout)
        except queue.Empty:
            raise KazooTimeoutError from None
        if error is not None:
            raise error
        return value
