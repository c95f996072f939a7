"""What should run, and when; and configuration documents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime

from onceward.contracts import checks
from onceward.contracts.records import ConfigDoc, RunId
from onceward.contracts.requests import Cancelled, ConfigWrite, Interest, RunSpec
from onceward.contracts.scheduler import Scheduler
from onceward.contracts.times import due_ms, from_ms, span_ms
from onceward.runners.encoding import decode
from onceward.runners.redis.base import Base
from onceward.runners.redis.names import escaped, original, run_text
from onceward.runners.redis.rows import budget_text, json_text, listed, number, text
from onceward.runners.redis.watch import RedisWatch
from onceward.runners.redis.wire import Reply, Wire


class SchedulerPart(Base, Scheduler):
    """``Scheduler`` on the server."""

    _watches: set[RedisWatch]

    @abstractmethod
    def _connect(self) -> Wire:
        """A connection of its own to the server."""

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        arguments: list[str | int] = []
        for spec in specs:
            arguments += _spec(spec)
        return [answer == 1 for answer in self._batch("submit", arguments, 4)]

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        checks.instant("run_at", run_at)
        return self._run("reschedule", run_text(run), str(due_ms(run_at))) == 1

    def cancel(self, run: RunId) -> Cancelled:
        return Cancelled(text(self._run("cancel", run_text(run))))

    def watch(self, interest: Interest) -> RedisWatch:
        watch = RedisWatch(interest, self._prefix, connect=self._connect, ask=self._run, forget=self._watches.discard)
        self._watches.add(watch)
        return watch

    def read_config(self, name: str) -> ConfigDoc | None:
        found = listed(self._run("configs", escaped(name))) if name else []
        return _document(listed(found[0])) if found else None

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        document = json_text(write.document, "document")
        reply = self._run("write_config", escaped(write.name), document, str(write.expected_version), write.request)
        return None if reply is None else _document([escaped(write.name), *listed(reply)])

    def configs(self) -> Sequence[ConfigDoc]:
        found = [_document(listed(each)) for each in listed(self._run("configs", ""))]
        return sorted(found, key=lambda document: document.name)


def _spec(spec: RunSpec) -> tuple[str, ...]:
    if spec.run_at is not None:
        when = str(due_ms(spec.run_at))
    else:
        when = "+0" if spec.after is None else f"+{span_ms(spec.after)}"
    how = f"{when} {spec.priority} {budget_text(spec.max_crashes)}"
    return run_text(spec.id), how, json_text(spec.payload, "payload"), spec.request


def _document(fields: Sequence[Reply]) -> ConfigDoc:
    name, version, document, updated = fields
    return ConfigDoc(
        name=original(text(name)),
        version=number(version),
        document=decode(text(document)),
        updated=from_ms(number(updated)),
    )
