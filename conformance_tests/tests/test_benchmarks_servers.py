"""The benchmark on servers: raw drivers do what they are compared for, peers too, and nothing is left behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from etcd_support import opened as opened_etcd
from etcd_support import own_server as etcd_server
from kazoo.exceptions import NodeExistsError  # type: ignore[import-untyped]
from redis_support import own_server
from servers_support import available

from onceward.benchmarks.apart import Apart
from onceward.benchmarks.bench import Bench, Plan
from onceward.benchmarks.contestants import PRIVATE, Contestant, contestants
from onceward.benchmarks.measures import MEASURES
from onceward.benchmarks.on_mongodb import client_of
from onceward.benchmarks.on_redis import sweep
from onceward.benchmarks.on_zookeeper import client
from onceward.benchmarks.peers import PEERS
from onceward.benchmarks.records import BATCHING, Absent, Broken, Comparison, Result, Row
from onceward.benchmarks.rounds import Pace
from onceward.conformance.servers import ServerMissing
from onceward.conformance.servers.etcd import etcd_url
from onceward.conformance.servers.mongodb import mongodb_url
from onceward.conformance.servers.redis import redis_url
from onceward.conformance.servers.zookeeper import zookeeper_url
from onceward.contracts import StoreMisconfigured
from onceward.runners.etcd import wire
from onceward.runners.mongodb.options import options_of

URLS: dict[str, Callable[[], str]] = {
    "redis": redis_url,
    "mongodb": mongodb_url,
    "etcd": etcd_url,
    "zookeeper": zookeeper_url,
}
#: What needs an environment of its own is examined by a test of its own.
HERE, APART = ([peer for peer in PEERS if (peer.apart is not None) is apart] for apart in (False, True))
SHORT = Pace(rounds=1, seconds=0.001, most_steps=4)


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


@pytest.mark.parametrize("kind", ["redis", "etcd", "zookeeper"])
def test_a_key_is_created_once(kind: str) -> None:
    with contestant(kind) as found:
        assert found.raw is not None
        raw = found.raw()
        raw.create("new")
        with pytest.raises((RuntimeError, NodeExistsError)):
            raw.create("new")
        raw.close()


def measured(found: Contestant) -> list[Row]:
    """Everything that is measured in rounds, as short as can be, with peers; nothing failed."""
    rows = list(Bench(Plan(contestants=[found], peers=HERE, batching=True, pace=SHORT)).run())
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


def test_a_run_on_zookeeper_compares_with_kazoos_lock_and_leaves_nothing() -> None:
    def below(path: str) -> set[str]:
        return set(kazoo.get_children(path) or ())

    with contestant("zookeeper") as found:
        kazoo = client(found.server)
        before = below("/")
        rows = measured(found)
        found.close()
        assert below("/") <= before | {"onceward"}
        assert [name for name in below("/onceward") if name.startswith("bench-")] == []
        kazoo.stop()
        kazoo.close()
    assert compared(rows) == {("zookeeper, batches of 100", "zookeeper, one by one"), ("zookeeper", "kazoo Lock")}


def test_a_peer_that_cannot_live_beside_us_is_measured_in_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    locks = [measure for measure in MEASURES if measure.name == "lock-unlock"]
    with contestant("etcd") as found:
        rows = list(Bench(Plan(contestants=[found], peers=APART, measures=locks, pace=SHORT)).run())
    absent = [row for row in rows if isinstance(row, Absent)]
    available(lambda: present(absent))
    assert not [row for row in rows if isinstance(row, Broken)]
    assert compared(rows) == {("etcd", "python-etcd3 Lock")}
    assert all(peer.installed for peer in APART), "kept for the next time"


def present(absent: list[Absent]) -> None:
    if absent:
        raise ServerMissing(f"{absent[0].contestant} cannot be had: {absent[0].install}")


def test_an_environment_that_cannot_be_made_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    apart = Apart(requirements=(str(tmp_path / "missing.whl"),), script=tmp_path / "missing.py")
    ghost = replace(APART[0], name="ghost", apart=apart)
    with contestant("etcd") as found:
        rows = list(Bench(Plan(contestants=[found], peers=[ghost], measures=[], pace=SHORT)).run())
    (absent,) = [row for row in rows if isinstance(row, Absent)]
    assert re.match(r"in an environment of its own: pip install .*missing\.whl'; .+", absent.install)
    assert not ghost.installed


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
