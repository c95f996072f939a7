"""SIGTERM and SIGINT: the first asks for a shutdown, the second forces it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

log = logging.getLogger("onceward.server")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handled(first: Callable[[], object], further: Callable[[], object]) -> Iterator[None]:
    """While inside, signals call these from a thread of its own; outside of the main thread, nothing is installed.

    A handler itself only notes the signal, by the one thing that is safe there: it may interrupt any line of the main
    thread, also one that holds a lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: SimpleQueue[int] = SimpleQueue()
    before = {number: signal.signal(number, lambda number, frame: noted.put(number)) for number in _SIGNALS}
    threading.Thread(target=_serve, args=(noted, first, further), name="onceward-signals", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        noted.put(0)


def _serve(noted: SimpleQueue[int], first: Callable[[], object], further: Callable[[], object]) -> None:
    call = first
    while number := noted.get():
        log.info("%s: %s", signal.Signals(number).name, "shutting down" if call is first else "shutting down now")
        call()
        call = further
