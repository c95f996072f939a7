"""Payloads: what goes in comes out, equal data has one text, and what is no data is refused by name."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceward.contracts import InvalidRequest, Json, canonical, content_key, parse
from onceward.contracts.payload import MAX_DEPTH, MAX_INT
from onceward.runners.encoding import decode, encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = texts | st.sampled_from(["$date", "$literal", "a", "b", ""])
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), ZoneInfo("Europe/Lisbon")])
dates = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones, allow_imaginary=False)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INT - 1, MAX_INT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | dates
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


def put_through(value: Json) -> Json:
    return parse(canonical(value))


def reordered(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: reordered(item) for name, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_everything_comes_back_as_it_went_in(value: Json) -> None:
    assert put_through(value) == in_utc(value)


@given(values)
def test_the_text_is_stable_and_plain_json(value: Json) -> None:
    text = canonical(value)
    assert canonical(put_through(value)) == text
    assert canonical(reordered(value)) == text
    json.loads(text)


@given(values)
def test_types_survive_too(value: Json) -> None:
    assert repr(put_through(value)) == repr(in_utc(value))


def in_utc(value: Json) -> Json:
    """The value as it must come back: dates in UTC, names in order, no negative zero.

    A date within a repeated hour of its zone equals no date of another zone, also not the same instant (PEP 495).
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(fold=0)
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return {name: in_utc(value[name]) for name in sorted(value)}
    return [in_utc(item) for item in value] if isinstance(value, list) else value


@given(dates)
def test_one_instant_has_one_text_in_every_zone(moment: datetime) -> None:
    elsewhere = moment.astimezone(UTC).astimezone(timezone(timedelta(hours=-3)))
    assert canonical(moment) == canonical(elsewhere)
    assert put_through([moment]) == [in_utc(moment)]


@pytest.mark.parametrize(
    "value",
    [
        {"$date": "2026-01-31T12:00:00.000000Z"},
        {"$date": "not a date"},
        {"$date": 5},
        {"$literal": {"$date": "x"}},
        {"$literal": {"$literal": {"$literal": 1}}},
        {"$date": {"$literal": {"$date": "x"}}},
        {"$date": "x", "other": 1},
        [{"$literal": datetime(2026, 1, 1, tzinfo=UTC)}],
        '{"$date": "x"}',
    ],
)
def test_what_looks_like_our_marks_comes_back_as_it_was_written(value: Json) -> None:
    assert put_through(value) == value


def test_negative_zero_is_zero() -> None:
    assert canonical(-0.0) == canonical(0.0) == "0.0"
    assert content_key("j", {"x": -0.0}) == content_key("j", {"x": 0.0})


def test_a_whole_number_and_a_float_are_different_data() -> None:
    assert canonical(1) != canonical(1.0)


def test_tuples_lists_and_mappings_of_any_kind_are_the_same_data() -> None:
    assert canonical((1, (2, 3))) == canonical([1, [2, 3]])
    assert canonical(OrderedDict(b=1, a=2)) == canonical(MappingProxyType({"a": 2, "b": 1})) == '{"a":2,"b":1}'


def test_members_of_enumerations_are_their_values() -> None:
    class Old(str, enum.Enum):  # noqa: UP042 (the older way, whose str() is the name)
        RED = "red"

    class Number(enum.IntEnum):
        ONE = 1

    assert canonical({Old.RED: [Old.RED, Number.ONE]}) == '{"red":["red",1]}'


class Refused:
    """Something that is no data."""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "payload"),
        ([float("inf")], "payload[0]"),
        ({"a": {"b": [1, -float("inf")]}}, "payload.a.b[1]"),
        (datetime(2026, 1, 1), "payload"),
        ({"at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "payload.at"),
        ({"s": {1, 2}}, "payload.s"),
        (b"bytes", "payload"),
        (1j, "payload"),
        (Refused(), "payload"),
        (2**63, "payload"),
        (-(2**63) - 1, "payload"),
        ("\ud800", "payload"),
        ({"\udfff": 1}, "payload key"),
        ({"\udfff": float("nan")}, "payload key"),
        ({1: 2}, "payload key"),
        ({None: 2}, "payload key"),
        ({"two words": {1}}, "payload['two words']"),
        ({"a\nb": {1}}, "payload['a\\nb']"),
    ],
)
def test_g16_what_is_no_data_is_refused_by_its_place(value: object, place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        canonical(cast(Json, value))
    assert refused.value.field == place
    assert "\n" not in str(refused.value)
    str(refused.value).encode()


def test_the_limits_of_whole_numbers_are_accepted() -> None:
    assert put_through([MAX_INT, -MAX_INT - 1]) == [MAX_INT, -MAX_INT - 1]


def nested(levels: int) -> Json:
    value: Json = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_depth_is_bounded_also_for_data_that_contains_itself() -> None:
    assert put_through(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(InvalidRequest, match="levels of nesting"):
        canonical(nested(MAX_DEPTH + 1))
    endless: list[Json] = []
    endless.append(endless)
    with pytest.raises(InvalidRequest, match="levels of nesting"):
        canonical(endless)


def test_what_can_be_stored_has_a_content_key() -> None:
    assert content_key("j", nested(MAX_DEPTH)).startswith("v1:")


def test_content_keys_are_what_they_were_in_the_first_release() -> None:
    payload: Json = {"b": [1, 2.5, None, True], "a": datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))}
    assert canonical(["j", payload]) == '["j",{"a":{"$date":"2026-01-31T12:00:00.000000Z"},"b":[1,2.5,null,true]}]'
    assert content_key("j", payload) == "v1:5bc7ecfd89af46951347800d32dd1f0180801da493c9b2f88f74b304a12a1465"
    assert content_key("j", payload) != content_key("k", payload)


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_content_keys_are_the_same_in_every_process(seed: str) -> None:
    program = (
        "from onceward.contracts import content_key\n"
        "print(content_key('j', {name: name for name in {'a', 'b', 'c', 'd', 'é'}}))"
    )
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == content_key("j", {name: name for name in "dcbaé"})


def test_encode_counts_bytes_and_leaves_none_alone() -> None:
    assert encode(None, field="payload", most=1) is None
    assert decode(None) is None
    assert decode(encode({"é": 1}, field="payload", most=8)) == {"é": 1}
    with pytest.raises(InvalidRequest, match="8 bytes") as refused:
        encode({"é": 1}, field="payload", most=7)
    assert refused.value.field == "payload"
