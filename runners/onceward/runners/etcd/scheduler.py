"""What should run, and when; and configuration documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Raw
from msgspec.structs import replace

from onceward.contracts import checks, transitions
from onceward.contracts.records import ConfigDoc, Run, RunId, Status
from onceward.contracts.requests import Cancelled, ConfigWrite, Interest, RunSpec
from onceward.contracts.scheduler import Scheduler
from onceward.contracts.times import due_ms, from_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.etcd import names, rows, wire
from onceward.runners.etcd.base import Base
from onceward.runners.etcd.fronts import Fronts
from onceward.runners.etcd.quiet import Quiet
from onceward.runners.etcd.steps import Item, State, Step
from onceward.runners.etcd.watch import EtcdWatch
from onceward.runners.etcd.wire import Kv

_PAGE = 200


class SchedulerPart(Base, Scheduler):
    """``Scheduler`` on the cluster."""

    _watches: set[EtcdWatch]
    _scheduled: Fronts
    _quiet: Quiet

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        """See ``Scheduler.submit``. One trip for each hundred."""
        checked = [replace(spec, payload=rows.json_text(spec.payload, "payload")) for spec in specs]
        return self._cells.change_all([self._submission(spec, lone=len(specs) == 1) for spec in checked])

    def _submission(self, spec: RunSpec, *, lone: bool) -> Item[bool]:
        def decide(found: Entry | None, state: State, now: Now) -> Step[bool]:
            if found is not None:
                return Step(answer=lambda _: found.run.origin == spec.request)
            made = transitions.submit(spec, now, sequence=self._sequences.next())
            step = self._written(None, made.run, lambda _: True)
            if lone:
                self._announce(made.run, step)
            return step

        return self._item(spec.id, decide, new=True)

    def _announce(self, run: Run, step: Step[bool]) -> None:
        """Whichever comes first, the answer or what the watch tells: from then on the run is known here."""
        key, tail = self._names.place(run)
        assert step.record is not None  # it is a new run
        self._quiet.awaits(key, Kv(self._names.record(run.id), step.record, 0, 0, 0))

        def answer(revision: int) -> bool:
            self._told(key, tail, revision)
            return True

        step.answer = answer

    def _told(self, key: bytes, tail: bytes, revision: int) -> None:
        """A run waits since this revision."""
        record = self._quiet.told(key, tail, revision)
        if record is not None:
            self._cells.remember(record.key, State(record))

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        checks.instant("run_at", run_at)

        def decide(found: Entry | None, state: State, now: Now) -> Step[bool]:
            if found is None or found.run.status is not Status.SCHEDULED:
                return Step(answer=lambda _: False)
            return self._written(found, replace(found.run, run_at=from_ms(due_ms(run_at))), lambda _: True)

        return self._cells.change(self._item(run, decide))

    def cancel(self, run: RunId) -> Cancelled:
        def decide(found: Entry | None, state: State, now: Now) -> Step[Cancelled]:
            answer, after = transitions.cancel(found, now)
            if found is None or after is None or after is found:
                return Step(answer=lambda _: answer)
            return self._written(found, after.run, lambda _: answer)

        return self._cells.change(self._item(run, decide))

    def watch(self, interest: Interest) -> EtcdWatch:
        watch = EtcdWatch(
            interest,
            self._names,
            self._link,
            self._scheduled,
            now=self._now,
            told=self._told,
            forget=self._watches.discard,
        )
        self._watches.add(watch)
        return watch.start()

    def read_config(self, name: str) -> ConfigDoc | None:
        if not name:
            return None
        found = self._link.read(wire.read(self._names.of(names.CONFIG, name))).kvs
        return _shown(found[0], name) if found else None

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        text = rows.json_text(write.document, "document")

        def decide(state: State, now: Now) -> Step[ConfigDoc | None]:
            known = None if state.record is None else rows.read_config(state.record)
            if known is not None and known.request == write.request:
                return Step(answer=lambda _: _document(write.name, known))
            exists = known is not None and not known.deleted
            if write.expected_version != (known.version if known is not None and exists else 0):
                return Step(answer=lambda _: None)
            if text is None and not exists:
                return Step(answer=lambda _: None)
            written = rows.Config(
                version=(known.version if known is not None else 0) + 1,
                updated=now.wall,
                request=write.request,
                document=known.document if text is None and known is not None else Raw((text or "null").encode()),
                deleted=text is None,
            )
            return Step(answer=lambda _: _document(write.name, written), record=rows.write_config(written))

        return self._cells.change(Item(self._names.of(names.CONFIG, write.name), b"", decide))

    def configs(self) -> Sequence[ConfigDoc]:
        start = self._names.of(names.CONFIG, "")
        end, found = names.behind(start), list[ConfigDoc]()
        while True:
            page = self._link.read(wire.read(start, end, limit=_PAGE))
            for kv in page.kvs:
                document = _shown(kv, names.original(self._names.parts(kv.key)[0]))
                found += [document] if document is not None else []
            if page.total <= len(page.kvs):
                return sorted(found, key=lambda document: document.name)
            start = page.kvs[-1].key + b"\0"


def _shown(kv: Kv, name: str) -> ConfigDoc | None:
    config = rows.read_config(kv)
    return None if config.deleted else _document(name, config)


def _document(name: str, config: rows.Config) -> ConfigDoc:
    return ConfigDoc(
        name=name, version=config.version, document=rows.document_of(config), updated=from_ms(config.updated)
    )
