"""Which server has the namespace: the one that was named, the primary that sentinels know, or a node of a cluster."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence

import hiredis

from onceward.contracts.errors import StoreError, StoreMisconfigured, StoreUnavailable
from onceward.runners.redis.errors import refusal, unreachable
from onceward.runners.redis.options import Options
from onceward.runners.redis.wire import Address, Reply, Wire, connect

_SLOTS = 16384


def connect_to_namespace(options: Options, prefix: str) -> Wire:
    """A connection to the server that takes writes for the namespace now.

    Raises:
        StoreUnavailable: there is none that can be reached now; nothing was sent.
        StoreMisconfigured: there never will be.
    """
    if options.path:
        return connect(options.path, options)
    if options.mode == "sentinel":
        return _primary(options)
    if options.mode == "cluster":
        return _node(options, prefix)
    return _first(options.addresses, lambda address: connect(address, options))


def _first(addresses: Sequence[Address], attempt: Callable[[Address], Wire]) -> Wire:
    """The first that works out; otherwise the last failure, which names its address."""
    failure: StoreError | None = None
    for address in addresses:
        try:
            return attempt(address)
        except StoreUnavailable as error:
            failure = error
    assert failure is not None  # there is at least one address
    raise failure


def _primary(options: Options) -> Wire:
    def ask(sentinel: Address) -> Wire:
        found = _asked(sentinel, options, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", options.service)
        if not isinstance(found, list):
            raise StoreMisconfigured(f"the sentinel at {_shown(sentinel)} knows no primary named {options.service!r}")
        wire = connect((str(found[0]), int(str(found[1]))), options)
        role = _asked_on(wire, "ROLE")
        if isinstance(role, list) and role[0] == "master":
            return wire
        wire.close()
        raise StoreUnavailable(f"Redis at {wire.where} is not the primary any more; a failover is under way")

    return _first(options.addresses, ask)


def _node(options: Options, prefix: str) -> Wire:
    slot = slot_of(prefix)

    def ask(node: Address) -> Wire:
        ranges = _asked(node, options, "CLUSTER", "SLOTS")
        for each in ranges if isinstance(ranges, list) else ():
            if isinstance(each, list) and int(str(each[0])) <= slot <= int(str(each[1])):
                owner = each[2]
                assert isinstance(owner, list)  # host, port, id
                host = str(owner[0] or node[0])
                return connect((host, int(str(owner[1]))), options)
        raise StoreUnavailable(f"the cluster at {_shown(node)} has no node for this namespace now (slot {slot})")

    return _first(options.addresses, ask)


def _asked(address: Address, options: Options, *command: str) -> Reply:
    wire = connect(address, options, sentinel=options.mode == "sentinel")
    try:
        return _asked_on(wire, *command)
    finally:
        wire.close()


def _asked_on(wire: Wire, *command: str) -> Reply:
    try:
        reply = wire.ask(*command)
    except (OSError, hiredis.HiredisError) as error:
        wire.close()
        raise unreachable(error, wire.where) from error
    if isinstance(reply, hiredis.ReplyError):
        wire.close()
        if "cluster support disabled" in str(reply):
            raise StoreMisconfigured(f"Redis at {wire.where} is no node of a cluster; write redis:// in the URL")
        raise refusal(reply, wire.where)
    return reply


def slot_of(prefix: str) -> int:
    """The cluster's slot of all keys with this prefix, which has a hash tag in braces."""
    tag = prefix[prefix.index("{") + 1 : prefix.index("}")]
    return binascii.crc_hqx(tag.encode(), 0) % _SLOTS


def _shown(address: Address) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"
