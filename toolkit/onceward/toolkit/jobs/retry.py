"""When a failed run is tried again: how often, after how long, and how many crashes are forgiven."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeAlias

from msgspec.structs import asdict

from onceward.contracts import InvalidRequest, Json, checks
from onceward.contracts.records import Record
from onceward.contracts.times import span_ms
from onceward.toolkit.durations import parse_duration

MAX_ATTEMPTS = 1_000_000
#: A duration as a person gives it: a timedelta, whole milliseconds, or text such as ``"5m"``.
Span: TypeAlias = timedelta | int | str
_NAMES = ("enabled", "attempts", "delay", "backoff", "factor", "max_delay", "jitter", "max_crashes")


class Backoff(enum.StrEnum):
    """How the delay grows from one failure to the next."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Retry(Record, frozen=True, kw_only=True):
    """The retry policy of a job.

    Attributes:
        enabled: False: an error that does not say otherwise (``RetryableError``) ends the run.
        attempts: executions in all, the first one included: 3 means at most 2 retries. Executions that crashed with
            their process are counted apart, by ``max_crashes``; those that were given back are not counted.
        delay: before the first retry.
        backoff: fixed, linear (delay, 2 delays, 3 delays) or exponential (each time ``factor`` times longer).
        max_delay: never longer than this.
        jitter: the delay is made shorter or longer by up to this share of it, at random.
        max_crashes: so many attempts may end with their process (or lose their lease); one more ends the run as
            FAILED. None: no limit.
    """

    enabled: bool = True
    attempts: int = 3
    delay: timedelta = timedelta(seconds=60)
    backoff: Backoff = Backoff.EXPONENTIAL
    factor: float = 2.0
    max_delay: timedelta = timedelta(hours=1)
    jitter: float = 0.1
    max_crashes: int | None = 3

    def __post_init__(self) -> None:
        if not isinstance(self.enabled, bool):
            checks.refuse("retry.enabled", self.enabled, "True or False")
        checks.whole("retry.attempts", self.attempts, 1, MAX_ATTEMPTS)
        _delay("retry.delay", self.delay)
        checks.kind("retry.backoff", self.backoff, Backoff)
        _number("retry.factor", self.factor, 1.0, 1_000.0)
        _delay("retry.max_delay", self.max_delay)
        _number("retry.jitter", self.jitter, 0.0, 1.0)
        checks.budget("retry.max_crashes", self.max_crashes)

    def again(self, failures: int) -> bool:
        """True: after so many failed executions, this one included, another one is due."""
        return failures < self.attempts

    def delay_after(self, failures: int, *, draw: Callable[[], float] = random.random) -> timedelta:
        """How long to wait after the so-manieth failed execution (1: the first)."""
        seconds, longest = self.delay.total_seconds(), self.max_delay.total_seconds()
        match self.backoff:
            case Backoff.LINEAR:
                seconds *= failures
            case Backoff.EXPONENTIAL:
                seconds = _grown(seconds, self.factor, failures - 1, longest)
            case Backoff.FIXED:
                pass
        seconds = min(seconds, longest) * (1 + self.jitter * (2 * draw() - 1))
        return timedelta(seconds=min(seconds, longest))

    def to_document(self) -> dict[str, Json]:
        """The policy as data; durations are milliseconds."""
        fields: dict[str, Json] = asdict(self)
        return fields | {
            "backoff": self.backoff.value,
            "delay": span_ms(self.delay),
            "max_delay": span_ms(self.max_delay),
        }

    def overridden(self, document: object, *, field: str = "retry") -> Retry:
        """This policy with what ``document`` says instead.

        Durations are milliseconds, or text such as ``"5m"``; the backoff is a name, or ``{"type": …, "factor": …}``.

        Raises:
            InvalidRequest: an entry is unknown, or its value cannot be; names it.
        """
        if not isinstance(document, Mapping):
            raise InvalidRequest(field, document, f"a mapping with any of {', '.join(_NAMES)}")
        given = dict(document)
        backoff = given.get("backoff")
        if isinstance(backoff, Mapping):
            given |= {"backoff": backoff.get("type", self.backoff), "factor": backoff.get("factor", self.factor)}
        fields = asdict(self)
        for name, value in given.items():
            if name not in _NAMES:
                raise InvalidRequest(f"{field}.{name}", value, f"any of {', '.join(_NAMES)}")
            fields[name] = _read(f"{field}.{name}", name, value)
        return Retry(**fields)


def _read(field: str, name: str, value: object) -> object:
    if name in ("delay", "max_delay"):
        return duration(field, value)
    if name == "backoff":
        try:
            return Backoff(str(value))
        except ValueError:
            raise InvalidRequest(field, value, " or ".join(each.value for each in Backoff)) from None
    if name in ("factor", "jitter") and type(value) is int:
        return float(value)
    return value


def duration(field: str, value: object) -> timedelta:
    """A duration that a person or a document gave: a timedelta, whole milliseconds, or text such as ``"5m"``."""
    if isinstance(value, timedelta):
        return value
    if type(value) is int and 0 <= value <= checks.MAX_DELAY // timedelta(milliseconds=1):
        return timedelta(milliseconds=value)
    if isinstance(value, str):
        return parse_duration(value, field=field)
    raise InvalidRequest(field, value, "whole milliseconds, or text such as '90s' or '5m'")


def _grown(seconds: float, factor: float, times: int, longest: float) -> float:
    """``seconds * factor ** times``, without the overflow that nobody would wait for anyway."""
    try:
        return min(seconds * factor**times, longest)
    except OverflowError:
        return longest


def _delay(field: str, value: timedelta) -> None:
    if value is None:
        checks.refuse(field, value, "a timedelta")
    checks.delay(field, value)


def _number(field: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        checks.refuse(field, value, f"a number from {least:g} to {most:g}")
