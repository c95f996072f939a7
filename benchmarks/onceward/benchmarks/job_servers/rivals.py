"""Other people's job servers: what each is, how it is had, and its program. Each lives in an environment of its own.

An environment is a folder below the user's cache, made when somebody asks for peers; nothing of it is in ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import msgspec

#: Seconds that an installation may take.
_PATIENCE = 600


class CannotInstall(Exception):
    """A peer cannot be had here; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A job server of somebody else.

    Attributes:
        kind: on the store of which contestants it is measured.
        program: its file in ``programs``; ``.mjs`` is for Node.
        packages: what is installed for it.
        note: how it is set up, and what a reader must know to compare fairly.
        share: of the jobs, so many are enough: it is slow, and its rate does not depend on their number.
        durable: where the store has that choice, it is compared with contestants of this durability only.
    """

    name: str
    kind: str
    program: str
    packages: Sequence[str]
    note: str
    share: float = 1.0
    durable: bool | None = None

    @property
    def install(self) -> str:
        """How somebody would get it."""
        return ("npm install " if self.on_node else "pip install ") + " ".join(self.packages)

    @property
    def on_node(self) -> bool:
        """True for what does not run in Python."""
        return self.program.endswith(".mjs")

    def command(self) -> list[str]:
        """What runs its program, from an environment that is made now if it is not there.

        Raises:
            CannotInstall: it cannot be made here.
        """
        folder = _cache() / Path(self.program).stem
        return self._node(folder) if self.on_node else self._python(folder)

    def _python(self, folder: Path) -> list[str]:
        interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not self._there(folder):
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(interpreter), "-m", "pip", "install", "--quiet", *self.packages])
            self._done(folder)
        _copied(folder, self.program, "tally.py")
        return [str(interpreter), str(folder / self.program)]

    def _node(self, folder: Path) -> list[str]:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise CannotInstall(
                "node and npm are not installed; get them from https://nodejs.org, or apt-get install nodejs npm"
            )
        if not self._there(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
            _run([npm, "install", "--json", "--no-audit", "--no-fund", "--prefix", str(folder), *self.packages])
            self._done(folder)
        _copied(folder, self.program, "tally.mjs")
        return [node, str(folder / self.program)]

    def _there(self, folder: Path) -> bool:
        mark = folder / "installed.txt"
        return mark.exists() and mark.read_text(encoding="utf-8") == self.install

    def _done(self, folder: Path) -> None:
        (folder / "installed.txt").write_text(self.install, encoding="utf-8")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onceward" / "rivals"


def _copied(folder: Path, *names: str) -> None:
    """The programs stand in the folder: what they import is found from there."""
    for name in names:
        with as_file(files("onceward.benchmarks.job_servers") / "programs" / name) as source:
            shutil.copyfile(source, folder / name)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"{command[0]}: {error}") from error
    if done.returncode:
        raise CannotInstall(_reason(done))


def _reason(failed: subprocess.CompletedProcess[str]) -> str:
    """What npm sums it up as, whose last lines say nothing of it; else the last line that was said."""
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(failed.stdout, type=_NpmSays).error.summary
    said = (failed.stderr or failed.stdout).strip().splitlines()
    return said[-1] if said else f"exit code {failed.returncode}"


class _NpmError(msgspec.Struct):
    summary: str


class _NpmSays(msgspec.Struct):
    error: _NpmError


RIVALS = (
    Rival(
        name="BullMQ",
        kind="redis",
        program="bullmq.mjs",
        packages=("bullmq", "ioredis"),
        note="Node, concurrency 50, addBulk of 1,000",
    ),
    Rival(
        name="dramatiq",
        kind="redis",
        program="dramatiq_program.py",
        packages=("dramatiq[redis]",),
        note="8 threads; no bulk",
    ),
    Rival(
        name="taskiq",
        kind="redis",
        program="taskiq_program.py",
        packages=("taskiq", "taskiq-redis"),
        note="50 coroutines on a list: a job is gone from the store once it begins; no bulk",
    ),
    Rival(
        name="arq",
        kind="redis",
        program="arq_program.py",
        packages=("arq",),
        note="50 coroutines; no bulk",
        share=0.5,
    ),
    Rival(
        name="saq",
        kind="redis",
        program="saq_program.py",
        packages=("saq[redis]", "typing_extensions"),
        note="50 coroutines; no bulk",
        share=0.5,
    ),
    Rival(
        name="Celery",
        kind="redis",
        program="celery_program.py",
        packages=("celery[redis]",),
        note="solo pool, a hundred fetched at a time, results not kept; acknowledged before it runs; no bulk",
        share=0.5,
    ),
    Rival(
        name="Agenda",
        kind="mongodb",
        program="agenda.mjs",
        packages=("agenda", "@agendajs/mongo-backend"),
        note="Node, 1,000 at a time, no lock limit, a tick of 20 ms; no bulk",
        share=0.2,
    ),
    Rival(
        name="Pulse",
        kind="mongodb",
        program="pulse.mjs",
        packages=("@pulsecron/pulse", "tslib"),
        note="Node, 1,000 at a time, no lock limit, a tick of 20 ms; no bulk",
        share=0.2,
    ),
    Rival(
        name="huey, fsync",
        kind="sqlite",
        program="huey_program.py",
        packages=("huey",),
        note="one thread, synchronous=FULL; its claim deletes the job: a worker that dies loses it",
        durable=True,
    ),
    Rival(
        name="huey, no fsync",
        kind="sqlite",
        program="huey_program.py",
        packages=("huey",),
        note="one thread, synchronous=OFF: less than our NORMAL; its claim deletes the job",
        durable=False,
    ),
)
