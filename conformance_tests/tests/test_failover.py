"""The suite's third tier: it finds what a failover loses, and real clusters lose nothing that they promise to keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from failover_support import PretendedCluster, PretendedHarness, ended_runs, locks, nothing
from servers_support import available
from typer.testing import CliRunner
from waiting import answered

from onceward.conformance import Verdict, run_suite
from onceward.conformance.disturb import Faults
from onceward.conformance.faults.servers import Deed, ServerNemesis
from onceward.conformance.harness import MemoryHarness, load_target, resolve
from onceward.conformance.profiles import fitting
from onceward.conformance.properties.failover import FOLLOWING, LEADERS, lossy, soak
from onceward.conformance.property import Experiment
from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.clusters import CLUSTERS, ClusterHarness
from onceward.conformance.servers.etcd_cluster import EtcdCluster, EtcdMember
from onceward.conformance.servers.mongodb_clusters import MongoAlone, MongoCluster
from onceward.conformance.servers.redis_clusters import RedisAlone, RedisNodes, RedisSentinels
from onceward.conformance.servers.zookeeper_cluster import ZooKeeperCluster
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun, Tally, Violated
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Failover,
    LockId,
    LockRequest,
    OutcomeUnknown,
    RunId,
    StoreMisconfigured,
)
from onceward.toolkit.cli.app import build

HOUR = timedelta(hours=1)
KILL, PAUSE = (Deed.KILL_LEADER,), (Deed.PAUSE_LEADER,)


def again_and_again(trial: Trial, experiment: Experiment) -> None:
    """It may be that nobody held a lock, or had checked out, at that moment."""
    for trial.seed in range(20):
        experiment(trial)


def trial_of(harness: ClusterHarness | PretendedHarness) -> Trial:
    with harness.timed_runner() as runner:
        return Trial(harness, runner.traits, Tally(), seed=1, messages=Faults.SERVER)


class TestTheTier:
    def test_a_safe_failover_passes_and_the_certificate_lists_what_was_done(self) -> None:
        with closing(PretendedHarness(nothing)) as harness:
            found = run_suite(harness, profiles=["failover"], budget=timedelta(0), seed=3, faults=Faults.SERVER)
        assert found.profiles == {"failover": True}, found
        assert {deed.value for deed in (*LEADERS, *FOLLOWING)} <= set(found.faults)

    def test_acknowledged_check_outs_that_are_lost_are_found(self) -> None:
        others: dict[str, str] = dict.fromkeys(
            ("failover.followers", "failover.lock", "failover.queue"), "not looked at here"
        )
        with closing(PretendedHarness(ended_runs)) as harness:
            found = run_suite(
                harness, profiles=["failover"], budget=timedelta(0), seed=3, faults=Faults.SERVER, excused=others
            )
        result = {each.id: each for each in found.results}["failover.checkin"]
        assert result.verdict is Verdict.VIOLATED
        assert result.violation is not None
        assert result.violation.guarantee in ("G1", "G6")
        assert result.violation.command.endswith("--faults server")

    def test_writes_that_do_not_outlive_a_restart_are_found(self) -> None:
        with closing(PretendedHarness(ended_runs, Failover.NONE)) as harness:
            trial = trial_of(harness)
            with pytest.raises(Violated, match=r"G1|G6"):
                again_and_again(trial, soak("checkin", (Deed.KILL_ALL,)))

    def test_locks_that_are_forgotten_are_found(self) -> None:
        with closing(PretendedHarness(locks)) as harness:
            trial = trial_of(harness)
            with pytest.raises(Violated, match=r"G3|L7"):
                again_and_again(trial, soak("lock", KILL))

    def test_a_lossy_store_is_not_blamed_but_what_it_lost_is_told(self) -> None:
        with closing(PretendedHarness(ended_runs, Failover.LOSSY)) as harness:
            trial = trial_of(harness)
            lossy(trial, KILL * 3)
        [note] = trial.notes
        assert "check-outs 0 were lost" not in note
        assert "this store does not promise better" in note

    @pytest.mark.parametrize(
        ("failover", "profile"),
        [(Failover.SAFE, {"failover"}), (Failover.LOSSY, {"lossy-failover"}), (Failover.NONE, set[str]())],
    )
    def test_only_who_promises_it_is_asked(self, failover: Failover, profile: set[str]) -> None:
        with closing(PretendedHarness(nothing, failover)) as harness:
            traits = trial_of(harness).traits
            asked = set(fitting(traits, clustered=True)) & {"failover", "lossy-failover"}
            assert asked == profile
            assert not set(fitting(traits)) & {"failover", "lossy-failover"}
            skipped = run_suite(harness, profiles=["failover"], budget=timedelta(0), faults=Faults.MESSAGES)
            assert {each.verdict for each in skipped.results} == {Verdict.SKIPPED}

    def test_clients_that_are_not_answered_any_more_are_a_broken_promise(self) -> None:
        cluster = Impatient()
        nemesis = ServerNemesis(cluster, lambda moment: all(member.running for member in cluster.members))
        with pytest.raises(Violated, match="A2: not every client was answered"):
            nemesis.torment(KILL)
        assert cluster.whole(), "the server was brought back"
        assert not nemesis.faults

    def test_servers_that_do_not_recover_say_nothing_about_the_store(self) -> None:
        class Broken(Impatient):
            def whole(self) -> bool:
                return False

        with pytest.raises(CouldNotRun, match="did not become one again"):
            ServerNemesis(Broken(), lambda moment: True).torment(PAUSE)


class Impatient(PretendedCluster):
    """Does not wait for what is not the case."""

    def await_(self, state: object, *, within: float = 0) -> bool:
        assert callable(state)
        return bool(state())


class TestTheCommandLine:
    def test_servers_that_are_not_ours_are_left_alone(self) -> None:
        result = CliRunner().invoke(build(), ["conform", "memory://", "--faults", "server"])
        assert result.exit_code == 2
        assert "cluster://" in result.stderr

    def test_it_says_which_clusters_there_are(self) -> None:
        result = CliRunner().invoke(build(), ["conform", "cluster://oracle"])
        assert result.exit_code == 2
        assert all(f"cluster://{name}" in result.stderr.replace("\n", "") for name in CLUSTERS)

    def test_a_server_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("onceward.conformance.servers.process.shutil.which", lambda *_, **__: None)
        with pytest.raises(StoreMisconfigured, match="cluster://etcd cannot be started: etcd is not installed"):
            load_target("cluster://etcd")

    def test_a_store_in_memory_has_no_servers(self) -> None:
        assert MemoryHarness().cluster() is None


def started(cluster: type[Cluster]) -> Cluster:
    return available(lambda: cluster().start())


@pytest.fixture(scope="class")
def harness(request: pytest.FixtureRequest) -> Iterator[ClusterHarness]:
    """What the class names, running."""
    cluster: type[Cluster] = request.cls.cluster  # pyright: ignore[reportOptionalMemberAccess]
    with closing(ClusterHarness(started(cluster), options="timeout_ms=2000")) as made:
        yield made


@pytest.mark.parametrize("cluster", [RedisAlone, MongoAlone])
def test_a_server_alone_keeps_what_it_acknowledged_when_it_is_killed(cluster: type[Cluster]) -> None:
    with closing(ClusterHarness(started(cluster))) as harness:
        trial = trial_of(harness)
        soak("checkin", (Deed.KILL_ALL,))(trial)
    assert trial.faults[Deed.KILL_ALL.value] == 1
    assert trial.tally.executions["G6"] > 0


class TestMongoDB:
    cluster = MongoCluster

    def test_nothing_acknowledged_is_lost_when_the_leader_is_killed(self, harness: ClusterHarness) -> None:
        trial = trial_of(harness)
        soak("checkin", KILL)(trial)
        assert trial.faults[Deed.KILL_LEADER.value] == 1
        assert trial.tally.executions["G6"] > 0

    def test_locks_stay_exclusive_when_a_leader_is_paused_and_comes_back(self, harness: ClusterHarness) -> None:
        trial = trial_of(harness)
        soak("lock", PAUSE)(trial)
        assert trial.faults[Deed.PAUSE_LEADER.value] == 1
        assert trial.tally.executions["G3"] > 0


class TestRedisWithSentinels:
    cluster = RedisSentinels

    def test_it_declares_that_a_failover_may_lose_writes(self, harness: ClusterHarness) -> None:
        with harness.fresh_runner() as runner:
            assert runner.traits.failover is Failover.LOSSY

    def test_clients_follow_the_primary(self, harness: ClusterHarness) -> None:
        trial = trial_of(harness)
        lossy(trial, KILL)
        assert trial.faults[Deed.KILL_LEADER.value] == 1
        assert "check-outs" in trial.notes[0]

    def test_a_write_that_replicas_do_not_have_is_not_acknowledged(self, harness: ClusterHarness) -> None:
        cluster = harness.cluster()
        with ClusterHarness(cluster, options="wait_replicas=2&timeout_ms=500").fresh_runner() as runner:
            request = LockRequest(lock=LockId("l"), holder="ann", lease=HOUR)
            replica = next(each for each in cluster.members if each is not cluster.leader())
            replica.pause()
            try:
                with pytest.raises(OutcomeUnknown, match="1 replicas have it and not 2"):
                    runner.executor.lock(request)
            finally:
                replica.resume()
            assert answered(lambda: runner.executor.lock(request).acquired)


class TestRedisCluster:
    cluster = RedisNodes

    def test_it_conforms(self, harness: ClusterHarness) -> None:
        same = ("checkin.model", "lock.model", "queue.model", "checkin.crash", "lock.crash", "store.inputs")
        same += ("checkin.history", "queue.history", "queue.order")
        excused: dict[str, str] = dict.fromkeys(same, "the scripts are those of a single server, where it is tried")
        profiles = ["checkin", "lock", "queue"]
        certificate = run_suite(harness, profiles=profiles, budget=timedelta(0), seed=1, excused=excused)
        verdicts = {result.id: result.verdict for result in certificate.results if result.id not in same}
        assert set(verdicts.values()) == {Verdict.HOLDS}, certificate
        assert {"checkin.race", "lock.race", "lock.history", "queue.race", "queue.watch"} <= set(verdicts)

    def test_clients_follow_when_another_node_takes_over(self, harness: ClusterHarness) -> None:
        cluster = harness.cluster()
        assert isinstance(cluster, RedisNodes)
        before = cluster.leader()
        with harness.fresh_runner() as runner:
            lease = runner.executor.checkin(CheckIn(run=RunId("j", "k"), holder="ann", lease=HOUR)).run.lease
            cluster.hand_over()
            assert cluster.leader() is not before
            assert lease is not None
            assert answered(lambda: runner.executor.checkout([CheckOut.succeeded(lease)])[0])
            again = runner.executor.checkin(CheckIn(run=RunId("j", "k"), holder="bob", lease=HOUR))
            assert again.outcome is CheckInOutcome.DONE


class TestEtcd:
    def test_a_cluster_outlives_its_leader(self) -> None:
        with started(EtcdCluster) as cluster:
            first = cluster.leader()
            assert isinstance(first, EtcdMember)
            assert first.asked("/v3/kv/put", {"key": "aw==", "value": "djE="})
            first.kill()
            assert cluster.await_(lambda: cluster.leader() not in (None, first))
            second = cluster.leader()
            assert isinstance(second, EtcdMember)
            [found] = second.asked("/v3/kv/range", {"key": "aw=="})["kvs"]  # type: ignore[misc]
            assert found["value"] == "djE="
            first.spawn()
            assert cluster.await_(cluster.whole)


class TestZooKeeper:
    def test_an_ensemble_outlives_its_leader(self) -> None:
        with started(ZooKeeperCluster) as cluster:
            first = cluster.leader()
            assert first is not None
            first.pause()
            assert cluster.await_(lambda: cluster.leader() not in (None, first))
            first.resume()
            assert cluster.await_(cluster.whole)
            assert cluster.leader() is not first


def test_every_cluster_that_the_command_line_names_can_be_made() -> None:
    for place in CLUSTERS.values():
        made = resolve(place)
        assert isinstance(made, type)
        assert issubclass(made, Cluster)
