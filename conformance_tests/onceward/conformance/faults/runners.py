"""A runner's locks, check-ins and claims as contests."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import timedelta

from onceward.conformance.faults.contest import Contender, Contest, Memory, Said, Standing
from onceward.conformance.faults.framing import DIALECTS
from onceward.conformance.faults.proxy import Address
from onceward.conformance.harness import Harness
from onceward.conformance.verdicts import CouldNotRun
from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    Ending,
    Lease,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Run,
    RunId,
    Runner,
    RunSpec,
    StoreUnavailable,
    Want,
)

#: Ends within a case only when the case says so.
LONG = timedelta(minutes=10)


def opened(harness: Harness, runner: Runner, address: Address) -> Runner:
    """Another client of the same store and namespace, by that way."""
    through = harness.through(address)
    opening = None if through is None else through.opening(runner)
    if opening is None:
        raise CouldNotRun("the harness has an address, but no through() with an opening() for it")
    return opening.open()


class RunnerContest(Contest):
    """What all three have in common: the runner that looks on, and the way in."""

    def __init__(self, harness: Harness) -> None:
        server = harness.server()
        if server is None:
            raise CouldNotRun("the store has no network address")
        self.address = Address(server.host, server.port)
        self.dialect = DIALECTS[server.dialect]
        self.harness = harness
        self.runner = harness.timed_runner()
        self.mention = self.runner.namespace.encode()
        self.name = ""

    def contender(self, address: Address, name: str) -> Contender:
        return RunnerContender(self, opened(self.harness, self.runner, address), name)

    def begin(self, case: int) -> None:
        self.name = f"{self.noun}{case}"

    def full(self, request: str) -> str:
        """The request id as the store gets it: unique in the namespace, where one case follows the other."""
        return f"{self.name}.{request}"

    def lapse(self) -> None:
        lease = self.lease()
        if lease is not None:
            self.harness.wait_out(self.runner, lease)

    def close(self) -> None:
        self.runner.close()

    @abstractmethod
    def lease(self) -> Lease | None:
        """The live lease."""

    @abstractmethod
    def ask(self, runner: Runner, holder: str, request: str) -> Lease | None:
        """The lease, if the request was granted."""

    @abstractmethod
    def give_back(self, runner: Runner, lease: Lease) -> bool:
        """The lease was the newest and has ended."""


class RunnerContender(Contender):
    """A client of a runner."""

    def __init__(self, contest: RunnerContest, runner: Runner, name: str) -> None:
        self._contest, self._runner, self._name = contest, runner, name
        self._leases: dict[str, Lease] = {}

    def acquire(self, request: str) -> Said:
        return _said(lambda: self._acquire(request))

    def _acquire(self, request: str) -> Said:
        lease = self._contest.ask(self._runner, self._name, self._contest.full(request))
        if lease is None:
            return Said.REFUSED
        self._leases[request] = lease
        return Said.GRANTED

    def release(self, request: str) -> Said:
        lease = self._leases[request]
        return _said(lambda: Said.RELEASED if self._contest.give_back(self._runner, lease) else Said.LOST)

    def close(self) -> None:
        self._runner.close()


def _said(call: Callable[[], Said]) -> Said:
    try:
        return call()
    except StoreUnavailable:
        return Said.UNAVAILABLE
    except OutcomeUnknown:
        return Said.UNKNOWN


def _short(request: str) -> str:
    """The request id as the case knows it."""
    return request.rpartition(".")[2]


class Locks(RunnerContest):
    """``lock`` and ``unlock``."""

    noun = "lock"
    memory = Memory.NEWEST

    def begin(self, case: int) -> None:
        if self.name:  # so that there is never more than one to look through
            self.runner.lifecycle.force_unlock(LockId(self.name))
        super().begin(case)

    def standing(self) -> Standing:
        lease = self.lease()
        return Standing(None) if lease is None else Standing(_short(lease.request), lease.token)

    def lease(self) -> Lease | None:
        states = [state for state in self.runner.lifecycle.locks() if state.lease.resource == LockId(self.name)]
        live = [state.lease for state in states if state.remaining is None or state.remaining > timedelta(0)]
        return live[0] if live else None

    def ask(self, runner: Runner, holder: str, request: str) -> Lease | None:
        answer = runner.executor.lock(LockRequest(lock=LockId(self.name), holder=holder, lease=LONG, request=request))
        return answer.lease if answer.acquired else None

    def give_back(self, runner: Runner, lease: Lease) -> bool:
        return runner.executor.unlock(lease)


class Runs(RunnerContest):
    """What check-ins and claims have in common: a run, which is given back by a check-out."""

    work_counts = True

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness)
        self._lapsed: set[int] = set()

    def begin(self, case: int) -> None:
        super().begin(case)
        self._lapsed.clear()

    @property
    def run(self) -> RunId:
        """The run of this case."""
        return RunId(self.name, "k")

    def standing(self) -> Standing:
        found = self.runner.executor.check(self.run)
        grants = () if found is None else tuple(_short(attempt.request) for attempt in found.attempts)
        lease = self._live(found)
        return Standing(None, grants=grants) if lease is None else Standing(_short(lease.request), lease.token, grants)

    def lease(self) -> Lease | None:
        return self._live(self.runner.executor.check(self.run))

    def _live(self, run: Run | None) -> Lease | None:
        lease = None if run is None else run.lease
        return None if lease is None or lease.token in self._lapsed else lease

    def lapse(self) -> None:
        lease = self.lease()
        if lease is not None:
            self.harness.wait_out(self.runner, lease)
            self._lapsed.add(lease.token)

    def give_back(self, runner: Runner, lease: Lease) -> bool:
        request = CheckOut(lease=lease, ending=Ending.RELEASED, request=f"{lease.request}-out")
        return runner.executor.checkout([request])[0]


class CheckIns(Runs):
    """``checkin`` and ``checkout``."""

    noun = "checkin"

    def ask(self, runner: Runner, holder: str, request: str) -> Lease | None:
        answer = runner.executor.checkin(CheckIn(run=self.run, holder=holder, lease=LONG, request=request))
        return answer.run.lease if answer.outcome.admitted else None


class Claims(Runs):
    """``claim`` and ``checkout``, of one run."""

    noun = "claim"
    memory = Memory.NEVER

    def begin(self, case: int) -> None:
        super().begin(case)
        self.runner.scheduler.submit([RunSpec(id=self.run)])

    def ask(self, runner: Runner, holder: str, request: str) -> Lease | None:
        claim = Claim(holder=holder, lease=LONG, wants=(Want(job=self.name),), request=request)
        runs = runner.executor.claim(claim)
        return runs[0].lease if runs else None
