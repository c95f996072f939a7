"""A picture of a history: a lane per client, a numbered bar per operation, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Sequence

from onceward.conformance.history import NEVER, Op

WIDTH = 88
MOST = 24


def shown(evidence: Sequence[Op], history: Sequence[Op]) -> list[Op]:
    """The operations that prove an accusation, and those that overlapped them on the same resource."""
    if not evidence:
        return []
    begin, end = min(op.inv for op in evidence), max(op.ret if op.ret < NEVER else op.inv for op in evidence)
    resources = {op.resource for op in evidence}
    chosen = {id(op): op for op in evidence}
    around = [op for op in history if op.resource in resources and op.ret >= begin and op.inv <= end]
    for op in around[: max(0, MOST - len(chosen))]:
        chosen.setdefault(id(op), op)
    return sorted({repr(op): op for op in chosen.values()}.values(), key=lambda op: op.inv)


def lines(ops: Sequence[Op]) -> tuple[str, ...]:
    """The operations in words, with their times in milliseconds from the first."""
    start = ops[0].inv if ops else 0.0
    return tuple(f"{_ms(op.inv, start)} to {_ms(op.ret, start)} ms  {op}" for op in ops)


def _ms(moment: float, start: float) -> str:
    return "never" if moment == NEVER else f"{(moment - start) * 1000:.1f}"


def lanes(ops: Sequence[Op]) -> str:
    """A lane per client; bars have the numbers of ``lines``; the axis is the order of events, not a scale."""
    if not ops:
        return ""
    moments = sorted({moment for op in ops for moment in (op.inv, op.ret) if moment < NEVER})
    step = max(2, min(8, WIDTH // max(1, len(moments))))
    column = {moment: index * step for index, moment in enumerate(moments)}
    column[NEVER] = len(moments) * step
    clients = list(dict.fromkeys(op.client for op in ops))
    pad = max(len(client) for client in clients)
    rows = []
    for client in clients:
        lane = [" "] * (len(moments) * step + step + 4)
        for number, op in enumerate(ops, 1):
            if op.client == client:
                _draw(lane, column[op.inv], column[op.ret], str(number))
        rows.append(f"{client:<{pad}}  {''.join(lane).rstrip()}")
    return "\n".join(rows)


def _draw(lane: list[str], begin: int, end: int, label: str) -> None:
    """A bar ``[3--]`` on the lane."""
    end = max(end, begin + 1)
    lane[begin], lane[end] = "[", "]"
    for place in range(begin + 1, end):
        lane[place] = "-"
    for offset, character in enumerate(label):
        if begin + 1 + offset < end:
            lane[begin + 1 + offset] = character
