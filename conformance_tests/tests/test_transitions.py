"""The state machine as pure functions: every answer and every record, without a store."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from onceward.contracts import (
    Cancelled,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Ending,
    Failure,
    Lease,
    OnAbandoned,
    OnFailed,
    Progress,
    Renewal,
    Renewed,
    RunId,
    RunSpec,
    Status,
)
from onceward.contracts import transitions as t
from onceward.contracts.records import ATTEMPTS_KEPT
from onceward.contracts.times import from_ms
from onceward.contracts.transitions import Entry, Now

RUN = RunId("job", "key")
LEASE = timedelta(seconds=10)
START = Now(1_000, 1_700_000_000_000)


def later(ms: int) -> Now:
    return Now(START.elapsed + ms, START.wall + ms)


class Book:
    """One run, changed by transitions only."""

    def __init__(self, entry: Entry | None = None) -> None:
        self.entry = entry
        self.tokens = 0

    def checkin(
        self, holder: str = "ann", now: Now = START, *, lease: timedelta | None = LEASE, **more: object
    ) -> CheckInOutcome:
        request = CheckIn(run=RUN, holder=holder, lease=lease, **{"request": holder, **more})  # type: ignore[arg-type]
        outcome, self.entry = t.checkin(self.entry, request, now, token=self.token, sequence=lambda: 1)
        return outcome

    def token(self) -> int:
        self.tokens += 1
        return self.tokens

    @property
    def known(self) -> Entry:
        assert self.entry is not None
        return self.entry

    @property
    def lease(self) -> Lease:
        assert self.known.run.lease is not None
        return self.known.run.lease

    def checkout(self, request: CheckOut, now: Now = START) -> bool:
        recorded, self.entry = t.checkout(self.entry, request, now)
        return recorded

    def renew(self, renewal: Renewal, now: Now) -> Renewed:
        answer, self.entry = t.renew(self.entry, renewal, now)
        return answer


def submitted(**more: object) -> Book:
    spec = RunSpec(id=RUN, **more)  # type: ignore[arg-type]
    return Book(t.submit(spec, START, sequence=1))


def ended(ending: Ending) -> Book:
    book = Book()
    book.checkin()
    assert book.checkout(CheckOut(lease=book.lease, ending=ending, request="out"))
    return book


def test_g1_a_new_run_is_admitted_once() -> None:
    book = Book()
    assert book.checkin("ann") is CheckInOutcome.ADMITTED
    assert book.checkin("bob") is CheckInOutcome.RUNNING
    run = book.known.run
    assert (run.status, run.attempt, run.token, run.lease and run.lease.holder) == (Status.RUNNING, 1, 1, "ann")
    assert run.attempts[0].request == "ann"
    assert book.known.until == START.elapsed + 10_000
    assert run.lease is not None
    assert run.lease.expires == from_ms(START.wall + 10_000)


def test_g5_a_refused_checkin_gives_back_the_very_entry_and_uses_no_token() -> None:
    book = Book()
    book.checkin("ann")
    before = book.known
    assert book.checkin("bob", payload={"x": 1}, max_crashes=3) is CheckInOutcome.RUNNING
    assert book.entry is before
    assert book.tokens == 1


def test_g7_a_repeated_checkin_gives_the_first_answer_also_after_the_lapse() -> None:
    book = Book()
    book.checkin("ann")
    before = book.known
    for now in (START, later(10_000), later(99_999)):
        assert book.checkin("ann", now) is CheckInOutcome.ADMITTED
        assert book.entry is before
    assert book.checkin("bob", later(10_000)) is CheckInOutcome.TAKEN_OVER
    assert book.checkin("bob", later(10_000)) is CheckInOutcome.TAKEN_OVER


def test_g8_a_lease_ends_when_it_says_and_not_a_millisecond_earlier() -> None:
    book = Book()
    book.checkin("ann")
    assert book.checkin("bob", later(9_999)) is CheckInOutcome.RUNNING
    assert book.checkin("bob", later(10_000)) is CheckInOutcome.TAKEN_OVER
    assert book.known.run.token == 2
    assert book.known.run.crashes == 1
    first, second = book.known.run.attempts
    assert (first.ending, first.ended) == (Ending.ABANDONED, from_ms(later(10_000).wall))
    assert second.takeover


def test_leases_do_not_follow_the_wall_clock() -> None:
    book = Book()
    book.checkin("ann")
    assert book.checkin("bob", Now(START.elapsed + 1, START.wall + 10**9)) is CheckInOutcome.RUNNING
    assert book.checkin("bob", Now(START.elapsed + 10_000, START.wall - 10**9)) is CheckInOutcome.TAKEN_OVER


def test_without_a_lease_a_run_is_never_taken_over() -> None:
    book = Book()
    book.checkin("ann", lease=None)
    assert book.checkin("bob", later(10**12)) is CheckInOutcome.RUNNING
    assert book.lease.expires is None


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Ending.SUCCEEDED, CheckInOutcome.DONE),
        (Ending.FAILED, CheckInOutcome.FAILED),
        (Ending.CANCELLED, CheckInOutcome.CANCELLED),
    ],
)
def test_what_has_ended_stays_ended(ending: Ending, outcome: CheckInOutcome) -> None:
    book = ended(ending)
    before = book.known
    assert book.checkin("bob") is outcome
    assert book.entry is before


def test_a_failed_run_runs_again_where_the_caller_says_so_but_not_by_a_late_copy() -> None:
    book = ended(Ending.FAILED)
    assert book.checkin("ann", on_failed=OnFailed.RERUN) is CheckInOutcome.FAILED
    assert book.checkin("bob", on_failed=OnFailed.RERUN) is CheckInOutcome.ADMITTED
    run = book.known.run
    assert (run.attempt, run.failures, run.result, run.ended) == (2, 1, None, None)


def test_an_abandoned_run_may_be_held_for_a_person() -> None:
    book = Book()
    book.checkin("ann")
    before = book.known
    assert book.checkin("bob", later(10_000), on_abandoned=OnAbandoned.HOLD) is CheckInOutcome.ABANDONED
    assert book.entry is before


def test_t35_a_crash_budget_that_is_used_up_ends_the_run() -> None:
    book = Book()
    book.checkin("ann", max_crashes=1)
    assert book.checkin("bob", later(10_000), max_crashes=1) is CheckInOutcome.TAKEN_OVER
    assert book.checkin("cid", later(20_000), max_crashes=1) is CheckInOutcome.FAILED
    run = book.known.run
    assert (run.status, run.error, run.crashes, run.lease) == (Status.FAILED, t.ABANDONED, 2, None)
    assert [attempt.ending for attempt in run.attempts] == [Ending.ABANDONED, Ending.ABANDONED]


def test_what_is_buried_is_not_asked_to_stop_any_more() -> None:
    book = Book()
    book.checkin("ann")
    _, book.entry = t.cancel(book.entry, START)
    assert not t.bury(book.known, later(10_000)).run.cancel_requested


def test_a_claim_ends_what_is_exhausted_and_takes_the_rest() -> None:
    book = submitted(max_crashes=0)
    entry = t.hold(book.known, holder="ann", request="r1", lease_ms=100, now=START, token=1)
    assert not t.claimable(entry, START)
    assert not t.exhausted(entry, START)
    assert t.claimable(entry, later(100))
    assert t.exhausted(entry, later(100))
    patient = replace(entry, run=replace(entry.run, max_crashes=1))
    assert not t.exhausted(patient, later(100))


def test_a_run_that_is_not_due_is_scheduled_for_everybody() -> None:
    book = submitted(after=timedelta(seconds=1))
    assert book.checkin("ann", later(999)) is CheckInOutcome.SCHEDULED
    assert not t.claimable(book.known, later(999))
    assert t.claimable(book.known, later(1_000))
    assert book.checkin("ann", later(1_000)) is CheckInOutcome.ADMITTED


def test_submission_keeps_what_it_was_given() -> None:
    book = submitted(payload="text", priority=7, max_crashes=2, request="origin")
    run = book.known.run
    assert (run.payload, run.priority, run.max_crashes, run.origin, run.sequence) == ("text", 7, 2, "origin", 1)
    assert (run.status, run.run_at, run.created) == (Status.SCHEDULED, from_ms(START.wall), from_ms(START.wall))


def test_a_renewal_sets_an_end_and_never_adds() -> None:
    book = Book()
    book.checkin("ann")
    for _ in range(3):
        assert book.renew(Renewal(lease=book.lease), later(5_000)) is Renewed.HELD
        assert book.known.until == START.elapsed + 15_000
    assert book.renew(Renewal(lease=book.lease, duration=timedelta(seconds=1)), later(6_000)) is Renewed.HELD
    assert book.known.until == START.elapsed + 7_000
    assert book.lease.duration == timedelta(seconds=1)


def test_g4_a_lapsed_or_stale_lease_is_not_renewed() -> None:
    book = Book()
    book.checkin("ann")
    stale, before = book.lease, book.known
    assert book.renew(Renewal(lease=stale), later(10_000)) is Renewed.LOST
    assert book.entry is before
    book.checkin("bob", later(10_000))
    taken = book.known
    assert book.renew(Renewal(lease=stale), later(10_000)) is Renewed.LOST
    assert book.renew(Renewal(lease=replace(book.lease, request="forged")), later(10_000)) is Renewed.LOST
    assert book.entry is taken
    assert t.renew(None, Renewal(lease=stale), START) == (Renewed.LOST, None)


def test_progress_comes_with_a_renewal_and_goes_with_the_next_attempt() -> None:
    book = Book()
    book.checkin("ann")
    book.renew(Renewal(lease=book.lease, progress=Progress(done=3)), later(1))
    assert book.known.run.progress == Progress(done=3)
    book.checkin("bob", later(10_001))
    assert book.known.run.progress is None


def test_a_renewal_of_a_run_without_a_lease_changes_nothing_but_progress() -> None:
    book = Book()
    book.checkin("ann", lease=None)
    assert book.renew(Renewal(lease=book.lease, duration=LEASE), later(1)) is Renewed.HELD
    assert book.known.until is None


def test_g4_a_stale_checkout_changes_nothing() -> None:
    book = Book()
    book.checkin("ann")
    stale = book.lease
    book.checkin("bob", later(10_000))
    before = book.known
    assert not book.checkout(CheckOut.succeeded(stale), later(10_001))
    assert not book.checkout(CheckOut.succeeded(replace(book.lease, request="forged")), later(10_001))
    assert book.entry is before
    assert t.checkout(None, CheckOut.succeeded(stale), START) == (False, None)


def test_a_lapsed_lease_that_nobody_took_over_still_checks_out() -> None:
    book = Book()
    book.checkin("ann")
    assert book.checkout(CheckOut.succeeded(book.lease, "result"), later(99_999))
    run = book.known.run
    assert (run.status, run.result, run.ended) == (Status.SUCCEEDED, "result", from_ms(later(99_999).wall))
    assert run.crashes == 0


def test_g7_a_repeated_checkout_is_true_for_ever_and_another_one_false() -> None:
    book = Book()
    book.checkin("ann")
    request = CheckOut.retry(book.lease, Failure(type="E", message="m"), after=timedelta(seconds=1))
    assert book.checkout(request)
    before = book.known
    assert book.checkout(request)
    assert book.entry is before
    book.checkin("bob", later(1_000))
    taken = book.known
    assert book.checkout(request, later(1_000))
    assert book.entry is taken
    assert not book.checkout(CheckOut.succeeded(request.lease), later(1_000))


@pytest.mark.parametrize(("ending", "failures"), [(Ending.RETRY, 1), (Ending.RELEASED, 0)])
def test_what_is_given_back_is_due_again_when_asked(ending: Ending, failures: int) -> None:
    for after, at, due in (
        (timedelta(seconds=2), None, START.wall + 2_000),
        (None, from_ms(START.wall + 3_000), START.wall + 3_000),
        (None, None, START.wall),
    ):
        book = Book()
        book.checkin("ann")
        assert book.checkout(CheckOut(lease=book.lease, ending=ending, after=after, at=at))
        run = book.known.run
        assert (run.status, run.run_at, run.failures, run.crashes) == (Status.SCHEDULED, from_ms(due), failures, 0)
        assert run.lease is None
        assert book.known.until is None


def test_late_copies_of_a_checkin_are_not_admitted_again() -> None:
    book = Book()
    book.checkin("ann")
    book.checkout(CheckOut.released(book.lease))
    before = book.known
    assert book.checkin("ann") is CheckInOutcome.SCHEDULED
    assert book.entry is before
    book.checkin("bob")
    assert book.checkin("ann", later(10_000)) is CheckInOutcome.ABANDONED


def test_cancelling_depends_on_what_the_run_does() -> None:
    assert t.cancel(None, START) == (Cancelled.ABSENT, None)
    waiting = submitted()
    answer, entry = t.cancel(waiting.entry, START)
    assert answer is Cancelled.CANCELLED
    assert entry is not None
    assert entry.run.status.value == "cancelled"
    assert t.cancel(entry, START) == (Cancelled.CANCELLED, entry)
    done = ended(Ending.SUCCEEDED)
    assert t.cancel(done.entry, START) == (Cancelled.ENDED, done.entry)


def test_a_running_run_is_asked_to_stop_and_goes_on_until_it_does() -> None:
    book = Book()
    book.checkin("ann")
    answer, book.entry = t.cancel(book.entry, START)
    assert answer is Cancelled.REQUESTED
    assert book.known.run.status is Status.RUNNING
    assert book.renew(Renewal(lease=book.lease), later(1)) is Renewed.CANCELLING
    assert book.checkout(CheckOut.cancelled(book.lease))
    assert book.known.run.status.value == "cancelled"
    assert not book.known.run.cancel_requested


def test_rearm_needs_the_newest_token_and_an_end() -> None:
    running = Book()
    running.checkin("ann")
    assert t.rearm(running.entry, 1, START) == (False, running.entry)
    book = ended(Ending.FAILED)
    assert t.rearm(book.entry, 0, START) == (False, book.entry)
    assert t.rearm(None, 0, START) == (False, None)
    done, entry = t.rearm(book.entry, 1, later(5))
    assert done
    assert entry is not None
    assert (entry.run.status, entry.run.failures, entry.run.crashes, entry.run.token) == (Status.SCHEDULED, 0, 0, 1)
    assert entry.run.run_at == from_ms(later(5).wall)
    assert t.rearm(entry, 1, later(6)) == (True, entry)
    book.entry = entry
    book.checkin("bob", later(7))
    book.checkout(CheckOut.failed(book.lease))
    assert t.rearm(book.entry, 1, later(8)) == (False, book.entry)


def test_forcing_takes_the_run_from_its_holder_and_fences_it_off() -> None:
    book = Book()
    book.checkin("ann", lease=None)
    lost = book.lease
    book.entry = t.force_lapse(book.known, START, token=book.token())
    assert book.known.lapsed(START)
    assert not book.checkout(CheckOut.succeeded(lost))
    assert not book.checkout(CheckOut.succeeded(replace(lost, token=2)))
    assert book.renew(Renewal(lease=lost), START) is Renewed.LOST
    assert book.checkin("ann") is CheckInOutcome.ABANDONED
    assert book.checkin("bob") is CheckInOutcome.TAKEN_OVER
    assert book.known.run.token == 3


def test_only_the_latest_attempts_are_kept_and_all_are_counted() -> None:
    book = Book()
    for number in range(ATTEMPTS_KEPT + 5):
        assert book.checkin(f"h{number}").admitted
        book.checkout(CheckOut.released(book.lease))
    run = book.known.run
    assert run.attempt == run.token == ATTEMPTS_KEPT + 5
    assert [attempt.number for attempt in run.attempts] == list(range(6, ATTEMPTS_KEPT + 6))
