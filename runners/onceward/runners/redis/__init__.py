"""The runner ``redis``: many processes and machines share one Redis or Valkey server (primary of a group, cluster)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceward.contracts.runner import Runner, RunnerType
from onceward.runners.redis.options import Options, from_url

if TYPE_CHECKING:
    from onceward.runners.redis.store import RedisStore as RedisStore

__all__ = ["TYPE", "Options", "RedisStore"]


def _build(options: Options, namespace: str) -> Runner:
    from onceward.runners.redis.store import RedisStore

    return Runner.of(RedisStore(options, namespace), namespace=namespace, url=options.url)


def __getattr__(name: str) -> object:
    """``RedisStore`` imports the driver, so it is imported when it is asked for."""
    if name == "RedisStore":
        from onceward.runners.redis.store import RedisStore

        return RedisStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


TYPE = RunnerType(name="redis", options=Options, build=_build, from_url=from_url, extra="redis")
