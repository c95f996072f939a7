"""What happens to runs, told to whoever wants to hear: logs, metrics, alerts."""

from __future__ import annotations

import enum
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta

from onceward.contracts import CheckOut, Ending, Run
from onceward.contracts.records import Record

log = logging.getLogger("onceward.server")


class Event(enum.StrEnum):
    """What can happen to an attempt."""

    START = "start"
    SUCCESS = "success"
    FAIL = "fail"
    """It failed, and is not tried again."""
    RETRY = "retry"
    """It failed, and is due again later."""
    RELEASED = "released"
    """It was given back: snoozed, or the server shut down."""
    CANCEL = "cancel"
    SUPERSEDED = "superseded"
    """It ended after its lease was lost: its end was not recorded, and that of somebody else counts."""


_ENDINGS = {
    Ending.SUCCEEDED: Event.SUCCESS,
    Ending.FAILED: Event.FAIL,
    Ending.RETRY: Event.RETRY,
    Ending.RELEASED: Event.RELEASED,
    Ending.CANCELLED: Event.CANCEL,
}
_LEVELS = {Event.FAIL: logging.ERROR, Event.RETRY: logging.WARNING, Event.SUPERSEDED: logging.WARNING}


class JobEvent(Record, frozen=True, kw_only=True):
    """Something happened to an attempt of a run. Ends are told once the store has recorded (or refused) them."""

    event: Event
    run: Run
    checkout: CheckOut | None = None
    took: timedelta | None = None


class Events:
    """Who wants to hear of what. A listener that raises is logged, and disturbs nobody."""

    def __init__(self) -> None:
        self._listeners: dict[Event, list[Callable[[JobEvent], object]]] = defaultdict(list)
        self._counts: Counter[Event] = Counter()
        self._lock = threading.Lock()

    def on(self, event: Event | str, listener: Callable[[JobEvent], object]) -> None:
        """``listener`` is called with every such event, from the server's own threads: it should be quick."""
        self._listeners[Event(event)].append(listener)

    def counts(self) -> dict[str, int]:
        """How often what has happened in this process."""
        with self._lock:
            return {event.value: number for event, number in sorted(self._counts.items())}

    def started(self, run: Run) -> None:
        """An attempt begins."""
        self._tell(Event.START, run)

    def ended(self, run: Run, checkout: CheckOut, *, recorded: bool, took: timedelta) -> None:
        """An attempt's end was recorded, or refused."""
        self._tell(_ENDINGS[checkout.ending] if recorded else Event.SUPERSEDED, run, checkout, took)

    def superseded(self, run: Run, *, took: timedelta) -> None:
        """An attempt ended after its lease was lost: there was no end to record."""
        self._tell(Event.SUPERSEDED, run, took=took)

    def _tell(self, event: Event, run: Run, checkout: CheckOut | None = None, took: timedelta | None = None) -> None:
        """Everybody who wants to hear of it has; mostly it is only counted."""
        with self._lock:
            self._counts[event] += 1
        level = _LEVELS.get(event, logging.INFO)
        logged, listeners = log.isEnabledFor(level), self._listeners.get(event)
        if not logged and not listeners:
            return
        happened = JobEvent(event=event, run=run, checkout=checkout, took=took)
        if logged:
            _log(level, happened)
        for listener in listeners or ():
            try:
                listener(happened)
            except BaseException:  # also SystemExit: it would end the loop that tells, not the process
                log.exception("a listener for %s failed", event)


def _log(level: int, happened: JobEvent) -> None:
    run, checkout = happened.run, happened.checkout
    fields: dict[str, object] = {"event": happened.event.value, "job": run.job, "key": run.key, "attempt": run.attempt}
    text = f"{happened.event}: {run.id} #{run.attempt}"
    if happened.took is not None:
        fields["took_ms"] = round(happened.took.total_seconds() * 1000)
        text += f" after {happened.took.total_seconds():.3f} s"
    if checkout is not None and checkout.error is not None:
        fields["error"] = checkout.error.message
        text += f": {checkout.error.type}: {checkout.error.message}"
    log.log(level, "%s", text, extra=fields)
