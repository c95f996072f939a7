"""Check-ins, locks and renewals, one caller or several threads at a time."""

from __future__ import annotations

from onceward.benchmarks.measures.measure import (
    JOB,
    LEASE,
    Measure,
    expect,
    raw_again,
    raw_fresh,
    raw_twice,
)
from onceward.benchmarks.rounds import Task
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Lease,
    LockId,
    LockRequest,
    Renewal,
    Renewed,
    RunId,
    Runner,
    new_holder,
)

_KNOWN_KEYS = 1_000


def _admitted(runner: Runner, key: str, holder: str) -> Lease:
    admission = runner.executor.checkin(CheckIn(run=RunId(JOB, key), holder=holder, lease=LEASE))
    lease = admission.run.lease
    expect(admission.outcome is CheckInOutcome.ADMITTED and lease is not None, "a new key was not admitted")
    assert lease is not None  # expect() saw it
    return lease


def checkin_new(runner: Runner, _: int) -> Task:
    """Check-in of a key that nobody used before."""
    holder = new_holder()
    return Task(lambda index: _admitted(runner, f"new-{index}", holder))


def checkin_known(runner: Runner, _: int) -> Task:
    """Check-in of a key whose run is done: refused."""
    holder, checkin = new_holder(), runner.executor.checkin
    for key in range(_KNOWN_KEYS):
        runner.executor.checkout([CheckOut.succeeded(_admitted(runner, f"known-{key}", holder))])

    def step(index: int) -> None:
        run = RunId(JOB, f"known-{index % _KNOWN_KEYS}")
        admission = checkin(CheckIn(run=run, holder=holder, lease=LEASE))
        expect(admission.outcome is CheckInOutcome.DONE, "a known key was not refused")

    return Task(step)


def checkin_checkout(runner: Runner, _: int) -> Task:
    """Check-in of a new key, and its check-out."""
    holder = new_holder()

    def step(index: int) -> None:
        lease = _admitted(runner, f"new-{index}", holder)
        expect(runner.executor.checkout([CheckOut.succeeded(lease)])[0], "a check-out was refused")

    return Task(step)


def lock_unlock(runner: Runner, _: int) -> Task:
    """Lock and unlock of a name that nobody else wants."""
    holder, executor = new_holder(), runner.executor

    def step(_: int) -> None:
        answer = executor.lock(LockRequest(lock=LockId("bench"), holder=holder, lease=LEASE))
        expect(answer.lease is not None and executor.unlock(answer.lease), "a free lock was refused")

    return Task(step)


def renew(runner: Runner, batch: int) -> Task:
    """Renewal of the same leases again and again."""
    holder = new_holder()
    leases = [_admitted(runner, f"renewed-{item}", holder) for item in range(batch)]

    def step(_: int) -> None:
        answers = runner.executor.renew([Renewal(lease=lease) for lease in leases])
        expect(all(answer is Renewed.HELD for answer in answers), "a live lease was not renewed")

    return Task(step)


RIGHT_TO_RUN = (
    Measure(name="checkin-new", title="check-in, new key", of_runner=checkin_new, of_raw=raw_fresh),
    Measure(
        name="checkin-new-4-threads", title="check-in, new key", of_runner=checkin_new, of_raw=raw_fresh, threads=4
    ),
    Measure(
        name="checkin-new-16-threads", title="check-in, new key", of_runner=checkin_new, of_raw=raw_fresh, threads=16
    ),
    Measure(name="checkin-known", title="check-in, known key", of_runner=checkin_known, of_raw=raw_again),
    Measure(name="checkin-checkout", title="check-in + check-out", of_runner=checkin_checkout, of_raw=raw_twice),
    Measure(name="lock-unlock", title="lock + unlock", of_runner=lock_unlock, of_raw=raw_twice),
    Measure(name="renew-1", title="renew", of_runner=renew, of_raw=raw_again),
    Measure(name="renew-100", title="renew", of_runner=renew, of_raw=raw_again, batch=100),
)
