"""Tools that cannot be installed beside us, each in a virtual environment and a process of its own.

The environment is made once and kept in the user's cache. A call is a byte that goes to the process, and one that
comes back: some ten microseconds on top of what is measured.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from onceward.benchmarks.rounds import Task

#: A call that takes longer hangs.
_INSTALLED_WITHIN = 300.0
_DONE = b"."


class NotToBeHad(Exception):
    """The environment cannot be made; the text says why."""


def cache() -> Path:
    """Where what can be made again is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onceward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A virtual environment, and the script that uses it.

    Attributes:
        requirements: what pip installs there.
        script: runs there. It is told a server's host and port, and answers ``.`` when it is ready, and after each
            byte that it reads and that it did its work for. What it writes to standard error is shown if it ends.
    """

    requirements: tuple[str, ...]
    script: Path

    @property
    def folder(self) -> Path:
        """Another one for other requirements, or another Python."""
        what = "\n".join((*self.requirements, platform.python_version(), sys.prefix))
        return cache() / f"{self.script.stem}-{sha256(what.encode()).hexdigest()[:12]}"

    @property
    def ready(self) -> bool:
        """It was made, all of it."""
        return self._mark.exists()

    @property
    def install(self) -> str:
        """What pip is told."""
        return f"pip install {' '.join(map(repr, self.requirements))}"

    @property
    def _mark(self) -> Path:
        return self.folder / "ready"

    @property
    def _python(self) -> Path:
        return self.folder / "bin" / "python"

    def make(self) -> None:
        """It is there.

        Raises:
            NotToBeHad: it cannot be made here.
        """
        if self.ready:
            return
        shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was interrupted
        _run([sys.executable, "-m", "venv", str(self.folder)])
        _run([str(self._python), "-m", "pip", "install", "--quiet", *self.requirements])
        self._mark.touch()

    def task(self, host: str, port: int) -> Task:
        """Each step is one call of the script."""
        process = subprocess.Popen(
            [str(self._python), str(self.script), host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert process.stdin is not None  # as asked for
        assert process.stdout is not None
        asking, answers = process.stdin.fileno(), process.stdout.fileno()

        def answered() -> None:
            if os.read(answers, 1) != _DONE:
                said = process.communicate()[1].decode(errors="replace").strip().splitlines()
                raise RuntimeError(f"{self.script.stem} ended: {said[-1] if said else 'it said nothing'}")

        def step(_: int) -> None:
            os.write(asking, _DONE)
            answered()

        def close() -> None:
            process.communicate()  # the end of its input is its end

        answered()
        return Task(step, close=close)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALLED_WITHIN)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(str(error)) from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise NotToBeHad(said[-1] if said else f"{command[-1]}: exit code {done.returncode}")
