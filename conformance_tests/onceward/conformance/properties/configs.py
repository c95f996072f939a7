"""The state machine of configuration documents: writes are guarded by versions, and no edit is lost."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from onceward.conformance.machine import Machine, explore, holders, picked, picks
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import ConfigDoc, ConfigWrite, Json

NAMES = ("limits", "limits/a", "é")
DOCUMENTS: tuple[Json, ...] = ({"on": True}, [1, 2.5], "text", None)

names = st.sampled_from(NAMES)


class ConfigMachine(Machine):
    """G7, G11: a write needs the newest version; versions never come back, not even after a deletion."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.documents: dict[str, tuple[int, Json]] = {}
        self.highest: dict[str, int] = {}
        self.last: dict[str, tuple[ConfigWrite, ConfigDoc]] = {}
        self.writes: list[ConfigWrite] = []

    @rule(name=names, document=st.sampled_from(DOCUMENTS), behind=st.sampled_from((0, 0, 0, 1, 2)), holder=holders)
    def write(self, name: str, document: Json, behind: int, holder: str) -> None:
        """A write that expects the newest version, or one of earlier."""
        version = max(0, self.documents.get(name, (0, None))[0] - behind)
        write = ConfigWrite(name=name, document=document, expected_version=version, request=self.request())
        self.writes.append(write)
        self.send(write, holder)

    @rule(pick=picks, holder=holders)
    def repeat(self, pick: int, holder: str) -> None:
        """A write of earlier arrives again."""
        write = picked(self.writes, pick)
        if write is not None:
            self.send(write, holder)

    def send(self, write: ConfigWrite, holder: str) -> None:
        """Written exactly if the version fits; the same write again gives the same answer."""
        answer = self.ask(
            f"{holder}.write_config({write.name!r}, {write.document!r}, expected={write.expected_version}, "
            f"{write.request})",
            lambda: self.client(holder).scheduler.write_config(write),
        )
        newest = self.last.get(write.name)
        if newest is not None and newest[0].request == write.request:
            self.expect("G7", answer == newest[1], lambda: f"repeated it was answered {answer}, first {newest[1]}")
            return
        version, present = self.documents.get(write.name, (0, None))
        fits = write.expected_version == version and not (write.document is None and version == 0)
        self.expect("G11", (answer is not None) is fits, lambda: f"version {version}, but answered {answer}")
        if answer is None:
            return
        self.last[write.name] = (write, answer)
        highest = self.highest.get(write.name, 0)
        if write.document is None:
            self.expect("C2", answer.document == present, lambda: f"deleted {present!r}, the answer was {answer}")
            self.highest[write.name] = max(highest, answer.version)
            del self.documents[write.name]
            return
        grows = answer.version == version + 1 if version else answer.version > highest
        self.expect("G11", grows, lambda: f"version {answer.version} after {highest}")
        self.expect("P1", answer.document == write.document, lambda: f"wrote {write.document!r}, got {answer}")
        self.highest[write.name] = answer.version
        self.documents[write.name] = (answer.version, write.document)

    @invariant()
    def reads_agree(self) -> None:
        """Reading shows the newest version of each, and the list shows them all by name."""
        try:
            read = {name: self.runner.scheduler.read_config(name) for name in NAMES}
            listed = list(self.runner.scheduler.configs())
        except Exception as error:
            raise self.trial.blame(error, "reading configurations") from error
        shown = {name: (doc.version, doc.document) for name, doc in read.items() if doc is not None}
        self.expect("C2", shown == self.documents, lambda: f"read {shown}, must be {self.documents}")
        names = [doc.name for doc in listed]
        self.expect("C2", names == sorted(self.documents), lambda: f"listed {names}")


MODEL = Property(
    id="queue.configs",
    statement="A configuration is written only by whoever knows its newest version, and every version is new.",
    guarantees=("G7", "G11", "C2", "P1"),
    experiment=explore(ConfigMachine, cases=25, steps=20),
)
