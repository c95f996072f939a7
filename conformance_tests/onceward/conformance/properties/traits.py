"""Traits are declared and tried out: claiming more than the store does is a violation, claiming less is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from onceward.conformance.properties.crashes import child
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun
from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    InvalidRequest,
    LeaseClock,
    LockId,
    LockRequest,
    Renewal,
    Renewed,
    RunId,
    Runner,
    RunSpec,
)

MS = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)

#: What no probe can tell; the report says that these are only declared.
DECLARED = ("linearizable", "native_wait", "fair", "failover")


def probe(trial: Trial) -> None:
    """Every trait that can be tried out is."""
    trial.begin_case()
    probes: tuple[Callable[[Trial, Runner], None], ...] = (
        _shared,
        _min_lease,
        _granularity,
        _lease_clock,
        _due_clock,
        _payload_limit,
    )
    with trial.harness.fresh_runner() as runner:
        for each in probes:
            try:
                each(trial, runner)
            except Exception as error:
                raise trial.blame(error, f"trying out{each.__name__.replace('_', ' ')}") from error
    _durable(trial)
    for name in DECLARED:
        trial.probed[name] = f"{getattr(trial.traits, name)}, declared only"


def _claim(trial: Trial, trait: str, holds: bool, found: str) -> None:
    """The store does at least what its trait says."""
    declared = getattr(trial.traits, trait)
    trial.say(f"{trait} is declared {declared}: {found}")
    trial.probed[trait] = f"{declared}, {found}"
    trial.expect("T1", holds, f"{trait} is declared {declared}, but {found}")


def _shared(trial: Trial, _: Runner) -> None:
    """Another process sees what this one wrote."""
    if not trial.traits.shared:
        trial.probed["shared"] = "False, so processes were not tried"
        return
    with trial.harness.timed_runner() as runner:
        answer = runner.executor.checkin(CheckIn(run=RunId("shared", "k"), holder="ann", lease=HOUR))
        with child(trial, runner, "look", HOUR, {"key": "k"}) as other:
            other.go()
            told = other.line()
        _claim(trial, "shared", told == f"running {answer.run.token}", f"another process saw {told!r}")


def _durable(trial: Trial) -> None:
    """A store that is closed and opened again still knows."""
    if not trial.traits.durable:
        trial.probed["durable"] = "False, so reopening was not tried"
        return
    runner = trial.harness.timed_runner()
    try:
        answer = runner.executor.checkin(CheckIn(run=RunId("durable", "k"), holder="ann", lease=HOUR))
        runner = trial.harness.reopen(runner)
        found = runner.executor.check(RunId("durable", "k"))
    except InvalidRequest as error:
        raise CouldNotRun(str(error)) from error
    finally:
        runner.close()
    _claim(trial, "durable", found == answer.run, f"opened again it knew {'the run' if found else 'nothing'}")


def _min_lease(trial: Trial, runner: Runner) -> None:
    """The shortest lease is granted; shorter ones are refused, if the trait says so."""
    shortest = trial.traits.min_lease
    granted = runner.executor.lock(LockRequest(lock=LockId("min"), holder="ann", lease=shortest)).acquired
    _claim(trial, "min_lease", granted, f"a lease of {shortest} was {'granted' if granted else 'refused'}")
    if shortest <= MS:
        return
    try:
        runner.executor.lock(LockRequest(lock=LockId("below"), holder="ann", lease=shortest - MS))
    except InvalidRequest:
        return
    trial.notes.append(f"min_lease claims less than the store does: {shortest - MS} was accepted")


def _granularity(trial: Trial, runner: Runner) -> None:
    """A lease lasts as long as was asked for, and at most one granule longer."""
    granule = trial.traits.lease_granularity
    asked = max(trial.traits.min_lease, granule * 3) + timedelta(seconds=1)
    answer = runner.executor.lock(LockRequest(lock=LockId("granule"), holder="ann", lease=asked))
    left = answer.remaining or timedelta(0)
    lost_on_the_way = timedelta(0) if trial.harness.movable else timedelta(seconds=1)
    right = asked - lost_on_the_way <= left <= asked + granule
    _claim(trial, "lease_granularity", right, f"a lease of {asked} was granted with {left} left")
    if not trial.harness.movable or answer.lease is None:
        return
    trial.harness.advance(left - MS)
    held = not _free(runner, "granule")
    trial.expect("T1", held, f"a lease with {left} left was over {MS} before")
    trial.harness.advance(MS + trial.traits.expiry_slack - MS)
    _claim(trial, "expiry_slack", _free(runner, "granule"), "the lapse was seen in time")


def _free(runner: Runner, name: str) -> bool:
    """Whether nobody holds the lock; looks without taking it."""
    return all(
        state.lease.resource != LockId(name) or (state.remaining or timedelta(0)) <= timedelta(0)
        for state in runner.lifecycle.locks()
    )


def _lease_clock(trial: Trial, runner: Runner) -> None:
    """A monotonic lease clock does not notice when somebody sets the wall clock."""
    if not trial.harness.jump_wall(timedelta(0)):
        trial.probed["lease_clock"] = f"{trial.traits.lease_clock.value}, declared only: the clock cannot be set here"
        return
    lock = runner.executor.lock(LockRequest(lock=LockId("jump"), holder="ann", lease=HOUR)).lease
    assert lock is not None  # a fresh name
    trial.harness.jump_wall(HOUR * 5)
    ahead = runner.executor.renew([Renewal(lease=lock)])[0] is Renewed.HELD
    trial.harness.jump_wall(HOUR * -5)
    trial.faults["wall clock set forward and back"] += 1
    trial.harness.advance(HOUR)
    free = runner.executor.renew([Renewal(lease=lock)])[0] is Renewed.LOST
    steady = ahead and free
    found = "a jump of the wall clock " + ("changed no lease" if steady else "moved the end of a lease")
    _claim(trial, "lease_clock", steady or trial.traits.lease_clock is LeaseClock.WALL, found)


def _due_clock(trial: Trial, runner: Runner) -> None:
    """What is due later is not claimed before, by the store's clock; what was due is."""
    now = runner.lifecycle.now()
    runner.scheduler.submit(
        [
            RunSpec(id=RunId("due", "past"), run_at=now - timedelta(minutes=1)),
            RunSpec(id=RunId("due", "later"), run_at=now + timedelta(minutes=1)),
        ]
    )
    taken = [run.key for run in runner.executor.claim(Claim.of("due", holder="ann", lease=HOUR, limit=5))]
    trial.expect("J4", taken == ["past"], lambda: f"claimed {taken}, due is only 'past'")
    if trial.harness.movable:
        trial.harness.advance(timedelta(minutes=1) - MS)
        early = runner.executor.claim(Claim.of("due", holder="ann", lease=HOUR))
        trial.expect("J4", not early, "claimed a millisecond before it was due")
        trial.harness.advance(MS)
        late = runner.executor.claim(Claim.of("due", holder="ann", lease=HOUR))
        trial.expect("J4", len(late) == 1, "not claimed when it was due")
    trial.probed["due_clock"] = f"{trial.traits.due_clock.value}, runs came up at the store's time"


def _payload_limit(trial: Trial, runner: Runner) -> None:
    """A payload of the largest size is kept; one more byte is refused with nothing written."""
    most = trial.traits.max_payload_bytes
    fits = "x" * (most - 2)
    lease = runner.executor.checkin(
        CheckIn(run=RunId("size", "fits"), holder="ann", lease=HOUR, payload=fits)
    ).run.lease
    found = runner.executor.check(RunId("size", "fits"))
    kept = found is not None and found.payload == fits
    _claim(trial, "max_payload_bytes", kept, f"a payload of {most} bytes was {'kept' if kept else 'lost'}")
    assert lease is not None  # admitted: the key is new
    attempts: dict[str, Callable[[], object]] = {
        "check-in": lambda: runner.executor.checkin(
            CheckIn(run=RunId("size", "large"), holder="ann", lease=HOUR, payload=fits + "x")
        ),
        "submit": lambda: runner.scheduler.submit([RunSpec.of("size", "large", fits + "x")]),
        "check-out": lambda: runner.executor.checkout([CheckOut.succeeded(lease, fits + "x")]),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except InvalidRequest:
            written = runner.executor.check(RunId("size", "large")) is not None
            trial.expect("T1", not written, f"a {name} that was refused for its size was written")
        else:
            trial.expect("T1", False, f"a {name} with {most + 1} bytes was accepted, max_payload_bytes is {most}")


TRAITS = Property(
    id="store.traits",
    statement="The store has the traits that it declares, as far as they can be tried out.",
    guarantees=("T1", "J4"),
    experiment=probe,
    weight=0.2,
)
