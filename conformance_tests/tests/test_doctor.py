"""``onceward doctor``: what it finds well, what it finds wrong and why, and what it never says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from mongodb_support import own_server as own_mongodb
from redis_support import own_server as own_redis
from typer.testing import CliRunner
from waiting import PATIENCE

from onceward.contracts import Claim, ConfigWrite, DueClock, Runner, RunSpec, Traits
from onceward.runners.clock import ManualClock
from onceward.runners.factory import open_runner
from onceward.runners.memory import MemoryStore
from onceward.toolkit import doctor
from onceward.toolkit.cli.app import build
from onceward.toolkit.doctor import Finding, State
from onceward.toolkit.jobs import Launcher, Retry, job
from onceward.toolkit.server import JobServer
from onceward.toolkit.server.presence import seen

PROMPT = timedelta(seconds=PATIENCE)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def runner(clock: ManualClock) -> Iterator[Runner]:
    with Runner.of(MemoryStore(clock=clock), namespace="shop", url="memory://") as runner:
        yield runner


@job(name="tick", schedule="0 * * * *")
def tick() -> None: ...


@job(name="broken", retry=Retry(attempts=1))
def broken() -> None:
    raise ValueError("no")


def found(runner: Runner, about: str) -> Finding:
    """What the doctor says about one thing; there is one line of it."""
    [finding] = [each for each in doctor.namespace(runner) if each.about == about]
    return finding


def known(runner: Runner) -> None:
    """The jobs of this module are known in the namespace; their server has gone again."""
    with JobServer.create(runner, [tick, broken]) as server:
        assert server.wait_ready(PROMPT)


# -- what it finds ------------------------------------------------------------------------------------------------


def test_all_is_well_with_a_server_and_its_jobs() -> None:
    with JobServer.create("memory://", [tick], namespace="shop", max_concurrency=3) as server:
        assert server.wait_ready(PROMPT)
        findings = [*doctor.store(server.runner), *doctor.namespace(server.runner)]
        states = {each.about: each.state for each in findings}
        assert states.pop("promises") is State.NOTE, "memory is neither durable nor shared"
        assert set(states.values()) == {State.OK}, findings
        [alive] = seen(server.runner.lifecycle.locks())
        assert (alive.holder, set(alive.jobs or ()), alive.max_concurrency) == (server.worker.holder, {"tick"}, 3)
        assert alive.has("tick", tick.checksum())
        assert not alive.has("tick", "another")
        assert found(server.runner, "servers").facts["alive"] == [server.worker.holder]


def test_a_server_that_has_ended_is_not_seen_any_more(runner: Runner) -> None:
    known(runner)
    finding = found(runner, "servers")
    assert finding.state is State.WRONG
    assert "onceward serve" in finding.text


def test_an_empty_namespace_needs_no_server(runner: Runner) -> None:
    assert found(runner, "servers").state is State.NOTE
    assert found(runner, "queue").facts == {"due": 0}


def test_what_no_server_knows_is_parked_and_what_is_disabled_waits(runner: Runner) -> None:
    Launcher(runner.scheduler).launch("elsewhere", key="1")
    finding = found(runner, "queue")
    assert (finding.state, finding.facts["due"]) == (State.WRONG, 1)
    assert "no job server lives" in finding.text
    with JobServer.create(runner, [broken]) as server:
        assert server.wait_ready(PROMPT)
        assert "no server that lives knows this job" in found(runner, "queue").text
        server.manager.configs.disable("broken")
        server.follow()
        server.launch("broken")
        waiting = {each.facts["job"]: each for each in doctor.namespace(runner) if each.about == "queue"}
        assert waiting["broken"].state is State.NOTE
        assert "disabled" in waiting["broken"].text
        assert found(runner, "jobs").facts["disabled"] == ["broken"]


def test_what_waits_too_long_for_a_server_with_room_is_wrong(runner: Runner, clock: ManualClock) -> None:
    began, go = threading.Event(), threading.Event()

    @job(name="slow")
    def slow() -> None:
        began.set()
        go.wait(PATIENCE)

    with JobServer.create(runner, [slow]) as server:
        server.launch("slow", key="1")
        assert began.wait(PATIENCE)
        server.launch("slow", key="2")
        assert found(runner, "queue").state is State.OK
        clock.jump_wall(10 * MINUTE)  # not so far that leases end
        finding = found(runner, "queue")
        assert (finding.state, finding.facts["waits_s"]) == (State.WRONG, 600.0)
        assert "full" in finding.text
        go.set()


def test_a_schedule_that_nobody_serves_is_wrong(runner: Runner, clock: ManualClock) -> None:
    known(runner)
    clock.advance(timedelta(hours=3))
    finding = found(runner, "schedule")
    assert (finding.state, finding.facts["job"]) == (State.WRONG, "tick")
    assert "no server serves its schedule" in finding.text


def test_a_document_that_cannot_be_is_named(runner: Runner) -> None:
    known(runner)
    document = runner.scheduler.read_config("job:tick")
    assert document is not None
    assert isinstance(document.document, dict)
    written = ConfigWrite(
        name="job:tick", document={**document.document, "schedule": "61 * * * *"}, expected_version=document.version
    )
    assert runner.scheduler.write_config(written)
    finding = found(runner, "jobs")
    assert finding.state is State.WRONG
    assert "tick" in finding.text
    assert "61" in finding.text


def test_failures_are_counted_and_leases_that_are_over_are_named(runner: Runner, clock: ManualClock) -> None:
    with JobServer.create(runner, [broken]) as server:
        server.wait(server.launch("broken", key="1").run, PROMPT)
    assert found(runner, "dead letters").facts == {"broken": 1}
    runner.scheduler.submit([RunSpec.of("broken", "2")])
    runner.executor.claim(Claim.of("broken", holder="who died", lease=MINUTE))
    assert found(runner, "running").state is State.OK
    clock.advance(3 * MINUTE)
    finding = found(runner, "running")
    assert (finding.state, finding.facts["lapsed"]) == (State.WRONG, ["broken/2"])


def test_a_clock_that_differs_is_wrong_and_one_that_nobody_can_ask_is_said_so(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    with Runner.of(store, namespace="n", url="memory://") as runner:
        finding = next(each for each in doctor.store(runner) if each.about == "clock")
        assert finding.state is State.WRONG, "the clock of this test stands still in another year"
        ahead = finding.facts["ahead_ms"]
        assert isinstance(ahead, float)
        there = datetime.now().astimezone() - store.now()
        assert abs(timedelta(milliseconds=ahead) - there) < MINUTE
    blind = Traits(durable=True, shared=True, due_clock=DueClock.CLIENT)
    assert doctor._clock(runner.lifecycle, blind).state is State.NOTE


def test_what_is_installed_is_said_and_what_is_missing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from onceward.runners.redis import TYPE
    from onceward.toolkit import versions

    driver = list(doctor.environment(TYPE))[1]
    assert driver.state is State.OK
    assert list(driver.facts) == ["hiredis>=3.0"]
    monkeypatch.setattr(versions, "of_package", lambda name: None)
    driver = list(doctor.environment(TYPE))[1]
    assert driver.state is State.WRONG
    assert "pip install 'onceward[redis]'" in driver.text


# -- the command --------------------------------------------------------------------------------------------------


def onceward(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(), list(args), prog_name="onceward")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_s_exit_codes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    open_runner(url).close()
    code, said, _ = onceward("doctor", url)
    assert code == 0
    assert "no job server lives" in said
    assert all(line.split()[0] in ("ok", "note") for line in said.splitlines())
    with open_runner(url) as runner:
        Launcher(runner.scheduler).launch("elsewhere")
    code, said, _ = onceward("--runner", url, "doctor", "--json")
    answer = json.loads(said)
    assert (code, answer["ok"], answer["error"]) == (1, False, None)
    assert {"about", "state", "text", "facts"} == set(answer["checks"][0])
    assert [each["about"] for each in answer["checks"] if each["state"] == "wrong"] == ["servers", "queue"]
    assert onceward("doctor", url, "--late", "soon")[0] == 2
    code, said, complaint = onceward("doctor", "nosuch://x")
    assert code == 2
    assert "installed" in said
    assert "nosuch" in complaint


def test_a_store_that_is_not_there_is_code_3_and_its_driver_is_said_all_the_same() -> None:
    code, said, complaint = onceward("doctor", "redis://127.0.0.1:1?timeout_ms=100")
    assert code == 3
    assert "hiredis" in said
    assert "127.0.0.1:1" in complaint
    code, said, _ = onceward("doctor", "redis://127.0.0.1:1?timeout_ms=100", "--json")
    assert (code, json.loads(said)["ok"]) == (3, False)
    assert "127.0.0.1:1" in json.loads(said)["error"]


@pytest.mark.parametrize("kind", ["redis", "mongodb"])
def test_no_password_is_ever_said(kind: str) -> None:
    with own_redis(password="geheim") if kind == "redis" else own_mongodb(user="ann", password="geheim") as server:
        good = server.url
        assert "geheim" in good
        assert "geheim" in good
        wrong = good.replace("geheim", "geheim-nicht")
        for url, code in ((good, 0), (wrong, 2)):
            for how in ((), ("--json",)):
                got, said, complaint = onceward("doctor", url, *how)
                assert got == code, said + complaint
                assert "geheim" not in said + complaint
        gone = good
    got, said, complaint = onceward("doctor", gone + ("&" if "?" in gone else "?") + "timeout_ms=500")
    assert got == 3
    assert "geheim" not in said + complaint
