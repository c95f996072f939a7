"""The worker: claims what can start now, runs it, renews it, ends it. One per server process.

A round of it is one claim. The claim asks only for what can start at once, so no run waits in a process while another
process could have taken it. Renewal has a thread of its own, check-outs are sent in batches by another; neither
depends on what bodies do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from onceward.contracts import CheckOut, Claim, OutcomeUnknown, Run, RunId, Runner, StoreError, new_holder
from onceward.toolkit.jobs.launch import Launcher
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.renewal import HeldLease, Renewer
from onceward.toolkit.resend import resend
from onceward.toolkit.server.attempt import Attempt
from onceward.toolkit.server.bodies import Bodies
from onceward.toolkit.server.capacity import Capacity, Plan
from onceward.toolkit.server.events import Events
from onceward.toolkit.server.flusher import Flusher, Pending
from onceward.toolkit.server.settings import ServerSettings

log = logging.getLogger("onceward.server")

#: While coroutines or jobs with a timeout run, they are looked at this often, in seconds.
_MIND_EVERY = 0.1
#: Seconds without listening for work while there is more than enough of it, and at the most while none can be had.
_BUSY, _MOST_DEAF = 0.02, 0.1


class Asked(NamedTuple):
    """A claim whose answer is not known yet: it is sent again as it is, so that nothing it took is forgotten."""

    claim: Claim
    sent: float
    plans: Mapping[str, Plan]
    unknown: bool = False
    """An earlier send may have taken something: that a later one was refused says nothing about it."""


class Worker:
    """Runs jobs. Its loops call ``round``, ``mind`` and ``flusher.flush``; tests may call them themselves.

    Attributes:
        fruitless: claims in a row that brought nothing.
        on_room: called when something else may be started.
    """

    def __init__(
        self,
        runner: Runner,
        settings: ServerSettings,
        plans: Callable[[], Mapping[str, Plan]],
        *,
        launcher: Launcher,
        events: Events,
        bodies: Bodies,
    ) -> None:
        self.holder = new_holder()
        self.renewer = Renewer(runner.executor)
        self.flusher = Flusher(runner.executor, self._settled)
        self.fruitless = 0
        self._full = False
        """The latest claim brought all that there was room for."""
        self.on_room: Callable[[], object] = lambda: None
        self.on_minded: Callable[[], object] = lambda: None
        self._executor, self._settings, self._plans = runner.executor, settings, plans
        self._launcher, self._events, self._bodies = launcher, events, bodies
        self._capacity = Capacity(settings)
        self._attempts: set[Attempt] = set()
        self._changed = threading.Condition()
        self._asked: Asked | None = None
        self._minding = False
        """True: ``mind`` is called again soon anyway."""
        self._closing = threading.Event()
        self._hurry = threading.Event()
        self.stopping = threading.Event()

    # -- one round ----------------------------------------------------------------------------------------------

    def round(self) -> float:
        """One claim, if there is room; the seconds until the next one is worth while."""
        taken = 0 if self._closing.is_set() else self.claim()
        return 0.0 if taken and self._full else self._settings.process_every.total_seconds()

    def claim(self) -> int:
        """What could start now has been started; the number of runs."""
        asked = self._asked = self._asked or self._ask()
        if asked is None:
            return 0
        try:
            runs = resend(lambda: self._executor.claim(asked.claim))
        except StoreError as error:
            unknown = asked.unknown or isinstance(error, OutcomeUnknown)
            self._asked = asked._replace(unknown=True) if unknown else None  # it goes out again in the next round
            raise
        except BaseException:
            self._asked = None
            raise
        self._asked = None
        self.fruitless = 0 if runs else self.fruitless + 1
        self._full = len(runs) == asked.claim.limit
        self._begin(runs, asked)
        return len(runs)

    def deaf_for(self) -> float:
        """Seconds for which nobody need listen for work: it comes anyway, or what there is cannot be had.

        While claims bring all that there is room for, each end of a run brings the next claim. When they bring nothing
        though there is news (a limit is reached, say), asking without end would not help.
        """
        return _BUSY if self._full else min(_MOST_DEAF, 0.001 * 2.0 ** min(self.fruitless, 10) - 0.001)

    def mind(self) -> float | None:
        """Attempts whose time is up, or whose lease is lost, have been told."""
        with self._changed:
            minded = [attempt for attempt in self._attempts if _needs_minding(attempt)]
            self._minding = bool(minded)
        for attempt in minded:
            attempt.check_time()
        return _MIND_EVERY if minded else None

    def _ask(self) -> Asked | None:
        plans = self._plans()
        limit, wants = self._capacity.wants(plans)
        if not limit:
            return None
        claim = Claim(holder=self.holder, lease=self._settings.default_lock_lifetime, limit=limit, wants=wants)
        return Asked(claim, lease_time(), plans)

    def _begin(self, runs: Sequence[Run], asked: Asked) -> None:
        """What was claimed is here: renewed, counted, and its bodies started."""
        leases = [run.lease for run in runs if run.lease is not None]  # each has one: that is what claimed means
        kept = self.renewer.keep_all(leases, sent=asked.sent)
        attempts = [self._attempt(run, asked, held) for run, held in zip(runs, kept, strict=True)]
        self._capacity.take(run.job for run in runs)
        with self._changed:
            self._attempts.update(attempts)
        for attempt in attempts:
            if attempt.run.cancel_requested:
                attempt.end(CheckOut.cancelled(attempt.held.lease))
            elif self._closing.is_set() or attempt.held.lost.is_set():
                attempt.give_up()
            else:
                self._start(attempt)

    def _attempt(self, run: Run, asked: Asked, held: HeldLease) -> Attempt:
        return Attempt(
            run,
            asked.plans[run.job],
            held,
            renewer=self.renewer,
            launcher=self._launcher,
            stopping=self.stopping,
            on_end=self._end,
        )

    def _start(self, attempt: Attempt) -> None:
        self._events.started(attempt.run)
        try:
            self._bodies.start(attempt)
        except Exception:  # no more threads, say: somebody else may have room, and what else was claimed goes on
            log.exception("%s could not be started", attempt.run.id)
            attempt.give_up()
        if _needs_minding(attempt):
            with self._changed:  # mind() looks and says whether it comes again in one step
                comes = self._minding
            if not comes:
                self.on_minded()

    def _end(self, attempt: Attempt, checkout: CheckOut | None) -> None:
        if checkout is None:
            attempt.held.stop()
            self._events.superseded(attempt.run, took=attempt.took)
        else:
            self.flusher.add(Pending(checkout, attempt, attempt.took))
        self._capacity.give_back(attempt.run.job)
        with self._changed:
            self._attempts.discard(attempt)
            if not self._attempts:
                self._changed.notify_all()
        self.on_room()

    def _settled(self, batch: Sequence[Pending], answers: Sequence[bool]) -> None:
        """Each end was recorded, or refused, and is told."""
        for (checkout, attempt, took), recorded in zip(batch, answers, strict=True):
            try:
                attempt.held.stop()
                self._events.ended(attempt.run, checkout, recorded=recorded, took=took)
            except Exception:  # a defect must not cost the others their answer
                log.exception("%s: its end could not be told", attempt.run.id)
        self.on_room()  # of a job that has a limit in all processes, another may start now

    # -- looking, and the end -----------------------------------------------------------------------------------

    def running(self) -> list[Attempt]:
        """The attempts that are here, the oldest first."""
        with self._changed:
            return sorted(self._attempts, key=lambda attempt: attempt.began)

    def running_by_job(self) -> Mapping[str, int]:
        """How many runs of each job are here."""
        return self._capacity.running()

    def overdue(self) -> list[RunId]:
        """Runs whose bodies go on although their lease is lost."""
        return [attempt.run.id for attempt in self.running() if attempt.held.lost.is_set()]

    @property
    def claim_open(self) -> bool:
        """True while nobody knows what the latest claim took."""
        return self._asked is not None

    def stop_claiming(self) -> None:
        """Nothing new is started; what a claim under way still brings is given back."""
        self._closing.set()

    def drain(self, timeout: float) -> bool:
        """True: all bodies have ended within ``timeout`` seconds, and before somebody ``hurry``s."""
        end = lease_time() + timeout
        with self._changed:
            while self._attempts and not self._hurry.is_set() and (left := end - lease_time()) > 0:
                self._changed.wait(min(left, _MIND_EVERY))
            return not self._attempts

    def hurry(self) -> None:
        """Draining ends now, whatever still runs."""
        self._hurry.set()

    def give_up(self) -> list[RunId]:
        """What still runs is given back, and its bodies are told; the answer is what that was."""
        return [attempt.run.id for attempt in self.running() if attempt.give_up()]

    def close(self, timeout: timedelta) -> None:
        """No lease is renewed, and no body started, any more."""
        self._bodies.close()
        self.renewer.close(timeout.total_seconds())


def _needs_minding(attempt: Attempt) -> bool:
    return attempt.stop_body is not None or attempt.plan.settings.timeout is not None
