"""The runner ``sqlite``, the embedded default: one file, shared by many processes of one machine."""

from __future__ import annotations

from datetime import timedelta

from onceward.contracts.runner import Runner, RunnerType
from onceward.runners.sqlite.options import Options, from_url
from onceward.runners.sqlite.store import SqliteStore

__all__ = ["TYPE", "Options", "SqliteStore"]


def _build(options: Options, namespace: str) -> Runner:
    store = SqliteStore(
        options.path,
        namespace,
        synchronous=options.synchronous,
        busy_timeout=timedelta(milliseconds=options.busy_timeout_ms),
        create=options.create,
    )
    return Runner.of(store, namespace=namespace, url=f"sqlite:///{options.path}")


TYPE = RunnerType(name="sqlite", options=Options, build=_build, from_url=from_url)
