"""The profiles: fixed lists of properties. A store conforms to a profile only if every one was executed and holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onceward.conformance.properties import (
    checkin,
    configs,
    crashes,
    cuts,
    durable,
    failover,
    histories,
    inputs,
    locks,
    messages,
    queue,
    races,
    scheduler,
    traits,
    watches,
    worker,
)
from onceward.conformance.property import Property
from onceward.contracts import InvalidRequest, Traits

_EVERY = (traits.TRAITS, inputs.INPUTS)

PROFILES: Mapping[str, tuple[Property, ...]] = {
    "checkin": (
        checkin.MODEL,
        races.CHECKINS,
        histories.CHECKIN,
        crashes.CHECKIN,
        inputs.PAYLOADS,
        *_EVERY,
    ),
    "lock": (
        locks.MODEL,
        races.LOCKS,
        histories.LOCK,
        crashes.LOCK,
        *_EVERY,
    ),
    "queue": (
        queue.MODEL,
        races.CLAIMS,
        histories.QUEUE,
        histories.ORDER,
        crashes.CHECKIN,
        configs.MODEL,
        races.CONFIGS,
        watches.WATCH,
        inputs.PAYLOADS,
        *_EVERY,
    ),
    "scheduler": (
        scheduler.MODEL,
        configs.MODEL,
        *_EVERY,
    ),
    "worker": (
        worker.MODEL,
        queue.MODEL,
        *_EVERY,
    ),
    "durable": (
        durable.REOPEN,
        durable.KILL,
        traits.TRAITS,
    ),
    "messages": (
        messages.LOCK,
        messages.CHECKIN,
        messages.CLAIM,
        cuts.CUTS_EVERYWHERE,
    ),
    "restart": (failover.RESTART,),
    "failover": (
        failover.FOLLOWERS,
        failover.CHECKIN,
        failover.LOCK,
        failover.QUEUE,
    ),
    "lossy-failover": (
        failover.LOSSY_FOLLOWERS,
        failover.LOSSY,
    ),
}


def fitting(of_store: Traits, *, networked: bool = False, clustered: bool = False) -> tuple[str, ...]:
    """The profiles that a store with these traits can be asked for at all.

    ``networked``: its messages can be disturbed; ``clustered``: its servers.
    """
    return tuple(
        name
        for name, members in PROFILES.items()
        if not any(member.missing(of_store, networked=networked, clustered=clustered) for member in members)
    )


def properties_of(profiles: Sequence[str]) -> tuple[Property, ...]:
    """Every property of these profiles, once.

    Raises:
        InvalidRequest: there is no such profile.
    """
    for name in profiles:
        if name not in PROFILES:
            raise InvalidRequest("profile", name, ", ".join(PROFILES))
    return tuple({member.id: member for name in profiles for member in PROFILES[name]}.values())


def profile_of(identity: str, profiles: Sequence[str]) -> str:
    """The first of these profiles that has the property."""
    return next(name for name in profiles if any(member.id == identity for member in PROFILES[name]))
