"""The runner ``zookeeper``: many processes and machines share one ZooKeeper ensemble, or a single server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceward.contracts.runner import Runner, RunnerType
from onceward.runners.zookeeper.options import Options, from_url

if TYPE_CHECKING:
    from onceward.runners.zookeeper.store import ZooKeeperStore as ZooKeeperStore

__all__ = ["TYPE", "Options", "ZooKeeperStore"]


def _build(options: Options, namespace: str) -> Runner:
    from onceward.runners.zookeeper.store import ZooKeeperStore

    return Runner.of(ZooKeeperStore(options, namespace), namespace=namespace, url=options.url)


def __getattr__(name: str) -> object:
    """``ZooKeeperStore`` imports the driver, so it is imported when it is asked for."""
    if name == "ZooKeeperStore":
        from onceward.runners.zookeeper.store import ZooKeeperStore

        return ZooKeeperStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


TYPE = RunnerType(name="zookeeper", options=Options, build=_build, from_url=from_url, extra="zookeeper")
