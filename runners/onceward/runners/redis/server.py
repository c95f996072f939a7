"""What a server says of itself, and what that means for our promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from onceward.contracts.errors import StoreMisconfigured
from onceward.contracts.traits import Failover, LeaseClock, Traits
from onceward.runners.redis.options import Options
from onceward.runners.redis.rows import MAX_PAYLOAD_BYTES
from onceward.runners.redis.wire import Reply

_OLDEST = 7


def information(text: str) -> Mapping[str, str]:
    """The lines of INFO, by name."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def examined(ask: Callable[..., Reply], options: Options) -> Traits:
    """What the server promises as it is configured.

    Raises:
        StoreMisconfigured: it is too old, a replica, part of a cluster that the options do not know of, or it would
            throw away runs when its memory is short.
    """
    said = information(str(ask("INFO")))
    where = options.url
    version = said.get("valkey_version") or said.get("redis_version", "0")
    if int(version.partition(".")[0]) < _OLDEST:
        raise StoreMisconfigured(f"{where} is Redis {version}; Onceward needs Redis 7 or newer, or Valkey")
    if said.get("arch_bits") == "32":
        raise StoreMisconfigured(
            f"{where} is a 32-bit program, whose scripts cannot count milliseconds; take a 64-bit one"
        )
    if said.get("role") == "slave":
        raise StoreMisconfigured(
            f"{where} is a read-only replica of {said.get('master_host')}:{said.get('master_port')}; "
            "give the primary, or redis+sentinel:// to follow it"
        )
    if said.get("cluster_enabled") == "1" and options.mode != "cluster":
        raise StoreMisconfigured(f"{where} is a node of a cluster; write redis+cluster:// in the URL")
    policy = said.get("maxmemory_policy", "")
    if policy.startswith("allkeys") and said.get("maxmemory") != "0":
        raise StoreMisconfigured(
            f"{where} throws away any key when its memory is short (maxmemory-policy {policy}), and with it the "
            "knowledge of what has run; set maxmemory-policy noeviction"
        )
    return _traits(said, options, fsync=_setting(ask, "appendfsync"))


def _traits(said: Mapping[str, str], options: Options, *, fsync: str | None) -> Traits:
    replicated = said.get("connected_slaves", "0") != "0" or options.mode != "single"
    return Traits(
        durable=said.get("aof_enabled") == "1" and fsync == "always",
        shared=True,
        native_wait=True,
        lease_clock=LeaseClock.WALL,
        failover=Failover.LOSSY if replicated else Failover.NONE,
        expiry_slack=timedelta(milliseconds=1),
        max_payload_bytes=MAX_PAYLOAD_BYTES,
    )


def _setting(ask: Callable[..., Reply], name: str) -> str | None:
    """A setting of the server; None where it does not tell, as managed ones do."""
    try:
        reply = ask("CONFIG", "GET", name)
    except StoreMisconfigured:
        return None
    return str(reply[1]) if isinstance(reply, list) and len(reply) == 2 else None
