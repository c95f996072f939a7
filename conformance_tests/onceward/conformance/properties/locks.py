"""The state machine of locks: several holders, lapses, stale tokens, late copies, forced unlock, purge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from msgspec.structs import replace

from onceward.conformance.machine import Machine, explore, holders, picked, picks
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import Lease, LockAnswer, LockId, LockRequest, LockState, Purge, Renewal, Renewed

LOCKS = (LockId("nightly"), LockId("nightly:a/b"), LockId("a"))
EXACT = (timedelta(seconds=10), timedelta(seconds=1))
PATIENT = (timedelta(hours=1), timedelta(hours=2))

locks = st.sampled_from(LOCKS)


@dataclass
class Hold:
    """A lock's newest lease, as the model knows it.

    Attributes:
        until: when it ends, in the model's milliseconds.
        held: nobody let go of it yet; it may have lapsed.
    """

    request: LockRequest
    token: int
    until: int
    held: bool = True

    def live(self, now: int) -> bool:
        """Its holder has the lock."""
        return self.held and self.until > now

    def is_of(self, lease: Lease) -> bool:
        """The lease is this one."""
        return lease.token == self.token and lease.request == self.request.request


class LockMachine(Machine):
    """G2-G5, G7, G8, L6, L7: whoever asks, one at a time has the lock, and only the holder can let go of it."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.newest: dict[LockId, Hold] = {}
        self.tokens: dict[LockId, int] = {}
        self.requests: list[LockRequest] = []
        self.issued: list[Lease] = []
        self.purged: set[tuple[LockId, int]] = set()
        self.leases = EXACT if self.exact else PATIENT

    # -- lock ---------------------------------------------------------------------------------------------------

    @rule(name=locks, holder=holders, lease=st.integers(0, 1))
    def lock(self, name: LockId, holder: str, lease: int) -> None:
        """A new request for a lock."""
        request = LockRequest(lock=name, holder=holder, lease=self.leases[lease], request=self.request(), note="n")
        self.requests.append(request)
        self.enter(request)

    @rule(pick=picks, last=st.booleans())
    def repeat_lock(self, pick: int, last: bool) -> None:
        """A lock request of earlier arrives again, late or at once."""
        request = picked(self.requests[-2:] if last else self.requests, pick)
        if request is not None:
            self.enter(request)

    @rule(pick=picks, short=st.booleans(), holder=holders)
    def lock_after_lapse(self, pick: int, short: bool, holder: str) -> None:
        """A lease comes to its end, or to the moment before it, and somebody asks for the lock."""
        name = self._lapse(pick, short)
        if name is not None:
            request = LockRequest(lock=name, holder=holder, lease=self.leases[0], request=self.request())
            self.requests.append(request)
            self.enter(request)

    def enter(self, request: LockRequest) -> None:
        """The lock is granted exactly if nobody has it, or to the very request that has it already."""
        hold, before = self.newest.get(request.lock), self.listed()
        answer = self.ask(
            f"{request.holder}.lock({request.lock.name!r}, {request.request}, lease={request.lease})",
            lambda: self.client(request.holder).executor.lock(request),
        )
        mine = hold is not None and hold.request.request == request.request
        if hold is not None and hold.live(self.now_ms):
            self._occupied(hold, request, answer, mine=mine)
        elif hold is not None and mine:
            over = not answer.acquired or (answer.remaining is not None and answer.remaining <= timedelta(0))
            self.expect("G7", over, lambda: f"a late copy of {request.request} was granted the lock: {told(answer)}")
        elif self._late(request):
            if answer.acquired:  # a store may have forgotten it; then it is a request like any other
                self._granted(request, answer)
            return
        else:
            law = "G8" if hold is not None and hold.held else "L6"
            self.expect(law, answer.acquired, lambda: f"nobody holds {request.lock}, but: {told(answer)}")
            self._granted(request, answer)
            return
        self._unchanged(before, "a refused or repeated lock request", "G5")

    def _late(self, request: LockRequest) -> bool:
        """It was granted before, and others have had the lock since."""
        return any(lease.request == request.request for lease in self.issued)

    def _occupied(self, hold: Hold, request: LockRequest, answer: LockAnswer, *, mine: bool) -> None:
        law = "G7" if mine else "G3"
        self.expect(law, answer.acquired is mine, lambda: f"{hold.request.holder} has it, but: {told(answer)}")
        right = answer.lease is not None and hold.is_of(answer.lease)
        self.expect("C2", right, lambda: f"the lock is held with token {hold.token}, but: {told(answer)}")
        self._remaining(hold, answer)

    def _granted(self, request: LockRequest, answer: LockAnswer) -> None:
        got = answer.lease
        right = got is not None and (got.resource, got.holder, got.request) == (
            request.lock,
            request.holder,
            request.request,
        )
        self.expect("C2", right, lambda: f"the lease is not the one that was asked for: {told(answer)}")
        assert got is not None  # just checked
        newest = self.tokens.get(request.lock, 0)
        self.expect("G2", got.token > newest, lambda: f"token {got.token} does not exceed {newest}")
        self.tokens[request.lock] = got.token
        self.newest[request.lock] = Hold(request, got.token, self._ends(request.lease))
        self.issued.append(got)
        self._remaining(self.newest[request.lock], answer)

    def _ends(self, lease: timedelta) -> int:
        return self.now_ms + lease // timedelta(milliseconds=1) if self.exact else 2**60

    def _remaining(self, hold: Hold, answer: LockAnswer) -> None:
        if self.exact:
            left = timedelta(milliseconds=hold.until - self.now_ms)
            self.expect("C2", answer.remaining == left, lambda: f"{left} are left, the answer said {answer.remaining}")

    # -- renew and unlock ---------------------------------------------------------------------------------------

    @rule(pick=picks, recent=st.booleans())
    def unlock(self, pick: int, recent: bool) -> None:
        """Some lease's holder, perhaps of long ago or for the second time, lets go."""
        lease = picked(self.issued[-2:] if recent else self.issued, pick)
        if lease is None or not isinstance(lease.resource, LockId):
            return
        hold, before = self.newest.get(lease.resource), self.listed()
        mine = hold is not None and hold.is_of(lease)
        live = mine and hold is not None and hold.live(self.now_ms)
        repeated = mine and hold is not None and not hold.held
        answer = self.ask(
            f"{lease.holder}.unlock({lease.resource.name!r}, token {lease.token})",
            lambda: self.client(lease.holder).executor.unlock(lease),
        )
        law = "G7" if repeated else "L7" if live else "G4"
        right = answer is bool(live or repeated) or (lease.resource, lease.token) in self.purged
        self.expect(law, right, lambda: f"the unlock was answered {answer}")
        if live and hold is not None:
            hold.held = False
        else:
            self._unchanged(before, "a stale or repeated unlock", law)

    @rule(pick=picks, recent=st.booleans(), lease=st.integers(0, 2))
    def renew(self, pick: int, recent: bool, lease: int) -> None:
        """Some lease's holder, perhaps of long ago, renews it."""
        held = picked(self.issued[-2:] if recent else self.issued, pick)
        if held is None or not isinstance(held.resource, LockId):
            return
        duration = None if lease == 2 else self.leases[lease]
        hold, before = self.newest.get(held.resource), self.listed()
        live = hold is not None and hold.is_of(held) and hold.live(self.now_ms)
        answer = self.ask(
            f"{held.holder}.renew({held.resource.name!r}, token {held.token}, {duration or 'its own'})",
            lambda: self.client(held.holder).executor.renew([Renewal(lease=held, duration=duration)])[0],
        )
        expected = Renewed.HELD if live else Renewed.LOST
        law = "L7" if live else "G4"
        self.expect(law, answer is expected, lambda: f"the renewal was answered {answer.value}, must be {expected}")
        if live and hold is not None:
            hold.until = self._ends(duration or held.duration or self.leases[0])
        else:
            self._unchanged(before, "a stale renewal", "G4")

    # -- time and the operator ----------------------------------------------------------------------------------

    @rule(ms=st.sampled_from((1, 999, 1_000, 10_000)))
    def time_passes(self, ms: int) -> None:
        """Where the clock is ours, any lease may lapse; else nothing happens."""
        self.pass_ms(ms)

    @rule(pick=picks, short=st.booleans())
    def lease_ends(self, pick: int, short: bool) -> None:
        """A live lease comes to its very end, or to the last millisecond before it."""
        self._lapse(pick, short)

    def _lapse(self, pick: int, short: bool) -> LockId | None:
        name = picked([name for name, hold in self.newest.items() if hold.live(self.now_ms)], pick)
        if name is None:
            return None
        hold = self.newest[name]
        if self.exact:
            self.pass_ms(hold.until - self.now_ms - short)
            return name
        lease = next(lease for lease in reversed(self.issued) if lease.resource == name and hold.is_of(lease))
        self.trial.harness.lapse(self.runner, lease)
        self.trial.say(f"-- the lease {hold.token} on {name} lapses --")
        hold.until = self.now_ms
        return name

    @rule(name=locks, guarded=st.booleans(), pick=picks)
    def force(self, name: LockId, guarded: bool, pick: int) -> None:
        """An operator takes the lock from its holder, perhaps one of long ago."""
        hold, before = self.newest.get(name), self.listed()
        token = picked([lease.token for lease in self.issued if lease.resource == name], pick) if guarded else None
        live = hold is not None and hold.live(self.now_ms) and token in (None, hold.token)
        answer = self.ask(
            f"operator.force_unlock({name.name!r}, token={token})",
            lambda: self.runner.lifecycle.force_unlock(name, token=token),
        )
        right = (answer is not None and hold is not None and hold.is_of(answer)) if live else answer is None
        self.expect("G4", right, lambda: f"the forced unlock was answered {told(answer)}")
        if live:
            del self.newest[name]
        else:
            self._unchanged(before, "a forced unlock of what nobody holds", "G4")

    @rule()
    def purge(self) -> None:
        """A purge of everything old: held locks stay, tokens go on; a store may forget who let go of a lock."""
        self.ask("operator.purge()", lambda: self.runner.lifecycle.purge(Purge(older_than=timedelta(0))))
        for name, hold in list(self.newest.items()):
            if not hold.live(self.now_ms):
                self.purged.add((name, hold.token))
                del self.newest[name]

    # -- looking ------------------------------------------------------------------------------------------------

    def listed(self) -> list[LockState]:
        """The store's list of held locks; not part of the history; without what is left, where time is not ours."""
        try:
            listed = list(self.runner.lifecycle.locks())
        except Exception as error:
            raise self.trial.blame(error, "locks()") from error
        return listed if self.exact else [replace(state, remaining=None) for state in listed]

    @invariant()
    def the_list_is_right(self) -> None:
        """Live locks are listed, by name, with their lease; lapsed ones may be; nothing else is."""
        listed = self.listed()
        shown = {state.lease.resource: state for state in listed}
        live = {name for name, hold in self.newest.items() if hold.live(self.now_ms)}
        may = {name for name, hold in self.newest.items() if hold.held} | {name for name, _ in self.purged}
        self.expect("C2", live <= set(shown) <= may, lambda: f"listed {sorted(map(str, shown))}, held {live}")
        self.expect("C2", list(shown) == sorted(shown), lambda: f"not by name: {listed}")
        for name in live:
            self.expect(
                "C2", self.newest[name].is_of(shown[name].lease), lambda: f"listed with a wrong lease: {listed}"
            )

    def _unchanged(self, before: list[LockState], what: str, law: str) -> None:
        after = self.listed()
        self.expect(law, after == before, lambda: f"{what} changed the locks from {before} to {after}")


def told(answer: LockAnswer | Lease | None) -> str:
    """An answer in a few words."""
    if isinstance(answer, LockAnswer):
        return ("acquired" if answer.acquired else "refused") + f", {told(answer.lease)}"
    return "nobody's lease" if answer is None else f"the lease of {answer.holder} with token {answer.token}"


MODEL = Property(
    id="lock.model",
    statement="Every answer to a lock, renewal, unlock and forced unlock is the right one.",
    guarantees=("G2", "G3", "G4", "G5", "G7", "G8", "L6", "L7", "C2"),
    experiment=explore(LockMachine, cases=60, steps=30),
    weight=2.0,
)
