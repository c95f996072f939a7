"""Calls of one script for one item each become one call for many.

The server then looks at its clock, counts, and writes to its lists once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import hiredis

from onceward.runners.redis.errors import refusal
from onceward.runners.redis.wire import Reply, packed

#: A call with more bytes goes by itself, so that a joint call is never large.
_LARGE = 65536
_NO_ITEMS = 4  # EVALSHA, digest, number of keys, the key


class Request(NamedTuple):
    """Commands as bytes, mostly one.

    Attributes:
        reads: they change nothing, whatever becomes of them.
        head: so many bytes of its call come before its item, where calls that differ in their items only may become
            one call; it is answered with a list of one answer for each. 0: it goes by itself.
    """

    data: bytes
    reads: bool
    commands: int = 1
    head: int = 0


@lru_cache
def head_of(sha: str, arguments: int, key: str) -> int:
    """How many bytes of a script's call with so many arguments come before those behind the key."""
    before = packed(("EVALSHA", sha, 1, key))
    return len(before) + len(str(_NO_ITEMS - 1 + arguments)) - len(str(_NO_ITEMS))


class Joined:
    """Requests as they are sent, and which of those that were asked each of them stands for."""

    def __init__(self, asked: Sequence[Request], groups: Sequence[Sequence[int]]) -> None:
        self._groups = groups
        self.requests = [_one([asked[i] for i in group]) for group in groups]

    def parted(self, replies: Sequence[Reply | BaseException], where: str) -> list[Reply | BaseException]:
        """The answer to each request that was asked, in order."""
        answers: dict[int, Reply | BaseException] = {}
        for group, reply in zip(self._groups, replies, strict=True):
            answers.update(zip(group, _parts(reply, len(group), where), strict=True))
        return [answers[i] for i in range(len(answers))]


def join(requests: Sequence[Request]) -> Joined | None:
    """What is to be sent instead; None: nothing can be joined."""
    groups: dict[bytes | int, list[int]] = {}
    for i, request in enumerate(requests):
        joint = request.head and len(request.data) < _LARGE
        groups.setdefault(request.data[: request.head] if joint else i, []).append(i)
    return Joined(requests, list(groups.values())) if len(groups) < len(requests) else None


def _one(requests: Sequence[Request]) -> Request:
    """One call with the items of all."""
    first = requests[0]
    if len(requests) == 1:
        return first
    count, _, head = first.data[: first.head].partition(b"\r\n")
    total = _NO_ITEMS + (int(count[1:]) - _NO_ITEMS) * len(requests)
    items = [request.data[request.head :] for request in requests]
    return Request(b"".join([b"*%d\r\n" % total, head, *items]), first.reads)


def _parts(reply: Reply | BaseException, count: int, where: str) -> Iterator[Reply | BaseException]:
    if count == 1:
        yield reply
    elif isinstance(reply, list):
        for part in reply:
            yield refusal(part, where) if isinstance(part, hiredis.ReplyError) else [part]
    else:
        assert isinstance(reply, Exception)  # a script answers with a list, unless it was refused
        yield from (type(reply)(*reply.args) for _ in range(count))
