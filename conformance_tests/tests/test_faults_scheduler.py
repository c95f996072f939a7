"""The properties on lost, late and repeated messages: the Redis runner keeps them, and planted bugs are found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import TypeVar

import pytest
from msgspec.structs import replace
from redis_support import shared_url

from onceward.conformance import MemoryHarness, Verdict, run_suite
from onceward.conformance.disturb import Faults
from onceward.conformance.faults.proxy import Address
from onceward.conformance.harness import Harness, Server, UrlHarness
from onceward.conformance.profiles import PROFILES, fitting
from onceward.conformance.properties import cuts, histories, messages
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Tally, Violated
from onceward.contracts import (
    Admission,
    CheckIn,
    CheckOut,
    Claim,
    Lease,
    LockAnswer,
    LockRequest,
    OutcomeUnknown,
    Run,
    Runner,
    StoreUnavailable,
    Traits,
)
from onceward.runners.redis import RedisStore

T = TypeVar("T")
Asked = TypeVar("Asked", CheckIn, Claim, LockRequest)

_TRAITS = Traits(durable=False, shared=True)
_numbers = count()


def examined(member: Property, harness: Harness, *, rounds: int = 1) -> Trial:
    """The trial after so many rounds; ``best`` is what was found."""
    trial = Trial(harness, _TRAITS, Tally())
    for seed in range(rounds):
        trial.seed = seed
        try:
            member.experiment(trial)
        except Violated:
            break
    return trial


class AsksAnew(RedisStore):
    """Sends a new request where the outcome of the first one is unknown: what blind retries amount to."""

    def checkin(self, request: CheckIn) -> Admission:
        return anew(super().checkin, request)

    def claim(self, request: Claim) -> list[Run]:
        return list(anew(super().claim, request))

    def lock(self, request: LockRequest) -> LockAnswer:
        return anew(super().lock, request)


def anew(ask: Callable[[Asked], T], request: Asked) -> T:
    try:
        return ask(request)
    except OutcomeUnknown:
        return ask(replace(request, request=f"{request.request}.again{next(_numbers)}"))


class SaysUnavailable(RedisStore):
    """Calls every broken connection "not done"."""

    def checkin(self, request: CheckIn) -> Admission:
        return unavailable(lambda: super(SaysUnavailable, self).checkin(request))

    def checkout(self, checkouts: list[CheckOut]) -> list[bool]:  # type: ignore[override]
        return unavailable(lambda: list(super(SaysUnavailable, self).checkout(checkouts)))

    def lock(self, request: LockRequest) -> LockAnswer:
        return unavailable(lambda: super(SaysUnavailable, self).lock(request))


def unavailable(call: Callable[[], T]) -> T:
    try:
        return call()
    except OutcomeUnknown as error:
        raise StoreUnavailable(str(error)) from error


class Leaks(RedisStore):
    """Lets the error of the connection out."""

    def unlock(self, lease: Lease) -> bool:
        try:
            return super().unlock(lease)
        except OutcomeUnknown as error:
            raise ConnectionResetError(str(error)) from error

    def claim(self, request: Claim) -> list[Run]:
        try:
            return list(super().claim(request))
        except OutcomeUnknown as error:
            raise ConnectionResetError(str(error)) from error


class ForgetsRequests(RedisStore):
    """Recognises no repetition: each sending is a request of its own."""

    def lock(self, request: LockRequest) -> LockAnswer:
        return super().lock(replace(request, request=f"{request.request}.{next(_numbers)}"))


class PlantedHarness(UrlHarness):
    """Clients behind the proxy are of the planted kind."""

    def __init__(self, store: type[RedisStore]) -> None:
        super().__init__(shared_url())
        self.store = store

    def through(self, address: tuple[str, int]) -> Harness:
        return PlantedBeyond(self.store, Address(*address))


class PlantedBeyond(UrlHarness):
    def __init__(self, store: type[RedisStore], address: Address) -> None:
        super().__init__(f"redis://{address.host}:{address.port}/0")
        self.store = store

    def opening(self, runner: Runner) -> Planted:  # type: ignore[override]
        return Planted(self.store, self.url, runner.namespace)


class Planted:
    """An opening in this process."""

    def __init__(self, store: type[RedisStore], url: str, namespace: str) -> None:
        self.store, self.url, self.namespace = store, url, namespace

    def open(self) -> Runner:
        return Runner.of(self.store(self.url, self.namespace), namespace=self.namespace).open()


MEMBERS = (messages.LOCK, messages.CHECKIN, messages.CLAIM, cuts.CUTS_EVERYWHERE)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.id)
def test_g7_g16_the_redis_runner_keeps_its_promises_whatever_is_lost(member: Property) -> None:
    trial = examined(member, UrlHarness(shared_url()), rounds=4)
    assert trial.best is None, trial.best
    assert all(trial.tally.executions[name] for name in member.guarantees)
    assert sum(trial.faults.values()) > 100


@pytest.mark.parametrize(
    ("store", "member", "guarantees"),
    [
        (AsksAnew, messages.LOCK, {"G7", "L6"}),
        (AsksAnew, messages.CHECKIN, {"G7", "L6"}),
        (AsksAnew, messages.CLAIM, {"G7", "L6"}),
        (ForgetsRequests, messages.LOCK, {"G7", "L6"}),
        (SaysUnavailable, messages.LOCK, {"O1"}),
        (SaysUnavailable, messages.CHECKIN, {"O1"}),
        (SaysUnavailable, cuts.CUTS_EVERYWHERE, {"O1"}),
        (Leaks, messages.LOCK, {"G16"}),
        (Leaks, messages.CLAIM, {"G16"}),
        (Leaks, cuts.CUTS_EVERYWHERE, {"G16"}),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "id", "")),
)
def test_a_planted_bug_is_found_in_a_short_history(
    store: type[RedisStore], member: Property, guarantees: set[str]
) -> None:
    trial = examined(member, PlantedHarness(store), rounds=10)
    assert trial.best is not None, f"not caught in {trial.cases} cases"
    assert trial.best.violation.guarantee in guarantees, trial.best
    assert len(trial.best.history) <= 12, trial.best.history


@pytest.mark.parametrize("member", [histories.CHECKIN, histories.LOCK], ids=lambda member: member.id)
def test_concurrent_histories_meet_lost_and_late_messages(member: Property) -> None:
    trial = examined(member, UrlHarness(shared_url()), rounds=2)
    assert trial.best is None, trial.best
    lost = sum(count for name, count in trial.faults.items() if name in ("reply lost", "request lost"))
    assert lost > 0, trial.faults
    assert trial.faults["reply delivered late"] > 0, trial.faults


def test_without_faults_nothing_is_done_to_messages() -> None:
    trial = Trial(UrlHarness(shared_url()), _TRAITS, Tally(), messages=Faults.NONE)
    histories.LOCK.experiment(trial)
    assert not {"reply lost", "request lost", "reply delivered late"} & set(trial.faults)


def test_stores_without_a_network_are_not_asked_and_never_pass_for_it() -> None:
    assert "messages" not in fitting(_TRAITS)
    assert "messages" in fitting(_TRAITS, networked=True)
    certificate = run_suite(MemoryHarness(), profiles=["messages"], budget=timedelta(0), seed=1)
    assert certificate.profiles == {"messages": False}
    assert {result.verdict for result in certificate.results} == {Verdict.SKIPPED}
    assert certificate.exit_code == 2


def test_the_certificate_lists_the_faults_that_fired() -> None:
    certificate = run_suite(UrlHarness(shared_url()), profiles=["messages"], budget=timedelta(0), seed=1)
    assert certificate.conformant, certificate
    assert {result.id for result in certificate.results} == {member.id for member in PROFILES["messages"]}
    assert certificate.faults["reply is lost"] > 0
    assert certificate.faults["reply lost"] > 0
    refused = run_suite(
        UrlHarness(shared_url()), profiles=["messages"], budget=timedelta(0), seed=1, faults=Faults.NONE
    )
    assert not refused.conformant
    assert not refused.faults


@pytest.mark.parametrize(
    ("url", "server", "through"),
    [
        (
            "redis://u:p@example:7000/3?timeout_ms=9",
            Server(host="example", port=7000, dialect="resp"),
            "redis://u:p@127.0.0.1:5/3?timeout_ms=9",
        ),
        (
            "mongodb://example/?replicaSet=rs0&w=majority",
            Server(host="example", port=27017, dialect="mongo"),
            "mongodb://127.0.0.1:5/?w=majority&directConnection=true",
        ),
        ("redis+cluster://a,b/0", None, None),
        ("rediss://example/0", None, None),
        ("mongodb://a,b/?replicaSet=rs0", None, None),
    ],
)
def test_where_a_proxy_can_stand(url: str, server: Server | None, through: str | None) -> None:
    harness = UrlHarness(url)
    assert harness.server() == server
    if through is not None:
        beyond = harness.through(("127.0.0.1", 5))
        assert isinstance(beyond, UrlHarness)
        assert beyond.url == through
