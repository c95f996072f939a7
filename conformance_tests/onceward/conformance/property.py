"""Properties as data: what is promised, of whom it is asked, and the experiment that tries to break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from onceward.conformance.trial import Trial
from onceward.contracts import Failover, Traits

Experiment: TypeAlias = Callable[[Trial], None]
"""One round of a property: raises ``Violated``, or returns. The same seed makes the same cases."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """One line of the report.

    Attributes:
        id: stable name, ``<area>.<what>``.
        statement: the promise in one sentence.
        guarantees: ids (see ``STATEMENTS``) that every run must evaluate at least once, or it counts as not executed.
        needs: names of traits that a store must have for the promise to be asked of it.
        network: only stores whose server can be reached through a proxy are asked.
        failover: only stores with one of these kinds of failover are asked, of servers that may be killed.
        experiment: one round.
        weight: its share of the time, compared with others.
    """

    id: str
    statement: str
    guarantees: tuple[str, ...]
    experiment: Experiment
    needs: tuple[str, ...] = ()
    network: bool = False
    failover: tuple[Failover, ...] = ()
    weight: float = 1.0

    def missing(self, traits: Traits, *, networked: bool = False, clustered: bool = False) -> str | None:
        """Why the property is not asked of such a store; None: it is."""
        if self.network and not networked:
            return "needs a server that a proxy can stand before, and faults in messages allowed"
        if self.failover and not clustered:
            return "needs servers that are the harness's own (cluster://...), and faults in servers wanted"
        if self.failover and traits.failover not in self.failover:
            return f"asked of stores whose failover is {' or '.join(self.failover)}; here it is {traits.failover}"
        lacking = [name for name in self.needs if not getattr(traits, name)]
        return f"needs the trait {' and '.join(lacking)}" if lacking else None


STATEMENTS = {
    "A1": "A healthy store answers every valid request.",
    "A2": "While most of its servers run, a store soon answers again, all clients, whichever server was lost.",
    "C2": "Every answer and every listing agrees with what happened before.",
    "C3": "Nothing is recorded that nobody asked for.",
    "G1": "For each attempt of a run at most one check-in or claim is admitted.",
    "G2": "Tokens of a resource strictly increase, across holders, forced unlocks, purges and re-creation.",
    "G3": "Two leases on one resource never overlap.",
    "G4": "A stale token changes nothing, and its holder is told so.",
    "G5": "A refused request changes nothing and leaves nothing behind.",
    "G6": "An acknowledged check-out is final, and durable where the store is.",
    "G7": "Repeating a request has no second effect and gives the first answer.",
    "G8": "What a dead holder had becomes available after the lease, and not before.",
    "G10": "Each occurrence of a schedule makes one run, for any number of servers, restarts and edits.",
    "G11": "Concurrent edits of a configuration are never lost; versions never come back.",
    "G12": "Limits on running jobs hold in every interleaving.",
    "G13": "Claims go by priority, then run_at, then submission.",
    "G14": "Purging never deletes what is live.",
    "G15": "A watch misses no change.",
    "G16": "Bad input is refused as InvalidRequest with nothing changed, and no driver's error comes out.",
    "G17": "What is shut down leaves no lease behind, or reports it.",
    "J4": "No run starts before its time.",
    "J6": "After all is quiet, nothing submitted was lost.",
    "J7": "A run is executed as often as its retry policy says, and no oftener.",
    "L4": "A counter guarded by a lock and its token loses no update.",
    "L6": "A refusal is justified by somebody else's hold.",
    "L7": "A holder is told that it lost only what it can have lost.",
    "O1": "Done, not done and unknown are told apart: unavailable is never done, unknown is only what was sent.",
    "P1": "Payloads, results and configurations come back as they went in.",
    "R1": "Refused requests leave nothing that grows.",
    "T1": "The store has the traits that it declares.",
}
