"""SQLite files that are not as they should be: an error of ours that says what to do, nothing written, nothing lost."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Failure,
    InvalidRequest,
    Lease,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Purge,
    Renewal,
    Renewed,
    RunId,
    RunQuery,
    RunSpec,
    Status,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from onceward.runners.clock import ManualClock
from onceward.runners.factory import open_runner
from onceward.runners.sqlite import SqliteStore, schema
from onceward.runners.sqlite.errors import translated
from onceward.runners.sqlite.options import Options, from_url
from onceward.runners.sqlite.schema import APPLICATION_ID, VERSION

MINUTE = timedelta(minutes=1)
RUN = RunId("job", "key")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "jobs.db", clock=ManualClock(), busy_timeout=timedelta(milliseconds=50))
    store.open()
    yield store
    store.close()


def checkin(holder: str = "me", *, lease: timedelta | None = MINUTE) -> CheckIn:
    return CheckIn(run=RUN, holder=holder, lease=lease)


def refusal(path: Path, kind: type[StoreError] = StoreMisconfigured) -> str:
    """What opening the path says; the file is not changed by it."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(kind) as caught:
        SqliteStore(path).open()
    assert (path.read_bytes() if path.is_file() else None) == before
    return str(caught.value)


# -- opening ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("not a database, but somebody's notes\n" * 100)
    assert "no SQLite database" in refusal(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=f"{path} does not exist"):
            open_runner(f"sqlite:///{path}?create=false")
        assert not list(tmp_path.iterdir())
    open_runner(f"sqlite:///{path}").close()
    open_runner({"type": "sqlite", "config": {"path": str(path), "create": True}}, create=False).close()
    open_runner("memory://", create=False).close()


@pytest.mark.parametrize("owner", [0, 0x12345678])
def test_another_programs_database_is_refused(tmp_path: Path, owner: int) -> None:
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute(f"PRAGMA application_id = {owner}")
    theirs.execute("CREATE TABLE runs (precious TEXT)")
    theirs.execute("INSERT INTO runs VALUES ('data')")
    theirs.commit()
    theirs.close()
    assert "belongs to another program" in refusal(path)


def test_a_file_that_somebody_makes_while_we_look_at_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    other = threading.Thread(target=lambda: SqliteStore(path).open())
    asked = schema._pragma

    def overtaken(connection: sqlite3.Connection, name: str) -> object:
        answer = asked(connection, name)
        if threading.current_thread() is threading.main_thread() and other.ident is None:
            other.start()
            other.join(0.5)  # as fast as it gets: it may have to wait until we have looked
        return answer

    monkeypatch.setattr(schema, "_pragma", overtaken)
    store = SqliteStore(path)
    store.open()
    other.join()
    assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
    store.close()


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    SqliteStore(path).open()
    later = sqlite3.connect(path)
    later.execute(f"PRAGMA user_version = {VERSION + 1}")
    later.close()
    assert f"schema version {VERSION + 1}" in refusal(path)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "does not exist; create" in refusal(tmp_path / "missing" / "jobs.db")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("path", [":memory:", "", "file:jobs.db?mode=memory"])
def test_a_database_in_memory_is_refused_with_the_right_way(path: str) -> None:
    with pytest.raises(StoreMisconfigured, match="memory://"):
        SqliteStore(path)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    store = SqliteStore(tmp_path / "empty.db")
    store.open()
    store.open()
    assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
    store.close()
    store.close()
    marks = sqlite3.connect(tmp_path / "empty.db")
    assert marks.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert marks.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that any user may reach."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_folder_that_is_not_writable_is_refused(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    said = as_nobody(lambda: SqliteStore(public_folder / "jobs.db").open())
    assert said.startswith("StoreMisconfigured: ")
    assert "cannot be opened" in said
    assert list(public_folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_folder_that_is_closed_is_refused(public_folder: Path) -> None:
    (public_folder / "closed").mkdir(mode=0)
    said = as_nobody(lambda: SqliteStore(public_folder / "closed" / "jobs.db").open())
    assert said.startswith("StoreMisconfigured: ")
    assert "cannot be reached" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_file_that_is_not_writable_is_refused(public_folder: Path) -> None:
    path = public_folder / "jobs.db"
    before = SqliteStore(path)
    before.open()
    before.submit([RunSpec.of("job", "kept")])
    before.close()
    path.chmod(0o444)
    public_folder.chmod(0o555)
    said = as_nobody(lambda: SqliteStore(path, "another").open())
    assert said.startswith("StoreMisconfigured: ")
    path.chmod(0o644)
    public_folder.chmod(0o755)
    after = SqliteStore(path)
    after.open()
    assert [run.key for run in after.runs(RunQuery())] == ["kept"]
    after.close()


def as_nobody(act: Callable[[], object]) -> str:
    """What ``act`` raises in a child process without the superuser's rights."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            act()
            answer = "nothing"
        except BaseException as error:  # a child must not return into the test runner
            answer = f"{type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answers:
        return answers.read()


def test_urls_and_options() -> None:
    assert from_url(urlsplit("sqlite:///jobs.db")) == {"path": "jobs.db"}
    assert from_url(urlsplit("sqlite:////var/lib/my%20jobs.db")) == {"path": "/var/lib/my jobs.db"}
    assert from_url(urlsplit("sqlite://")) == {}
    with pytest.raises(StoreMisconfigured, match=r"sqlite:///jobs\.db"):
        from_url(urlsplit("sqlite://jobs.db"))
    with pytest.raises(ValueError, match="busy_timeout_ms"):
        Options(busy_timeout_ms=-1)


def test_only_full_synchronous_is_called_durable(tmp_path: Path) -> None:
    assert SqliteStore(tmp_path / "a.db").traits.durable
    assert not SqliteStore(tmp_path / "a.db", synchronous="NORMAL").traits.durable


# -- in use -----------------------------------------------------------------------------------------------------------


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    store.close()
    for act in (lambda: store.checkin(checkin()), lambda: store.check(RUN), lambda: store.rearm([])):
        with pytest.raises(StoreUnavailable, match="call open"):
            act()
    assert not store.health().ok


def test_a_full_disk_changes_nothing(store: SqliteStore) -> None:
    kept = store.checkin(checkin())
    writer = store._database.writer()
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    specs = [RunSpec.of("large", str(i), "x" * 2_000) for i in range(100)]
    with pytest.raises(StoreUnavailable, match="disk is full"):
        store.submit(specs)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        store.checkin(CheckIn(run=RunId("large", "checkin"), holder="me", payload="x" * 20_000))
    assert [run.id for run in store.runs(RunQuery())] == [RUN]
    assert store.checkout([CheckOut.succeeded(leased(kept.run.lease))]) == [True]
    writer.execute("PRAGMA max_page_count = 1000000")
    assert store.submit(specs) == [True] * 100


def test_g7_a_file_held_by_another_for_too_long_is_unavailable(store: SqliteStore) -> None:
    other = sqlite3.connect(store._database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for act in (lambda: store.checkin(checkin()), lambda: store.submit([RunSpec.of("a", "b")])):
        with pytest.raises(StoreUnavailable, match="busy_timeout_ms"):
            act()
    assert store.check(RUN) is None  # reading does not wait
    other.execute("ROLLBACK")
    assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED


def test_g5_refusals_write_nothing_and_wait_for_nobody(store: SqliteStore) -> None:
    store.checkin(checkin())
    lock = LockRequest(lock=LockId("l"), holder="me", lease=MINUTE)
    store.lock(lock)
    spec = RunSpec.of("known", "1")
    store.submit([spec])
    other = sqlite3.connect(store._database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # whoever writes now would fail
    assert store.checkin(checkin("another")).outcome is CheckInOutcome.RUNNING
    assert not store.lock(LockRequest(lock=LockId("l"), holder="another", lease=MINUTE)).acquired
    assert store.submit([RunSpec.of("known", "1")]) == [False]
    assert store.submit([spec]) == [True]
    other.execute("ROLLBACK")


def test_a_damaged_file_is_named(store: SqliteStore) -> None:
    store.submit([RunSpec.of("job", str(i), "x" * 500) for i in range(500)])
    store.close()
    path = Path(store._database.path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = b"\xff" * (len(damaged) - len(damaged) // 2)
    path.write_bytes(damaged)
    store.open()
    with pytest.raises(StoreMisconfigured, match="damaged"):
        store.runs(RunQuery())


class FailingCommit:
    """A connection whose COMMIT fails, after it was done or instead of it."""

    def __init__(self, connection: sqlite3.Connection, code: int, *, done: bool) -> None:
        self.connection, self.code, self.done = connection, code, done

    @property
    def in_transaction(self) -> bool:
        return self.connection.in_transaction

    def execute(self, statement: str, params: object = ()) -> sqlite3.Cursor:
        if statement == "COMMIT" and not self.done:
            raise failure(self.code)
        answer = self.connection.execute(statement, params)  # type: ignore[arg-type]
        if statement == "COMMIT":
            raise failure(self.code)
        return answer


def failure(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("made up")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("done", [True, False])
def test_g7_an_unclear_commit_is_unknown_and_settled_by_asking_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    request = LockRequest(lock=LockId("l"), holder="me", lease=MINUTE)
    failing = FailingCommit(store._database.writer(), sqlite3.SQLITE_IOERR_FSYNC, done=done)
    with monkeypatch.context() as patch:
        patch.setattr(store._database, "writer", lambda: failing)
        with pytest.raises(OutcomeUnknown):
            store.lock(request)
    assert len(store.locks()) == done
    assert store.lock(request).acquired


def test_g7_a_commit_that_found_the_disk_full_is_definite(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingCommit(store._database.writer(), sqlite3.SQLITE_FULL, done=False)
    with monkeypatch.context() as patch:
        patch.setattr(store._database, "writer", lambda: failing)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            store.submit([RunSpec.of("a", "b")])
    assert store.submit([RunSpec.of("a", "b")]) == [True]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailable),
        (sqlite3.SQLITE_LOCKED, StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailable),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable),
        (sqlite3.SQLITE_NOTADB, StoreMisconfigured),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreMisconfigured),
        (sqlite3.SQLITE_IOERR_WRITE, StoreUnavailable),
    ],
)
def test_g16_what_each_code_means_before_the_commit(code: int, kind: type[StoreError]) -> None:
    assert type(translated(failure(code), "jobs.db")) is kind


def test_g16_an_io_error_at_the_commit_is_unknown() -> None:
    assert type(translated(failure(sqlite3.SQLITE_IOERR_FSYNC), "jobs.db", committing=True)) is OutcomeUnknown


def test_g16_what_sqlite_cannot_hold_never_reaches_it(store: SqliteStore) -> None:
    mine = leased(store.checkin(checkin()).run.lease)
    forged = Lease(resource=RUN, holder="me", token=2**70, request="x")
    assert store.checkout([CheckOut.succeeded(forged)]) == [False]
    assert store.renew([Renewal(lease=forged)]) == [Renewed.LOST]
    longer = Lease(resource=RUN, holder="me", token=mine.token, request=f"{mine.request}\0")
    assert store.checkout([CheckOut.succeeded(longer)]) == [False]
    assert store.renew([Renewal(lease=longer)]) == [Renewed.LOST]
    assert not store.unlock(Lease(resource=LockId("l"), holder="me", token=-(2**70), request="x"))
    with pytest.raises(InvalidRequest):
        store.checkout([CheckOut.failed(mine, Failure(type="E", message="\ud800"))])
    assert store.checkout([CheckOut.succeeded(mine)]) == [True]


def test_every_name_comes_back_as_it_went_in(store: SqliteStore) -> None:
    names = ["a'b", 'a"b', "a;--", "a%_b", "a/b:c", "ä\u2028\U0001f600", "NULL", "0"]
    for name in names:
        assert store.checkin(CheckIn(run=RunId(name, name), holder=name)).outcome is CheckInOutcome.ADMITTED
    assert [run.job for run in store.runs(RunQuery(oldest_first=True))] == names
    for name in names:
        assert len(store.runs(RunQuery(job=name))) == 1


def test_g2_tokens_go_on_behind_a_purge_whoever_deletes(store: SqliteStore) -> None:
    first = store.checkin(checkin())
    other = sqlite3.connect(store._database.path)
    other.execute("DELETE FROM runs")
    other.commit()
    again = store.checkin(checkin())
    assert again.outcome is CheckInOutcome.ADMITTED
    assert again.run.token > first.run.token
    store.submit([RunSpec.of("q", "1")])
    claimed = store.claim(Claim.of("q", holder="me", lease=MINUTE))[0]
    assert claimed.token > again.run.token


def leased(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_g14_a_purge_keeps_the_latest_to_end_of_each_job(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SqliteStore(tmp_path / "purge.db", clock=clock)
    store.open()
    for job in ("a", "b"):
        for key in ("first", "failed", "last"):
            lease = leased(store.checkin(CheckIn(run=RunId(job, key), holder="me")).run.lease)
            end = CheckOut.failed(lease) if key == "failed" else CheckOut.succeeded(lease)
            assert store.checkout([end]) == [True]
            clock.advance(MINUTE)
    store.checkin(CheckIn(run=RunId("a", "runs"), holder="me"))
    succeeded = frozenset({Status.SUCCEEDED})
    assert store.purge(Purge(older_than=timedelta(0), statuses=succeeded, keep_last=1, job="a")) == 1
    assert [run.key for run in store.runs(RunQuery(job="a", oldest_first=True))] == ["failed", "last", "runs"]
    assert store.purge(Purge(older_than=timedelta(0), limit=3)) == 3
    assert [(run.job, run.key) for run in store.runs(RunQuery())] == [("a", "runs"), ("b", "last"), ("b", "failed")]
    store.close()
