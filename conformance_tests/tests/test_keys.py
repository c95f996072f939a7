"""Keys: equal keys are the same execution, so two executions never get the same key by accident."""

import re
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceward.contracts import InvalidRequest
from onceward.toolkit import keys

dashes = st.lists(st.text("ab-%2D5", min_size=1, max_size=6), min_size=1, max_size=4)


@given(dashes)
def test_the_parts_of_a_composite_can_be_told_so_different_parts_differ(some: list[str]) -> None:
    assert [part.replace("%2D", "-").replace("%25", "%") for part in keys.composite(*some).split("-")] == some


def test_composite_says_how_it_escapes() -> None:
    assert keys.composite("a-b", "c") == "a%2Db-c"
    assert keys.composite("a", "b-c") == "a-b%2Dc"
    assert keys.composite("100%", 7, date(2026, 1, 31)) == "100%25-7-2026%2D01%2D31"


@pytest.mark.parametrize("bad", [None, "", 1.0, True, b"x", [], datetime(2026, 1, 1), object()])
def test_a_value_that_would_merge_unrelated_runs_is_refused(bad: object) -> None:
    for make in (keys.natural, keys.composite):
        with pytest.raises(InvalidRequest):
            make(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="key field 'x'"):
        keys.Template("{x}").fill({"x": bad})


def test_natural_keys_are_the_values_own_text() -> None:
    some = uuid.UUID("12345678-1234-5678-1234-567812345678")
    assert [keys.natural(value) for value in ("ORD-1", 17, some)] == ["ORD-1", "17", str(some)]
    utc = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert keys.natural(utc) == keys.natural(utc.astimezone(timezone(timedelta(hours=5)))) == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize("bad", ["x" * 600, "a\nb", "\ud800", "\0", "   "])
def test_a_key_that_no_store_could_keep_is_refused(bad: str) -> None:
    with pytest.raises(InvalidRequest):
        keys.natural(bad)


def test_random_keys_differ() -> None:
    assert len({keys.random() for _ in range(1_000)}) == 1_000


def test_content_keys_are_equal_for_equal_data() -> None:
    assert keys.content("job", {"a": 1, "b": [2]}) == keys.content("job", {"b": [2], "a": 1})
    assert keys.content("job", {"a": 1}) != keys.content("other", {"a": 1})
    assert keys.content("job", {"a": 1}) != keys.content("job", {"a": 1.0})


# -- time buckets -----------------------------------------------------------------------------------------------


def test_r10_a_bucket_comes_from_the_nominal_time_in_the_declared_zone() -> None:
    nominal = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    assert keys.time_bucket(nominal, "UTC") == "2026013123"
    assert keys.time_bucket(nominal, "Europe/Vienna") == "2026020100"
    assert keys.time_bucket(nominal.astimezone(ZoneInfo("Asia/Tokyo")), "Europe/Vienna") == "2026020100"
    assert keys.time_bucket(nominal, ZoneInfo("America/New_York"), "day") == "20260131"
    assert keys.time_bucket(nominal, "UTC", "minute") == "202601312330"
    assert keys.time_bucket(nominal, "UTC", "%Y-%m-%d at %H") == "2026-01-31 at 23"


@pytest.mark.parametrize(
    ("unit", "bucket"),
    [("year", "2026"), ("month", "202601"), ("week", "2026W05"), ("second", "20260131233000")],
)
def test_every_unit_has_its_bucket(unit: str, bucket: str) -> None:
    assert keys.time_bucket(datetime(2026, 1, 31, 23, 30, tzinfo=UTC), "UTC", unit) == bucket


def test_both_hours_of_a_fold_have_a_bucket_of_their_own() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 in Vienna, and an hour later again
    assert keys.time_bucket(first, "Europe/Vienna") == "2026102502"
    assert keys.time_bucket(first + timedelta(hours=1), "Europe/Vienna") == "2026102502+0100"
    assert keys.time_bucket(first + timedelta(hours=1), "Europe/Vienna", "day") == "20261025"
    assert keys.time_bucket(first + timedelta(hours=1), "Europe/Vienna", "%H %z") == "02 +0100"


@given(
    st.sampled_from(["Europe/Vienna", "America/New_York", "Asia/Tokyo", "America/Sao_Paulo", "UTC", "Africa/Cairo"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1)),
)
def test_each_hour_of_two_days_has_its_own_bucket_in_every_zone(zone: str, start: datetime) -> None:
    hours = [start.replace(tzinfo=UTC) + timedelta(hours=hour) for hour in range(48)]
    assert len({keys.time_bucket(hour, zone) for hour in hours}) == 48


@given(st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1)), st.integers(0, 59), st.integers(0, 59))
def test_two_nodes_within_the_same_hour_make_the_same_key(start: datetime, one: int, other: int) -> None:
    hour = start.replace(minute=0, tzinfo=UTC)
    buckets = {keys.time_bucket(hour.replace(minute=minute), "Europe/Vienna") for minute in (one, other)}
    assert len(buckets) == 1


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe", "/etc/passwd", None])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="zone"):
        keys.time_bucket(datetime(2026, 1, 1, tzinfo=UTC), zone)


def test_a_naive_time_and_an_unknown_unit_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="nominal"):
        keys.time_bucket(datetime(2026, 1, 1), "UTC")
    with pytest.raises(InvalidRequest, match="unit"):
        keys.time_bucket(datetime(2026, 1, 1, tzinfo=UTC), "UTC", "fortnight")


# -- templates --------------------------------------------------------------------------------------------------


def test_templates_fill_in_both_spellings_and_look_into_mappings() -> None:
    values = {"batchId": "b-1", "item": {"id": 7, "tags": {"x": "y"}}}
    assert keys.Template("{{batchId}}-{item.id}/{{ item.tags.x }}").fill(values) == "b-1-7/y"
    assert keys.Template("no fields").fill({}) == "no fields"


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and not text.isspace()))
def test_values_are_never_templates_themselves(value: str) -> None:
    assert keys.Template("<{a}>").fill({"a": value, "b": "secret"}) == f"<{value}>"
    assert keys.Template("<{a}>").fill({"a": "{b}", "b": "secret"}) == "<{b}>"


@pytest.mark.parametrize("bad", ["{0}", "{}", "{a!r}", "{a:>10}", "{a[b]}", "{a.__class__", "a}", "{a b}", "{{a}"])
def test_formats_conversions_and_stray_braces_are_refused(bad: str) -> None:
    with pytest.raises(InvalidRequest, match="literal"):
        keys.Template(bad)


def test_a_dot_never_reaches_attributes() -> None:
    with pytest.raises(InvalidRequest, match="a mapping to look up '__class__'"):
        keys.Template("{a.__class__}").fill({"a": "text"})
    with pytest.raises(InvalidRequest, match="there is: b"):
        keys.Template("{a.__class__}").fill({"a": {"b": 1}})


def test_a_missing_field_is_named_with_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match=re.escape("key field 'order_id': 'order_id' is not accepted")) as caught:
        keys.Template("{order_id}").fill({"orderId": 1, "n": 2})
    assert "there is: n, orderId" in str(caught.value)


def test_literals_are_no_templates() -> None:
    assert not keys.is_template(keys.literal("{a}"))
    assert keys.Template(keys.literal("{a} {{b} {")).fill({}) == "{a} {{b} {"
    assert keys.is_template("{a}")
    assert not keys.is_template('{"json": 1}')


def test_a_key_maker_fills_from_the_calls_own_arguments() -> None:
    def function(order: object, attempt: int = 1, *rest: int, **more: object) -> None: ...

    make = keys.key_maker(function, "{order}-{attempt}-{color}")
    assert make("o", color="red") == "o-1-red"
    assert make("o", 2, color="red") == "o-2-red"
    with pytest.raises(InvalidRequest, match="color"):
        make("o")
    with pytest.raises(TypeError):
        make()
    assert keys.key_maker(function, lambda order, attempt: f"{order}/{attempt}")("o", 3) == "o/3"


def test_a_field_that_no_parameter_can_fill_is_refused_at_once() -> None:
    def function(order_id: str) -> None: ...

    with pytest.raises(InvalidRequest, match="order_id"):
        keys.key_maker(function, "{orderId}")


def test_a_callable_that_makes_no_key_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        keys.key_maker(lambda: None, lambda: None)()  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("name", ["job1", "process", "Task", "job_2", "run-3", "17", "test"])
def test_d53_names_that_say_nothing_are_pointed_out(name: str) -> None:
    assert "does not say" in (keys.lint_name(name) or "")


@pytest.mark.parametrize("name", ["customer-import-daily", "order-processing", "process-order", "backup 2026"])
def test_d53_names_that_say_something_are_not(name: str) -> None:
    assert keys.lint_name(name) is None
