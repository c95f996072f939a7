"""The Redis runner's connection: which answers it sleeps for. No server is needed; the other end is in our hands."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from onceward.runners.redis.wire import Wire

pytestmark = pytest.mark.skipif(not hasattr(socket, "MSG_DONTWAIT"), reason="this system cannot look without waiting")
OK = b"+OK\r\n"


class Watched(socket.socket):
    """A socket that counts its reads, and tells before it sleeps."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.looks = self.sleeps = 0
        self.before_sleep: Callable[[], object] = lambda: None

    def recv_into(self, buffer: bytearray, nbytes: int = 0, flags: int = 0) -> int:  # type: ignore[override]
        if flags:
            self.looks += 1
        else:
            self.sleeps += 1
            self.before_sleep()
        return super().recv_into(buffer, nbytes, flags)


class Ends:
    """Both ends of a connection."""

    def __init__(self) -> None:
        ours, self.server = socket.socketpair()
        self.sock = Watched(ours)
        self.wire = Wire(self.sock, "here", 5.0)

    def ask(self) -> object:
        reply = self.wire.reply_to(b"PING\r\n")
        self.server.recv(64)
        return reply

    def near(self) -> None:
        """An answer that is there as soon as somebody looks."""
        self.sock.before_sleep = lambda: None
        self.server.sendall(OK)
        assert self.ask() == "OK"

    def far(self) -> None:
        """An answer that comes when all looks were in vain."""
        self.sock.before_sleep = lambda: self.server.sendall(OK)
        assert self.ask() == "OK"


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.wire.close()
    made.server.close()


def test_an_answer_that_is_near_is_not_slept_for(ends: Ends) -> None:
    for _ in range(10):
        ends.near()
    assert (ends.sock.looks, ends.sock.sleeps) == (10, 0)


def test_answers_that_are_late_are_rarely_looked_for_until_they_are_near_again(ends: Ends) -> None:
    in_vain = 0
    for _ in range(2_000):
        before = ends.sock.looks
        ends.far()
        in_vain += ends.sock.looks > before
    assert ends.sock.sleeps == 2_000
    assert 10 <= in_vain <= 16  # each time twice as long after the last, up to one in 257

    for _ in range(300):
        ends.near()
    slept = ends.sock.sleeps
    for _ in range(10):
        ends.near()
    assert ends.sock.sleeps == slept


def test_a_connection_that_is_closed_is_seen_while_looking(ends: Ends) -> None:
    ends.server.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        ends.ask()


def test_an_answer_that_comes_in_pieces_is_whole(ends: Ends) -> None:
    ends.server.sendall(OK[:2])
    ends.sock.before_sleep = lambda: ends.server.sendall(OK[2:])
    assert ends.ask() == "OK"
    assert (ends.sock.looks, ends.sock.sleeps) == (1, 1)


def test_an_answer_that_never_comes_ends_in_time(ends: Ends) -> None:
    ends.wire.limit(0.05)
    with pytest.raises(BlockingIOError):
        ends.ask()


def test_who_looks_or_sleeps_can_be_interrupted(ends: Ends) -> None:
    asleep = threading.Event()
    ends.sock.before_sleep = asleep.set
    failures: list[BaseException] = []

    def work() -> None:
        try:
            ends.ask()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert asleep.wait(5)
    ends.wire.interrupt()
    thread.join(5)
    assert len(failures) == 1
