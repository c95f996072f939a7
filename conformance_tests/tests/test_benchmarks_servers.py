"""The benchmark on servers: raw drivers do what they are compared for, peers too, and nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from etcd_support import opened as opened_etcd
from etcd_support import own_server as etcd_server
from redis_support import own_server
from servers_support import available

from onceward.benchmarks.bench import Bench, Plan
from onceward.benchmarks.contestants import PRIVATE, Contestant, contestants
from onceward.benchmarks.measures import MEASURES
from onceward.benchmarks.on_mongodb import client_of
from onceward.benchmarks.on_redis import sweep
from onceward.benchmarks.peers import PEERS
from onceward.benchmarks.records import BATCHING, Broken, Comparison, Result, Row
from onceward.benchmarks.rounds import Pace
from onceward.conformance.servers.etcd import etcd_url
from onceward.conformance.servers.mongodb import mongodb_url
from onceward.conformance.servers.redis import redis_url
from onceward.contracts import StoreMisconfigured
from onceward.runners.etcd import wire
from onceward.runners.mongodb.options import options_of

URLS: dict[str, Callable[[], str]] = {"redis": redis_url, "mongodb": mongodb_url, "etcd": etcd_url}


@contextmanager
def contestant(kind: str) -> Iterator[Contestant]:
    """One on the server that the tests of this process share."""
    with contestants([available(URLS[kind])]) as (found,):
        yield found


@pytest.mark.parametrize("kind", URLS)
def test_the_raw_driver_does_the_work_that_it_is_compared_for(kind: str) -> None:
    with contestant(kind) as found:
        assert found.raw is not None
        raw = found.raw()
        assert raw.upsert(["a"]) == [1]
        assert raw.upsert(["a"]) == [2]
        assert raw.upsert(["a", "b", "c"]) == [3, 1, 1]
        assert raw.upsert(["b", "b"]) == [2, 3]
        raw.create("new")
        raw.close()


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_a_key_is_created_once(kind: str) -> None:
    with contestant(kind) as found:
        assert found.raw is not None
        raw = found.raw()
        raw.create("new")
        with pytest.raises(RuntimeError, match="new"):
            raw.create("new")
        raw.close()


def measured(found: Contestant) -> list[Row]:
    """Everything that is measured in rounds, as short as can be, with peers; nothing failed."""
    pace = Pace(rounds=1, seconds=0.001, most_steps=4)
    rows = list(Bench(Plan(contestants=[found], peers=PEERS, batching=True, pace=pace)).run())
    assert not [row for row in rows if isinstance(row, Broken)]
    results = [row for row in rows if isinstance(row, Result)]
    assert {row.measure for row in results} == {*(measure.name for measure in MEASURES), BATCHING}
    assert all(row.note for row in results if row.contestant == found.name)
    return rows


def compared(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row.contestant, row.against) for row in rows if isinstance(row, Comparison)}


def test_a_run_on_redis_compares_with_peers_and_leaves_nothing() -> None:
    with own_server() as server, redis.Redis.from_url(server.url) as client:
        with contestants([server.url]) as (found,):
            rows = measured(found)
        assert client.keys() == []
    assert compared(rows) == {
        ("redis, batches of 100", "redis, one by one"),
        ("redis", "redis-py Lock"),
        ("redis", "python-redis-lock"),
    }


def test_a_run_on_mongodb_has_a_database_of_its_own_and_leaves_nothing() -> None:
    with contestant("mongodb") as found, client_of(found.server) as client:
        rows = measured(found)
        database = options_of(found.server).database
        assert database in client.list_database_names()
        found.close()
        assert database not in client.list_database_names()
    assert compared(rows) == {("mongodb, batches of 100", "mongodb, one by one")}


def test_a_run_on_etcd_compares_with_peers_and_leaves_nothing_but_leases_of_theirs() -> None:
    with etcd_server() as server, opened_etcd(server.url) as store:
        with contestants([server.url]) as (found,):
            rows = measured(found)
        assert store._link.read(wire.read(b"onceward", b"onceware", count_only=True)).total == 0
    assert ("etcd, batches of 100", "etcd, one by one") in compared(rows)
    assert ("etcd", "etcd3gw Lock") in compared(rows)


def test_what_is_swept_is_what_was_asked_for() -> None:
    with redis.Redis.from_url(available(redis_url)) as client:
        client.mset({"swept:1": "", "swept:2": "", "kept": ""})
        sweep(client, "swept:*")
        assert client.exists("swept:1", "swept:2") == 0
        assert client.delete("kept") == 1


@pytest.mark.parametrize("word", PRIVATE)
def test_a_server_that_is_missing_is_told_with_the_way_to_get_it(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("onceward.conformance.servers.mongodb._from_wheel", lambda: None)
    with pytest.raises(StoreMisconfigured, match=f"^{word}: .* is not installed; "), contestants([word]):
        pytest.fail("was not refused")


@pytest.mark.parametrize("scheme", ["redis", "mongodb", "etcd"])
def test_a_server_that_does_not_answer_is_told_before_anything_is_measured(scheme: str) -> None:
    query = "?serverSelectionTimeoutMS=100" if scheme == "mongodb" else ""
    with (
        pytest.raises(StoreMisconfigured, match="cannot be measured"),
        contestants([f"{scheme}://127.0.0.1:1{'' if scheme == 'etcd' else '/0'}{query}"]),
    ):
        pytest.fail("was not refused")


def test_a_private_server_is_gone_afterwards() -> None:
    available(redis_url)
    with contestants(["redis"]) as (found,), redis.Redis.from_url(found.server) as client:
        process = int(client.info()["process_id"])
        assert found.note.endswith("append-only file off")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
