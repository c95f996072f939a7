"""Keys: what makes one execution of a job unique. Equal keys are the same execution, so never by accident.

The four strategies are a natural id, a composite of several, a bucket of the *nominal* time, and a random one; a fifth
is the content itself. Templates such as ``"{order_id}"`` make a key of a function's arguments.
"""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from onceward.contracts import InvalidRequest, checks, content_key
from onceward.toolkit.zones import time_zone

__all__ = [
    "Literal", "Template", "composite", "content", "is_template", "key_maker", "lint_name", "literal", "natural",
    "random", "time_bucket",
]  # fmt: skip

#: Key material: values whose text is the same in every process.
Part = str | int | uuid.UUID | date

_PART_RULE = "text that is not empty, a whole number, a UUID, a date or an aware datetime"
_FIELD = r"[A-Za-z_]\w*(?:\.\w+)*"
_PLACEHOLDER = re.compile(rf"\{{\{{\s*({_FIELD})\s*\}}\}}|\{{({_FIELD})\}}")

_UNITS: Final = {
    "year": "%Y",
    "month": "%Y%m",
    "week": "%GW%V",
    "day": "%Y%m%d",
    "hour": "%Y%m%d%H",
    "minute": "%Y%m%d%H%M",
    "second": "%Y%m%d%H%M%S",
}
_FINER_THAN_A_DAY = re.compile(r"%[-_0^#]?[HIMSpPrRTXckls]")
_SAYS_OFFSET = re.compile(r"%:?[zs]")


class Literal(str):
    """A key that is meant as it stands, braces and all; see ``literal``."""

    __slots__ = ()


def literal(text: str) -> Literal:
    """The text itself is the key, also where it looks like a template."""
    return Literal(text)


def natural(value: Part) -> str:
    """The key is an id that the thing has anyway: an order number, an event's id.

    Raises:
        InvalidRequest: ``value`` is empty, None, or of a type whose text may differ between processes.
    """
    text = _text("key", value)
    checks.key("key", text)
    return text


def composite(*parts: Part) -> str:
    """The key is made of several ids, joined by ``-``; different parts always give different keys.

    A ``-`` inside a part is written ``%2D`` (and ``%`` is ``%25``), so ``composite("a-b", "c")`` is ``a%2Db-c`` and
    ``composite("a", "b-c")`` is ``a-b%2Dc``.
    """
    if not parts:
        raise InvalidRequest("parts", parts, "at least one part")
    texts = [_text(f"parts[{i}]", part) for i, part in enumerate(parts)]
    return natural("-".join(text.replace("%", "%25").replace("-", "%2D") for text in texts))


def time_bucket(nominal: datetime, zone: str | ZoneInfo, unit: str = "hour") -> str:
    """The key is the span of time that ``nominal`` lies in, by the calendar of ``zone``.

    ``nominal`` is the time for which the job was scheduled, not the time at which somebody got round to it: two nodes
    on either side of the hour then still make the same key.

    Where clocks are put back, an hour comes twice; the second one gets the UTC offset appended (``2026102502`` and
    ``2026102502+0100``), so that both have a key of their own. A day is one bucket however long it is.

    Args:
        nominal: an aware datetime.
        zone: whose calendar, for example ``"Europe/Vienna"``; always declared, never that of the machine.
        unit: year, month, week, day, hour, minute or second; or a ``strftime`` pattern such as ``"%Y%m%d%H"``.
    """
    checks.instant("nominal", nominal)
    pattern = _UNITS.get(unit, unit)
    if "%" not in pattern:
        raise InvalidRequest("unit", unit, f"one of {', '.join(_UNITS)}, or a strftime pattern such as '%Y%m%d%H'")
    local = nominal.astimezone(time_zone(zone, field="zone"))
    bucket = local.strftime(pattern)
    if local.fold and _FINER_THAN_A_DAY.search(pattern) and not _SAYS_OFFSET.search(pattern):
        bucket += local.strftime("%z")
    return natural(bucket)


def random() -> str:
    """The key is new each time: 122 random bits. For one-time tasks whose key travels with them."""
    return str(uuid.uuid4())


content = content_key


class Template:
    """A key with fields to be filled: ``"{order_id}"``, ``"{{batch.id}}-{{item}}"`` (both spellings of the brace).

    Filling is plain substitution: what you read is what you get. A dot looks into mappings, never at attributes, and
    there are no formats or conversions, so that data cannot reach into the program. Two values that hold the
    separator can run into each other (``"a-b" + "c"`` and ``"a" + "b-c"``); where that can happen, use ``composite``.
    """

    def __init__(self, text: str) -> None:
        checks.key("key", text)
        rest = _PLACEHOLDER.sub("", text)
        if not isinstance(text, Literal) and ("{" in rest or "}" in rest):
            raise InvalidRequest("key", text, "{field} or {field.inner}; wrap keys that hold braces in keys.literal()")
        self.text = text
        self.fields = () if isinstance(text, Literal) else tuple(_name(found) for found in _PLACEHOLDER.finditer(text))

    def fill(self, values: Mapping[str, object]) -> str:
        """The key for these values.

        Raises:
            InvalidRequest: a field is missing (the error names it, and what there is) or cannot be part of a key.
        """
        if not self.fields:
            return str(self.text)
        return natural(_PLACEHOLDER.sub(lambda found: _look_up(_name(found), values), self.text))


def is_template(text: str) -> bool:
    """True if the text holds a field to be filled, and is not marked as literal."""
    return not isinstance(text, Literal) and _PLACEHOLDER.search(text) is not None


def key_maker(function: Callable[..., object], key: str | Callable[..., str]) -> Callable[..., str]:
    """What makes the key of a call to ``function``, given the call's own arguments.

    A callable key gets the same arguments; a template is filled from them by name. Raises ``InvalidRequest`` now where
    a field can never be filled.
    """
    if not isinstance(key, str):
        return lambda *args, **kwargs: natural(key(*args, **kwargs))
    template, signature = Template(key), inspect.signature(function)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    rest = next((name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), None)
    for field in template.fields:
        if field.split(".")[0] not in kinds and rest is None:
            raise InvalidRequest(
                "key", f"{{{field}}}", f"fields named after the parameters: {', '.join(kinds) or 'none'}"
            )

    def make(*args: object, **kwargs: object) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        values.update(values.pop(rest) if rest is not None else {})
        return template.fill(values)

    return make


def _name(found: re.Match[str]) -> str:
    return found[1] or found[2]


def _look_up(field: str, values: Mapping[str, object]) -> str:
    value: object = values
    for step in field.split("."):
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"key field {field!r}", value, f"a mapping to look up {step!r} in")
        if step not in value:
            there = ", ".join(sorted(str(name) for name in value)) or "nothing"
            raise InvalidRequest(f"key field {field!r}", step, f"a field that is there; there is: {there}")
        value = value[step]
    return _text(f"key field {field!r}", value)


def _text(field: str, value: object) -> str:
    """The one text of a value; None, floats and booleans are mostly accidents, and would merge unrelated runs."""
    if isinstance(value, str) and value:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        checks.instant(field, value)
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise InvalidRequest(field, value, _PART_RULE)


_VAGUE = frozenset({"job", "task", "process", "run", "work", "execute", "main", "test", "do", "start", "handler"})


def lint_name(name: str) -> str | None:
    """What is wrong with a job's name for the people who read it later; None: nothing.

    ``job1`` and ``process`` say nothing; ``customer-import-daily`` does. Only advice: every valid name works.
    """
    bare = re.sub(r"[\W\d_]+$", "", name).casefold()
    if bare in _VAGUE or not bare:
        return f"job name {name!r} does not say what is done; better: 'order-processing', 'customer-import-daily'"
    return None
