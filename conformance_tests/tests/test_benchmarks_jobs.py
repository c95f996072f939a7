"""The benchmark of whole job servers: who is measured, what counts, and what the targets make of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from servers_support import available
from typer.testing import CliRunner

from onceward.benchmarks.bench import silent
from onceward.benchmarks.cli import bench
from onceward.benchmarks.contestants import Contestant, contestants
from onceward.benchmarks.job_servers import rivals
from onceward.benchmarks.job_servers.contest import Contest
from onceward.benchmarks.job_servers.measures import Jobs
from onceward.benchmarks.job_servers.order import Answer
from onceward.benchmarks.job_servers.rivals import RIVALS, CannotInstall, Rival
from onceward.benchmarks.records import (
    DRAIN,
    ENQUEUE,
    IDLE,
    LATENCY,
    SERVER_MEMORY,
    Absent,
    Broken,
    Comparison,
    Footprint,
    Idle,
    Point,
    Result,
    Role,
    Row,
    Standing,
    decode,
    encode,
)
from onceward.benchmarks.report import page, text
from onceward.benchmarks.stats import Spread
from onceward.benchmarks.verdicts import FLAT_SERVER, IDLE_SERVER, QUICK_START, TARGETS, verdicts
from onceward.conformance.servers.process import find_binary

PROGRAMS = Path(str(files("onceward.benchmarks.job_servers") / "programs"))
JOBS = 30


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Contestant]:
    with contestants([f"sqlite:///{tmp_path / 'x.db'}?synchronous=OFF"]) as found:
        yield found[0]


class Told(Rival):
    """A rival whose command the test says."""

    def command(self) -> list[str]:
        if self.packages == ("nowhere",):
            raise CannotInstall("no such package")
        return [sys.executable, *self.packages]


def rival(name: str, *command: str, share: float = 1.0) -> Rival:
    return Told(name=name, kind="sqlite", program="program.py", packages=command, note="", share=share)


def printing(tmp_path: Path, name: str, line: str) -> Rival:
    """A rival whose program says only this."""
    program = tmp_path / f"{name}.py"
    program.write_text(f"print({line!r})", encoding="utf-8")
    return rival(name, str(program))


def held(contestant: Contestant, *against: Rival, rounds: int = 2) -> list[Row]:
    return list(Contest(contestant=contestant, rivals=against, jobs=JOBS, rounds=rounds).run())


def results(rows: Sequence[Row]) -> dict[tuple[str, str], Result]:
    return {(row.measure, row.contestant): row for row in rows if isinstance(row, Result)}


# -- the contest ----------------------------------------------------------------------------------------------------


def test_a_peer_and_ours_run_each_job_once_and_are_compared(sqlite: Contestant) -> None:
    """huey, from our own environment: what its program says is what an installed one says."""
    rows = held(sqlite, rival("huey", str(PROGRAMS / "huey_program.py"), share=0.5))
    assert not [row for row in rows if isinstance(row, Broken | Absent)]
    found = results(rows)
    assert {measure for measure, _ in found} == {DRAIN, ENQUEUE}
    for row in found.values():
        assert row.rounds == 2
        assert 0 < row.rate.p10 <= row.rate.median
    assert [(row.measure, row.contestant, row.against) for row in rows if isinstance(row, Comparison)] == [
        (DRAIN, "sqlite OFF", "huey"),
        (ENQUEUE, "sqlite OFF", "huey"),
    ]
    (peer,) = (row for row in found.values() if row.role is Role.PEER and row.measure == DRAIN)
    assert peer.contestant.startswith("huey "), "its version is told"


@pytest.mark.parametrize(
    ("ran", "distinct", "most"),
    [(JOBS, JOBS - 1, 2), (JOBS - 1, JOBS - 1, 1), (JOBS + 1, JOBS, 2)],
    ids=["one twice and one never", "one never", "one twice"],
)
def test_who_does_not_run_each_job_once_has_no_figure(
    sqlite: Contestant, tmp_path: Path, ran: int, distinct: int, most: int
) -> None:
    line = f'{{"version":"1","enqueue":1.0,"drain":0.001,"ran":{ran},"distinct":{distinct},"most":{most}}}'
    rows = held(sqlite, printing(tmp_path, "hasty", line))
    (broken,) = (row for row in rows if isinstance(row, Broken))
    assert broken.measure == f"{DRAIN}, hasty"
    assert f"of {JOBS} jobs {distinct} ran, {ran} times in all" in broken.reason
    assert {name for _, name in results(rows)} == {"sqlite OFF"}, "the others keep theirs"
    assert not [row for row in rows if isinstance(row, Comparison)]


def test_who_says_nothing_sensible_has_no_figure(sqlite: Contestant, tmp_path: Path) -> None:
    rows = held(sqlite, printing(tmp_path, "confused", "Traceback: no"), rival("gone", "-c", "raise SystemExit(3)"))
    reasons = {row.measure: row.reason for row in rows if isinstance(row, Broken)}
    assert reasons == {
        f"{DRAIN}, confused": "exit code 0: Traceback: no",
        f"{DRAIN}, gone": "exit code 3: it said nothing",
    }


def test_who_cannot_be_had_is_not_measured_and_never_beaten(sqlite: Contestant) -> None:
    rows = held(sqlite, rival("Agenda", "nowhere"), rounds=1)
    (absent,) = (row for row in rows if isinstance(row, Absent))
    assert absent.contestant == "Agenda"
    assert "no such package" in absent.install
    of_agenda = next(target.title for target in TARGETS if target.against == "Agenda")
    standings = [verdict.standing for verdict in verdicts(rows) if verdict.target == of_agenda]
    assert standings == [Standing.UNMEASURED]


def test_ours_failing_leaves_the_peers_without_comparison(sqlite: Contestant, tmp_path: Path) -> None:
    broken = replace(sqlite, fresh=lambda: replace(sqlite.fresh(), url="nothing://here"))
    line = f'{{"version":"1","enqueue":1.0,"drain":1.0,"ran":{JOBS},"distinct":{JOBS},"most":1}}'
    rows = held(broken, printing(tmp_path, "steady", line), rounds=1)
    assert [row.measure for row in rows if isinstance(row, Broken)] == [f"{DRAIN}, sqlite OFF"]
    assert {name for _, name in results(rows)} == {"steady 1"}
    assert not [row for row in rows if isinstance(row, Comparison)]


def test_ctrl_c_keeps_the_laps_that_were_completed(sqlite: Contestant, tmp_path: Path) -> None:
    line = f'{{"version":"1","enqueue":1.0,"drain":1.0,"ran":{JOBS},"distinct":{JOBS},"most":1}}'

    def interrupt(done: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    peer = printing(tmp_path, "steady", line)
    contest = Contest(contestant=sqlite, rivals=[peer], jobs=JOBS, rounds=5, told=interrupt)
    rows = list(contest.run())
    assert not contest.complete
    assert {(row.rounds, row.complete) for row in rows if isinstance(row, Result)} == {(1, False)}


def test_redis_peers_are_measured_on_a_server_of_our_own_only(sqlite: Contestant) -> None:
    """They leave keys behind that cannot be told from those of whose server it is."""
    of_redis = [each.name for each in RIVALS if each.kind == "redis"]
    theirs = replace(sqlite, kind="redis", server="redis://localhost")
    contest = Contest(contestant=theirs, rivals=RIVALS, jobs=1, rounds=1)
    assert contest._fitting() == []
    contest.contestant = replace(theirs, private=True)
    assert [each.name for each in contest._fitting()] == of_redis
    assert len(of_redis) == 6


def test_huey_is_compared_at_the_durability_of_the_contestant(tmp_path: Path) -> None:
    for synchronous, name in (("FULL", "huey, fsync"), ("NORMAL", "huey, no fsync")):
        with contestants([f"sqlite:///{tmp_path / 'x.db'}?synchronous={synchronous}"]) as found:
            contest = Contest(contestant=found[0], rivals=RIVALS, jobs=1, rounds=1)
            assert [each.name for each in contest._fitting()] == [name]


def test_an_answer_without_time_is_none() -> None:
    good = Answer(version="1", enqueue=1.0, drain=1.0, ran=2, distinct=2, most=1)
    assert good.fault(2) is None
    assert good.fault(3)
    assert Answer(version="1", enqueue=1.0, drain=0.0, ran=2, distinct=2, most=1).fault(2)


# -- environments ---------------------------------------------------------------------------------------------------


def test_an_environment_is_made_once_and_again_for_other_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def run(command: Sequence[str]) -> None:
        commands.append(" ".join(map(str, command)))
        (tmp_path / "onceward" / "rivals" / "huey_program").mkdir(parents=True, exist_ok=True)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rivals, "_run", run)
    huey = next(each for each in RIVALS if each.program == "huey_program.py")
    for each in (huey, huey, replace(huey, packages=("huey==3.0",))):
        interpreter, program = each.command()
        assert Path(interpreter).is_relative_to(tmp_path)
        assert (Path(program).parent / "tally.py").exists()
    installs = [command for command in commands if " install " in command]
    assert [command.rpartition(" ")[2] for command in installs] == ["huey", "huey==3.0"]


def test_without_node_its_peers_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(CannotInstall, match="node and npm are not installed"):
        next(each for each in RIVALS if each.on_node).command()


def test_an_installation_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CannotInstall, match="cannot do that"):
        rivals._run([sys.executable, "-c", "import sys; sys.exit('cannot do that')"])


@pytest.mark.parametrize(
    ("prints", "told"),
    [
        ('{"error": {"code": "E404", "summary": "Not Found", "detail": "Ask."}}', "Not Found"),
        ("", "A complete log of this run"),
        ("[]", "A complete log of this run"),
    ],
)
def test_of_what_npm_says_the_reason_is_shown(prints: str, told: str) -> None:
    program = f"import sys; print({prints!r}); sys.exit('npm error code E404\\nnpm error A complete log of this run')"
    with pytest.raises(CannotInstall, match=f"{told}$"):
        rivals._run([sys.executable, "-c", program])


def test_every_rival_has_its_program() -> None:
    for each in RIVALS:
        assert (PROGRAMS / each.program).is_file()
    node = available(
        lambda: find_binary("node", advice="install it: apt-get install nodejs, or see https://nodejs.org")
    )
    for program in PROGRAMS.glob("*.mjs"):
        subprocess.run([node, "--check", str(program)], check=True)


# -- one server, looked at ------------------------------------------------------------------------------------------


def test_latency_memory_and_idleness_are_measured(sqlite: Contestant) -> None:
    jobs = Jobs(names=(LATENCY, SERVER_MEMORY, IDLE), rounds=1, flow=80, idle_seconds=0.5)
    rows = [row for _, part in jobs.parts([sqlite], silent) for row in part()]
    ours, raw = (row for row in rows if isinstance(row, Result))
    assert (ours.role, raw.role, ours.against) == (Role.RUNNER, Role.RAW, raw.contestant)
    assert ours.calls == raw.calls == 30
    (memory,) = (row for row in rows if isinstance(row, Footprint))
    assert (memory.what, memory.points[0].done, memory.points[-1].done) == ("jobs", 0, 80)
    (idle,) = (row for row in rows if isinstance(row, Idle))
    assert 0 <= idle.share < 1
    assert idle.seconds >= 0.5
    assert [decode(encode(row)) for row in rows] == rows
    for shown in (text(rows), page(rows)):
        assert "of a core" in shown
        assert "over 80 jobs" in shown or "many jobs" in shown


def test_what_lies_in_one_process_is_no_store_for_a_contest() -> None:
    with contestants(["memory://"]) as found:
        assert list(Jobs(names=(DRAIN, LATENCY, SERVER_MEMORY, IDLE)).parts(found, silent)) == []


def a_start(contestant: str, role: Role, p50: float) -> Result:
    spread = Spread(median=1e6 / p50, p10=1.0, p90=1e6)
    return Result(
        measure=LATENCY,
        title="start",
        contestant=contestant,
        role=role,
        batch=1,
        threads=1,
        rounds=1,
        calls=9,
        rate=spread,
        p50_us=p50,
        p99_us=p50,
        against=None if role is Role.RAW else f"{contestant}, raw",
    )


def standing(target: str, *rows: Row) -> list[Standing]:
    return [verdict.standing for verdict in verdicts(rows) if verdict.target == target]


def test_targets_are_judged_by_what_was_measured() -> None:
    raw = a_start("redis, raw", Role.RAW, 100)
    assert standing(QUICK_START, a_start("redis", Role.RUNNER, 299), raw) == [Standing.MET]
    assert standing(QUICK_START, a_start("redis", Role.RUNNER, 300), raw) == [Standing.MISSED]
    assert standing(QUICK_START, a_start("redis", Role.RUNNER, 1)) == [Standing.UNMEASURED], "nothing to compare with"
    assert standing(QUICK_START, a_start("sqlite", Role.RUNNER, 1), raw) == [Standing.UNMEASURED]
    assert standing(IDLE_SERVER, Idle(contestant="redis", seconds=10, cpu=0.099)) == [Standing.MET]
    assert standing(IDLE_SERVER, Idle(contestant="redis", seconds=10, cpu=0.1)) == [Standing.MISSED]
    points = (Point(0, 20), Point(500_000, 40), Point(1_000_000, 41))
    flat = Footprint(contestant="redis", asked=1_000_000, points=points, inside=False, what="jobs")
    assert standing(FLAT_SERVER, flat) == [Standing.MET]
    assert standing(FLAT_SERVER) == [Standing.UNMEASURED]


def test_the_command_measures_job_servers_alone(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(bench)
    url = f"sqlite:///{tmp_path / 'x.db'}?synchronous=OFF"
    done = CliRunner().invoke(app, [url, "--only", DRAIN, "--quick", "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    measured = {row.measure for row in map(decode, done.stdout.splitlines()) if isinstance(row, Result)}
    assert measured == {DRAIN}
