"""The one connection that a store's threads share: requests are combined, scripts loaded, failures told apart."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import hiredis
import msgspec

from onceward.contracts.errors import InvalidRequest, OutcomeUnknown, StoreError, StoreUnavailable
from onceward.runners.combining import Combiner, Finish
from onceward.runners.redis import errors
from onceward.runners.redis.rows import listed
from onceward.runners.redis.scripts import Script, scripts
from onceward.runners.redis.wire import Reply, Wire, packed

_NOSCRIPT = "NOSCRIPT"
#: After these replies the connection is of no use; the next request looks for the right server again.
_ELSEWHERE = ("MOVED", "ASK", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH")


class Request(msgspec.Struct, frozen=True):
    """Commands as bytes, mostly one; ``reads``: they change nothing, whatever becomes of them."""

    data: bytes
    reads: bool
    commands: int = 1


class _Trip(msgspec.Struct):
    """Requests that were sent together, or not, by a ``failure``; ``waits``: replicas are waited for after them."""

    wire: Wire
    requests: Sequence[Request]
    commands: int
    waits: bool
    failure: Exception | None = None


class Link:
    """A connection that is made when it is needed and made anew after it broke. Threads share it; forks do not.

    Args:
        connect: makes a connection to the right server, or raises a StoreError.
        wait_replicas: how many replicas must have a write before it is acknowledged.
        timeout: seconds that an answer may take.
    """

    def __init__(self, connect: Callable[[], Wire], *, wait_replicas: int, timeout: float) -> None:
        self._connect = connect
        self._wait = packed(("WAIT", wait_replicas, int(timeout * 500))) if wait_replicas else b""
        self._wait_replicas = wait_replicas
        self._timeout = timeout
        self.use(scripts())
        self._wire: Wire | None = None
        self._open = False
        self._combiner: Combiner[Request, Reply] = Combiner(self._set_off, alone=self._carry)
        _links.add(self)

    def use(self, scripts: Mapping[str, Script]) -> None:
        """From now on these scripts are called, by their names."""
        self._scripts = scripts
        loads = [packed(("SCRIPT", "LOAD", script.text)) for script in scripts.values()]
        self._loading = Request(b"".join(loads), True, len(loads))

    def open(self) -> None:
        """Requests are taken. Nothing is sent yet."""
        self._open = True

    def close(self) -> None:
        """No connection is left; whoever waits for an answer has had it, or is told that the outcome is unknown."""
        self._open = False
        if not self._combiner.exclusively(self._drop, timeout=self._timeout):
            wire = self._wire
            if wire is not None:
                wire.interrupt()
            self._combiner.exclusively(self._drop, timeout=self._timeout)

    def after_fork(self) -> None:
        """In the child: the connection is left to the parent."""
        self._drop()  # closes the child's copy only: the parent's stays open
        self._combiner.reset()

    def run(self, name: str, *arguments: str | int) -> Reply:
        """What the script answers; one round trip."""
        script = self._scripts[name]
        return self._combiner.call(Request(_packed(("EVALSHA", script.sha, 1, *arguments)), script.reads))

    def run_all(self, name: str, parts: Sequence[Sequence[str | int]]) -> list[Reply]:
        """What the script answers for each of these arguments; one round trip for all."""
        if not parts:
            return []
        if len(parts) == 1:
            return [self.run(name, *parts[0])]
        script = self._scripts[name]
        calls = [_packed(("EVALSHA", script.sha, 1, *arguments)) for arguments in parts]
        return listed(self._combiner.call(Request(b"".join(calls), script.reads, len(calls))))

    def load(self) -> None:
        """The server knows the scripts, and this user may load them."""
        self._combiner.call(self._loading)

    def ask(self, *command: str | int) -> Reply:
        """What a command that only reads answers; one round trip."""
        return self._combiner.call(Request(_packed(command), True))

    # -- under way: one thread at a time ------------------------------------------------------------------------------

    def _carry(self, request: Request) -> Reply | BaseException:
        """The reply to a request that has a trip to itself, or the error to raise: a shorter way, mostly."""
        wire = self._wire
        if wire is None or not self._open or self._wait or request.commands > 1 or wire.stale():
            return self._set_off((request,))()[0]
        try:
            try:
                reply = wire.reply_to(request.data)
            except (OSError, hiredis.HiredisError) as error:
                return self._received(_Trip(wire, (request,), 1, False, error))[0]
            if _is_error(reply):
                replies: list[Reply | BaseException] = [reply]
                self._settle(wire, (request,), replies)
                return replies[0]
        except BaseException:
            self._drop()
            raise
        return reply

    def _set_off(self, requests: Sequence[Request]) -> Finish[Reply]:
        """They are sent together; what is returned waits for the reply to each, or the error to raise."""
        wire = self._wire
        if wire is None or not self._open or wire.stale():
            try:
                wire = self._connected()
            except StoreError as error:
                return partial(_copies, error, len(requests))
        try:
            return partial(self._settled, self._send(wire, requests))
        except BaseException:
            self._drop()
            raise

    def _connected(self) -> Wire:
        self._drop()
        if not self._open:
            raise StoreUnavailable("this Redis runner is not open; call open(), or use it as a context manager")
        self._wire = self._connect()
        return self._wire

    def _send(self, wire: Wire, requests: Sequence[Request]) -> _Trip:
        waits = bool(self._wait) and not all(request.reads for request in requests)
        data = b"".join([request.data for request in requests])
        trip = _Trip(wire, requests, sum([request.commands for request in requests]), waits)
        try:
            wire.send(data + self._wait if waits else data)
        except OSError as error:
            trip.failure = error
        return trip

    def _received(self, trip: _Trip) -> list[Reply | BaseException]:
        """Replies as they are, and errors for what was not answered."""
        wire, requests, waits, failure = trip.wire, trip.requests, trip.waits, trip.failure
        found: list[Reply] = []
        if failure is None:
            try:
                wire.receive(trip.commands + waits, found)
            except (OSError, hiredis.HiredisError) as error:
                failure = error
        if failure is not None:
            self._drop()
            if waits:  # nobody knows whether the replicas have it
                found.clear()
            return _grouped(found, requests, wire.where, failure)
        if trip.commands == len(requests) and not waits:
            return found  # type: ignore[return-value]
        replies = _grouped(found, requests, wire.where, None)
        if waits and not _enough(found[-1], self._wait_replicas):
            _doubt(requests, replies, wire.where, f"{found[-1]} replicas have it and not {self._wait_replicas}")
        return replies

    def _settled(self, trip: _Trip) -> list[Reply | BaseException]:
        """The replies to a trip, once refusals are seen to."""
        try:
            replies = self._received(trip)
            if any(map(_is_error, replies)):
                self._settle(trip.wire, trip.requests, replies)
        except BaseException:
            self._drop()
            raise
        return replies

    def _settle(self, wire: Wire, requests: Sequence[Request], replies: list[Reply | BaseException]) -> None:
        """Scripts that the server does not know (any more) are loaded and called again; other refusals are ours."""
        missing = [i for i, reply in enumerate(replies) if _code(reply) == _NOSCRIPT]
        if missing and self._wire is wire:
            asked = [self._loading, *(requests[i] for i in missing)]
            loaded, *again = self._received(self._send(wire, asked))
            for i, reply in zip(missing, again, strict=True):
                replies[i] = loaded if isinstance(loaded, Exception) else reply
        for i, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                if _code(reply) in _ELSEWHERE and self._wire is wire:
                    self._drop()
                replies[i] = errors.refusal(reply, wire.where)

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def _packed(command: tuple[str | int, ...]) -> bytes:
    try:
        return packed(command)
    except UnicodeEncodeError as error:  # nothing was sent
        raise InvalidRequest("text", error.object, "text without lone surrogates") from error


def _copies(error: StoreError, count: int) -> list[Reply | BaseException]:
    """The error for each of so many callers: no two threads raise the same object."""
    return [type(error)(*error.args) for _ in range(count)] if count > 1 else [error]


def _is_error(reply: object) -> bool:
    return type(reply) is hiredis.ReplyError


def _code(reply: object) -> str:
    return str(reply).partition(" ")[0] if isinstance(reply, hiredis.ReplyError) else ""


def _enough(replicas: Reply, wanted: int) -> bool:
    return isinstance(replicas, int) and replicas >= wanted


def _grouped(
    found: list[Reply], requests: Sequence[Request], where: str, failure: Exception | None
) -> list[Reply | BaseException]:
    """The answer to each request, from the replies to their commands; ``failure``: why some are missing."""
    answers: list[Reply | BaseException] = []
    at = 0
    for request in requests:
        replies = found[at : at + request.commands]
        at += request.commands
        if failure is not None and len(replies) < request.commands:
            answers.append(errors.broken(failure, where, reads=request.reads))
        else:
            answers.append(replies[0] if request.commands == 1 else _together(replies, where))
    return answers


def _together(replies: list[Reply], where: str) -> Reply | BaseException:
    """One answer to several commands. Where only some were refused, asking again settles the rest."""
    refused = [reply for reply in replies if isinstance(reply, hiredis.ReplyError)]
    if not refused:
        return replies
    if len(refused) == len(replies) or _code(refused[0]) == _NOSCRIPT:
        return refused[0]
    return OutcomeUnknown(
        f"Redis at {where} has done a part of the batch only. Send the same request again. It said: {refused[0]}"
    )


def _doubt(requests: Sequence[Request], replies: list[Reply | BaseException], where: str, why: str) -> None:
    """What was written is written, but not yet safe."""
    for i, request in enumerate(requests):
        if not request.reads and not isinstance(replies[i], BaseException):
            replies[i] = OutcomeUnknown(
                f"Redis at {where} has made the change, but {why}. Send the same request again to find out if it lasts."
            )


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
