"""The right to run: check-in, claim, renew, check-out, lock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from onceward.contracts.records import Lease, Run, RunId
from onceward.contracts.requests import (
    Admission,
    CheckIn,
    CheckOut,
    Claim,
    LockAnswer,
    LockRequest,
    Renewal,
    Renewed,
)


class Executor(ABC):
    """The right to run. Every method is one atomic, guarded transition per item; policy lives in the toolkit.

    Time is judged by the store's clock, never by the caller's. A batch answers in the order in which it was asked;
    its items succeed or fail one by one. Sending the same request again (same request id) has no second effect and
    gives the first answer (G7). All methods may raise ``StoreUnavailable`` (nothing was done) and ``OutcomeUnknown``
    (ask again with the same request); bad input raises ``InvalidRequest`` before anything is sent (G16).
    """

    @abstractmethod
    def checkin(self, request: CheckIn) -> Admission:
        """Exactly one caller per attempt of the run is admitted; everybody gets the run as it is now.

        An absent run is created RUNNING. A SCHEDULED one is admitted when due. A lapsed one is taken over or ended,
        as ``on_abandoned`` and ``max_crashes`` say; a FAILED one is blocked or run again, as ``on_failed`` says.

        Guarantees:
            G1: for each attempt of a run at most one admission.
            G2: its token exceeds every earlier token of that run.
            G5: a refused check-in changes nothing (but may end a run whose crash budget is used up).
        """

    @abstractmethod
    def claim(self, request: Claim) -> Sequence[Run]:
        """Up to ``limit`` runs that were due, or whose lease had lapsed, are now held by the caller.

        Order: highest priority first, then ``run_at``, then submission; also across jobs. A lapsed run whose crash
        budget is used up ends as FAILED and is not returned. Nothing to take is an empty sequence. A repeated claim
        answers with those of its runs that it still holds; only when it holds none any more is it a claim anew.

        Guarantees:
            G1: a run has at most one current holder.
            G2: each claim's token exceeds every earlier token of that run.
            G12: never more than ``max_running`` live leases of a job, in every interleaving.
            G13: the order above.
        """

    @abstractmethod
    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        """Leases that are still the newest and have not lapsed now end ``duration`` after the store's now.

        Guarantees:
            G4: a stale or lapsed lease changes nothing, and its holder is told so.
        """

    @abstractmethod
    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        """Runs whose lease carried the newest token have ended their attempt; False: stale token, nothing changed.

        A lease that has lapsed but was not taken over still counts: the work was done.

        Guarantees:
            G4: a stale token changes nothing.
            G6: an acknowledged check-out is final, and durable where the store is.
        """

    @abstractmethod
    def check(self, run: RunId) -> Run | None:
        """The run as it is now, or None. Changes nothing."""

    @abstractmethod
    def lock(self, request: LockRequest) -> LockAnswer:
        """The lock is the caller's if nobody had a live lease on it; not reentrant, also for the same holder.

        Guarantees:
            G2, G3: its token exceeds every earlier one; no two leases on it overlap in store time.
            G5: a refused request changes nothing and leaves nothing behind.
        """

    @abstractmethod
    def unlock(self, lease: Lease) -> bool:
        """The lock is free if this lease was its newest and live; False: it was not, and nothing changed.

        A repetition after a success answers True as long as nobody has taken the lock since.
        """
