"""Many processes, threads, kills, forks and boots on one SQLite file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Lease,
    LockId,
    LockRequest,
    Renewal,
    Renewed,
    RunId,
    RunQuery,
    RunSpec,
    Status,
)
from onceward.runners.clock import ManualClock
from onceward.runners.sqlite import SqliteStore

MINUTE = timedelta(minutes=1)
RUN = RunId("job", "key")

WORKER = """
import sys
from datetime import timedelta
from onceward.contracts import CheckIn, CheckOut, Claim, RunId, new_holder
from onceward.runners.sqlite import SqliteStore

path, action, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = SqliteStore(path, synchronous="NORMAL")
store.open()
holder, hour = new_holder(), timedelta(hours=1)
if action == "claim":
    while runs := store.claim(Claim.of("work", holder=holder, lease=hour, limit=7)):
        assert all(store.checkout([CheckOut.succeeded(run.lease) for run in runs]))
        for run in runs:
            print(run.key, run.token, flush=True)
if action == "checkin":
    for number in range(count):
        answer = store.checkin(CheckIn(run=RunId("work", str(number)), holder=holder, lease=hour))
        if answer.outcome.admitted:
            assert store.checkout([CheckOut.succeeded(answer.run.lease, {"by": holder})]) == [True]
            print(number, answer.run.token, flush=True)
store.close()
"""


def start(path: Path, action: str, count: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), action, str(count)], stdout=subprocess.PIPE, text=True
    )


def finished(workers: list[subprocess.Popen[str]]) -> list[tuple[str, int]]:
    """What the workers did: (key, token) each."""
    lines: list[str] = []
    for worker in workers:
        answer, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        lines += answer.splitlines()
    return [(key, int(token)) for key, token in (line.split() for line in lines)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def opened(path: Path, clock: ManualClock | None = None, *, boot: str | None = None) -> SqliteStore:
    store = SqliteStore(path, clock=clock, boot=boot)
    store.open()
    return store


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = opened(path)
    yield store
    store.close()


def lease_of(run: object) -> Lease:
    lease = getattr(run, "lease", None)
    assert isinstance(lease, Lease)
    return lease


def test_g1_processes_claim_each_run_once(path: Path, store: SqliteStore) -> None:
    store.submit([RunSpec.of("work", str(number)) for number in range(300)])
    done = finished([start(path, "claim") for _ in range(4)])
    assert sorted(int(key) for key, _ in done) == list(range(300))
    assert len({token for _, token in done}) == 300
    assert store.counts() == {"work": {Status.SUCCEEDED: 300}}


def test_g1_processes_check_in_once_on_a_file_that_they_make_together(path: Path) -> None:
    done = finished([start(path, "checkin", 150) for _ in range(4)])
    assert sorted(int(key) for key, _ in done) == list(range(150))
    assert len({token for _, token in done}) == 150


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("lines", [1, 23, 71, 152])
def test_g6_a_kill_at_any_point_loses_nothing_that_was_acknowledged(path: Path, lines: int) -> None:
    victim = start(path, "checkin", 100_000)
    assert victim.stdout is not None
    seen = [victim.stdout.readline() for _ in range(lines)]
    victim.send_signal(signal.SIGKILL)
    with victim.stdout:
        seen += victim.stdout.readlines()
    assert victim.wait(60) == -signal.SIGKILL
    acknowledged = {line.split()[0] for line in seen if line.count(" ") == 1}
    store = opened(path)
    runs = {run.key: run for run in store.runs(RunQuery(limit=100_000))}
    assert acknowledged <= {key for key, run in runs.items() if run.status is Status.SUCCEEDED}
    left = [key for key, run in runs.items() if run.status is Status.RUNNING]
    assert len(left) <= 1
    assert len(runs) <= len(acknowledged) + 1
    assert {run.sequence for run in runs.values()} == set(range(1, len(runs) + 1))
    assert store._database.writer().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for key in left:
        assert store.checkin(CheckIn(run=RunId("work", key), holder="me")).outcome is CheckInOutcome.RUNNING
    store.close()


def test_g1_threads_share_a_store(store: SqliteStore) -> None:
    admitted: Counter[int] = Counter()
    errors: list[BaseException] = []

    def work(holder: str) -> None:
        try:
            for number in range(60):
                answer = store.checkin(CheckIn(run=RunId("work", str(number)), holder=holder, lease=MINUTE))
                if answer.outcome.admitted:
                    admitted[number] += 1
                    assert store.checkout([CheckOut.succeeded(lease_of(answer.run))]) == [True]
                store.runs(RunQuery(limit=3))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"h{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert admitted == dict.fromkeys(range(60), 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_connections_of_its_own(store: SqliteStore) -> None:
    mine = store.checkin(CheckIn(run=RUN, holder="parent", lease=MINUTE))
    store.runs(RunQuery())
    inherited = store._database.writer()
    store._database.lock.acquire()  # as if another thread of the parent wrote just now
    child = os.fork()
    if child == 0:
        code = 1
        try:
            refused = store.checkin(CheckIn(run=RUN, holder="child", lease=MINUTE)).outcome is CheckInOutcome.RUNNING
            submitted = store.submit([RunSpec.of("from", "child")]) == [True]
            code = 0 if refused and submitted and store._database.writer() is not inherited else 2
            store.close()
        finally:
            os._exit(code)
    store._database.lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.check(RunId("from", "child")) is not None
    assert store.checkout([CheckOut.succeeded(lease_of(mine.run))]) == [True]


def test_g8_another_boot_makes_every_lease_lapse(path: Path) -> None:
    clock = ManualClock()
    before = opened(path, clock, boot="one")
    lease = lease_of(before.checkin(CheckIn(run=RUN, holder="me", lease=MINUTE)).run)
    forever = CheckIn(run=RunId("job", "forever"), holder="me")
    before.checkin(forever)
    lock = before.lock(LockRequest(lock=LockId("l"), holder="me", lease=MINUTE)).lease
    before.close()
    same = opened(path, clock, boot="one")
    assert same.renew([Renewal(lease=lease)]) == [Renewed.HELD]
    same.close()
    after = opened(path, ManualClock(), boot="two")
    assert after.renew([Renewal(lease=lease)]) == [Renewed.LOST]
    assert [run.id for run in after.runs(RunQuery(lapsed=True))] == [RUN]
    taken = after.claim(Claim(holder="another", lease=MINUTE, limit=5))
    assert [run.id for run in taken] == [RUN]
    assert taken[0].token > lease.token
    again = after.lock(LockRequest(lock=LockId("l"), holder="another", lease=MINUTE))
    assert again.acquired
    assert again.lease is not None
    assert lock is not None
    assert again.lease.token > lock.token
    assert after.checkin(CheckIn(run=forever.run, holder="x")).outcome is CheckInOutcome.RUNNING
    after.close()


def test_g8_where_boots_have_no_name_a_lease_from_the_future_is_of_an_earlier_one(path: Path) -> None:
    late = ManualClock()
    late.advance(timedelta(days=30))
    before = opened(path, late, boot="")
    lease = lease_of(before.checkin(CheckIn(run=RUN, holder="me", lease=MINUTE)).run)
    before.close()
    same = opened(path, late, boot="")
    assert same.renew([Renewal(lease=lease)]) == [Renewed.HELD]
    same.close()
    after = opened(path, ManualClock(), boot="")
    assert after.renew([Renewal(lease=lease)]) == [Renewed.LOST]
    after.close()


def test_namespaces_in_one_file_do_not_see_each_other(path: Path) -> None:
    stores = [SqliteStore(path, name, ManualClock()) for name in ("orders", "bills")]
    for store in stores:
        store.open()
    first, second = stores
    leases = [lease_of(store.checkin(CheckIn(run=RUN, holder="me", lease=MINUTE)).run) for store in stores]
    assert leases[0].token != leases[1].token
    assert first.lock(LockRequest(lock=LockId("l"), holder="me", lease=MINUTE)).acquired
    assert second.lock(LockRequest(lock=LockId("l"), holder="me", lease=MINUTE)).acquired
    first.submit([RunSpec.of("q", "1")])
    assert second.claim(Claim(holder="me", lease=MINUTE, limit=5)) == []
    assert second.counts() == {"job": {Status.RUNNING: 1}}
    assert second.checkout([CheckOut.succeeded(leases[0])]) == [False]
    assert len(first.runs(RunQuery())) == 2
    for store in stores:
        store.close()


def test_g2_numbers_never_repeat_across_processes_that_purge(path: Path, store: SqliteStore) -> None:
    tokens = []
    for _ in range(5):
        other = opened(path)
        lease = lease_of(other.checkin(CheckIn(run=RUN, holder="me", lease=MINUTE)).run)
        tokens.append(lease.token)
        other.checkout([CheckOut.succeeded(lease)])
        other.close()
        raw = sqlite3.connect(path)
        raw.execute("DELETE FROM runs")
        raw.commit()
        raw.close()
    assert tokens == sorted(set(tokens))
