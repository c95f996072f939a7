"""One connection to one server: bytes out, replies in. Nothing is sent twice and nothing is retried here."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import hiredis

from onceward.contracts.errors import StoreMisconfigured
from onceward.runners.redis.errors import refusal, unreachable
from onceward.runners.redis.options import Options

#: A reply as the server gives it: the one place where its untyped values come in.
Reply: TypeAlias = "int | str | list[Reply] | hiredis.ReplyError | None"
Address: TypeAlias = "tuple[str, int] | str"

_CHUNK = 65536
#: A connection that was used so few seconds ago is not looked at before it is used again.
_BUSY = 0.001
_WORKS_WITHOUT_SETTIMEOUT = sys.platform != "win32"
_CAN_LOOK = hasattr(socket, "MSG_DONTWAIT") and hasattr(os, "sched_yield")
#: A lone caller looks for its answer for so many seconds before it sleeps: about what sleeping and waking up take.
_NEAR = 0.0001
#: While answers are later than that, one in so many is looked for, to find out if they still are.
_RARELY = 256


#: The bytes of one command.
packed: Callable[[tuple[str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Wire:
    """A connected socket and what has been read from it.

    Args:
        timeout: seconds that one answer may take.
    """

    def __init__(self, sock: socket.socket, where: str, timeout: float) -> None:
        self.where = where
        self._sock = sock
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace")
        self._buffer = bytearray(_CHUNK)
        self._idle_since = 0.0
        self._looks = _CAN_LOOK and not isinstance(sock, ssl.SSLSocket)
        self._to_sleep, self._sleeps = 0, 1
        """So many of the next answers are slept for at once; so many are if the next look is in vain."""
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(sock, select.POLLIN)
        self.limit(timeout)

    def limit(self, timeout: float) -> None:
        """From now on an answer may take so many seconds."""
        self._timeout = timeout
        _limit(self._sock, timeout)

    def exchange(self, data: bytes, count: int, replies: list[Reply]) -> None:
        """``data`` is sent, and ``count`` replies to it are in ``replies``; see ``receive``."""
        self.send(data)
        self.receive(count, replies)

    def send(self, data: bytes) -> None:
        """``data`` is on its way."""
        self._sock.sendall(data)

    def receive(self, count: int, replies: list[Reply]) -> None:
        """The next ``count`` replies are in ``replies``; those that came are, also when it fails.

        An error that the server replies is a reply like others. An OSError says nothing about what became of the
        requests whose replies are missing.
        """
        deadline = time.monotonic() + self._timeout
        gets, wanted = self._reader.gets, len(replies) + count
        while True:
            self._feed()
            while (reply := gets()) is not False:
                replies.append(reply)
                if len(replies) == wanted:
                    self._idle_since = time.monotonic()
                    return
            if time.monotonic() > deadline:
                raise TimeoutError

    def reply_to(self, data: bytes) -> Reply:
        """``data``, which is one command, is sent; its reply, which mostly comes in one piece. Else as ``receive``."""
        self._sock.sendall(data)
        self._feed(self._looked() if self._looks else 0)
        reply: Reply = self._reader.gets()
        if reply is False:
            replies: list[Reply] = []
            self.receive(1, replies)
            return replies[0]
        self._idle_since = time.monotonic()
        return reply

    def _looked(self) -> int:
        """How many bytes have come while nobody slept; 0: none yet, or the connection is closed.

        To sleep and to be woken up takes longer than a server on the same machine, or nearby, needs to answer. Whatever
        else wants to run does: the interpreter is free while the system is asked, and the processor is offered each
        time. Where answers come later all the same (the server is far away or busy, or there is too much else to do),
        looks become rare.
        """
        if self._to_sleep:
            self._to_sleep -= 1
            return 0
        until = time.monotonic() + _NEAR
        while True:
            try:
                size = self._sock.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.monotonic() < until:
                    os.sched_yield()
                    continue
                self._to_sleep = self._sleeps
                self._sleeps = min(2 * self._sleeps, _RARELY)
                return 0
            self._sleeps = max(1, self._sleeps // 2)
            return size

    def _feed(self, size: int = 0) -> None:
        """What has come is with the reader: ``size`` bytes that are in the buffer, or else what comes next."""
        size = size or self._sock.recv_into(self._buffer)
        if not size:
            raise ConnectionResetError("the server closed the connection")
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]

    def ask(self, *command: str | int) -> Reply:
        """One command and its reply."""
        replies: list[Reply] = []
        self.exchange(packed(command), 1, replies)
        return replies[0]

    def poll(self, timeout: float) -> Reply | bool:
        """The next reply within so many seconds, else False. Raises OSError when the connection is gone."""
        reply: Reply = self._reader.gets()
        if reply is False and self._readable(timeout):
            self._feed()
            reply = self._reader.gets()
        return reply

    def _readable(self, timeout: float) -> bool:
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        if self._poll is not None:
            return bool(self._poll.poll(timeout * 1000))
        return bool(select.select([self._sock], [], [], timeout)[0])

    def stale(self) -> bool:
        """True if the server has closed the connection while nothing was asked: whatever is asked now is not lost."""
        if time.monotonic() < self._idle_since + _BUSY or not self._readable(0):
            return False
        try:
            self._sock.settimeout(0)
            self._feed()
        except (BlockingIOError, ssl.SSLWantReadError):  # nothing for us, such as a TLS session ticket
            return False
        except OSError:
            return True
        finally:
            _limit(self._sock, self._timeout)
        return True

    def interrupt(self) -> None:
        """Whoever waits for a reply stops waiting."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """The socket is given back."""
        with suppress(OSError):
            self._sock.close()


def connect(address: Address, options: Options, *, sentinel: bool = False) -> Wire:
    """A connection that is authenticated and on its database.

    Raises:
        StoreUnavailable: not now; nothing was sent.
        StoreMisconfigured: the server refuses the password, the database, or the certificate does not fit.
    """
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    timeout = options.connect_timeout_ms / 1000
    try:
        wire = Wire(_socket(address, options, timeout), where, timeout)
    except ssl.SSLCertVerificationError as error:
        raise StoreMisconfigured(
            f"Redis at {where}: its certificate is not accepted: {error.verify_message}"
        ) from error
    except (OSError, UnicodeError) as error:
        raise unreachable(error, where) from error
    try:
        _greet(wire, options, sentinel=sentinel)
    except (OSError, hiredis.HiredisError) as error:
        wire.close()
        raise unreachable(error, where) from error
    except BaseException:
        wire.close()
        raise
    wire.limit(options.timeout_ms / 1000)
    return wire


def _greet(wire: Wire, options: Options, *, sentinel: bool) -> None:
    user, password = options.username, options.password
    if sentinel:
        user, password = options.sentinel_username, options.sentinel_password
    commands: list[tuple[str | int, ...]] = []
    if password or user:
        commands.append(("AUTH", user, password) if user else ("AUTH", password))
    if options.db and not sentinel:
        commands.append(("SELECT", options.db))
    if not commands:
        return
    replies: list[Reply] = []
    wire.exchange(b"".join(packed(command) for command in commands), len(commands), replies)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, hiredis.ReplyError):
            if command[0] == "SELECT" and "out of range" in str(reply):
                raise StoreMisconfigured(f"Redis at {wire.where} has no database {options.db}; take a smaller number")
            if command[0] == "AUTH" and str(reply).startswith("ERR"):
                raise StoreMisconfigured(f"Redis at {wire.where} has no password, but the options have one")
            raise refusal(reply, wire.where)


def _socket(address: Address, options: Options, timeout: float) -> socket.socket:
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = socket.create_connection(address, timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not options.tls:
        return sock
    try:
        return _tls(options).wrap_socket(sock, server_hostname=address[0])
    except BaseException:
        sock.close()
        raise


def _tls(options: Options) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.tls_ca or None)
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        raise StoreMisconfigured(f"the TLS files of the Redis runner cannot be read: {error}") from error
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _limit(sock: socket.socket, timeout: float) -> None:
    """Waits of this socket end. The system's own limit spares a look at the socket before each read and write."""
    if isinstance(sock, ssl.SSLSocket) or not _WORKS_WITHOUT_SETTIMEOUT:
        sock.settimeout(timeout)
        return
    sock.settimeout(None)
    value = struct.pack("ll", *divmod(max(1, int(timeout * 1_000_000)), 1_000_000))  # zero would mean: for ever
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
