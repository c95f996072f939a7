"""Names of users as parts of keys: escaped, so that no name can reach out of its place."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from onceward.contracts.checks import refuse
from onceward.contracts.records import RunId

_plain = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
_plain_run = re.compile(r"[A-Za-z0-9_.~-]*:[A-Za-z0-9_.~-]*:[A-Za-z0-9_.~-]*").fullmatch


def escaped(name: str) -> str:
    """The name without colons, braces and whatever else means something in a key."""
    if _plain(name):
        return name
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        refuse("name", name, "text without lone surrogates")


def original(text: str) -> str:
    """The name that was escaped."""
    return unquote(text) if "%" in text else text


def prefix(namespace: str) -> str:
    """What every key of the namespace begins with: all are in one slot of a cluster, by the hash tag."""
    return f"onceward:{{{escaped(namespace)}}}:"


def run_text(run: RunId) -> str:
    """A run in keys and lists."""
    plain = f"{run.job}:{run.key}:{run.stamp}"
    if _plain_run(plain):  # no further colon, so each part is plain
        return plain
    return f"{escaped(run.job)}:{escaped(run.key)}:{escaped(run.stamp)}"


def run_of(text: str) -> RunId:
    """The run that such a text names."""
    job, key, stamp = text.split(":")
    return RunId(original(job), original(key), original(stamp))
