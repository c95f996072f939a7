"""The benchmark tells the truth about what it measured. No test here says how fast anything is."""

from __future__ import annotations

import gc
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import msgspec
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from onceward.benchmarks.bench import Bench, Entrant, Plan, growth
from onceward.benchmarks.cli import bench
from onceward.benchmarks.contestants import Contestant, Place, contestants
from onceward.benchmarks.measures import MEASURES
from onceward.benchmarks.measures.footprint import check_in, measured
from onceward.benchmarks.measures.measure import Measure, WrongAnswer
from onceward.benchmarks.peers import Peer
from onceward.benchmarks.raw import Raw, RawMemory, RawSqlite
from onceward.benchmarks.records import (
    BATCHING,
    LENGTH,
    Absent,
    AnyRow,
    Broken,
    Comparison,
    End,
    Environment,
    Footprint,
    Growth,
    Point,
    Result,
    Role,
    Row,
    Standing,
    Verdict,
    decode,
    encode,
)
from onceward.benchmarks.report import page, text
from onceward.benchmarks.report.plots import lines
from onceward.benchmarks.rounds import Lane, Pace, Round, Task, interleave, lap
from onceward.benchmarks.stats import Spread, percentile, ratios
from onceward.benchmarks.verdicts import FLAT_CLAIM, FLAT_MEMORY, RATIO, TARGETS, Target, verdicts
from onceward.contracts import Runner, StoreMisconfigured
from onceward.runners.memory import MemoryStore

TINY = Pace(rounds=2, seconds=0.001, most_steps=20)


class FakeTime:
    """Nanoseconds that pass only when a fake contestant works."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def lane(self, name: str, cost: int | Callable[[int], int], *, heard: list[str] | None = None) -> Lane:
        def step(index: int) -> None:
            self.now += cost if isinstance(cost, int) else cost(index)
            if heard is not None and index >= 0:
                heard.append(name)

        return Lane(name=name, task=Task(step))


def run_of(items: list[str]) -> str:
    """The items without repetitions of neighbours."""
    return "".join(name for name, _ in itertools.groupby(items))


# -- statistics -----------------------------------------------------------------------------------------------------


def test_percentile_interpolates_between_neighbours() -> None:
    assert percentile([10, 20, 30, 40, 50], 50) == 30
    assert percentile([10, 20], 50) == 15
    assert percentile([0, 100], 99) == pytest.approx(99)
    assert percentile([7], 99) == 7
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


def test_spread_does_not_mind_the_order_and_one_outlier() -> None:
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(median=3, p10=1.4, p90=4.6)
    assert Spread.of([10, 10, 10, 10, 1_000_000]).median == 10


def test_ratios_are_taken_within_a_round_so_a_slow_machine_cancels_out() -> None:
    spread = ratios([50, 5, 500], [100, 10, 1000])
    assert spread == Spread(median=0.5, p10=0.5, p90=0.5)
    assert ratios([100, 1, 1], [50, 1, 1]).median == 1  # not 102 to 52
    with pytest.raises(ValueError, match="zip"):
        ratios([1], [1, 2])


# -- rounds ---------------------------------------------------------------------------------------------------------


def test_every_round_holds_one_lap_per_lane_and_the_order_rotates() -> None:
    time, heard = FakeTime(), list[str]()
    lanes = [time.lane(name, 1_000_000, heard=heard) for name in "ABC"]
    rounds = list(interleave(lanes, Pace(rounds=4, seconds=0.01, most_steps=50), clock=time))
    assert [sorted(each) for each in rounds] == [["A", "B", "C"]] * 4
    assert run_of(heard) == "ABCBCACABABC"


def test_rates_and_latencies_are_those_of_the_steps() -> None:
    time = FakeTime()
    fast, slow = time.lane("fast", 1_000), time.lane("slow", 4_000)
    for each in interleave([fast, slow], Pace(rounds=3, seconds=0.001, most_steps=1_000), clock=time):
        assert each["fast"].rate == pytest.approx(1e6)
        assert each["slow"].rate == pytest.approx(250_000)
        assert set(each["slow"].latencies) == {4_000}
        assert len(each["fast"].latencies) == 1_000  # a millisecond, by calibration
        assert len(each["slow"].latencies) == 250


def test_warm_up_and_calibration_do_not_count_and_no_index_is_used_twice() -> None:
    time, seen = FakeTime(), list[int]()

    def step(index: int) -> None:
        seen.append(index)
        time.now += 1_000_000 if index < 0 else 1_000  # a cold cache

    rounds = list(interleave([Lane(name="A", task=Task(step))], Pace(rounds=3, seconds=0.004), clock=time))
    assert len(seen) == len(set(seen))
    assert any(index < 0 for index in seen)
    assert {ns for each in rounds for ns in each["A"].latencies} == {1_000}


def test_preparation_is_told_the_indexes_and_is_not_timed() -> None:
    time, prepared, stepped = FakeTime(), list[int](), list[int]()

    def prepare(indexes: range) -> None:
        prepared.extend(indexes)
        time.now += 10**12

    def step(index: int) -> None:
        stepped.append(index)
        time.now += 1_000

    (each,) = interleave(
        [Lane(name="A", task=Task(step, prepare=prepare), batch=100)], Pace(rounds=1, seconds=0.001), clock=time
    )
    assert prepared == stepped
    assert each["A"].rate == pytest.approx(100 * 1e6)


def test_threads_share_the_steps_and_an_error_in_one_is_raised() -> None:
    seen, names, meet = list[int](), set[int](), threading.Barrier(4)

    def step(index: int) -> None:
        if index < 4:
            meet.wait(10)  # four threads are at work at once, or this breaks
        names.add(threading.get_ident())
        seen.append(index)

    found = lap(Lane(name="A", task=Task(step), threads=4), range(20))
    assert sorted(seen) == list(range(20))
    assert len(names) == 4
    assert found.items == len(found.latencies) == 20

    def failing(index: int) -> None:
        if index == 3:
            raise WrongAnswer("three")

    with pytest.raises(WrongAnswer, match="three"):
        lap(Lane(name="A", task=Task(failing), threads=4), range(20))


def test_the_garbage_collector_rests_only_while_a_lap_is_timed() -> None:
    states = {"step": set[bool](), "prepare": set[bool]()}
    task = Task(lambda _: states["step"].add(gc.isenabled()), prepare=lambda _: states["prepare"].add(gc.isenabled()))
    list(interleave([Lane(name="A", task=task)], TINY))
    assert states == {"step": {False}, "prepare": {True}}
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_lanes_of_the_same_name_are_refused() -> None:
    lane = Lane(name="A", task=Task(lambda _: None))
    with pytest.raises(ValueError, match="names"):
        next(interleave([lane, lane], TINY))


# -- raw drivers ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Raw]:
    raw = RawMemory() if request.param == "memory" else RawSqlite(tmp_path / "raw.db", synchronous="OFF")
    yield raw
    raw.close()


def test_the_raw_driver_does_the_work_that_it_is_compared_for(raw: Raw) -> None:
    assert raw.upsert(["a"]) == [1]
    assert raw.upsert(["a"]) == [2]
    assert raw.upsert(["a", "b", "c"]) == [3, 1, 1]
    assert raw.upsert(["b", "b"]) == [2, 3]


@pytest.mark.parametrize(("synchronous", "number"), [("NORMAL", 1), ("FULL", 2)])
def test_the_raw_driver_has_the_durability_that_was_asked_for(tmp_path: Path, synchronous: str, number: int) -> None:
    raw = RawSqlite(tmp_path / "raw.db", synchronous=synchronous)
    assert raw.pragma("synchronous") == number
    assert raw.pragma("journal_mode") == "wal"
    raw.close()


def test_the_runner_and_its_raw_driver_have_the_same_pragmas(tmp_path: Path) -> None:
    from onceward.runners.sqlite.database import Database

    database, raw = Database(str(tmp_path / "own.db"), synchronous="NORMAL", busy_timeout=1.0), None
    database.open()
    try:
        raw = RawSqlite(tmp_path / "raw.db", synchronous="NORMAL")
        for name in ("journal_mode", "synchronous", "cache_size", "journal_size_limit", "temp_store", "page_size"):
            said = database.writer().execute(f"PRAGMA {name}").fetchone()[0]
            assert said == raw.pragma(name), name
    finally:
        database.close()
        if raw is not None:
            raw.close()


# -- contestants ----------------------------------------------------------------------------------------------------


def test_contestants_have_fresh_places_and_leave_nothing_behind(tmp_path: Path) -> None:
    mine = tmp_path / "jobs.db"
    with contestants([f"sqlite:///{mine}?synchronous=NORMAL", "memory://", "memory://"]) as found:
        assert [each.name for each in found] == ["sqlite NORMAL", "memory", "memory #2"]
        first, second = found[0].fresh(), found[0].fresh()
        assert first.url != second.url
        assert first.url.endswith("?synchronous=NORMAL")
        first.open().close()
        assert list(tmp_path.glob(".onceward-bench-*/*.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nosuch://", "sqlite:///x.db?synchronus=FULL", "sqlite:////no/such/folder/x.db"])
def test_a_wrong_url_is_refused_before_anything_is_measured(url: str) -> None:
    with pytest.raises(StoreMisconfigured), contestants([url]):
        pytest.fail("was not refused")


# -- a whole run ----------------------------------------------------------------------------------------------------


def memory_contestant(folder: Path) -> Contestant:
    return Contestant(
        name="memory",
        kind="memory",
        fresh=lambda: Place(url="memory://", namespace="bench"),
        folder=folder,
        raw=RawMemory,
        inside=True,
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Everything there is to measure, as small as can be."""
    folder = tmp_path_factory.mktemp("bench")
    with contestants(["memory://", f"sqlite:///{folder / 'x.db'}?synchronous=OFF"]) as found:
        plan = Plan(contestants=found, lengths=(10, 30), checkins=50, batching=True, pace=TINY)
        return list(Bench(plan).run())


def test_every_measure_has_a_result_for_every_runner_and_its_raw_driver(tiny: list[Row]) -> None:
    assert not [row for row in tiny if isinstance(row, Broken)]
    results = [row for row in tiny if isinstance(row, Result) and row.measure not in (LENGTH, BATCHING)]
    names = ["memory", "memory, raw", "sqlite OFF", "sqlite OFF, raw"]
    assert [(row.measure, row.contestant) for row in results] == [
        (measure.name, name) for measure in MEASURES for name in names
    ]
    assert {(row.batch, row.threads) for row in results} >= {(1, 1), (100, 1), (1, 4), (1, 16)}
    for row in results:
        assert row.rounds == TINY.rounds
        assert row.rate.p10 <= row.rate.median <= row.rate.p90
        assert 0 < row.p50_us <= row.p99_us
        assert (row.ratio is None) == (row.role is Role.RAW)


def test_batches_are_compared_with_one_by_one_in_the_same_rounds(tiny: list[Row]) -> None:
    compared = [(row.contestant, row.against) for row in tiny if isinstance(row, Comparison)]
    assert compared == [(f"{name}, batches of 100", f"{name}, one by one") for name in ("memory", "sqlite OFF")]
    batches = {row.contestant: row.batch for row in tiny if isinstance(row, Result) and row.measure == BATCHING}
    assert set(batches.values()) == {1, 100}


def test_long_measures_say_how_cost_and_memory_grew(tiny: list[Row]) -> None:
    lengths = {row.length for row in tiny if isinstance(row, Result) and row.length is not None}
    assert lengths == {10, 30}
    assert [(row.contestant, row.shortest, row.longest) for row in tiny if isinstance(row, Growth)] == [
        ("memory", 10, 30),
        ("sqlite OFF", 10, 30),
    ]
    footprints = [row for row in tiny if isinstance(row, Footprint)]
    assert [(row.contestant, row.inside, row.points[-1].done) for row in footprints] == [
        ("memory", True, 50),
        ("sqlite OFF", False, 50),
    ]
    assert all(point.resident > 0 for row in footprints for point in row.points)


def test_rows_survive_the_way_through_json(tiny: list[Row]) -> None:
    assert [decode(encode(row)) for row in tiny] == tiny
    assert json.loads(encode(tiny[0]))["kind"] == "environment"


def test_a_peer_that_is_not_installed_is_missing_and_never_zero(tmp_path: Path) -> None:
    ghost = Peer(name="ghost", package="onceward_no_such_package", entries={"lock-unlock": _never}, note="")
    real = Peer(name="real", package="json", entries={"lock-unlock": lambda _: Task(lambda _: None)}, note="a note")
    plan = Plan(
        contestants=[memory_contestant(tmp_path)], peers=[ghost, real], measures=_measures("lock-unlock"), pace=TINY
    )
    rows = list(Bench(plan).run())
    assert [row.contestant for row in rows if isinstance(row, Absent)] == ["ghost"]
    assert [(row.contestant, row.role) for row in rows if isinstance(row, Result)] == [
        ("memory", Role.RUNNER),
        ("memory, raw", Role.RAW),
        ("real", Role.PEER),
    ]
    assert "ghost is not installed" in text(rows)
    assert "real: a note" in text(rows)


def _never(_: str) -> Task:
    raise AssertionError("a peer that is not installed was used")


def _measures(*names: str) -> list[Measure]:
    return [measure for measure in MEASURES if measure.name in names]


@pytest.mark.parametrize("package", ["filelock", "huey"])
def test_the_peers_do_what_they_are_measured_for(tmp_path: Path, package: str) -> None:
    from onceward.benchmarks.peers import PEERS

    for peer in PEERS:
        for measure, entry in peer.entries.items() if peer.package == package else ():
            task = entry(str(tmp_path / measure))
            assert lap(Lane(name=peer.name, task=task), range(5)).items == 5
            task.close()


class Liar(MemoryStore):
    """Refuses whatever it is asked."""

    def unlock(self, lease: object) -> bool:
        return False


def test_a_store_that_answers_wrongly_has_no_figures_and_others_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "open", lambda self: Runner.of(Liar(), namespace="bench"))
    plan = Plan(contestants=[memory_contestant(tmp_path)], measures=_measures("lock-unlock", "checkin-new"), pace=TINY)
    rows = list(Bench(plan).run())
    assert [row.measure for row in rows if isinstance(row, Broken)] == ["lock-unlock"]
    assert {row.measure for row in rows if isinstance(row, Result)} == {"checkin-new"}
    assert "failed: lock-unlock" in text(rows)


def test_ctrl_c_keeps_the_rounds_that_were_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = interleave

    def interrupted(lanes: list[Lane], pace: Pace) -> Iterator[Round]:
        yield from itertools.islice(real(lanes, pace), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr("onceward.benchmarks.bench.interleave", interrupted)
    plan = Plan(
        contestants=[memory_contestant(tmp_path)],
        lengths=(10, 20),
        checkins=10,
        pace=Pace(rounds=9, seconds=0.001, most_steps=20),
    )
    run = Bench(plan)
    rows = list(run.run())
    results = [row for row in rows if isinstance(row, Result)]
    assert not run.complete
    assert {row.measure for row in results} == {MEASURES[0].name}
    assert {(row.rounds, row.complete) for row in results} == {(3, False)}
    assert not [row for row in rows if isinstance(row, Footprint | Growth)]
    assert "(incomplete)" in text(rows)


def test_growth_is_cost_at_the_longest_against_cost_at_the_shortest() -> None:
    time = FakeTime()
    queues = [
        Entrant(lane=time.lane(f"{length}", cost), contestant="memory", role=Role.RUNNER, length=length)
        for length, cost in ((10, 1_000), (20, 2_000), (30, 3_000))
    ]
    rounds = list(interleave([each.lane for each in queues], Pace(rounds=3, seconds=0.001), clock=time))
    (found,) = growth("memory", queues, rounds)
    assert (found.shortest, found.longest) == (10, 30)
    assert found.factor.median == pytest.approx(3.0)
    assert list(growth("memory", queues, [])) == []


def test_memory_is_measured_once_per_kind_of_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceward.benchmarks.bench.measured", lambda place, count: iter([Point(0, 1), Point(count, 1)]))
    one, other = memory_contestant(tmp_path), replace(memory_contestant(tmp_path), kind="other", name="slow")
    quick = replace(other, name="quick")
    rows = list(Bench(Plan(contestants=[other, one, quick], measures=(), checkins=10)).run())
    assert [row.contestant for row in rows if isinstance(row, Footprint)] == ["quick", "memory"]


# -- verdicts -------------------------------------------------------------------------------------------------------


def a_result(ratio: float, *, contestant: str = "sqlite FULL", complete: bool = True) -> Result:
    flat = Spread(median=ratio, p10=ratio, p90=ratio)
    return Result(
        measure="checkin-new",
        title="check-in, new key",
        contestant=contestant,
        role=Role.RUNNER,
        batch=1,
        threads=1,
        rounds=15,
        calls=15_000,
        rate=Spread(median=12_345.6, p10=9_000, p90=15_000),
        p50_us=80.1,
        p99_us=250.5,
        against=f"{contestant}, raw",
        ratio=flat,
        complete=complete,
    )


def a_growth(factor: float, longest: int = 1_000_000) -> Growth:
    spread = Spread(median=factor, p10=factor, p90=factor)
    return Growth(measure="claim-length", contestant="sqlite FULL", shortest=1_000, longest=longest, factor=spread)


def a_footprint(*sizes: int, asked: int = 1_000_000, inside: bool = False) -> Footprint:
    points = tuple(Point(asked * n // (len(sizes) - 1), size) for n, size in enumerate(sizes))
    return Footprint(contestant="sqlite FULL", asked=asked, points=points, inside=inside)


def standing(target: str, *rows: Row) -> list[Standing]:
    return [verdict.standing for verdict in verdicts(rows) if verdict.target == target]


def test_targets_are_judged_by_what_was_measured() -> None:
    assert standing(RATIO.title, a_result(0.5)) == [Standing.MET]
    assert standing(RATIO.title, a_result(0.499)) == [Standing.MISSED]
    assert standing(RATIO.title, a_result(9, complete=False)) == [Standing.PARTLY]
    assert standing(RATIO.title, a_result(0.1, contestant="memory")) == [Standing.UNMEASURED]
    assert standing(FLAT_CLAIM, a_growth(1.49)) == [Standing.MET]
    assert standing(FLAT_CLAIM, a_growth(1.5)) == [Standing.MISSED]
    assert standing(FLAT_CLAIM, a_growth(1.0, longest=100_000)) == [Standing.PARTLY]
    assert standing(FLAT_CLAIM) == [Standing.UNMEASURED]


def test_each_store_has_targets_of_its_own() -> None:
    for target in TARGETS:
        measured: Row = replace_result(target.measure, target.kind, target.least)
        missed: Row = replace_result(target.measure, target.kind, target.least - 0.01)
        if target.against:
            measured, missed = (a_comparison(target, by) for by in (target.least, target.least - 0.01))
        assert standing(target.title, measured) == [Standing.MET]
        assert standing(target.title, missed) == [Standing.MISSED]
        assert standing(target.title, replace_result("renew-1", target.kind, 99)) == [Standing.UNMEASURED]
        assert standing(target.title, replace_result(target.measure, "memory", 99)) == [Standing.UNMEASURED]


def replace_result(measure: str, contestant: str, ratio: float) -> Result:
    return msgspec.structs.replace(a_result(ratio, contestant=contestant), measure=measure)


def a_comparison(target: Target, ratio: float) -> Comparison:
    return Comparison(
        measure=target.measure,
        title="lock + unlock",
        contestant=f"{target.kind}, batches of 100",
        against=f"{target.against}, one by one",
        ratio=Spread(median=ratio, p10=ratio, p90=ratio),
        rounds=15,
    )


def test_memory_is_flat_once_caches_are_full() -> None:
    assert standing(FLAT_MEMORY, a_footprint(20, 40, 40, 40, 41)) == [Standing.MET]
    assert standing(FLAT_MEMORY, a_footprint(20, 40, 40, 43, 46)) == [Standing.MISSED]
    assert standing(FLAT_MEMORY, a_footprint(20, 40, 40, asked=100_000)) == [Standing.PARTLY]
    assert standing(FLAT_MEMORY, a_footprint(20, 40, 400, 4_000, inside=True)) == [Standing.UNMEASURED]


# -- reports --------------------------------------------------------------------------------------------------------


class Rows:
    """One row of each kind, with texts that would break a careless page."""

    ENVIRONMENT: ClassVar = Environment(
        started=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        onceward="0.1.0",
        python="3.11.9",
        sqlite="3.45.0",
        system="Linux <6>",
        machine="x86_64",
        cpus=4,
        load=0.5,
        quick=True,
        rounds=15,
        lap_seconds=0.1,
    )
    ALL: ClassVar[list[Row]] = [
        ENVIRONMENT,
        a_result(0.75),
        a_growth(1.25),
        a_comparison(TARGETS[3], 1.375),
        a_footprint(20 << 20, 30 << 20, 30 << 20),
        Absent(contestant="[bold]peer", install="pip install peer"),
        Broken(measure="renew-1", reason="WrongAnswer: <script>alert(1)</script> [/]"),
        *verdicts([a_result(0.75), a_growth(1.75)]),
        End(ended=datetime(2026, 1, 2, 4, 4, tzinfo=UTC), seconds=3_600, load=1.5, complete=False),
    ]


def test_the_table_states_figures_targets_and_what_is_missing() -> None:
    shown = text(Rows.ALL)
    for wanted in (
        "12,346",
        "9k–15k",
        "80.1",
        "0.75 (0.75–0.75)",
        "1.38 (1.38–1.38) times as fast",
        "missed",
        "not measured",
        "INTERRUPTED",
    ):
        assert wanted in shown, wanted
    assert "[bold]peer is not installed" in shown
    assert "20.0 MiB to 30.0 MiB, 10.5 bytes per check-in" in shown


def test_the_page_is_one_file_that_loads_nothing_and_escapes_everything() -> None:
    html = page(Rows.ALL)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(""", html)
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(svgs) == 2  # the measure, and the memory
    for svg in svgs:
        ElementTree.fromstring(svg)
    assert "12,346" in html
    assert "1.38 (1.38–1.38) times as fast" in html


def test_a_page_of_a_real_run_has_a_plot_per_measure(tiny: list[Row]) -> None:
    svgs = re.findall(r"<svg.*?</svg>", page([*tiny, *verdicts(tiny)]), flags=re.DOTALL)
    assert len(svgs) == len(MEASURES) + 3
    for svg in svgs:
        ElementTree.fromstring(svg)


def test_nothing_measured_is_a_report_too() -> None:
    assert "not measured" in text(verdicts([]))
    assert "<h1>" in page([])


def test_a_line_of_one_point_can_be_drawn() -> None:
    ElementTree.fromstring(lines({"a": [(0, 0)]}, across="x", up="y", logarithmic=True))


# -- memory of a process --------------------------------------------------------------------------------------------


def test_the_child_measures_itself_and_ends_when_nobody_listens(tmp_path: Path) -> None:
    place = Place(url=f"sqlite:///{tmp_path / 'x.db'}?synchronous=OFF", namespace="bench")
    points = measured(place, 10**9)
    assert next(points).done == 0
    points.close()  # would hang if the child went on


def test_a_failing_child_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code 1"):
        list(measured(Place(url=f"sqlite:///{tmp_path}/none/x.db", namespace="bench"), 10))


def test_points_start_at_nothing_done_and_end_at_all() -> None:
    points = list(check_in(Place(url="memory://", namespace="bench"), 100))
    assert [points[0].done, points[-1].done] == [0, 100]
    assert [point.done for point in points] == sorted({point.done for point in points})


# -- command line ---------------------------------------------------------------------------------------------------

APP = typer.Typer()
APP.command()(bench)


def invoke(*arguments: str) -> tuple[int, list[AnyRow], str]:
    """Exit code, rows on standard output, and what stands on standard error."""
    found = CliRunner().invoke(APP, [*arguments, "--json"])
    return found.exit_code, [decode(line) for line in found.stdout.splitlines()], found.stderr


def test_the_command_prints_json_lines_and_writes_three_files(tmp_path: Path) -> None:
    out = tmp_path / "report"
    code, rows, _ = invoke("memory://", "--quick", "--rounds", "1", "--only", "lock", "--out", str(out))
    assert code == 0
    assert [row.measure for row in rows if isinstance(row, Result)] == ["lock-unlock"] * 2
    assert isinstance(rows[-1], End)
    assert rows[-1].complete
    assert [decode(line) for line in (out / "bench.jsonl").read_text().splitlines()] == rows
    assert "lock + unlock" in (out / "bench.txt").read_text()
    assert "<svg" in (out / "bench.html").read_text()


def test_the_command_prints_a_table_for_people() -> None:
    found = CliRunner().invoke(APP, ["memory://", "--quick", "--rounds", "1", "--only", "lock-unlock"])
    assert found.exit_code == 0
    assert "lock + unlock" in found.stdout
    assert "not measured" in found.stdout
    assert "lock-unlock" in found.stderr


def test_check_fails_when_a_target_is_missed_and_when_none_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("memory://", "--quick", "--rounds", "1", "--only", "lock", "--check")
    assert invoke(*arguments)[0] == 2
    missed = Verdict(target="t", contestant="c", measured=2.0, bound="b", standing=Standing.MISSED)
    monkeypatch.setattr("onceward.benchmarks.cli.verdicts", lambda rows: [missed])
    assert invoke(*arguments)[0] == 1
    assert invoke(*arguments[:-1])[0] == 0


def test_a_measure_that_failed_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "open", lambda self: Runner.of(Liar(), namespace="bench"))
    code, rows, _ = invoke("memory://", "--quick", "--rounds", "1", "--only", "lock")
    assert code == 2
    assert [row.measure for row in rows if isinstance(row, Broken)] == ["lock-unlock"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch://"], "unknown runner type"),
        (["memory://", "--only", "frobnicate"], "lock-unlock"),
        (["sqlite:////no/such/folder/x.db"], "/no/such/folder"),
    ],
)
def test_what_cannot_be_measured_is_told_and_ends_with_2(arguments: list[str], says: str) -> None:
    code, rows, errors = invoke(*arguments)
    assert (code, rows) == (2, [])
    assert says in errors.replace("\n", " ")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_ends_the_command_with_130_and_a_report(tmp_path: Path) -> None:
    code = "import typer; from onceward.benchmarks.cli import bench; typer.run(bench)"
    arguments = ["memory://", "--json", "--only", "lock-unlock", "--rounds", "100000", "--out", str(tmp_path)]
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "lock-unlock\n"  # it is measuring now
        child.send_signal(signal.SIGINT)
        stdout, _ = child.communicate(timeout=60)
    rows = [decode(line) for line in stdout.splitlines()]
    assert child.returncode == 130
    assert isinstance(rows[-1], End)
    assert not rows[-1].complete
    assert (tmp_path / "bench.html").exists()


def test_tables_fit_a_terminal_of_100_columns(tiny: list[Row]) -> None:
    from onceward.benchmarks.report import printed

    console = Console(file=io.StringIO(), width=100)
    printed([row for row in tiny if isinstance(row, Result)], console)
    assert isinstance(console.file, io.StringIO)
    assert "…" not in console.file.getvalue()


def test_a_measure_names_itself_once() -> None:
    names = [measure.name for measure in MEASURES]
    assert len(names) == len(set(names))
