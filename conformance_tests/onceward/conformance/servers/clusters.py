"""The clusters that a command line can name, and the harness that may disturb their servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from onceward.conformance.harness import UrlHarness, resolve
from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.process import ServerMissing
from onceward.contracts import Runner, StoreMisconfigured

_HOME = "onceward.conformance.servers"
#: By what stands behind ``cluster://``.
CLUSTERS: Mapping[str, str] = {
    "mongodb": f"{_HOME}.mongodb_clusters:MongoCluster",
    "mongodb-alone": f"{_HOME}.mongodb_clusters:MongoAlone",
    "redis-alone": f"{_HOME}.redis_clusters:RedisAlone",
    "redis-sentinel": f"{_HOME}.redis_clusters:RedisSentinels",
    "redis-cluster": f"{_HOME}.redis_clusters:RedisNodes",
    "etcd": f"{_HOME}.etcd_cluster:EtcdCluster",
    "zookeeper": f"{_HOME}.zookeeper_cluster:ZooKeeperCluster",
}


class ClusterHarness(UrlHarness):
    """Servers of our own, which run and may be killed.

    Args:
        options: of the store, as they stand in a URL behind its question mark.
    """

    def __init__(self, cluster: Cluster, *, name: str = "", options: str = "") -> None:
        mark = "&" if "?" in cluster.url else "?"
        super().__init__(cluster.url + (f"{mark}{options}" if options else ""))
        self.name = name or self.name
        self._cluster = cluster

    def fresh_runner(self) -> Runner:
        return self._opening(self._cluster.namespace()).open()

    def cluster(self) -> Cluster:
        return self._cluster

    def close(self) -> None:
        self._cluster.close()


def cluster_harness(url: str) -> ClusterHarness:
    """Servers that were started for ``cluster://mongodb`` and the like, options of the store behind a question mark.

    Raises:
        StoreMisconfigured: there is no such cluster, or the server is not installed; says how to get it.
    """
    parts = urlsplit(url)
    if parts.netloc not in CLUSTERS or parts.path.strip("/"):
        raise StoreMisconfigured(f"{url} is no cluster; write {', '.join(f'cluster://{each}' for each in CLUSTERS)}")
    make = cast(type[Cluster], resolve(CLUSTERS[parts.netloc]))
    try:
        cluster = make().start()
    except ServerMissing as error:
        raise StoreMisconfigured(f"{url} cannot be started: {error}") from error
    return ClusterHarness(cluster, name=url, options=parts.query)
