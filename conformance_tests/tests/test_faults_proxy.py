"""The proxy does to messages what it says, and counts it: a plain redis-py client and the server itself tell."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_support import shared_url

from onceward.conformance.faults import (
    MONGO,
    RESP,
    WHOLE,
    AtIndex,
    AtRandom,
    Dialect,
    Fate,
    Finished,
    Held,
    Plan,
    Proxy,
    Treatment,
    Way,
    gated,
)
from onceward.contracts import new_request


def address() -> tuple[str, int]:
    parts = urlsplit(shared_url())
    return parts.hostname or "127.0.0.1", parts.port or 6379


def client(proxy: Proxy | None = None, **more: object) -> redis.Redis:
    host, port = proxy.address if proxy is not None else address()
    return redis.Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), **more)  # type: ignore[arg-type]


@pytest.fixture
def key() -> Iterator[str]:
    name = f"test-{new_request()}"
    yield name
    client().delete(name)


def at(way: Way, fate: Fate, index: int = 0) -> AtIndex:
    return AtIndex(index, fate, way=way)


def test_everything_passes_unchanged_also_large_and_pipelined(key: str) -> None:
    with Proxy(address(), RESP) as proxy, client(proxy) as through:
        large = b"\r\n$5\r\nx" * 100_000
        assert through.set(key, large)
        assert through.get(key) == large
        pipeline = through.pipeline(transaction=False)
        for _ in range(50):
            pipeline.append(key, "x")
        assert pipeline.execute()[-1] == len(large) + 50
        assert not proxy.faults


@pytest.mark.parametrize("dialect", [RESP, WHOLE], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("way", "fate", "applied", "named"),
    [
        (Way.REQUEST, Fate.LOSE, 0, "request lost"),
        (Way.REPLY, Fate.LOSE, 1, "reply lost"),
        (Way.REQUEST, Fate.RESET, 0, "connection reset within a request"),
        (Way.REPLY, Fate.RESET, 1, "connection reset within a reply"),
    ],
)
def test_a_lost_message_breaks_the_connection_and_is_applied_or_not(
    key: str, dialect: Dialect, way: Way, fate: Fate, applied: int, named: str
) -> None:
    with Proxy(address(), dialect) as proxy, client(proxy) as through:
        through.ping()
        proxy.plan = at(way, fate)
        with pytest.raises(redis.ConnectionError):
            through.incr(key)
        assert int(client().get(key) or 0) == applied
        assert proxy.faults == {named: 1}
        assert through.incr(key) == applied + 1


def test_a_late_reply_arrives_after_the_delay_and_is_counted(key: str) -> None:
    with Proxy(address(), RESP) as proxy, client(proxy, socket_timeout=0.05) as impatient, client(proxy) as patient:
        impatient.ping()
        proxy.plan = AtRandom(1, mention=key.encode(), rates={}, late=1.0, delay=timedelta(seconds=0.4))
        with pytest.raises(redis.TimeoutError):
            impatient.incr(key)
        assert patient.incr(key) == 2
        assert proxy.faults["reply delivered late"] >= 1


def test_a_duplicate_is_applied_after_the_original_byte_by_byte(key: str) -> None:
    with Proxy(address(), RESP) as proxy, client(proxy) as through:
        through.ping()
        proxy.plan = at(Way.REQUEST, Fate.DUPLICATE)
        assert through.incr(key) == 1
        assert int(client().get(key) or 0) == 2
        assert proxy.faults == {"request delivered twice": 1}


def test_a_held_request_is_delivered_long_after_its_client_gave_up_in_its_database(key: str) -> None:
    proxy, gate = gated(address(), RESP, key.encode())
    with proxy, client(proxy, db=1) as through:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(gate.finished, lambda: through.incr(key))
            held = gate.next()
            assert isinstance(held, Held)
            held.decide(Treatment(Fate.LOSE))
            ended = gate.next()
        assert isinstance(ended, Finished)
        assert isinstance(ended.error, redis.ConnectionError)
        with client(db=1) as direct:
            assert direct.get(key) is None
            assert proxy.redeliver(held.message) == b":1\r\n"
            assert direct.get(key) == b"1"
            direct.delete(key)


def test_the_gate_holds_requests_and_replies_of_its_name_only(key: str) -> None:
    proxy, gate = gated(address(), RESP, key.encode())
    with proxy, client(proxy) as through, client() as direct, ThreadPoolExecutor(1) as pool:
        assert through.ping()
        pool.submit(gate.finished, lambda: through.incr(key))
        request = gate.next()
        assert isinstance(request, Held)
        assert request.way is Way.REQUEST
        assert direct.get(key) is None
        request.decide(Treatment())
        reply = gate.next()
        assert isinstance(reply, Held)
        assert reply.way is Way.REPLY
        assert direct.get(key) == b"1"
        reply.decide(Treatment())
        assert gate.next() == Finished(1)


def test_a_blackhole_holds_everything_until_it_heals(key: str) -> None:
    with Proxy(address(), RESP) as proxy, client(proxy) as through, ThreadPoolExecutor(1) as pool:
        through.ping()
        proxy.blackhole()
        answer = pool.submit(through.incr, key)
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        assert client().get(key) is None
        proxy.heal()
        assert answer.result(5) == 1
        assert proxy.faults["message held in a blackhole"] == 1


def test_refused_and_cut_connections_fail_until_they_are_taken_again() -> None:
    with Proxy(address(), RESP) as proxy, client(proxy) as through:
        through.ping()
        assert proxy.cut() == 1
        proxy.refuse()
        with pytest.raises(redis.ConnectionError):
            through.ping()
        proxy.refuse(False)
        assert through.ping()
        assert proxy.faults["connection refused"] >= 1


def test_nothing_is_left_after_close() -> None:
    before = threading.active_count()
    proxy = Proxy(address(), RESP).start()
    with client(proxy) as through:
        through.ping()
        proxy.close()
        with pytest.raises(redis.ConnectionError):
            through.ping()
    proxy.close()
    assert threading.active_count() == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(proxy.address, timeout=1)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_resp_messages_are_found_however_their_bytes_arrive(step: int) -> None:
    values = [
        b"+OK\r\n",
        b":1\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$7\r\na\r\nb\r\n!\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$0\r\n\r\n",
        b"%1\r\n+a\r\n~1\r\n_\r\n",
        b"|1\r\n+ttl\r\n:3\r\n*0\r\n",
        b"PING\r\n",
    ]
    stream = b"".join(values)
    framer = RESP.replies()
    frames = [frame for at in range(0, len(stream), step) for frame in framer.feed(stream[at : at + step])]
    assert [frame.data for frame in frames] == values
    assert [frame.number for frame in frames] == list(range(1, len(values) + 1))


def test_what_a_redis_server_pushes_answers_nothing() -> None:
    frames = RESP.replies().feed(b">2\r\n+message\r\n+x\r\n+OK\r\n")
    assert [frame.number for frame in frames] == [None, 1]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_mongo_messages_are_found_by_length_and_matched_by_id(step: int) -> None:
    def message(request: int, answers: int, flags: int, body: bytes) -> bytes:
        return struct.pack("<iiiiI", 20 + len(body), request, answers, 2013, flags) + body

    stream = message(7, 3, 0, b"abc") + message(8, 4, 2, b"")
    for framer, numbers in ((MONGO.requests(), [7, 8]), (MONGO.replies(), [3, 4])):
        frames = [frame for at in range(0, len(stream), step) for frame in framer.feed(stream[at : at + step])]
        assert b"".join(frame.data for frame in frames) == stream
        assert [frame.number for frame in frames] == numbers
        assert [frame.answered for frame in frames] == [True, False]


def test_a_seed_decides_which_messages_are_lost(key: str) -> None:
    def lost(seed: int) -> list[int]:
        plan: Plan = AtRandom(seed, rates={(Way.REPLY, Fate.LOSE): 0.2}, late=0, delay=timedelta(0))
        found = []
        with Proxy(address(), RESP) as proxy, client(proxy) as through:
            through.ping()
            proxy.plan = plan
            for number in range(40):
                try:
                    through.incr(key)
                except redis.ConnectionError:
                    found.append(number)
        return found

    assert lost(1) == lost(1) != []
    assert lost(1) != lost(2)
