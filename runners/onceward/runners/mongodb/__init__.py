"""The runner ``mongodb``: many processes and machines share one MongoDB replica set or server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceward.contracts.runner import Runner, RunnerType
from onceward.runners.mongodb.options import Options, from_url

if TYPE_CHECKING:
    from onceward.runners.mongodb.store import MongoStore as MongoStore

__all__ = ["TYPE", "MongoStore", "Options"]


def _build(options: Options, namespace: str) -> Runner:
    from onceward.runners.mongodb.store import MongoStore

    return Runner.of(MongoStore(options, namespace), namespace=namespace, url=options.url)


def __getattr__(name: str) -> object:
    """``MongoStore`` imports the driver, so it is imported when it is asked for."""
    if name == "MongoStore":
        from onceward.runners.mongodb.store import MongoStore

        return MongoStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


TYPE = RunnerType(name="mongodb", options=Options, build=_build, from_url=from_url, extra="mongodb")
