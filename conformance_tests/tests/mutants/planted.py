"""How a mutant is declared: what is wrong with it, and which properties of the suite have to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onceward.conformance.harness import Harness, MemoryHarness, new_namespace
from onceward.contracts import Runner
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore

S = TypeVar("S", bound=MemoryStore)


@dataclass(frozen=True)
class Mutant:
    """A broken runner, and where the suite has to see that it is.

    Attributes:
        bug: whose bug it is and what happens.
        harness: makes a harness for one examination.
        profile: the profile whose certificate must be refused.
        caught_by: properties of the profile, any of which may notice; no others are run.
    """

    name: str
    bug: str
    harness: Callable[[], Harness]
    profile: str
    caught_by: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


MUTANTS: list[Mutant] = []


def declare(mutant: Mutant) -> None:
    """The mutant is one of those that the suite must catch."""
    assert mutant.bug, f"{mutant.name}: whose bug is it?"
    assert all(known.name != mutant.name for known in MUTANTS), mutant.name
    MUTANTS.append(mutant)


class StoreHarness(MemoryHarness):
    """Examines a kind of store in memory, on a clock that is moved by hand where the suite allows."""

    def __init__(self, store: type[MemoryStore]) -> None:
        super().__init__()
        self.store = store
        self.name = f"mutant:{store.__name__}"

    def runner(self, clock: ManualClock | None) -> Runner:
        namespace = new_namespace()
        store = self.store(namespace=namespace, clock=clock)
        return Runner.of(store, namespace=namespace, url=self.name).open()


def planted(profile: str, *caught_by: str, harness: type[StoreHarness] = StoreHarness) -> Callable[[type[S]], type[S]]:
    """The decorated store in memory has a bug, to be seen by one of these properties of the profile."""

    def register(store: type[S]) -> type[S]:
        declare(
            Mutant(
                name=store.__name__,
                bug=(store.__doc__ or "").strip(),
                harness=lambda: harness(store),
                profile=profile,
                caught_by=caught_by,
            )
        )
        return store

    return register
