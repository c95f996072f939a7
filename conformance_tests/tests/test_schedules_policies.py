"""Missed occurrences, jitter, start and end: whatever the servers do, each occurrence is dealt with once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onceward.contracts import InvalidRequest
from onceward.toolkit.schedules import (
    Misfire,
    MisfirePolicy,
    Schedule,
    due_occurrences,
    jittered,
    judge,
    parse,
)

NOW = datetime(2026, 3, 29, 0, 10, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SCHEDULES = [
    parse("*/5 * * * *", timezone="Europe/Vienna"),
    parse("10,40 1-3 * * *", timezone="Europe/Vienna"),
    parse("* * * * * *"),
    parse("0 0 29 2 *", timezone="Asia/Tokyo"),
    parse("every 7 minutes"),
    parse("every 90 minutes", start=NOW + HOUR, end=NOW + DAY),
    parse(NOW + MINUTE),
]

schedules = st.sampled_from(SCHEDULES)
spans = st.integers(0, 7_200_000).map(lambda ms: timedelta(milliseconds=ms))


@settings(max_examples=60, deadline=None)
@given(schedules, st.lists(spans, max_size=8), st.sampled_from(MisfirePolicy), st.integers(1, 5))
def test_each_occurrence_is_dealt_with_once(
    schedule: Schedule, pauses: list[timedelta], policy: MisfirePolicy, limit: int
) -> None:
    """G10: whenever servers look, what they start and what they report as skipped is each occurrence once."""
    now, cursor = NOW, NOW
    dealt_with: list[datetime] = []
    for pause in pauses:
        now += pause
        due = judge(schedule, cursor, now, Misfire(policy=policy, limit=limit))
        passed = list(schedule.occurrences(cursor, now))
        if due.skipped is None:
            assert due.occurrences == passed
        else:
            count = len(passed) - len(due.occurrences)
            assert due.skipped == (passed[0], passed[count - 1])
            assert due.occurrences == passed[count:]
        assert len(due.occurrences) <= limit
        assert judge(schedule, due.cursor, now, Misfire()).occurrences == []
        dealt_with += passed
        cursor = due.cursor
    assert dealt_with == list(schedule.occurrences(NOW, now))


@settings(max_examples=60, deadline=None)
@given(schedules, spans, spans)
def test_latest_is_the_last_one(schedule: Schedule, before: timedelta, length: timedelta) -> None:
    start, end = NOW - before, NOW - before + length
    found = list(schedule.occurrences(start, end))
    assert schedule.latest(start, end) == (found[-1] if found else None)


@pytest.mark.parametrize(
    ("policy", "late", "started"),
    [
        ("skip", "00:30", []),
        ("skip", "00:05", [5]),
        ("once", "00:30", [5]),
        ("once", "00:05", [5]),
        ("all", "00:30", [2, 3, 4, 5]),
        ("all", "00:05", [2, 3, 4, 5]),
    ],
)
def test_what_was_missed_while_all_were_down(policy: str, late: str, started: list[int]) -> None:
    """An hourly job; the servers were down from 1:30 to a little after 5:00, with ten minutes of grace."""
    schedule = parse("0 * * * *")
    now = datetime.fromisoformat(f"2026-01-01T05{late[2:]}:00Z")
    misfire = Misfire(policy=MisfirePolicy(policy), grace=10 * MINUTE)
    found, cursor = due_occurrences(schedule, datetime(2026, 1, 1, 1, 30, tzinfo=UTC), now, misfire)
    assert [occurrence.hour for occurrence in found] == started
    assert cursor.hour == 5


def test_one_on_time_makes_up_for_the_missed_ones() -> None:
    now = datetime(2026, 1, 1, 5, 0, 30, tzinfo=UTC)
    due = judge(parse("*/10 * * * *"), now - HOUR, now, Misfire(grace=MINUTE))
    assert [occurrence.minute for occurrence in due.occurrences] == [0]
    assert due.skipped == (now.replace(hour=4, minute=10, second=0), now.replace(hour=4, minute=50, second=0))


def test_years_of_missed_seconds_are_found_by_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is counted, not timed: 94 million occurrences were missed."""
    schedule = parse("* * * * * *")
    kind = type(schedule)
    asked = []
    after = kind._after
    monkeypatch.setattr(kind, "_after", lambda self, moment: (asked.append(moment), after(self, moment))[1])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found, _ = due_occurrences(schedule, now - 3 * 365 * DAY, now, Misfire(policy=MisfirePolicy.ALL, limit=10))
    assert found == [now - timedelta(seconds=9 - number) for number in range(10)]
    assert len(asked) < 10 * 80
    asked.clear()
    found, _ = due_occurrences(schedule, now - 3 * 365 * DAY, now + DAY / 2, Misfire(grace=timedelta(seconds=3)))
    assert len(found) == 4
    assert len(asked) < 6 * 80


def test_a_schedule_seen_for_the_first_time() -> None:
    """One that recurs begins now; one for an instant is owed though that has passed, and once only."""
    misfire = Misfire()
    assert due_occurrences(parse("* * * * *"), None, NOW, misfire) == ([], NOW)
    for schedule in (parse("now"), parse(NOW - DAY)):
        found, cursor = due_occurrences(schedule, None, NOW, misfire)
        assert len(found) == 1
        assert due_occurrences(schedule, cursor, NOW + DAY, misfire) == ([], cursor)
        assert due_occurrences(schedule, None, NOW + DAY, misfire) == (found, cursor)  # another server, the same key
    found, cursor = due_occurrences(parse(NOW + DAY), None, NOW, misfire)
    assert found == []
    assert due_occurrences(parse(NOW + DAY), cursor, NOW + DAY, misfire)[0] == [NOW + DAY]


def test_skip_drops_an_instant_that_passed_but_not_now() -> None:
    skip = Misfire(policy=MisfirePolicy.SKIP)
    assert judge(parse(NOW - DAY), None, NOW, skip).skipped == (NOW - DAY, NOW - DAY)
    assert len(judge(parse("now"), None, NOW, skip).occurrences) == 1


def test_a_server_whose_clock_is_late_does_nothing() -> None:
    schedule = parse("* * * * *")
    assert due_occurrences(schedule, NOW, NOW - HOUR, Misfire()) == ([], NOW)


def test_a_cursor_stays_where_nothing_came_due() -> None:
    """So that looking writes nothing."""
    cursor = NOW + timedelta(seconds=1)
    assert due_occurrences(parse("0 0 1 1 *"), cursor, NOW + 30 * DAY, Misfire()) == ([], cursor)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)), st.text(), spans)
def test_jitter_is_the_same_everywhere_and_within_its_bounds(occurrence: datetime, job: str, jitter: timedelta) -> None:
    run_at = jittered(occurrence, job, jitter)
    assert occurrence <= run_at <= occurrence + jitter
    assert run_at == jittered(occurrence.astimezone(), job, jitter)
    assert (run_at - occurrence) % timedelta(milliseconds=1) == timedelta(0)


def test_jitter_spreads() -> None:
    """Over jobs and over occurrences; the value is fixed for ever, since versions of servers run side by side."""
    assert jittered(NOW, "import", HOUR) - NOW == timedelta(seconds=902.501)
    by_job = {jittered(NOW, f"job-{number}", MINUTE) for number in range(100)}
    by_time = {jittered(NOW + number * HOUR, "import", MINUTE) - number * HOUR for number in range(100)}
    assert min(len(by_job), len(by_time)) > 90
    assert max(by_job) - min(by_job) > 50 * timedelta(seconds=1)


@pytest.mark.parametrize(
    "options",
    [{"policy": "once"}, {"limit": 0}, {"limit": 10_001}, {"limit": True}, {"grace": -MINUTE}, {"grace": 5}],
)
def test_bad_policies_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=f"misfire.{next(iter(options))}"):
        Misfire(**options)  # type: ignore[arg-type]


def test_start_and_end_are_both_included() -> None:
    start, end = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 3, tzinfo=UTC)
    for source in ("@daily", "every 1 day"):
        schedule = parse(source, start=start, end=end)
        assert list(schedule.occurrences(NOW, end + 30 * DAY)) == [start, start + DAY, end]
        assert schedule.next_after(end) is None


def test_intervals_are_counted_from_the_start_or_from_midnight_in_1970() -> None:
    assert parse("every 7 minutes", start=NOW).next_after(NOW + HOUR) == NOW + 63 * MINUTE
    assert parse("every 2 hours", timezone="Asia/Kolkata").preview(1, NOW)[0].isoformat() == "2026-03-29T06:00:00+05:30"
    assert parse("every 7 minutes").next_after(NOW) == parse(7 * MINUTE).next_after(NOW)


@given(schedules, st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_next_after_is_strictly_after(schedule: Schedule, moment: datetime) -> None:
    following = schedule.next_after(moment)
    if following is not None:
        assert following > moment
        assert following.tzinfo is UTC
        assert schedule.next_after(following - timedelta(microseconds=1)) == following


@pytest.mark.parametrize("moment", [None, datetime(2026, 1, 1), datetime(1969, 1, 1, tzinfo=UTC), "2026-01-01"])
def test_moments_have_a_zone(moment: object) -> None:
    with pytest.raises(InvalidRequest, match="moment"):
        parse("@daily").next_after(moment)  # type: ignore[arg-type]
