"""The runner ``etcd``: many processes and machines share an etcd cluster, 3.4 or newer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceward.contracts.runner import Runner, RunnerType
from onceward.runners.etcd.options import Options, from_url

if TYPE_CHECKING:
    from onceward.runners.etcd.store import EtcdStore as EtcdStore

__all__ = ["TYPE", "EtcdStore", "Options"]


def _build(options: Options, namespace: str) -> Runner:
    from onceward.runners.etcd.store import EtcdStore

    return Runner.of(EtcdStore(options, namespace), namespace=namespace, url=options.url)


def __getattr__(name: str) -> object:
    """``EtcdStore`` imports the driver, so it is imported when it is asked for."""
    if name == "EtcdStore":
        from onceward.runners.etcd.store import EtcdStore

        return EtcdStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


TYPE = RunnerType(name="etcd", options=Options, build=_build, from_url=from_url, extra="etcd")
