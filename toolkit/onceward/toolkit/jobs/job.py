"""Jobs: what is done, and how. A class with ``run``, or a function under ``@job``.

class CleanUp(Job):
    schedule = "0 * * * *"
    retry = Retry(attempts=5)

    def run(self, ctx: JobContext) -> Json:
        ...

@job(schedule="every 5 minutes", concurrency=4)
async def poll(ctx: JobContext) -> None:
    ...
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypedDict, Unpack, cast, overload

from onceward.contracts import InvalidRequest, Json
from onceward.contracts.interpreter import undisturbed
from onceward.toolkit.jobs.retry import Retry, Span
from onceward.toolkit.jobs.settings import JobSettings, Where, job_name, member
from onceward.toolkit.schedules import Misfire, Overlap, Source

if TYPE_CHECKING:
    from onceward.toolkit.jobs.context import JobContext

Body: TypeAlias = "Callable[[JobContext], Json | Awaitable[Json]] | Callable[[], Json | Awaitable[Json]]"


class Job:
    """What is done, and how; subclass it and write ``run``. One instance serves all runs, so keep no run's state in it.

    The attributes are those of ``JobSettings``, in any form that a configuration document may have: durations also as
    milliseconds or as text such as ``"5m"``, policies also by name, ``retry`` also as a mapping; a schedule may be
    anything that ``parse`` understands. What has to be computed can be returned by a getter instead: ``get_schedule``,
    ``get_retry_config``, ``get_priority``, ``get_concurrency``, ``get_lock_lifetime``.

    Attributes:
        name: of the job; the class's own name unless given.
        where: where the body runs.
    """

    name: str = ""
    schedule: Source | None = None
    timezone: str | None = None
    misfire: Misfire | str | Mapping[str, object] = Misfire()
    overlap: Overlap | str = Overlap.SKIP
    jitter: Span = timedelta(0)
    retry: Retry | Mapping[str, object] = Retry()
    priority: int = 0
    concurrency: int | None = None
    max_running: int | None = None
    lock_limit: int | None = None
    lock_lifetime: Span | None = None
    timeout: Span | None = None
    data: Json = None
    where: Where | str = Where.THREAD
    abstract: ClassVar[bool] = True
    """True in a class that is only there to be subclassed; set per class, never inherited."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.abstract = cls.__dict__.get("abstract", False)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def run(self, ctx: JobContext) -> Any:
        """The work. What it returns is recorded as the run's result; what it raises ends the attempt."""
        raise NotImplementedError

    def upgrade(self, data: Json) -> Json:
        """What an older version of this job may have been submitted with, as the ``run`` of today wants it.

        An error here ends the run as FAILED: the same data would fail again. The data stays with the run.
        """
        return data

    def get_schedule(self) -> Source | None:
        """When it runs by itself."""
        return self.schedule

    def get_retry_config(self) -> Retry | Mapping[str, object]:
        """Its retry policy; also as a mapping such as ``{"attempts": 3, "delay": 60000}``."""
        return self.retry

    def get_priority(self) -> int:
        """Of its runs."""
        return self.priority

    def get_concurrency(self) -> int | None:
        """At most so many runs at a time in one process."""
        return self.concurrency

    def get_lock_lifetime(self) -> Span | None:
        """How long a run outlives its process; a number is milliseconds."""
        return self.lock_lifetime

    def settings(self) -> JobSettings:
        """What the job's code says.

        Raises:
            InvalidRequest: one of it cannot be; names the field.
        """
        member(Where, "where", self.where)
        return JobSettings().overridden(
            {
                "schedule": self.get_schedule(),
                "timezone": self.timezone,
                "misfire": self.misfire,
                "overlap": self.overlap,
                "jitter": self.jitter,
                "retry": self.get_retry_config(),
                "priority": self.get_priority(),
                "concurrency": self.get_concurrency(),
                "max_running": self.max_running,
                "lock_limit": self.lock_limit,
                "lock_lifetime": self.get_lock_lifetime(),
                "timeout": self.timeout,
                "data": self.data,
            }
        )

    @property
    def is_async(self) -> bool:
        """True if the body is a coroutine function."""
        return inspect.iscoroutinefunction(self.run)

    def checksum(self) -> str:
        """Changes when the code or the settings of the job change, and is the same in every process."""
        digest = hashlib.sha256(repr(sorted(self.settings().to_document().items())).encode())
        digest.update(_source(self._code()).encode())
        return digest.hexdigest()[:32]

    def _code(self) -> object:
        return type(self)


class FunctionJob(Job):
    """A function as a job. Calling it calls the function, for tests."""

    abstract = True

    def __init__(self, function: Body) -> None:
        if not callable(function):
            raise InvalidRequest("job", function, "a function or coroutine function")
        self.function = function
        self._bare = not _takes_context(function)
        self.__doc__ = function.__doc__
        self.__module__ = getattr(function, "__module__", type(self).__module__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def run(self, ctx: JobContext) -> Any:
        return self.function() if self._bare else cast("Callable[[JobContext], Any]", self.function)(ctx)  # type: ignore[call-arg]

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    def _code(self) -> object:
        return self.function


class JobOptions(TypedDict, total=False):
    """The arguments of ``@job``: the attributes of ``Job``."""

    name: str
    schedule: Source | None
    timezone: str | None
    misfire: Misfire | str | Mapping[str, object]
    overlap: Overlap | str
    jitter: Span
    retry: Retry | Mapping[str, object]
    priority: int
    concurrency: int | None
    max_running: int | None
    lock_limit: int | None
    lock_lifetime: Span | None
    timeout: Span | None
    data: Json
    where: Where | str


@overload
def job(function: Body, /) -> FunctionJob: ...
@overload
def job(**options: Unpack[JobOptions]) -> Callable[[Body], FunctionJob]: ...
def job(function: Body | None = None, /, **options: Unpack[JobOptions]) -> FunctionJob | Callable[[Body], FunctionJob]:
    """The function is a job. It takes the ``JobContext``, or nothing at all.

    Raises:
        InvalidRequest: an option is unknown or cannot be; names it.
    """
    if function is not None:
        return _made(function, {})
    return lambda body: _made(body, options)


def _made(function: Body, options: Mapping[str, object]) -> FunctionJob:
    made = FunctionJob(function)
    known = JobOptions.__annotations__
    for option, value in options.items():
        if option not in known:
            raise InvalidRequest(option, value, f"any of {', '.join(known)}")
        setattr(made, option, value)
    if not options.get("name"):
        made.name = getattr(function, "__name__", "")
    job_name(made.name)
    made.settings()
    return made


def _takes_context(function: Body) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-in functions may hide theirs
        return True
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise InvalidRequest("job", function, "a function of one argument, the JobContext, or of none")
    return bool(positional)


def _source(code: object) -> str:
    """The text of the code; where there is none (a console), its name has to do."""
    bare: Any = inspect.unwrap(code) if callable(code) else code
    try:
        return undisturbed(lambda: inspect.getsource(bare))
    except (OSError, TypeError):
        return f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', '')}"
