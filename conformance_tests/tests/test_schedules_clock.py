"""Cron schedules against a second opinion that walks through time minute by minute, in every zone, 1970 to 2100."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules_support import HALF_MINUTE, Change, changes, clock, expected, kinds_of_changes, rules, zone_file

from onceward.toolkit.schedules import Expression, Fold, Gap, Schedule, parse

HOUR = timedelta(hours=1)
ZONES = sorted(available_timezones())


def agree(schedule: Schedule, wanted: list[datetime], start: datetime, end: datetime) -> None:
    """From any moment on, the occurrences are those wanted: none missing, none twice, in order."""
    wanted = [occurrence for occurrence in wanted if start < occurrence <= end]
    found = list(schedule.occurrences(start, end))
    assert found == wanted, (schedule, found[:20], wanted[:20])
    assert all(one < two for one, two in pairwise(found))
    for part in range(13):  # the seventh is the change itself
        moment = start + (end - start) * part / 12
        after = [occurrence for occurrence in wanted if occurrence > moment]
        following = schedule.next_after(moment)
        assert following is not None
        assert (following == after[0]) if after else (following > end), (schedule, moment)


def around(change: Change) -> list[str]:
    """Expressions that say something inside, at the edges, and across what the clock skips or shows twice."""
    edge, inside, end = (change.shows(change.width * part / 2) for part in range(3))
    hours = f"{edge.hour},{inside.hour}"
    return [
        "0 * * * *",
        f"{inside.minute} {inside.hour} * * *",
        f"{edge.minute} {edge.hour} * * *",
        f"{end.minute} {end.hour} {end.day} {end.month} *",
        f"5-59/10 {hours} * * {inside.isoweekday() % 7}",
        "*/20 * * * *",
        f"*/10 {hours} * * *",
        f"{inside.minute} {inside.hour} {inside.day},1 * {(inside.isoweekday() + 2) % 7}",
    ]


def window(change: Change) -> tuple[datetime, datetime]:
    return change.at - change.width - 2 * HOUR, change.at + change.width + 2 * HOUR


def test_every_kind_of_change_of_every_zone() -> None:
    """Each zone's changes that differ in offsets or in the time of day, with the rules that cron has by itself."""
    found = kinds_of_changes()
    assert len({change.zone for change in found}) > 200
    for change in found:
        start, end = window(change)
        shown = clock(ZoneInfo(change.zone), start - HOUR, end + change.width + HOUR, change.step)
        for expression in around(change)[:5]:
            schedule = parse(expression, timezone=change.zone)
            agree(schedule, expected(expression, shown, *rules(expression)), start, end)


def test_every_rule_at_every_kind_of_change() -> None:
    """What differs only in zone and date is taken once, with all six pairs of rules."""
    for change in {change.alike: change for change in kinds_of_changes()}.values():
        start, end = window(change)
        shown = clock(ZoneInfo(change.zone), start - HOUR, end + change.width + HOUR, change.step)
        for expression in around(change)[3:]:
            for gap in Gap:
                for fold in Fold:
                    schedule = parse(expression, timezone=change.zone, gap=gap, fold=fold)
                    agree(schedule, expected(expression, shown, gap, fold), start, end)


# -- drawn ------------------------------------------------------------------------------------------------------------


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    """A field as people write them."""
    number = st.integers(low, high)
    kind = draw(st.sampled_from(["*", "*/n", "n", "n", "a-b", "a-b/n", "list", "a/n"]))
    first, last = sorted((draw(number), draw(number)))
    step = draw(st.integers(1, min(high - low, 12)))
    if kind == "list":
        return ",".join(map(str, draw(st.lists(number, min_size=2, max_size=4))))
    text = {"*": "*", "*/n": f"*/{step}", "n": str(first), "a-b": f"{first}-{last}", "a/n": f"{first}/{step}"}
    return text.get(kind, f"{first}-{last}/{step}")


DAYS = st.tuples(fields(1, 28), st.just("*"), fields(0, 7)) | st.just(("*", "*", "*"))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Five fields that fit some day of most months."""
    return " ".join([draw(fields(0, 59)), draw(fields(0, 23)), *draw(DAYS)])


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(ZONES), st.integers(1970, 2100), expressions())
def test_any_expression_in_any_zone_and_year(data: st.DataObject, name: str, year: int, expression: str) -> None:
    """Around a change of the clock if the zone has one in that year, else around any day."""
    found = [change for change in changes(name, zone_file(name)) if change.at.year == year]
    if found:
        change = data.draw(st.sampled_from(found))
        middle, width, step = change.at, change.width, change.step
    else:
        middle = datetime(year, 1, 2, tzinfo=UTC) + timedelta(hours=data.draw(st.integers(0, 8_700)))
        width, step = HOUR, HALF_MINUTE
    gap, fold = data.draw(st.none() | st.tuples(st.sampled_from(Gap), st.sampled_from(Fold))) or (None, None)
    start, end = middle - width - 15 * HOUR, middle + width + 15 * HOUR
    start = max(start, datetime(1970, 1, 1, 1, tzinfo=UTC))
    shown = clock(ZoneInfo(name), start - HOUR, end + width + HOUR, step)
    by_itself = rules(expression)
    schedule = parse(expression, timezone=name, gap=gap, fold=fold)
    agree(schedule, expected(expression, shown, gap or by_itself[0], fold or by_itself[1]), start, end)


@settings(max_examples=25, deadline=None)
@given(st.deferred(lambda: st.sampled_from(kinds_of_changes())), st.tuples(fields(0, 59), fields(0, 59)))
def test_seconds(change: Change, parts: tuple[str, str]) -> None:
    """Six fields, looked at second by second."""
    expression = f"{parts[0]} {parts[1]} {change.shows().hour},{change.shows(change.width / 2).hour} * * *"
    start, end = change.at - change.width - HOUR / 4, change.at + change.width + HOUR / 4
    shown = clock(ZoneInfo(change.zone), start - HOUR / 4, end + change.width, timedelta(seconds=1))
    schedule = parse(expression, timezone=change.zone)
    agree(schedule, expected(expression, shown, *rules(expression)), start, end)


# -- days that are far away -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.dates(date(1970, 1, 1), date(2100, 12, 31)),
    st.sampled_from(["*", "*/2", "13", "29", "30,31", "L", "1-7", "*/28"]),
    st.sampled_from(["*", "2", "2,4", "*/5", "1-12/3"]),
    st.sampled_from(["*", "1", "5", "0,6", "1#1", "5L", "3#5", "*/3"]),
)
def test_days_over_years(start: date, day: str, month: str, weekday: str) -> None:
    """Every day of twelve years, judged by the calendar that people hang on the wall."""
    text = f"0 0 {day} {month} {weekday}"
    if day == "30,31" and month == "2" and weekday.startswith("*"):
        return  # never; see the test of what is refused
    wanted = [
        each for each in (start + timedelta(days=number) for number in range(1, 4_400)) if on(each, day, month, weekday)
    ]
    moment = datetime.combine(start, time(), UTC)
    found = list(islice(parse(text).occurrences(moment, moment + timedelta(days=4_399)), len(wanted) + 1))
    assert [occurrence.date() for occurrence in found] == wanted


def on(each: date, day: str, month: str, weekday: str) -> bool:
    """The expression's days, by the definitions in words."""
    same = same_weekdays(each.year, each.month, each.weekday())
    number = each.isoweekday() % 7
    words_of_day = {"*": True, "*/2": each.day % 2 == 1, "13": each.day == 13, "29": each.day == 29}
    words_of_day |= {"30,31": each.day >= 30, "1-7": each.day <= 7, "*/28": each.day in (1, 29)}
    words_of_day |= {"L": (each + timedelta(days=1)).day == 1}
    words_of_week = {"*": True, "1": number == 1, "5": number == 5, "0,6": number in (0, 6), "*/3": number % 3 == 0}
    words_of_week |= {"1#1": number == 1 and same[0] == each, "5L": number == 5 and same[-1] == each}
    words_of_week |= {"3#5": number == 3 and same[4:] == [each]}
    words_of_month = {"*": True, "2": each.month == 2, "2,4": each.month in (2, 4)}
    words_of_month |= {"*/5": each.month in (1, 6, 11), "1-12/3": each.month in (1, 4, 7, 10)}
    both = words_of_day[day], words_of_week[weekday]
    return words_of_month[month] and (all(both) if day[0] == "*" or weekday[0] == "*" else any(both))


@cache
def same_weekdays(year: int, month: int, weekday: int) -> list[date]:
    """The month's column for a weekday."""
    weeks = calendar.Calendar().monthdatescalendar(year, month)
    return sorted(day for week in weeks for day in week if day.month == month and day.weekday() == weekday)


@pytest.mark.parametrize(
    ("expression", "after", "wanted"),
    [
        ("0 0 29 2 *", 2096, [2104, 2108]),  # 2100 is no leap year
        ("0 0 */28 2 1#5", 2072, [2112, 2140]),  # 29 February on a Monday: 40 years over the turn of the century
        ("0 0 29 2 */7", 2088, [2128, 2156]),  # on a Sunday
    ],
)
def test_rare_days(expression: str, after: int, wanted: list[int]) -> None:
    schedule = parse(expression, timezone="Europe/Vienna")
    found = schedule.preview(2, datetime(after, 3, 1, tzinfo=UTC))
    assert [occurrence.date() for occurrence in found] == [date(year, 2, 29) for year in wanted]


def test_the_end_of_the_calendar_is_the_end() -> None:
    for source in ("0 0 29 2 *", "* * * * * *", "every 7 days"):
        schedule = parse(source, timezone="Pacific/Kiritimati")
        assert schedule.next_after(datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)) is None


# -- how much is looked at, which is counted, not timed ---------------------------------------------------------------


class Questions:
    """How often a schedule asks its expression for a local time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        ask = Expression.at_or_after

        def counted(expression: Expression, local: datetime) -> datetime | None:
            self.asked += 1
            return ask(expression, local)

        monkeypatch.setattr(Expression, "at_or_after", counted)

    def by(self, schedule: Schedule, moment: datetime) -> int:
        """How often it asks for the occurrence after that moment."""
        self.asked = 0
        schedule.next_after(moment)
        return self.asked


def test_gaps_and_folds_are_leapt_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """However wide they are, and however many local times lie in them."""
    questions = Questions(monkeypatch)
    for change in {change.alike: change for change in kinds_of_changes()}.values():
        schedules = [parse("* * * * * *", timezone=change.zone, gap="skip", fold=fold) for fold in Fold]
        for schedule in schedules:
            for part in range(-2, 3):
                assert questions.by(schedule, change.at + change.width * part / 2 - timedelta(milliseconds=1)) <= 3


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 */28 2 1#5", "59 59 23 31 12 *"])
def test_rare_days_are_asked_for_once(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    """And answered month by month: at most the 480 that lie between two 29 February on one weekday."""
    months = []
    days = Expression.days
    monkeypatch.setattr(Expression, "days", lambda *args: (months.append(args[1:]), days(*args))[1])
    schedule = parse(expression, timezone="America/Santiago")
    months.clear()
    assert Questions(monkeypatch).by(schedule, datetime(2072, 3, 1, tzinfo=UTC)) == 1
    assert len(months) <= 481


def test_what_always_lies_in_a_gap_never_occurs() -> None:
    """The last Sunday of March is when Vienna's clock goes from 2:00 to 3:00."""
    schedule = parse("30 2 * 3 0L", timezone="Europe/Vienna", gap="skip")
    assert schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert parse("30 2 * 3 0L", timezone="Europe/Vienna").next_after(datetime(2026, 1, 1, tzinfo=UTC)) is not None


# -- the cases that everybody gets wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "expression", "after", "wanted"),
    [
        # Lord Howe Island moves by half an hour: 2:00 -> 2:30, and 2:00 -> 1:30.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00+10:30", "2026-10-04T02:30+11:00"),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00+11:00", "2026-04-05T01:45+11:00"),
        # Morocco puts its clock back for Ramadan and forward after it.
        ("Africa/Casablanca", "30 2 * * *", "2026-02-14T12:00+01:00", "2026-02-15T02:30+01:00 2026-02-16T02:30+00:00"),
        ("Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00+00:00", "2026-03-22T03:00+01:00 2026-03-23T02:30+01:00"),
        # Samoa had no 30 December 2011.
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00 2011-12-31T12:00+14:00"),
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00 2012-12-30T12:00+14:00"),
        ("Pacific/Apia", "0 */6 * * *", "2011-12-29T18:00-10:00", "2011-12-31T00:00+14:00 2011-12-31T06:00+14:00"),
        # Midnight does not exist, or is shown twice.
        ("Asia/Beirut", "0 0 * * *", "2026-03-28T12:00+02:00", "2026-03-29T01:00+03:00 2026-03-30T00:00+03:00"),
        ("America/Asuncion", "0 0 * * *", "2023-09-30T12:00-04:00", "2023-10-01T01:00-03:00 2023-10-02T00:00-03:00"),
        ("America/Santiago", "30 23 * * *", "2026-04-04T12:00-03:00", "2026-04-04T23:30-03:00 2026-04-05T23:30-04:00"),
        # Troll station moves by two hours.
        ("Antarctica/Troll", "0,30 1,2 * * *", "2026-03-29T00+00:00", "2026-03-29T03:00+02:00 2026-03-30T01:00+02:00"),
        # Along the clock: nothing in the gap, both times in the fold.
        ("Europe/Vienna", "30 * * * *", "2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"),
        ("Europe/Vienna", "30 * * * *", "2026-10-25T01:30+02:00", "2026-10-25T02:30+02:00 2026-10-25T02:30+01:00"),
    ],
)  # fmt: skip
def test_changes_of_the_clock_that_are_known_for_trouble(zone: str, expression: str, after: str, wanted: str) -> None:
    found = parse(expression, timezone=zone).preview(len(wanted.split()), datetime.fromisoformat(after))
    assert [occurrence.isoformat(timespec="minutes") for occurrence in found] == wanted.split()
