"""A store answers every request as the contracts' transitions do, which the memory store runs as they are.

Both stores get the same random requests at the same moments of one clock that is moved by hand. Tokens and sequences
may be other numbers, but must correspond one to one and in the same order.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from servers_support import OneClock

from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    ConfigWrite,
    Ending,
    Failure,
    Lease,
    LockId,
    LockRequest,
    OnAbandoned,
    OnFailed,
    Progress,
    Purge,
    Rearm,
    Renewal,
    Run,
    RunId,
    RunQuery,
    RunSpec,
    Status,
    Store,
    Want,
    new_request,
)
from onceward.contracts.times import from_ms
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore

JOBS = ("a", "b/ c:ü")
LEASES = st.sampled_from([timedelta(seconds=seconds) for seconds in (1, 5, 60)])
#: Few, so that requests meet.
RUNS = st.sampled_from((RunId("a", "1"), RunId("a", "2"), RunId("a", "1", '{"s":1}'), RunId("b/ c:ü", "1")))
BUDGETS = st.sampled_from((None, 0, 1, 2))
PAYLOADS = st.sampled_from(
    (None, 0, "text", {"a": [1, 2.5, None], "when": datetime.fromisoformat("2026-01-01T00:00Z")})
)
PICKS = st.integers(0, 1_000)
ENDINGS = st.sampled_from([ending for ending in Ending if ending is not Ending.ABANDONED])
FAILURES = st.sampled_from((None, Failure(type="E", message="m\n", trace="t")))


@dataclass
class Numbers:
    """Numbers of the two stores correspond one to one and grow together."""

    pairs: dict[int, int] = field(default_factory=lambda: {0: 0})

    def match(self, ours: int, theirs: int, where: str) -> None:
        assert self.pairs.setdefault(ours, theirs) == theirs, where
        assert sorted(self.pairs.values()) == [self.pairs[key] for key in sorted(self.pairs)], where


class Same(RuleBasedStateMachine):
    """Each rule sends one request to both stores and compares the answers. Subclasses make the stores."""

    #: Whether leases go by another clock than the wall's, so that it may be set back.
    two_clocks = True
    #: Whether of several check-outs of one run in one request the first counts, rather than any one.
    in_order = True

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.make_clock()
        self.memory = MemoryStore("n", clock=self.clock)
        self.stores: list[Store] = []
        self.numbers = {"token": Numbers(), "sequence": Numbers()}
        self.leases: list[tuple[Lease, Lease]] = []
        self.forced: dict[str, str] = {}
        self.sent: list[Callable[[], None]] = []
        self.jumped_back = False

    def make_clock(self) -> ManualClock:
        """The clock of all stores."""
        return ManualClock()

    def make_store(self, namespace: str) -> Store:
        """Another client of the one store of this case, not open yet."""
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.stores = [self.make_store("n") for _ in range(2)]
        other = self.make_store("another namespace")
        for store in (*self.stores, other):
            store.open()
        other.submit([RunSpec.of(job, key) for job in JOBS for key in "1234"])
        other.lock(LockRequest(lock=LockId("l1"), holder="other", lease=timedelta(days=1)))
        other.close()

    def teardown(self) -> None:
        for store in self.stores:
            store.close()

    # -- comparing ------------------------------------------------------------------------------------------------

    def both(self, ask: Callable[[Store], object], pick: int = 0) -> None:
        self.compare(ask(self.memory), ask(self.stores[pick % 2]), "answer")

    def compare(self, ours: object, theirs: object, where: str) -> None:
        assert type(ours) is type(theirs), (where, ours, theirs)
        if isinstance(ours, msgspec.Struct):
            for name in ours.__struct_fields__:
                self.compare_field(name, getattr(ours, name), getattr(theirs, name), f"{where}.{name}")
            if isinstance(ours, Lease) and isinstance(theirs, Lease):
                self.remember(ours, theirs)
        elif isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            assert ours == theirs, where
        elif isinstance(ours, Sequence) and not isinstance(ours, (str, enum.Enum)) and isinstance(theirs, Sequence):
            assert len(ours) == len(theirs), (where, ours, theirs)
            for i, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
                self.compare(mine, its, f"{where}[{i}]")
        else:
            assert ours == theirs, where

    def remember(self, ours: Lease, theirs: Lease) -> None:
        if (ours, theirs) not in self.leases[-50:]:
            self.leases.append((ours, theirs))

    def compare_field(self, name: str, ours: object, theirs: object, where: str) -> None:
        if name in self.numbers and isinstance(ours, int) and isinstance(theirs, int):
            self.numbers[name].match(ours, theirs, where)
        elif isinstance(ours, str) and ours.startswith("forced:") and isinstance(theirs, str):
            assert self.forced.setdefault(ours, theirs) == theirs, where
        else:
            self.compare(ours, theirs, where)

    @invariant()
    def everything_is_the_same(self) -> None:
        if not self.stores:
            return
        for store in self.stores:
            self.compare(self.memory.runs(RunQuery()), store.runs(RunQuery()), "runs")
            self.compare(self.memory.locks(), store.locks(), "locks")
        self.both(lambda store: store.configs())
        self.both(lambda store: store.counts())

    def pair(self, pick: int) -> tuple[Lease, Lease]:
        """A lease of each store: mostly one that is current, else one that was seen lately."""
        current = [(ours, theirs) for ours, theirs in self.leases[-20:] if self.is_current(ours)]
        choice = current if current and pick % 4 else self.leases[-6:]
        return choice[-1 - pick // 4 % len(choice)]

    def is_current(self, lease: Lease) -> bool:
        if isinstance(lease.resource, LockId):
            return any(state.lease == lease for state in self.memory.locks())
        run = self.memory.check(lease.resource)
        return run is not None and run.lease == lease

    def with_lease(self, pick: int, ask: Callable[[Store, Lease], object]) -> None:
        """Send something about a lease, each store getting its own; it may be sent again later. Some are forged."""
        ours, theirs = self.pair(pick)
        if pick % 100 in range(0, 12):
            ours, theirs = replace(ours, request="forged"), replace(theirs, request="forged")
        if pick % 100 in range(12, 24):
            ours, theirs = replace(ours, token=ours.token + 1_000), replace(theirs, token=theirs.token + 1_000)
        self.send(lambda: self.compare(ask(self.memory, ours), ask(self.stores[pick % 2], theirs), "answer"))

    def send(self, request: Callable[[], None]) -> None:
        self.sent.append(request)
        request()

    # -- requests -------------------------------------------------------------------------------------------------

    @rule(pick=PICKS)
    @precondition(lambda self: self.sent)
    def send_again(self, pick: int) -> None:
        self.sent[-1 - pick % min(len(self.sent), 8)]()

    @rule(by=st.sampled_from([timedelta(milliseconds=ms) for ms in (1, 999, 1_000, 5_000, 60_000)]))
    def time_passes(self, by: timedelta) -> None:
        self.clock.advance(by)

    @rule()
    def leases_lapse(self) -> None:
        self.clock.advance(timedelta(seconds=60))

    @rule(by=st.sampled_from([timedelta(seconds=seconds) for seconds in (-10, 10)]))
    def wall_clock_jumps(self, by: timedelta) -> None:
        if by < timedelta(0) and not self.two_clocks:
            return
        self.jumped_back |= by < timedelta(0)
        self.clock.jump_wall(by)

    @rule(
        run=RUNS,
        lease=st.none() | LEASES,
        on_failed=st.sampled_from(OnFailed),
        on_abandoned=st.sampled_from(OnAbandoned),
        max_crashes=BUDGETS,
        payload=PAYLOADS,
        pick=PICKS,
    )
    def checkin(self, pick: int, **fields: object) -> None:
        request = CheckIn(holder=f"h{pick % 3}", request=new_request(), **fields)  # type: ignore[arg-type]
        self.send(lambda: self.both(lambda store: store.checkin(request), pick))

    @rule(
        runs=st.lists(RUNS, max_size=4),
        priority=st.sampled_from((-100, 0, 0, 7, 100)),
        after=st.sampled_from((None, timedelta(0), timedelta(seconds=1), timedelta(seconds=20))),
        at=st.none() | st.integers(-3, 3),
        max_crashes=BUDGETS,
        payload=PAYLOADS,
        pick=PICKS,
    )
    def submit(
        self, runs: list[RunId], after: timedelta | None, at: int | None, pick: int, priority: int, **fields: object
    ) -> None:
        run_at = None if at is None else from_ms(self.clock.wall_ms() + at * 1_000)
        specs = [
            RunSpec(
                id=run,
                run_at=run_at,
                after=after if run_at is None else None,
                priority=min(priority + i, 100),
                request=new_request(),
                **fields,  # type: ignore[arg-type]
            )
            for i, run in enumerate(runs)
        ]
        self.send(lambda: self.both(lambda store: store.submit(specs), pick))

    @rule(
        lease=LEASES,
        limit=st.integers(1, 6),
        wants=st.none()
        | st.lists(
            st.builds(
                Want,
                job=st.sampled_from(JOBS),
                limit=st.sampled_from((None, 0, 1, 3)),
                max_running=st.sampled_from((None, 0, 1, 2, 4)),
                lease=st.none() | LEASES,
            ),
            max_size=2,
            unique_by=lambda want: want.job,
        ),
        pick=PICKS,
    )
    def claim(self, lease: timedelta, limit: int, wants: list[Want] | None, pick: int) -> None:
        request = Claim(
            holder=f"h{pick % 3}",
            lease=lease,
            limit=limit,
            wants=None if wants is None else tuple(wants),
            request=new_request(),
        )
        self.send(lambda: self.both(lambda store: store.claim(request), pick))

    @rule(pick=PICKS, duration=st.none() | LEASES, progress=st.none() | st.builds(Progress, done=st.integers(0, 5)))
    @precondition(lambda self: self.leases)
    def renew(self, pick: int, duration: timedelta | None, progress: Progress | None) -> None:
        self.with_lease(
            pick, lambda store, lease: store.renew([Renewal(lease=lease, duration=duration, progress=progress)])
        )

    @rule(
        pick=PICKS,
        ending=ENDINGS,
        error=FAILURES,
        result=PAYLOADS,
        after=st.sampled_from((None, timedelta(seconds=2))),
        at=st.none() | st.integers(-3, 3),
    )
    @precondition(lambda self: any(isinstance(lease.resource, RunId) for lease, _ in self.leases))
    def checkout(
        self, pick: int, ending: Ending, error: Failure | None, result: object, after: timedelta | None, at: int | None
    ) -> None:
        if isinstance(self.pair(pick)[0].resource, LockId):
            return
        again = ending in (Ending.RETRY, Ending.RELEASED)
        instant = None if at is None or not again else from_ms(self.clock.wall_ms() + at * 1_000)
        request = new_request()
        self.with_lease(
            pick,
            lambda store, lease: store.checkout(
                [
                    CheckOut(
                        lease=lease,
                        ending=ending,
                        error=error,
                        result=result,  # type: ignore[arg-type]
                        after=after if again and instant is None else None,
                        at=instant,
                        request=request,
                    )
                ]
            ),
        )

    @rule(
        picks=st.lists(PICKS, min_size=2, max_size=4),
        endings=st.lists(ENDINGS, min_size=4, max_size=4),
        error=FAILURES,
        result=PAYLOADS,
        store=PICKS,
    )
    @precondition(lambda self: any(isinstance(lease.resource, RunId) for lease, _ in self.leases))
    def checkout_many(
        self, picks: list[int], endings: list[Ending], error: Failure | None, result: object, store: int
    ) -> None:
        """Some of one run, perhaps. A lease that fences another off is nobody's to end."""
        pairs = [
            (ours, theirs)
            for ours, theirs in map(self.pair, picks)
            if isinstance(ours.resource, RunId) and not ours.request.startswith("forced:")
        ]
        if not self.in_order:
            pairs = list({ours.resource: (ours, theirs) for ours, theirs in pairs}.values())
        requests = [new_request() for _ in pairs]

        def ends(leases: Sequence[Lease]) -> list[CheckOut]:
            return [
                CheckOut(lease=lease, ending=ending, error=error, result=result, request=request)  # type: ignore[arg-type]
                for lease, ending, request in zip(leases, endings, requests, strict=False)
            ]

        ours, theirs = ends([mine for mine, _ in pairs]), ends([its for _, its in pairs])
        self.send(
            lambda: self.compare(self.memory.checkout(ours), self.stores[store % 2].checkout(theirs), "check-outs")
        )

    @rule(name=st.sampled_from(("l1", "l2")), lease=LEASES, note=st.sampled_from((None, "why")), pick=PICKS)
    def lock(self, name: str, lease: timedelta, note: str | None, pick: int) -> None:
        request = LockRequest(lock=LockId(name), holder=f"h{pick % 3}", lease=lease, note=note, request=new_request())
        self.send(lambda: self.both(lambda store: store.lock(request), pick))

    @rule(pick=PICKS)
    @precondition(lambda self: self.leases)
    def unlock(self, pick: int) -> None:
        self.with_lease(pick, lambda store, lease: store.unlock(lease))

    @rule(pick=PICKS, forged=st.booleans())
    @precondition(lambda self: self.leases)
    def force_unlock(self, pick: int, forged: bool) -> None:
        self.with_lease(
            pick, lambda store, lease: store.force_unlock(lease.resource, token=lease.token if forged else None)
        )

    @rule(run=RUNS, at=st.integers(-3, 3), pick=PICKS)
    def reschedule(self, run: RunId, at: int, pick: int) -> None:
        run_at = from_ms(self.clock.wall_ms() + at * 1_000)
        self.send(lambda: self.both(lambda store: store.reschedule(run, run_at=run_at), pick))

    @rule(run=RUNS, pick=PICKS)
    def cancel(self, run: RunId, pick: int) -> None:
        self.send(lambda: self.both(lambda store: store.cancel(run), pick))

    @rule(pick=PICKS, older=st.integers(0, 1))
    def rearm(self, pick: int, older: int) -> None:
        ours, theirs = self.memory.runs(RunQuery()), self.stores[pick % 2].runs(RunQuery())
        if not ours:
            return
        mine, its = ours[pick % len(ours)], theirs[pick % len(theirs)]

        def ask(store: Store, run: Run) -> object:
            return store.rearm([Rearm(run=run.id, token=max(0, run.token - older))])

        self.send(lambda: self.compare(ask(self.memory, mine), ask(self.stores[pick % 2], its), "rearm"))

    @rule(
        older_than=st.sampled_from([timedelta(seconds=seconds) for seconds in (0, 5)]),
        job=st.none() | st.sampled_from(JOBS),
        statuses=st.sets(st.sampled_from([s for s in Status if s.ended])),
        stamp=st.sampled_from((None, "", '{"s":1}')),
        pick=PICKS,
    )
    @precondition(lambda self: not self.jumped_back)
    def purge(self, statuses: set[Status], pick: int, **fields: object) -> None:
        request = Purge(statuses=frozenset(statuses), **fields)  # type: ignore[arg-type]
        self.both(lambda store: store.purge(request), pick)

    @rule(name=st.sampled_from(("c1", "c2")), document=PAYLOADS, expected=st.integers(0, 4), pick=PICKS)
    def write_config(self, name: str, document: object, expected: int, pick: int) -> None:
        write = ConfigWrite(name=name, document=document, expected_version=expected)  # type: ignore[arg-type]
        self.send(lambda: self.both(lambda store: store.write_config(write), pick))
        self.both(lambda store: store.read_config(name), pick)

    @rule(
        job=st.none() | st.sampled_from(JOBS),
        key=st.sampled_from((None, "1")),
        stamp=st.sampled_from((None, "")),
        statuses=st.sets(st.sampled_from(Status)),
        lapsed=st.booleans(),
        oldest_first=st.booleans(),
        limit=st.integers(1, 3),
        pick=PICKS,
    )
    def look(self, statuses: set[Status], pick: int, **fields: object) -> None:
        query = RunQuery(statuses=frozenset(statuses), **fields)  # type: ignore[arg-type]
        ours, theirs = self.memory.runs(query), self.stores[pick % 2].runs(query)
        self.compare(ours, theirs, "page")
        if ours:
            ours = self.memory.runs(replace(query, after=ours[-1].sequence))
            theirs = self.stores[pick % 2].runs(replace(query, after=theirs[-1].sequence))
            self.compare(ours, theirs, "next page")
        self.both(lambda store: store.counts(query.job, stamp=query.stamp), pick)

    @rule(pick=PICKS)
    def reopen(self, pick: int) -> None:
        self.stores[pick % 2].close()
        self.stores[pick % 2].open()


class ServerSame(Same):
    """A server has but one clock, and keeps what earlier cases wrote; so each case has namespaces of its own."""

    two_clocks = False

    def __init__(self) -> None:
        super().__init__()
        self.case = new_request()

    def make_clock(self) -> OneClock:
        return OneClock()


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


WANTS = st.lists(
    st.builds(
        Want,
        job=st.sampled_from("abc"),
        limit=st.sampled_from((None, None, 0, 1, 3)),
        max_running=st.sampled_from((None, None, 0, 2, 4)),
    ),
    max_size=3,
    unique_by=lambda want: want.job,
)
SPECS = st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.integers(-3, 3), BUDGETS)


QUEUES = st.lists(SPECS, min_size=5, max_size=25)
CLAIMS = st.lists(st.tuples(st.none() | WANTS, st.integers(1, 8), st.booleans()), min_size=2, max_size=8)

#: A run that a claim buries stands at the front of its queue, and what comes next in it before all of another's.
BURIED: Any = {
    "queue": [("a", 0, 0, 2), *[("a", 0, 0, None)] * 3, ("b", 0, 0, None)],
    "claims": [(None, 1, True)] * 3 + [([Want(job="a"), Want(job="b")], 1, False)],
}


def same_claims(
    store: Store,
    clock: ManualClock,
    queue: list[tuple[str, int, int, int | None]],
    claims: list[tuple[list[Want] | None, int, bool]],
) -> None:
    """G12, G13: ``store`` and a memory store hand out the same runs in the same order."""
    memory = MemoryStore(clock=clock)
    store.open()
    now = clock.wall_ms()
    specs = [
        RunSpec(id=RunId(job, str(i)), priority=priority, run_at=from_ms(now + due * 1_000), max_crashes=crashes)
        for i, (job, priority, due, crashes) in enumerate(queue)
    ]
    for each in (memory, store):
        each.submit(specs)
    for wants, limit, lapses in claims:
        chosen = None if wants is None else tuple(wants)
        request = Claim(holder="me", lease=timedelta(seconds=60), limit=limit, wants=chosen)
        ours, theirs = memory.claim(request), store.claim(request)
        assert [run.id for run in theirs] == [run.id for run in ours]
        assert not theirs or [run.lease for run in store.claim(request)] == [run.lease for run in theirs]
        assert store.counts() == memory.counts()
        clock.advance(timedelta(seconds=60 if lapses else 1))
    store.close()
