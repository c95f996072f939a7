"""What people write becomes a schedule, or an error that says what to write; and back to text, documents, English."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from onceward.contracts import InvalidRequest
from onceward.toolkit.cli.app import build
from onceward.toolkit.durations import parse_duration, spell
from onceward.toolkit.schedules import (
    ALIASES,
    CronSchedule,
    Expression,
    Fold,
    Gap,
    IntervalSchedule,
    Schedule,
    from_dict,
    parse,
)
from onceward.toolkit.schedules.fields import KINDS, MONTHS, WEEKDAYS
from onceward.toolkit.schedules.human import EXAMPLES
from onceward.toolkit.schedules.words import ordinal

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "schedules.md"


# -- what is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("*/5 * * * *", "*/5 * * * *"),
        (" 0  1/5 * * *  *", "1-56/5 * * * *"),  # six fields, the second first
        ("30 0 9 * * MON-Fri", "30 0 9 * * 1-5"),
        ("0 9 * jan,JUL *", "0 9 * 1,7 *"),
        ("0 9 * * 7", "0 9 * * 0"),
        ("0 9 * * sat-sun", "0 9 * * 0,6"),
        ("0 9 * * 5-7", "0 9 * * 0,5,6"),
        ("*/1 00 */01 * *", "* 0 * * *"),
        ("0 0 L,15 * *", "0 0 15,L * *"),
        ("0 0 * * fri#2,1L", "0 0 * * 1L,5#2"),
        ("*/20,7 * * * *", "*/20,7 * * * *"),
        ("0-59 * * * *", "0-59 * * * *"),
        *ALIASES.items(),
        ("every 5 minutes", "every 5 minutes"),
        ("Every 1h30m", "every 1 hour 30 minutes"),
        ("every 3 seconds", "every 3 seconds"),
        ("every 2 weeks", "every 14 days"),
        (timedelta(minutes=90), "every 1 hour 30 minutes"),
        ("every minute", "* * * * *"),
        ("every hour", "0 * * * *"),
        ("every day", "0 0 * * *"),
        ("at 9:30 on weekdays", "30 9 * * 1-5"),
        ("weekdays at 9:30", "30 9 * * 1-5"),
        ("every weekend at noon", "0 12 * * 0,6"),
        ("daily at 9 am, 5 pm and midnight", "0 0,9,17 * * *"),
        ("at 9:30:15 pm", "15 30 21 * * *"),
        ("at 12:30 am", "30 0 * * *"),
        ("every Monday", "0 0 * * 1"),
        ("on Mondays, Wed and fri at 8:00", "0 8 * * 1-5/2"),
        ("on Friday to Monday at 8:00", "0 8 * * 0,1,5,6"),
        ("on the 1st and 15th of every month at 6:00", "0 6 1,15 * *"),
        ("at 6:00 on the last day of the month", "0 6 L * *"),
        ("on the first Monday and the last Friday of March at 17:00", "0 17 * 3 1#1,5L"),
        ("on the first and third tuesday at 8:00", "0 8 * * 2#1,2#3"),
        ("at 8:00 on Monday in June to August", "0 8 * 6-8 1"),
        ("now", "now"),
        (" NOW ", "now"),
        (NOON, "2026-01-31T12:00:00Z"),
        ("2026-01-31T13:00+01:00", "2026-01-31T12:00:00Z"),
        ({"type": "schedule", "value": "0 * * * *"}, "0 * * * *"),
        ({"type": "once", "value": NOON}, "2026-01-31T12:00:00Z"),
        ({"type": "now"}, "now"),
        ({"value": "@daily"}, "0 0 * * *"),
    ],
)
def test_sources_and_their_canonical_text(source: str | datetime | timedelta, text: str) -> None:
    schedule = parse(source)
    assert schedule.text == text
    assert parse(schedule.text) == schedule
    assert hash(parse(schedule.text)) == hash(schedule)
    assert parse(schedule) is schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_equal_is_what_says_the_same() -> None:
    assert parse("@hourly") == parse("0 */1 * * *") == parse("every hour")
    assert parse("@hourly") != parse("@hourly", timezone="Europe/Vienna")
    assert parse("0-59/5 * * * *") != parse("*/5 * * * *")  # only the latter follows the clock through a change


def test_instants_are_whole_milliseconds_as_stores_keep_them() -> None:
    """Else a cursor that was rounded down in a store would lie before its occurrence, which would be due for ever."""
    later = NOON + timedelta(microseconds=1)
    wanted = NOON + timedelta(milliseconds=1)
    assert parse(later) == parse(wanted)
    assert parse("every 5 minutes", start=later).next_after(NOON) == wanted


def test_local_dates_need_a_zone_in_which_they_are_one_instant() -> None:
    zone = "Europe/Vienna"
    assert parse("2026-07-01T12:00", timezone=zone).text == "2026-07-01T10:00:00Z"
    for text, zone_given, hint in [
        ("2026-07-01T12:00", None, "2026-07-01T12:00Z"),
        ("2026-03-29T02:30", zone, "2026-03-29T03:00:00"),
        ("2026-10-25T02:30", zone, r"2026-10-25T02:30:00\+02:00 or 2026-10-25T02:30:00\+01:00"),
        ("2026-13-25T02:30Z", zone, "ISO 8601"),
    ]:
        with pytest.raises(InvalidRequest, match=hint):
            parse(text, timezone=zone_given)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "field", "item", "allowed"),
    [
        ("61 * * * *", "minute", "61", "0 to 59"),
        ("60 * * * * *", "second", "60", "0 to 59"),
        ("* 24 * * *", "hour", "24", "0 to 23"),
        ("0 0 0 * *", "day-of-month", "0", "1 to 31"),
        ("0 0 32 * *", "day-of-month", "32", "1 to 31"),
        ("0 0 * 13 *", "month", "13", "1 to 12, jan to dec"),
        ("0 0 * foo *", "month", "foo", "jan to dec"),
        ("0 0 * * 8", "day-of-week", "8", "0 to 7, sun to sat"),
        ("0 0 * * mon-fri,tues", "day-of-week", "tues", "sun to sat"),
        ("1,,2 * * * *", "minute", "", "commas"),
        ("5-1 * * * *", "minute", "5-1", "'5-59,0-1'"),
        ("0 0 * * fri-mon", "day-of-week", "fri-mon", "'fri-sat,0-mon'"),
        ("*/0 * * * *", "minute", "*/0", "1 to 59"),
        ("*/90 * * * *", "minute", "*/90", "'every 90 minutes'"),
        ("* */24 * * *", "hour", "*/24", "'every 24 hours'"),
        ("*/x * * * *", "minute", "*/x", "1 to 59"),
        ("-1 * * * *", "minute", "-1", "0 to 59"),
        ("1.5 * * * *", "minute", "1.5", "0 to 59"),
        ("*5 * * * *", "minute", "*5", "0 to 59"),
        ("٣ * * * *", "minute", "٣", "0 to 59"),
        ("0 0 ? * 1", "day-of-month", "?", "instead of ? write *"),
        ("0 0 15W * *", "day-of-month", "15w", "nearest"),
        ("0 0 * * L", "day-of-week", "l", "6L"),
        ("0 0 * * 1#6", "day-of-week", "1#6", "1 to 5"),
        ("L * * * *", "minute", "l", "0 to 59"),
        ("0 0 31 2 *", "day-of-month", "31", "some year"),
        ("0 0 30-31 feb *", "day-of-month", "30-31", "some year"),
        ("0 0 31 4,6,9,11 *", "day-of-month", "31", "some year"),
        ("0 0 0 31 6 *", "day-of-month", "31", "some year"),
        ("0 0 */30 * 1#2", "day-of-month", "*/30", "some year"),  # neither 1st nor 31st is ever a second Monday
    ],
)
def test_errors_point_at_the_field(expression: str, field: str, item: str, allowed: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Expression.parse(expression)
    error = caught.value
    assert (error.field, error.value) == (f"{field} field", item)
    assert allowed in error.allowed
    shown, marks = error.__notes__
    words = shown.split()
    place = len(shown[: marks.index("^")].split())
    assert shown == " ".join(expression.split())
    assert [kind.name for kind in KINDS[-len(words) :]][place] == field
    assert marks.count("^") == len(words[place])


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("* * * *", "these are 4"),
        ("0 0 1 1 * * 2026", "these are 7"),
        ("@reboot", "the cluster has no reboot"),
        ("@fortnightly", "@weekly"),
        ("", "every 5 minutes"),
        ("   ", "every 5 minutes"),
        ("* " * 600, "every 5 minutes"),
        ("tomorrow", "every 5 minutes"),
        ("5 minutes", "every 5 minutes"),
        ("every", "day of the week"),
        ("every 5", "a number with a unit"),
        ("every 5 parsecs", "a number with a unit"),
        ("every 0 minutes", "from 1 second to 100 years"),
        ("every 500 ms", "from 1 second to 100 years"),
        ("every 1000000000000 days", "up to 999999999 days"),
        ("every week", "@weekly"),
        ("monthly", "on the 1st of the month"),
        ("every month at 9:00", "on the 1st of the month"),
        ("every 2 months", r"0 0 1 \*/2 \*"),
        ("every year", "on the 1st of January"),
        ("every 5 minutes on weekdays", r"\*/5 9-16 \* \* 1-5"),
        ("at 9", "9:00, 9 am or 9 pm"),
        ("at 12 pm", "noon or midnight"),
        ("at 25:00", "9:30"),
        ("at 13 pm", "9:30"),
        ("at 9:60", "9:30"),
        ("at 9:30 and 17:00", "two schedules"),
        ("at 9:30 on", "day of the week"),
        ("at 9:30 on the 32nd", "the 1st"),
        ("on the last of the month", "the last day"),
        ("on the sixth friday", "second Friday"),
        ("on the 6th friday", "second Friday"),
        ("on the 1st and the last friday", "second Friday"),
        ("at 9:30 on the 13th on friday", "either days of the month or days of the week"),
        ("every day on the 13th", "either days of the month or days of the week"),
        ("at 9:30 at 10:30", "join what belongs together"),
        ("at 9:30 in Smarch", "month"),
        ("in january", "every 5 minutes"),
        ("at 9:30 on the 30th of february", "some year"),
        (datetime(2026, 1, 1), "with a time zone"),
        (timedelta(0), "from 1 second"),
        (timedelta(seconds=1, microseconds=1), "whole milliseconds"),
        (5, "a datetime, a timedelta, or a mapping"),
        (None, "a datetime, a timedelta, or a mapping"),
        ({"type": "cron", "value": "every 5 minutes"}, "'interval' with this value"),
        ({"type": "yearly", "value": "@daily"}, "known: cron, interval, once, now"),
        ({"type": "once", "value": 1_700_000_000_000}, "text, an instant"),
        ({"type": "cron"}, "text, an instant"),
        ({"type": "cron", "value": "@daily", "tz": "UTC"}, "only the fields type, value, timezone"),
        ({"value": "@daily", "timezone": 5}, "text"),
        ({"value": "@daily", "start": "2026-01-01"}, "with its offset"),
        ({"value": "@daily", "gap": "never"}, "'fire_after' or 'skip'"),
        ({"value": "every 5 minutes", "gap": "skip"}, "cron expressions"),
    ],
)
def test_what_cannot_be_one_thing_is_refused_with_what_to_write(source: object, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=hint):
        parse(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"timezone": "Mars/Olympus"}, "timezone: .* IANA"),
        ({"timezone": ""}, "timezone: .* IANA"),
        ({"timezone": "../etc/passwd"}, "timezone: .* IANA"),
        ({"timezone": "localtime"}, "timezone: .* IANA"),  # another one on each machine
        ({"timezone": "right/UTC"}, "timezone: .* IANA"),  # counts leap seconds
        ({"timezone": UTC}, "timezone: .* IANA"),
        ({"start": datetime(2026, 1, 1)}, "start: .* time zone"),
        ({"start": NOON, "end": NOON - timedelta(1)}, "end: .* not before start"),
        ({"fold": "third"}, "fold: .* 'first' or 'second' or 'both'"),
    ],
)
def test_options_are_checked(options: dict[str, object], hint: str) -> None:
    with pytest.raises(InvalidRequest, match=hint):
        parse("@daily", **options)  # type: ignore[arg-type]


def test_a_whole_schedule_takes_no_options() -> None:
    with pytest.raises(InvalidRequest, match=r"timezone: .* nothing beside a whole schedule"):
        parse({"value": "@daily"}, timezone="Europe/Vienna")


@settings(max_examples=300)
@given(st.text(max_size=40) | st.text("*/-,#L0123456789 ?@", max_size=30).map(lambda text: f"{text} * * * *"))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        schedule = parse(text)
    except InvalidRequest:
        return
    assert parse(schedule.text) == schedule


# -- there and back ---------------------------------------------------------------------------------------------------

numbers = {kind.name: st.integers(kind.low, min(kind.high, 28)) for kind in KINDS}


@st.composite
def field_texts(draw: st.DrawFn, name: str) -> str:
    first, last = sorted((draw(numbers[name]), draw(numbers[name])))
    step = draw(st.integers(1, 5))
    texts = ["*", f"*/{step}", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"*/{step},{last}"]
    return ",".join(draw(st.lists(st.sampled_from([*texts, f"{first},{last}"]), min_size=1, max_size=2)))


cron_texts = st.tuples(*(field_texts(kind.name) for kind in KINDS)).map(" ".join)


@settings(max_examples=150)
@given(cron_texts, st.sampled_from([None, *Gap]), st.sampled_from([None, *Fold]), st.sampled_from(["UTC", "Asia/Gaza"]))
def test_documents_and_texts_come_back_as_they_were(text: str, gap: Gap | None, fold: Fold | None, zone: str) -> None:
    schedule = parse(text, timezone=zone, gap=gap, fold=fold, start=NOON)
    assert from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    assert Expression.parse(schedule.text).text == schedule.text
    assert isinstance(schedule, CronSchedule)
    assert schedule.expression == Expression.parse(schedule.text) == Expression.parse(text)


@pytest.mark.parametrize("source", ["now", "every 90 seconds", NOON, "@daily"])
def test_documents_of_all_kinds(source: str | datetime) -> None:
    schedule = parse(source, timezone="Asia/Gaza")
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=36_500)))
def test_intervals_come_back_from_their_words(every: timedelta) -> None:
    every -= every % timedelta(milliseconds=1)
    assert parse_duration(spell(every)) == every
    schedule = parse(every)
    assert isinstance(schedule, IntervalSchedule)
    assert schedule.every == every
    assert parse(schedule.text) == schedule


subsets = st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True)
DAYS = st.one_of(
    st.just("every day"),
    st.sampled_from(["on weekdays", "on weekends"]),
    subsets.map(lambda days: "on " + " and ".join(WEEKDAYS[day] for day in days)),
    st.lists(st.integers(1, 28), min_size=1, max_size=3).map(
        lambda days: f"on the {', '.join(ordinal(day) for day in days)} and last day of the month"
    ),
    st.tuples(st.sampled_from(["first", "second", "third", "fourth", "fifth", "last"]), st.sampled_from(WEEKDAYS)).map(
        lambda nth: f"on the {nth[0]} {nth[1]} of the month"
    ),
)
MONTH = st.none() | st.lists(st.sampled_from(MONTHS), min_size=1, max_size=3)
HOURS = st.lists(st.integers(0, 23), min_size=1, max_size=3)
MINUTES = st.lists(st.integers(0, 59), min_size=1, max_size=2)


@settings(max_examples=150)
@given(HOURS, MINUTES, DAYS, MONTH, st.booleans())
def test_what_explain_says_is_understood(
    hours: list[int], minutes: list[int], days: str, months: list[str] | None, swap: bool
) -> None:
    """English to schedule to English: the second sentence is the schedule, too."""
    clock = " and ".join(f"{hour}:{minute:02}" for hour, minute in product(hours, minutes))
    clauses = [f"at {clock}", days]
    if months:
        clauses.append(f"in {', '.join(months)}")
    schedule = parse(" ".join(reversed(clauses) if swap else clauses))
    said = schedule.explain().removeprefix("Runs ").partition(", by the clock")[0]
    assert parse(said) == schedule


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("*/5 * * * *", "every 5 minutes, by the clock of Europe/Vienna: a time that it skips is left out; one that"),
        ("30 2 * * *", "at 02:30 every day, by the clock of Europe/Vienna: a time that it skips runs right after"),
        ("0 9,17 * * 1-5", "at 09:00 and 17:00 on weekdays, by"),
        ("30 9 13 * 5", "at 09:30 on the 13th of the month and also on Friday, by"),
        ("30 9 */15 * 5", "at 09:30 on the 1st, 16th and 31st of the month where that is also Friday, by"),
        ("*/10 5 * * * *", "every 10 seconds of minute 5 of every hour, by"),
        ("0 */2 * * *", "at minute 0 of every 2nd hour from 0, by"),
        ("* 9-17 * * *", "every minute of hours 9, 10, 11, 12, 13, 14, 15, 16 and 17, by"),
        ("every 90 minutes", "every 1 hour 30 minutes, counted from 1969-12-31T23:00:00Z; changes of the clock do not"),
        ("2026-01-31T12:00Z", "once, at 2026-01-31 13:00:00+0100 (Europe/Vienna)."),
        ("now", "once, as soon as it is known."),
    ],
)  # fmt: skip
def test_explanations(source: str, said: str) -> None:
    assert parse(source, timezone="Europe/Vienna").explain().startswith(f"Runs {said}")


def test_explanations_say_which_rules_are_in_force() -> None:
    said = parse("@daily", timezone=ZoneInfo("Asia/Gaza"), gap="skip", fold="second", start=NOON).explain()
    assert "a time that it skips is left out; one that it shows twice runs the second time only" in said
    assert said.endswith(", from 2026-01-31 12:00:00Z on.")
    assert "which is never changed" in parse("@daily").explain()


def test_examples_in_messages_and_documents_are_understood() -> None:
    for example in EXAMPLES.replace(" or ", ", ").split("', "):
        parse(example.strip("'"))
    sections = DOCS.read_text(encoding="utf-8").partition("## When the clock is changed")[0]
    rows = [line.split("|")[1].strip() for line in sections.splitlines() if line[:3] == "| `"]
    assert len(rows) > 20
    for row in rows:
        for text in row.removeprefix("`").removesuffix("`").split("` or `"):
            parse(text)


# -- the command line -------------------------------------------------------------------------------------------------


def onceward(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(), ["schedule", *args], prog_name="onceward")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_preview_on_the_command_line() -> None:
    asked = ["preview", "30 2 * * *", "--timezone", "Europe/Vienna", "-n", "2", "--after", "2026-03-28T12:00Z"]
    code, out, _ = onceward(*asked)
    assert code == 0
    assert "Sun 2026-03-29 03:00:00 +0200" in out
    assert "2026-03-30 00:30:00Z" in out
    code, out, _ = onceward(*asked, "--gap", "skip", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"occurrence": "2026-03-30T00:30:00.000Z", "local": "2026-03-30T02:30:00+02:00"},
        {"occurrence": "2026-03-31T00:30:00.000Z", "local": "2026-03-31T02:30:00+02:00"},
    ]


def test_explain_on_the_command_line() -> None:
    code, out, _ = onceward("explain", "at 9:30 on weekdays", "-z", "Europe/Vienna")
    assert code == 0
    assert "30 9 * * 1-5" in out
    code, out, _ = onceward("explain", "@daily", "--fold", "both", "--start", "2126-01-01T12:00Z", "--json")
    document = json.loads(out)
    assert document.pop("explanation").startswith("Runs at 00:00 every day")
    assert document.pop("next") == "2126-01-02T00:00:00.000Z"
    assert from_dict(document) == parse("@daily", fold="both", start=datetime(2126, 1, 1, 12, tzinfo=UTC))


def test_exit_codes() -> None:
    code, out, err = onceward("preview", "2020-01-01T00:00Z")
    assert (code, out) == (1, "")
    assert "no occurrence" in err
    code, _, err = onceward("explain", "0 61 * * *")
    assert code == 2
    assert "hour field: '61'" in err
    assert err.splitlines()[-1].strip() == "^^"
    assert onceward("preview", "@daily", "-z", "Nowhere")[0] == 2
