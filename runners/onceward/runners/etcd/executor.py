"""The right to run: each verb a pure transition, written under the guard that nothing has changed since it was seen."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from onceward.contracts import transitions
from onceward.contracts.executor import Executor
from onceward.contracts.records import LockId, Run, RunId
from onceward.contracts.requests import Admission, CheckIn, CheckOut, Renewal, Renewed
from onceward.contracts.times import span_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.etcd import rows
from onceward.runners.etcd.base import Base
from onceward.runners.etcd.claims import Claims
from onceward.runners.etcd.locks import Locks
from onceward.runners.etcd.steps import Item, State, Step


class ExecutorPart(Claims, Locks, Base, Executor):
    """``Executor`` on the cluster."""

    def checkin(self, request: CheckIn) -> Admission:
        """See ``Executor.checkin``. One trip, whether the run is new or not; two if it is to be taken over."""
        if request.payload is not None:
            request = replace(request, payload=rows.json_text(request.payload, "payload"))

        def decide(found: Entry | None, state: State, now: Now) -> Step[Admission]:
            outcome, after = transitions.checkin(
                found, request, now, token=lambda: rows.OWN, sequence=self._sequences.next
            )

            def answer(entry: Entry) -> Admission:
                return Admission(outcome=outcome, run=rows.public(entry.run), remaining=entry.remaining(self._now()))

            if after is found:
                return Step(answer=lambda _: answer(after))
            if outcome.admitted:
                return self._held(found, after, now, answer)
            assert found is not None  # only what there is can come to its end
            return self._let_go(state, found, after, lambda _: answer(after))

        return self._cells.change(self._item(request.run, decide, new=True))

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        """See ``Executor.renew``. Two trips for some hundred leases of the same length that were taken here."""
        return self._cells.change_all([self._renewal(renewal) for renewal in renewals])

    def _renewal(self, renewal: Renewal) -> Item[Renewed]:
        resource = renewal.lease.resource
        if isinstance(resource, LockId):
            return self._renewed_lock(renewal)

        def decide(found: Entry | None, state: State, now: Now) -> Step[Renewed]:
            answer, after = transitions.renew(found, renewal, now)
            if answer is Renewed.LOST or found is None or after is None:
                return Step(answer=lambda _: answer)
            step: Step[Renewed] = Step(answer=lambda _: answer)
            before, lease = found.run.lease, after.run.lease
            assert before is not None  # it is held
            assert lease is not None
            if lease.duration is not None and found.until is not None:
                step.lent = self._leases.lend(span_ms(lease.duration), now)
                step.hold = step.lent.id
            if renewal.progress is not None or lease.duration != before.duration:
                step.record = rows.write_run(after.run)
            return step

        return self._item(resource, decide)

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        """See ``Executor.checkout``. One trip for some hundred runs that were taken here; else one more to look."""
        return self._cells.change_all([self._checkout(each) for each in checkouts])

    def _checkout(self, request: CheckOut) -> Item[bool]:
        if request.result is not None:
            request = replace(request, result=rows.json_text(request.result, "result"))

        def decide(found: Entry | None, state: State, now: Now) -> Step[bool]:
            recorded, after = transitions.checkout(found, request, now)
            if after is found or found is None or after is None:
                return Step(answer=lambda _: recorded)
            return self._let_go(state, found, after, lambda _: recorded)

        return self._item(request.run, decide)

    def check(self, run: RunId) -> Run | None:
        (state,) = self._cells.look([(self._names.record(run), self._names.hold(run))])
        return None if state.record is None else rows.public(rows.read_run(run, state.record, state.hold))
