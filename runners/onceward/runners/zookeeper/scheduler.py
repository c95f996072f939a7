"""What should run, and when; and configurations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from onceward.contracts import checks
from onceward.contracts.records import ConfigDoc, RunId
from onceward.contracts.requests import Cancelled, ConfigWrite, Interest, RunSpec
from onceward.contracts.scheduler import Scheduler
from onceward.runners.zookeeper import wire
from onceward.runners.zookeeper.base import Base
from onceward.runners.zookeeper.names import Layout
from onceward.runners.zookeeper.rows import Config, config_bytes, config_of, payload_text
from onceward.runners.zookeeper.runs import Cancellation, Postponement, Submission
from onceward.runners.zookeeper.settle import Change, Found, Move, Turn, found_in
from onceward.runners.zookeeper.watch import ZooKeeperWatch
from onceward.runners.zookeeper.wire import Node


class SchedulerPart(Base, Scheduler):
    """``Scheduler`` on ZooKeeper."""

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        return self._settler.settle([self._submission(spec) for spec in specs])

    def _submission(self, spec: RunSpec) -> Submission:
        if spec.payload is not None:
            spec = replace(spec, payload=payload_text(spec.payload, "payload"))
        return Submission(self._lists, spec)

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        checks.instant("run_at", run_at)
        moved: bool = self._settler.settle([Postponement(self._lists, run, run_at)])[0]
        return moved

    def cancel(self, run: RunId) -> Cancelled:
        answer: Cancelled = self._settler.settle([Cancellation(self._lists, run)])[0]
        return answer

    def watch(self, interest: Interest) -> ZooKeeperWatch:
        return ZooKeeperWatch(interest, self._link, self._layout, self._nudges)

    def read_config(self, name: str) -> ConfigDoc | None:
        config = _config_in(self._link.look([self._layout.config(name)]).nodes[0])
        return None if config is None or config.deleted else config.public()

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        document = payload_text(write.document, "document")
        change = ConfigChange(self._layout, replace(write, document=document))
        answer: ConfigDoc | None = self._settler.settle([change])[0]
        return answer

    def configs(self) -> Sequence[ConfigDoc]:
        names = self._link.look(lists=[self._layout.configs]).lists[0] or ()
        nodes = self._link.read([f"{self._layout.configs}/{name}" for name in names]).nodes
        known = [config for config in map(_config_in, nodes) if config is not None and not config.deleted]
        return [config.public() for config in sorted(known)]


def _config_in(node: Node | None) -> Config | None:
    found = found_in(node)
    return None if found is None else config_of(found.data, found.stamp)


class ConfigChange(Change):
    """See ``Scheduler.write_config``; the document is text already. The node above changes, too: watches see that."""

    def __init__(self, layout: Layout, write: ConfigWrite) -> None:
        self._write, self._layout = write, layout
        self.path = layout.config(write.name)

    def homes(self) -> Sequence[str]:
        return (self._layout.configs,)

    def decide(self, found: Found | None, turn: Turn) -> Move:
        write, known = self._write, None if found is None else config_of(found.data, found.stamp)
        if known is not None and known.request == write.request:
            public = known.public()
            return Move(lambda _: public)
        exists = known is not None and not known.deleted
        version = 0 if known is None else known.version
        if write.expected_version != (version if exists else 0) or (write.document is None and not exists):
            return Move(lambda _: None)
        deleted = write.document is None
        document = known.document if deleted and known is not None else write.document
        assert document is None or isinstance(document, str)  # text, as the store made it
        config = Config(write.name, version + 1, turn.now.wall, write.request, document, deleted)
        beside = (wire.change(self._layout.configs, b""),)
        return Move(lambda _: config.public(), config_bytes(config), beside)
