"""Where bodies run: threads of our own, one event loop for coroutines, or the caller's thread for tests."""

from __future__ import annotations

import asyncio
import logging
import threading
from queue import SimpleQueue
from typing import Protocol

from onceward.toolkit.jobs.settings import Where
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
    return attempt.plan.job.is_async and attempt.plan.job.where is Where.THREAD


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
    """Daemon threads, as many as bodies ever ran at a time: a body that never returns does not keep the process up."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Attempt | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle, self._threads = 0, 0

    def start(self, attempt: Attempt) -> None:
        """The body runs in a thread."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"onceward-job-{self._threads}", daemon=True).start()
        self._work.put(attempt)

    def close(self) -> None:
        """Threads that wait end now, others when their body does."""
        with self._lock:
            threads = self._threads
        for _ in range(threads):
            self._work.put(None)

    def _serve(self) -> None:
        while (attempt := self._work.get()) is not None:
            try:
                attempt.perform()
            except BaseException:  # perform() catches what bodies raise; this would be ours
                log.exception("%s: its end could not be told", attempt.run.id)
            with self._lock:
                self._idle += 1


class Coroutines:
    """One event loop in a thread of its own, begun with the first coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, attempt: Attempt) -> None:
        """The coroutine runs in the event loop."""
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(attempt.perform_async(), loop)
        attempt.stop_body = future.cancel
        future.add_done_callback(lambda _: attempt.dropped())

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
