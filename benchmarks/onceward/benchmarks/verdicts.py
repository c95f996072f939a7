"""The targets, and what a run's rows say about each of them. Nothing here is known before it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onceward.benchmarks.records import Footprint, Growth, Result, Role, Row, Standing, Verdict

LEAST_RATIO = 0.5
MOST_GROWTH = 1.5
FULL_LENGTH = 1_000_000
FULL_CHECKINS = 1_000_000
#: "Flat": the process is at most so many times as large at the end as it was half-way, when caches are long full.
MOST_SWELLING = 1.05

RATIO = "SQLite check-in against the raw upsert"
FLAT_CLAIM = "cost of a claim, longest queue against shortest"
FLAT_MEMORY = "memory of the process, end against half-way"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One per target and contestant; a target that nobody was measured for stands there as such."""
    found = [*_ratios(rows), *_growth(rows), *_memory(rows)]
    bounds = {
        RATIO: f"at least {LEAST_RATIO}",
        FLAT_CLAIM: f"less than {MOST_GROWTH}",
        FLAT_MEMORY: f"at most {MOST_SWELLING}",
    }
    judged = {verdict.target for verdict in found}
    missing = [
        Verdict(target=target, contestant="", measured=None, bound=bound, standing=Standing.UNMEASURED)
        for target, bound in bounds.items()
        if target not in judged
    ]
    return [*found, *missing]


def _ratios(rows: Iterable[Row]) -> Iterator[Verdict]:
    for row in rows:
        if (
            isinstance(row, Result)
            and row.measure == "checkin-new"
            and row.role is Role.RUNNER
            and row.contestant.startswith("sqlite")
            and row.ratio is not None
        ):
            yield Verdict(
                target=RATIO,
                contestant=row.contestant,
                measured=row.ratio.median,
                bound=f"at least {LEAST_RATIO}",
                standing=_standing(row.ratio.median >= LEAST_RATIO, whole=row.complete),
                note=f"{row.rounds} rounds",
            )


def _growth(rows: Iterable[Row]) -> Iterator[Verdict]:
    for row in rows:
        if isinstance(row, Growth):
            yield Verdict(
                target=FLAT_CLAIM,
                contestant=row.contestant,
                measured=row.factor.median,
                bound=f"less than {MOST_GROWTH}",
                standing=_standing(row.factor.median < MOST_GROWTH, whole=row.complete and row.longest >= FULL_LENGTH),
                note=f"{row.shortest:,} to {row.longest:,} queued",
            )


def _memory(rows: Iterable[Row]) -> Iterator[Verdict]:
    for row in rows:
        if isinstance(row, Footprint) and not row.inside:
            swelling = swollen(row)
            if swelling is not None:
                yield Verdict(
                    target=FLAT_MEMORY,
                    contestant=row.contestant,
                    measured=swelling,
                    bound=f"at most {MOST_SWELLING}",
                    standing=_standing(
                        swelling <= MOST_SWELLING, whole=row.complete and row.points[-1].done >= FULL_CHECKINS
                    ),
                    note=f"{row.points[-1].done:,} check-ins",
                )


def swollen(row: Footprint) -> float | None:
    """The size at the end in relation to that after half of the check-ins; None: it did not get further."""
    later = [point for point in row.points if point.done >= row.asked / 2]
    return later[-1].resident / later[0].resident if len(later) > 1 else None


def _standing(reached: bool, *, whole: bool) -> Standing:
    if not reached:
        return Standing.MISSED
    return Standing.MET if whole else Standing.PARTLY
