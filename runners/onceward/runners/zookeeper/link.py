"""The connection: one kazoo client, over which the calls of all threads are pipelined, with no retries of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import KazooException, NoNodeError, ZookeeperError  # type: ignore[import-untyped]
from kazoo.handlers.threading import KazooTimeoutError  # type: ignore[import-untyped]
from kazoo.protocol.states import KazooState  # type: ignore[import-untyped]

from onceward.contracts.errors import StoreError, StoreMisconfigured
from onceward.runners.zookeeper import access, wire
from onceward.runners.zookeeper.errors import broken, refusal, unreachable
from onceward.runners.zookeeper.handler import Handler, Result
from onceward.runners.zookeeper.options import Options
from onceward.runners.zookeeper.tickets import Stamp, Ticket, Tickets
from onceward.runners.zookeeper.wire import CONFLICTS, NODE_EXISTS, Multi, MultiRead, Node, Op, Refused, Stat

_ALL_PERMISSIONS = 31
_AUTH_FAILED = -115
#: Kazoo tries no more, since we are not let in; "CLOSED" if the server ended the session for want of a login by SASL.
_GIVEN_UP = frozenset({"AUTH_FAILED", "CLOSED"})
#: A lost connection is tried again after so many seconds, and then less and less often.
_RECONNECT = {"max_tries": -1, "delay": 0.02, "backoff": 2, "max_delay": 1.0}
#: So many nodes are read in one message.
_READ_AT_ONCE = 256
#: What a clock may drift against another one while nothing is heard of the server.
_DRIFT = 0.001
#: Later than any change.
UNKNOWN_CHANGE = 2**63
#: Codes that mean that a server has refused; all others mean that the connection or the session is gone.
_REFUSALS = frozenset({-6, -8, -101, -102, -103, -110, -111, -114, -115, -119, -124, -125, -127})

_log = logging.getLogger("onceward.runners.zookeeper")


class Seen(NamedTuple):
    """What a look has seen: everything that was acknowledged before its ``stamp``, and maybe later things."""

    stamp: Stamp
    nodes: list[Node | None]
    lists: list[list[str] | None]


class Link:
    """What the store says to the server, and what comes back, in our errors.

    Args:
        clock: the node that is written to learn the server's time.
        changed: called (in a thread of kazoo's) with the path of a node that was watched and has changed, and with
            None when any may have, since the connection was lost.
    """

    def __init__(self, options: Options, clock: str, changed: Callable[[str | None], None]) -> None:
        self.options, self.where = options, ",".join(options.hosts)
        self._clock, self._tick, self._changed = clock, wire.change(clock, b""), changed
        self._client: KazooClient | None = None
        self._pid = 0
        self.closed = True
        self._lock = threading.Lock()
        self._settled = threading.Event()
        """There is a connection, or there will be none since we are not let in."""
        self._latest = (0, 0.0)
        """The server's time as it was heard last, and when."""
        self.tickets = Tickets()
        self.acl = wire.acl_bytes([(_ALL_PERMISSIONS, *access.owner(options))])

    # -- the connection -----------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """The connection is the parent's; this process makes one of its own when it needs one."""
        self._lock = threading.Lock()
        self.tickets = Tickets()

    def open(self) -> None:
        """There is a connection, of this process."""
        self.closed = False
        self._await_connected(self._own_client())

    def close(self) -> None:
        """No connection and no thread of it is left."""
        self.closed = True
        client = self._client
        if client is not None and self._pid == os.getpid():
            self._let_go(client)
            self._settled.clear()

    def _own_client(self) -> KazooClient:
        if self.closed:
            raise unreachable(self.where, "the store is closed")
        client = self._client
        if client is not None and self._pid == os.getpid():
            return client
        with self._lock:
            if self._client is None or self._pid != os.getpid():  # a forked child must not use its parent's connection
                self._settled = threading.Event()
                self._client, self._pid = self._started(), os.getpid()
            return self._client

    def _started(self) -> KazooClient:
        options = self.options
        try:
            client = KazooClient(
                hosts=self.where,
                timeout=options.session_ms / 1000,
                connection_retry=dict(_RECONNECT),
                logger=_quiet(),
                handler=Handler(),
                **access.arguments(options),
            )
            client.add_listener(self._heard)
            client.start_async()
        except (KazooException, ValueError, OSError) as error:
            raise StoreMisconfigured(f"ZooKeeper at {self.where}: {error}") from error
        return client

    def _heard(self, state: str) -> None:
        """The connection came, or went. A session that was lost costs nothing but its watches: leases are data."""
        if state == KazooState.CONNECTED:
            self._settled.set()
            return
        self._changed(None)
        client = self._client
        if client is not None and client.client_state in _GIVEN_UP:
            self._settled.set()
        else:
            self._settled.clear()

    def _await_connected(self, client: KazooClient) -> None:
        if client.connected:
            return
        half = self.options.connect_timeout_ms / 2000
        if not self._settled.wait(half):
            _shake(client)
        if not self._settled.wait(half):
            why = access.refused_by_tls(self.options)
            if why is not None:
                raise StoreMisconfigured(f"ZooKeeper at {self.where}: {why}")
            raise unreachable(self.where, f"no connection within {self.options.connect_timeout_ms} ms")
        if client.client_state in _GIVEN_UP:
            self._let_go(client)
            raise refusal(_AUTH_FAILED, self.where)

    def _let_go(self, client: KazooClient) -> None:
        """The next call tries with a new client."""
        with self._lock:
            if self._client is client:
                self._client = None
        client.remove_listener(self._heard)
        if not client.connected:
            _shake(client)
        client.stop()
        client.close()

    # -- messages -----------------------------------------------------------------------------------------------

    def exchange(self, requests: Sequence[Multi | MultiRead], *, reads: bool) -> list[Any | StoreError]:
        """The answer to each, or our error for it; they were sent one behind the other, and done in that order.

        Raises:
            StoreUnavailable: there is no connection; nothing was sent.
        """
        client = self._own_client()
        self._await_connected(client)
        results = []
        for request in requests:
            result = Result()
            client._call(request, result)  # kazoo has no public way to send a request of one's own
            results.append(result)
        deadline = time.monotonic() + self.options.timeout_ms / 1000
        return [self._answer(result, deadline, reads=reads) for result in results]

    def _answer(self, result: Any, deadline: float, *, reads: bool) -> Any | StoreError:
        try:
            return self._result(result, deadline, reads=reads)
        except ZookeeperError as error:
            return refusal(int(getattr(error, "code", 0)), self.where)
        except StoreError as error:
            return error

    def _result(self, result: Any, deadline: float, *, reads: bool) -> Any:
        """What kazoo got, or a refusal as kazoo raises it.

        Raises:
            StoreError: the connection is gone, or time is up.
        """
        try:
            return result.get(timeout=max(0.0, deadline - time.monotonic()))
        except ZookeeperError as error:
            if getattr(error, "code", None) in _REFUSALS:
                raise
            if reads and self._client is not None and self._client.client_state in _GIVEN_UP:
                raise refusal(_AUTH_FAILED, self.where) from error
            raise broken(self.where, type(error).__name__, reads=reads) from error
        except (KazooException, RuntimeError, OSError) as error:
            raise broken(self.where, str(error) or type(error).__name__, reads=reads) from error
        except KazooTimeoutError as error:
            raise broken(self.where, "no answer in time", reads=reads) from error

    def commit(self, transactions: Sequence[Sequence[Op]]) -> list[Stamp | Refused | StoreError]:
        """Each transaction was made, or refused as a whole since others were there before, or our error for it.

        One that only makes or removes nodes writes the clock, too, so that it is told when it was made.
        """
        ticks = [not any(op.stamps for op in ops) for ops in transactions]
        requests = [Multi([*ops, self._tick] if tick else ops) for ops, tick in zip(transactions, ticks, strict=True)]
        answers = self.exchange(requests, reads=False)
        return [self._outcome(answer, tick) for answer, tick in zip(answers, ticks, strict=True)]

    def _outcome(self, answer: Any, tick: bool) -> Stamp | Refused | StoreError:
        if isinstance(answer, StoreError):
            return answer
        result = answer[0]
        if isinstance(result, Refused):
            return result if result.code in CONFLICTS else refusal(result.code, self.where)
        return self._ticked(result) if tick else self.note(result)

    def look(self, nodes: Sequence[str] = (), lists: Sequence[str] = ()) -> Seen:
        """What is there now, and what time it is there.

        The clock is written before anything is read, in one flight. So what is read is at least as new as that write,
        whichever server answers: no acknowledged change before this call is missed.
        """
        reads = [MultiRead(nodes[at : at + _READ_AT_ONCE]) for at in range(0, len(nodes), _READ_AT_ONCE)]
        reads += [MultiRead((), lists[at : at + _READ_AT_ONCE]) for at in range(0, len(lists), _READ_AT_ONCE)]
        if len(reads) == 2 and len(nodes) + len(lists) <= _READ_AT_ONCE:
            reads = [MultiRead(nodes, lists)]
        first, *answers = self.exchange([Multi([self._tick]), *reads], reads=True)
        stamp = self._ticked(_sure(first, self.where)[0])
        found = [each for answer in answers for each in _sure(answer, self.where)]
        return Seen(stamp, found[: len(nodes)], found[len(nodes) :])

    def read(self, nodes: Sequence[str] = (), lists: Sequence[str] = ()) -> Seen:
        """What is there, going on from a look: not older than what that saw."""
        reads = [MultiRead(nodes[at : at + _READ_AT_ONCE]) for at in range(0, len(nodes), _READ_AT_ONCE)]
        reads += [MultiRead((), lists[at : at + _READ_AT_ONCE]) for at in range(0, len(lists), _READ_AT_ONCE)]
        found = [each for answer in self.exchange(reads, reads=True) for each in _sure(answer, self.where)]
        return Seen(Stamp(0, 0), found[: len(nodes)], found[len(nodes) :])

    def make(self, paths: Sequence[str]) -> None:
        """These nodes exist, without data; a parent must come before its children."""
        steps = [wire.create(path, b"", self.acl) for path in paths]
        if _sound(self.exchange([Multi(steps)], reads=True)[0]) == [None]:
            return
        for answer in self.exchange([Multi([step]) for step in steps], reads=True):  # some were there already
            result = _sound(answer)[0]
            if isinstance(result, Refused) and result.code != NODE_EXISTS:
                raise refusal(result.code, self.where)

    def watch(self, nodes: Sequence[str], lists: Sequence[str]) -> int:
        """``changed`` will be told once when one of the nodes, or the names below one of the lists, changes.

        The answer is the zxid of their latest change until then; ``UNKNOWN_CHANGE`` where something is not there.
        """
        client = self._own_client()
        self._await_connected(client)
        results = [client.exists_async(path, watch=self._told) for path in (*nodes, *lists)]
        results += [client.get_children_async(path, watch=self._told, include_data=True) for path in lists]
        deadline = time.monotonic() + self.options.timeout_ms / 1000
        latest = 0
        for result in results:
            try:
                found = self._result(result, deadline, reads=True)
            except NoNodeError:  # its making will be told
                found = None
            stat: Any = found[1] if isinstance(found, tuple) and isinstance(found[0], list) else found
            latest = max(latest, UNKNOWN_CHANGE if stat is None else max(stat.mzxid, stat.pzxid))
        return latest

    @property
    def heard(self) -> int:
        """The latest zxid that the server has told of: whatever was changed by then, a look from now on sees."""
        client = self._client
        return 0 if client is None else int(client.last_zxid)

    def _told(self, event: Any) -> None:
        self._changed(event.path)

    # -- time ---------------------------------------------------------------------------------------------------

    def note(self, stat: Stat) -> Stamp:
        """The stamp of the latest change of a node; from now on the server's time is known from it."""
        self._latest = (stat.mtime, time.monotonic())
        return Stamp(stat.mzxid, stat.mtime)

    def _ticked(self, clock: Stat) -> Stamp:
        """The stamp of a transaction that has written the clock; the next one may go by that."""
        stamp = self.note(clock)
        self.tickets.offer(Ticket(stamp, clock.version))
        return stamp

    def punched(self, ticket: Ticket) -> Op:
        """What writes the clock if nobody has done so since the ticket."""
        return wire.change(self._clock, b"", ticket.version)

    def wall(self) -> int:
        """The server's time, which is certainly not later than the true one as long as nobody sets it back."""
        told, when = self._latest
        passed = time.monotonic() - when
        return told + int(passed * (1 - _DRIFT) * 1000)


def _shake(client: KazooClient) -> None:
    """Whatever kazoo waits for on its connection will not come, and it tries again.

    A server that is just starting may take a connection and never answer on it. Kazoo waits for as long as a session.
    """
    sock = client._connection._socket  # there is no public way to it
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _sound(answer: Any) -> Any:
    """The answer, if it is one; it may be a refusal.

    Raises:
        StoreError: it is none.
    """
    if isinstance(answer, StoreError):
        raise answer
    return answer


def _sure(answer: Any, where: str) -> Any:
    """The answer, if it is one, and nothing was refused.

    Raises:
        StoreError: else.
    """
    for part in _sound(answer):
        if isinstance(part, Refused):
            raise refusal(part.code, where)
    return answer


def _quiet() -> logging.Logger:
    """Kazoo tells of every lost connection; so do our errors."""
    if _log.level == logging.NOTSET:
        _log.setLevel(logging.CRITICAL)
    return _log
