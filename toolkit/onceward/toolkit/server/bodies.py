"""Where bodies run: threads of our own, one event loop for coroutines, or the caller's thread for tests."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from functools import partial
from typing import Protocol

from onceward.toolkit.server.attempt import Attempt

log = logging.getLogger("onceward.server")


class Bodies(Protocol):
    """Runs bodies."""

    def start(self, attempt: Attempt) -> None:
        """The attempt's body runs, or has run."""
        ...

    def close(self) -> None:
        """No further body is started. Those that run are left alone."""
        ...


def in_event_loop(attempt: Attempt) -> bool:
    """True for a coroutine function, unless it has a process of its own."""
    return attempt.plan.in_event_loop


class Inline:
    """Each body runs in the thread that starts it: one step of a worker then is all of it. For tests and for queues."""

    def start(self, attempt: Attempt) -> None:
        """The body has run."""
        if in_event_loop(attempt):
            asyncio.run(attempt.perform_async())
        else:
            attempt.perform()

    def close(self) -> None:
        """There is nothing to close."""


class Threads:
    """Daemon threads, as many as bodies ever ran at a time: a body that never returns does not keep the process up.

    One thread at a time is called to the work; it takes an attempt, calls the next thread if there is more, and runs
    the body. If the body waits for something, the other takes over at once; if it is over before the other has come,
    the thread goes on with the next attempt itself. So short bodies do not cost a change of threads each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: deque[Attempt] = deque()
        self._idle: list[threading.Lock] = []
        """Of each thread that waits, the lock at which it does."""
        self._coming = False
        """True while a thread is on its way to the work."""
        self._threads = 0
        self._closed = False

    def start(self, attempt: Attempt) -> None:
        """The body runs in a thread, or will as soon as the thread is there."""
        with self._lock:
            self._work.append(attempt)
            try:
                self._call()
            except RuntimeError:  # no more threads
                self._work.remove(attempt)
                raise

    def close(self) -> None:
        """Threads that wait end now, others when their body does."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()

    def _call(self) -> None:
        """If there is work, somebody is on the way to it; called with the lock."""
        if self._coming or not self._work:
            return
        if self._idle:
            self._idle.pop().release()
        else:
            threading.Thread(target=self._serve, name=f"onceward-job-{self._threads + 1}", daemon=True).start()
            self._threads += 1
        self._coming = True

    def _serve(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        called = True
        while True:
            with self._lock:
                self._coming = self._coming and not called
                attempt = self._work.popleft() if self._work else None
                refused = self._call_or_refuse()
                if attempt is None:
                    if self._closed:
                        return
                    self._idle.append(bell)
            for each in refused:
                each.give_up()
            if attempt is not None:
                called = False
                _perform(attempt)
            else:
                bell.acquire()
                called = True

    def _call_or_refuse(self) -> list[Attempt]:
        """Nothing waits for a thread that cannot be: somebody else may have room for what is answered here."""
        try:
            self._call()
        except RuntimeError:
            log.exception("no more threads: %d attempts are given back", len(self._work))
            refused = list(self._work)
            self._work.clear()
            return refused
        return []


class Coroutines:
    """One event loop in a thread of its own, begun with the first coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: deque[Attempt] = deque()
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._coming = False
        """True while the loop has been told of work that it has not taken yet."""

    def start(self, attempt: Attempt) -> None:
        """The coroutine runs in the event loop, or will as soon as the loop is free."""
        loop = self._running()
        attempt.stop_body = lambda: loop.call_soon_threadsafe(self._stop, attempt)
        self._work.append(attempt)
        if not self._coming:
            self._coming = True
            loop.call_soon_threadsafe(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """All coroutines that have been started by now run."""
        self._coming = False  # first, so that what comes from now on is told anew
        while self._work:
            attempt = self._work.popleft()
            task = self._tasks[attempt] = loop.create_task(attempt.perform_async())
            task.add_done_callback(partial(self._done, attempt))

    def _stop(self, attempt: Attempt) -> None:
        task = self._tasks.get(attempt)
        if task is not None:
            task.cancel()

    def _done(self, attempt: Attempt, _: asyncio.Task[None]) -> None:
        del self._tasks[attempt]
        attempt.dropped()

    def close(self) -> None:
        """The loop ends; what still runs in it is cancelled."""
        self._closed.set()
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=(self._loop, self._closed), name="onceward-async", daemon=True
                ).start()
            return self._loop


class Mixed:
    """Plain functions in threads, as what looks after a process; coroutines in the event loop."""

    def __init__(self) -> None:
        self._threads, self._coroutines = Threads(), Coroutines()

    def start(self, attempt: Attempt) -> None:
        """The body runs where its kind belongs."""
        (self._coroutines if in_event_loop(attempt) else self._threads).start(attempt)

    def close(self) -> None:
        """No further body is started."""
        self._threads.close()
        self._coroutines.close()


def _perform(attempt: Attempt) -> None:
    try:
        attempt.perform()
    except BaseException:  # perform() catches what bodies raise; this would be ours
        log.exception("%s: its end could not be told", attempt.run.id)
        attempt.end(None)  # nobody waits for it any more: its lease lapses, and the run is somebody else's


def _serve(loop: asyncio.AbstractEventLoop, closed: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    while not closed.is_set():  # a body that stops the loop, or exits in a task of its own, does not end the others
        try:
            loop.run_forever()
        except BaseException:
            log.exception("something in the event loop of coroutines raised what is no error; it goes on")
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
