"""Where clients write down what they do: in a list for threads, in a file for processes that may be killed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from onceward.conformance.history import NEVER, Op, Outcome
from onceward.contracts import OncewardError, OutcomeUnknown, StoreUnavailable
from onceward.contracts.records import Record

T = TypeVar("T")

#: So often a client sends a request before it leaves its outcome open.
SENDS = 4


class Recorder(Protocol):
    """Takes down operations: as unknown before they are sent, and as what they were when the answer has come."""

    def begin(self, number: int, op: Op) -> None: ...

    def end(self, number: int, op: Op) -> None: ...

    def fault(self, name: str) -> None: ...

    def broken(self, message: str) -> None: ...


class ListRecorder:
    """For threads. One per client; no lock is needed but for the counters, which are shared."""

    def __init__(self) -> None:
        self.ops: dict[int, Op] = {}
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self.answered = 0.0
        """When the latest of the requests that were answered for certain was sent."""

    def begin(self, number: int, op: Op) -> None:
        """The operation is about to be sent."""

    def end(self, number: int, op: Op) -> None:
        """The operation was answered."""
        self.ops[number] = op
        if op.outcome not in (Outcome.FAILED, Outcome.UNKNOWN):
            self.answered = max(self.answered, op.inv)

    def fault(self, name: str) -> None:
        """Something was done to this client."""
        self.faults[name] += 1

    def broken(self, message: str) -> None:
        """The client saw an error that must not come out."""
        self.problems.append(message)


class Line(Record, frozen=True, kw_only=True):
    """A line of a process's file."""

    number: int = 0
    op: Op | None = None
    fault: str = ""
    problem: str = ""


class FileRecorder:
    """For processes: every line is with the system before the client goes on, so that a kill loses nothing."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def begin(self, number: int, op: Op) -> None:
        self._write(Line(number=number, op=op))

    def end(self, number: int, op: Op) -> None:
        self._write(Line(number=number, op=op))

    def fault(self, name: str) -> None:
        self._write(Line(fault=name))

    def broken(self, message: str) -> None:
        self._write(Line(problem=message))

    def _write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def read_lines(path: Path) -> ListRecorder:
    """What a process wrote down, as far as it came."""
    found = ListRecorder()
    if not path.exists():
        return found
    for text in path.read_bytes().split(b"\n"):
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.DecodeError:
            continue  # the empty end, or a line that a kill cut short: its beginning was written before
        if line.op is not None:
            found.ops[line.number] = line.op
        elif line.fault:
            found.faults[line.fault] += 1
        else:
            found.problems.append(line.problem)
    return found


@dataclass(frozen=True, slots=True)
class Sent(Generic[T]):
    """A request of which it is known what it did; ``answer`` None: it failed."""

    answer: T | None


class Scribe:
    """Sends requests for one client and writes down what became of them."""

    def __init__(self, client: str, recorder: Recorder) -> None:
        self.client = client
        self.recorder = recorder
        self._number = 0

    def send(self, op: Op, call: Callable[[], T], read: Callable[[Op, T], Op]) -> T | None:
        """The answer, or None; the operation is written down as ``read`` understands the answer."""
        return self.send_batch([op], call, lambda ops, answer: [read(ops[0], answer)])

    def send_batch(self, ops: list[Op], call: Callable[[], T], read: Callable[[list[Op], T], list[Op]]) -> T | None:
        """Like ``send`` for a request that is about several resources; ``read`` may answer with other operations.

        What has an unknown outcome is sent again, a few times: an operation of its own, since the same began earlier.
        """
        first = time.monotonic()
        for _ in range(SENDS):
            sent = self._once([replace(op, inv=first) for op in ops], call, read)
            if sent is not None:
                return sent.answer
        return None

    def _once(self, ops: list[Op], call: Callable[[], T], read: Callable[[list[Op], T], list[Op]]) -> Sent[T] | None:
        """What came of sending it once; None: it is not known what the request did."""
        numbers = [self._next() for _ in ops]
        ops = [replace(op, ret=NEVER, outcome=Outcome.UNKNOWN) for op in ops]
        for number, op in zip(numbers, ops, strict=True):
            self.recorder.begin(number, op)
        answer: T | None = None
        known = True
        try:
            answer = call()
        except StoreUnavailable:
            done = [replace(op, outcome=Outcome.FAILED) for op in ops]
        except OutcomeUnknown:
            known, done = False, ops
        except Exception as error:
            kind = "A1" if isinstance(error, OncewardError) else "G16"
            self.recorder.broken(f"{kind}|{ops[0].kind.value} raised {type(error).__name__}: {error}")
            done = ops
        else:
            done = read(ops, answer)
        ret = time.monotonic()
        numbers += [self._next() for _ in done[len(numbers) :]]
        for number, op in zip(numbers, done, strict=False):
            self.recorder.end(number, replace(op, ret=ret))
        return Sent(answer) if known else None

    def _next(self) -> int:
        self._number += 1
        return self._number
