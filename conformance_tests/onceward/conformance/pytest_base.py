"""The base class for a store's own test files: subclass it, give it a harness, and every property is a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar

import pytest

from onceward.conformance.certificate import Result, Verdict
from onceward.conformance.harness import Harness
from onceward.conformance.profiles import properties_of
from onceward.conformance.report import told
from onceward.conformance.suite import run_property


class RunnerConformance:
    """One test per property of the profiles.

    class TestMyStore(RunnerConformance):
        profiles = ("checkin", "lock")
        excused = {"lock.history": "clocks of the two data centres are not yet in step, see issue 7"}

        def harness(self) -> Harness:
            return MyHarness()

    Attributes:
        profiles: what the store is asked for; a property whose traits it lacks fails.
        budget: time for each property.
        seed: of the first round; the same seed makes the same cases.
        excused: properties that are known to fail, each with the reason, which the test report shows (as xfail).
    """

    profiles: ClassVar[Sequence[str]] = ("checkin", "lock", "queue")
    budget: ClassVar[timedelta] = timedelta(seconds=5)
    seed: ClassVar[int] = 0
    excused: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **rest: object) -> None:
        super().__init_subclass__(**rest)
        if "test_property" in vars(cls):
            raise TypeError(f"{cls.__name__} overrides test_property; name what is not to run in 'excused', and why")
        known = {member.id for member in properties_of(cls.profiles)}
        for identity, reason in cls.excused.items():
            if identity not in known or not reason.strip():
                raise TypeError(f"{cls.__name__}.excused[{identity!r}] must name a property and give a reason")

    def harness(self) -> Harness:
        """The harness of the store; called once per test and closed after it."""
        raise NotImplementedError(f"{type(self).__name__} must define harness()")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each property is a test of its own."""
        if "property_id" in metafunc.fixturenames:
            metafunc.parametrize("property_id", [member.id for member in properties_of(self.profiles)])

    @pytest.fixture
    def opened_harness(self) -> Iterator[Harness]:
        """The harness, closed after the test."""
        harness = self.harness()
        yield harness
        harness.close()

    def test_property(self, opened_harness: Harness, property_id: str) -> None:
        """The property holds for the store."""
        if property_id in self.excused:
            pytest.xfail(f"{property_id} is excused: {self.excused[property_id]}")
        demand(run_property(opened_harness, property_id, budget=self.budget, seed=self.seed))


def demand(result: Result) -> None:
    """The test passes only if the property was executed and holds."""
    if result.violation is not None:
        pytest.fail(told(result.violation).plain, pytrace=False)
    if result.verdict is not Verdict.HOLDS:
        pytest.fail(f"{result.id}: {result.verdict.value}: {result.reason}", pytrace=False)
