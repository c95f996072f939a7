"""The right to run."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from onceward.contracts.executor import Executor
from onceward.contracts.records import Lease, LockId, Run, RunId
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
from onceward.runners.zookeeper.base import Base
from onceward.runners.zookeeper.locks import LockExtension, Release, Taking
from onceward.runners.zookeeper.rows import payload_text
from onceward.runners.zookeeper.runs import Entrance, Exit, Extension, run_in
from onceward.runners.zookeeper.settle import Change


class ExecutorPart(Base, Executor):
    """``Executor`` on ZooKeeper."""

    def checkin(self, request: CheckIn) -> Admission:
        if request.payload is not None:
            request = replace(request, payload=payload_text(request.payload, "payload"))
        answer: Admission = self._settler.settle([Entrance(self._lists, request)])[0]
        return answer

    def claim(self, request: Claim) -> Sequence[Run]:
        return self._claims.claim(request)

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        return self._settler.settle([self._extension(renewal) for renewal in renewals])

    def _extension(self, renewal: Renewal) -> Change:
        resource = renewal.lease.resource
        if isinstance(resource, LockId):
            return LockExtension(self._layout, resource, renewal)
        return Extension(self._lists, resource, renewal)

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        return self._settler.settle([self._exit(checkout) for checkout in checkouts])

    def _exit(self, checkout: CheckOut) -> Exit:
        if checkout.result is not None:
            checkout = replace(checkout, result=payload_text(checkout.result, "result"))
        return Exit(self._lists, checkout)

    def check(self, run: RunId) -> Run | None:
        return run_in(self._link.look([self._layout.run(run)]).nodes[0])

    def lock(self, request: LockRequest) -> LockAnswer:
        answer: LockAnswer = self._settler.settle([Taking(self._layout, request)])[0]
        return answer

    def unlock(self, lease: Lease) -> bool:
        if not isinstance(lease.resource, LockId):
            return False
        freed: bool = self._settler.settle([Release(self._layout, lease.resource, lease)])[0]
        return freed
