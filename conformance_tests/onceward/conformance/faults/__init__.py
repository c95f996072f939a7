"""Faults between clients and servers: a proxy that loses, delays and repeats messages, and a gate that orders them."""

from onceward.conformance.faults.framing import DIALECTS, MONGO, RESP, WHOLE, Dialect
from onceward.conformance.faults.gate import Finished, Gate, Held, gated
from onceward.conformance.faults.plan import AtIndex, AtRandom, Deliver, Fate, Message, Plan, Treatment, Way
from onceward.conformance.faults.proxy import Address, Proxy

__all__ = [
    "DIALECTS",
    "MONGO",
    "RESP",
    "WHOLE",
    "Address",
    "AtIndex",
    "AtRandom",
    "Deliver",
    "Dialect",
    "Fate",
    "Finished",
    "Gate",
    "Held",
    "Message",
    "Plan",
    "Proxy",
    "Treatment",
    "Way",
    "gated",
]
