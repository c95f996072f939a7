"""The state machine of check-in: several holders, lapses, stale tokens, late copies, operators."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from onceward.conformance.machine import explore, holders, picked, picks
from onceward.conformance.properties.operator_rules import OperatedMachine
from onceward.conformance.properties.runs_machine import PAYLOADS, runs
from onceward.conformance.property import Property
from onceward.contracts import CheckIn, CheckOut, Ending, Json, OnAbandoned, OnFailed, RunId


class CheckinMachine(OperatedMachine):
    """G1, G2, G4-G8: whoever asks, however often and late, for each attempt of a run one is admitted."""

    @rule(
        run=runs,
        holder=holders,
        lease=st.integers(0, 3),
        on_failed=st.sampled_from(OnFailed),
        on_abandoned=st.sampled_from((OnAbandoned.RERUN, OnAbandoned.RERUN, OnAbandoned.HOLD)),
        max_crashes=st.sampled_from((None, 0, 1)),
        payload=st.sampled_from(PAYLOADS),
    )
    def checkin(
        self,
        run: RunId,
        holder: str,
        lease: int,
        on_failed: OnFailed,
        on_abandoned: OnAbandoned,
        max_crashes: int | None,
        payload: Json,
    ) -> None:
        """A new check-in."""
        request = CheckIn(
            run=run,
            holder=holder,
            request=self.request(),
            lease=self.leases[lease % len(self.leases)],
            on_failed=on_failed,
            on_abandoned=on_abandoned,
            max_crashes=max_crashes,
            payload=payload,
        )
        self.checkins.append(request)
        self.enter(request)

    @rule(pick=picks, last=st.booleans())
    def repeat_checkin(self, pick: int, last: bool) -> None:
        """A check-in of earlier arrives again, late or at once."""
        request = picked(self.checkins[-2:] if last else self.checkins, pick)
        if request is not None:
            self.enter(request)

    @rule(
        pick=picks,
        short=st.booleans(),
        holder=holders,
        hold=st.sampled_from((OnAbandoned.RERUN, OnAbandoned.RERUN, OnAbandoned.HOLD)),
    )
    def take_over(self, pick: int, short: bool, holder: str, hold: OnAbandoned) -> None:
        """A lease comes to its end, or to the moment before it, and somebody checks in on what it held."""
        run = self.lapse(pick, short)
        if run is not None:
            request = CheckIn(run=run, holder=holder, request=self.request(), lease=self.leases[0], on_abandoned=hold)
            self.checkins.append(request)
            self.enter(request)

    @rule(pick=picks, lapse=st.booleans())
    def start_over(self, pick: int, lapse: bool) -> None:
        """A holder loses its run and gets it again; then what it did with its first lease arrives."""
        lease = picked(self.issued, pick)
        if lease is None or not isinstance(lease.resource, RunId):
            return
        if lapse:
            self.lapse(pick, False)
        else:
            self.leave([CheckOut(lease=lease, ending=Ending.RETRY, request=self.request())])
        request = CheckIn(run=lease.resource, holder=lease.holder, request=self.request(), lease=self.leases[0])
        self.checkins.append(request)
        self.enter(request)
        self.extend([lease])
        self.leave([CheckOut(lease=lease, ending=Ending.SUCCEEDED, request=self.request())])


MODEL = Property(
    id="checkin.model",
    statement="Every answer to a check-in, check-out, renewal, purge, re-arm and forced unlock is the right one.",
    guarantees=("G1", "G2", "G4", "G5", "G6", "G7", "G8", "G14", "C2", "L7"),
    experiment=explore(CheckinMachine, cases=40, steps=50),
    weight=2.0,
)
