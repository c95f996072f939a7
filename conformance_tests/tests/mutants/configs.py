"""Mutants of configuration documents: whose edit is lost, and which version comes back."""

from __future__ import annotations

from msgspec.structs import replace

from onceward.contracts import ConfigDoc, ConfigWrite

from .planted import planted
from .planted_store import Meddled


@planted("queue", "queue.configs")
class LastWriteWins(Meddled):
    """Pulse's and Agenda's save() (S109): of two edits at once, the first is silently lost."""

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        with self._lock:
            known = self.read_config(write.name)
            return super().write_config(replace(write, expected_version=known.version if known else 0))


@planted("queue", "queue.configs")
class VersionsComeBack(Meddled):
    """Versions kept in the document that they guard: after a deletion they begin at 1 again, and old edits fit."""

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        with self._lock:
            answer = super().write_config(write)
            if write.document is None and answer is not None:
                del self._configs[write.name]
            return answer


@planted("queue", "queue.configs")
class RepeatedWriteConflicts(Meddled):
    """After a lost reply, the editor is told that somebody else was faster, and it was the editor."""

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        with self._lock:
            known = self._configs.get(write.name)
            if known is not None and known[1].request == write.request:
                return None
            return super().write_config(write)


@planted("queue", "queue.configs")
class DeletedStillListed(Meddled):
    """A tombstone that listings show."""

    def configs(self) -> list[ConfigDoc]:
        with self._lock:
            return [replace(document, document=None) for _, (document, _) in sorted(self._configs.items())]
