"""The job scanner: finds jobs in what it is given, in modules, in folders, and in what plug-ins offer."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import logging
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from onceward.contracts import InvalidRequest
from onceward.toolkit.jobs.job import Job

log = logging.getLogger("onceward.server")

#: Plug-ins offer jobs by entry points in this group: a job, a class, or a module.
GROUP = "onceward.jobs"
_FROM_FILE = "onceward_jobs_"
#: A class, a job, a module, the name of a module (``"shop.jobs"``, ``"shop.jobs:CleanUp"``), a folder or a file.
JobSource: TypeAlias = "Job | type[Job] | ModuleType | str | Path"


def found_jobs(sources: Iterable[JobSource]) -> list[Job]:
    """One instance of every job that is found, in the order in which they are.

    Raises:
        InvalidRequest: a source is none, cannot be imported, or holds no job; or two different jobs have one name.
    """
    found: dict[str, Job] = {}
    for source in sources:
        for job in _in(source):
            known = found.setdefault(job.name, job)
            if known is not job and _code(known) is not _code(job):
                raise InvalidRequest("jobs", job.name, f"one job of this name; found {_where(known)} and {_where(job)}")
    return list(found.values())


def plugin_jobs() -> list[Job]:
    """The jobs that installed packages offer by entry points in the group ``onceward.jobs``."""
    return found_jobs(point.load() for point in sorted(entry_points(group=GROUP), key=lambda point: point.name))


class FileWatch:
    """Notices that the files of jobs have changed since they were loaded; looking costs one stat per file."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._files = {path for job in jobs if (path := _file(job)) is not None}
        self._loaded = self._look()

    def changed(self) -> list[Path]:
        """The files that are not what they were; a server goes on with what it loaded until it is started again."""
        now = self._look()
        return sorted(path for path in self._files if now[path] != self._loaded[path])

    def _look(self) -> Mapping[Path, tuple[int, int] | None]:
        return {path: _state(path) for path in self._files}


def _in(source: JobSource) -> Iterator[Job]:
    if isinstance(source, Job):
        yield source
    elif isinstance(source, type) and issubclass(source, Job):
        yield source()
    elif isinstance(source, ModuleType):
        yield from _in_module(source)
    elif isinstance(source, Path) or (isinstance(source, str) and (source.endswith(".py") or "/" in source)):
        yield from _in_path(Path(source))
    elif isinstance(source, str):
        yield from _named(source)
    else:
        raise InvalidRequest("jobs", source, "a Job, a class of one, a module or its name, a folder or a file")


def _named(text: str) -> Iterator[Job]:
    name, _, attribute = text.partition(":")
    module = _imported(name)
    if attribute:
        if not hasattr(module, attribute):
            raise InvalidRequest("jobs", text, f"the name of a job in {name}")
        yield from _in(getattr(module, attribute))
        return
    inner = pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}.")
    modules = [module, *(_imported(info.name) for info in inner if not _private(info.name))]
    jobs = [job for each in modules for job in _in_module(each)]
    if not jobs:
        raise InvalidRequest(
            "jobs", text, "a module with at least one job: a subclass of Job, or a function under @job"
        )
    yield from jobs


def _imported(name: str) -> ModuleType:
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: modules beside where one stands
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise  # the module is there, and lacks something itself
        raise InvalidRequest("jobs", name, "a module that can be imported from here") from error
    except ValueError as error:
        raise InvalidRequest("jobs", name, "the name of a module, such as shop.jobs") from error


def _in_path(path: Path) -> Iterator[Job]:
    if path.is_file():
        yield from _in_module(_loaded(path))
        return
    if not path.is_dir():
        raise InvalidRequest("jobs", str(path), "a folder or a file that is there")
    for file in sorted(path.rglob("*.py")):
        if not _private(file.stem):
            yield from _in_module(_loaded(file))


def _loaded(file: Path) -> ModuleType:
    """The file as a module of a name of its own, the same one when it is loaded again."""
    full = file.resolve()
    name = f"{_FROM_FILE}{hashlib.sha256(str(full).encode()).hexdigest()[:12]}_{full.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise InvalidRequest("jobs", str(file), "a file of Python code")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _in_module(module: ModuleType) -> Iterator[Job]:
    """The jobs that the module defines; those that it only imports are found where they are defined."""
    for value in list(vars(module).values()):
        if isinstance(value, Job) and value.__module__ == module.__name__:
            yield value
        elif (
            isinstance(value, type)
            and issubclass(value, Job)
            and not value.abstract
            and value.__module__ == module.__name__
        ):
            yield value()


def _private(name: str) -> bool:
    """True for what is not looked into: ``__main__`` would run a program."""
    return name.rpartition(".")[2].startswith(("_", "."))


def _code(job: Job) -> object:
    return getattr(job, "function", type(job))


def source_of(job: Job) -> str:
    """Where another process finds the job: the name of its module, or its file where the module is no import away.

    Raises:
        InvalidRequest: it stands in no module, as in a console.
    """
    name = getattr(_code(job), "__module__", "")
    if (
        name != "__main__"
        and not name.startswith(_FROM_FILE)
        and "<locals>" not in getattr(_code(job), "__qualname__", "")
    ):
        return str(name)
    file = _file(job)
    if file is None or not file.is_file() or "<locals>" in getattr(_code(job), "__qualname__", ""):
        raise InvalidRequest("where", job.name, "a job at the top of a module or file, so that a process can load it")
    return str(file.resolve())


def _where(job: Job) -> str:
    code = _code(job)
    return f"{getattr(code, '__module__', '?')}.{getattr(code, '__qualname__', '?')}"


def _file(job: Job) -> Path | None:
    try:
        return Path(inspect.getfile(_code(job)))  # type: ignore[arg-type]
    except (TypeError, OSError):
        return None


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
