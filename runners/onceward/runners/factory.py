"""One way to any runner: a URL, a mapping, a TOML file, or ``ONCEWARD_RUNNER``; found by entry points.

Third parties add a kind of runner with an entry point in the group ``onceward.runners`` that names a ``RunnerType``.
"""

from __future__ import annotations

import difflib
import os
import tomllib
import typing
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import msgspec

from onceward.contracts import OncewardError, Runner, RunnerType, StoreMisconfigured
from onceward.contracts.checks import namespace as check_namespace
from onceward.contracts.errors import shown

GROUP = "onceward.runners"
VARIABLE = "ONCEWARD_RUNNER"
DEFAULT_URL = "sqlite:///onceward.db"
DEFAULT_NAMESPACE = "default"

#: Names that users of the systems we follow know, and where they lead.
ALIASES = {
    "pulse": "mongodb",
    "mongo": "mongodb",
    "mongodb+srv": "mongodb",
    "bull": "redis",
    "bullmq": "redis",
    "rediss": "redis",
    "redis+sentinel": "redis",
    "rediss+sentinel": "redis",
    "redis+cluster": "redis",
    "rediss+cluster": "redis",
    "unix": "redis",
    "etcds": "etcd",
    "simple": "memory",
    "db": "sqlite",
    "file": "sqlite",
    "sqlite3": "sqlite",
    "zk": "zookeeper",
}

#: Types that were promised elsewhere and that we do not have, and what to take instead.
_INSTEAD = {
    "ignite": "Apache Ignite is not supported (its locks were granted twice); take redis, mongodb, etcd or zookeeper",
    "elasticsearch": "Elasticsearch has no atomic guarded writes across documents; take mongodb or sqlite",
}

Source: TypeAlias = str | Path | Mapping[str, object] | None

_ENTRIES = ["type", "config", "namespace", "needs", "url"]


class _Found(NamedTuple):
    """What a source says."""

    type: str
    config: Mapping[str, object]
    namespace: str | None
    needs: Sequence[str]


def open_runner(
    source: Source = None, *, namespace: str | None = None, needs: Collection[str] = (), create: bool = True
) -> Runner:
    """An open runner; close it, or use it as a context manager.

    Args:
        source: a URL (``"sqlite:///jobs.db?synchronous=NORMAL"``), a mapping (``{"type": "sqlite", "config": {...}}``),
            the path of a TOML file (with ``type``, ``namespace`` and ``[config]``, at the top or below ``[runner]``),
            or None: the URL or path in ``ONCEWARD_RUNNER``, else the embedded ``sqlite:///onceward.db``.
        namespace: isolates applications in one store; wins over the one in the source; ``"default"`` if none has it.
        needs: traits without which the store is refused, such as ``["durable", "shared"]``; adds to those in the
            source (``needs = ["durable"]``, or ``?needs=durable,shared``).
        create: False: a store that lies in a file is not made if the file does not exist.

    Raises:
        InvalidRequest: the namespace is not acceptable, or a need is unknown.
        StoreMisconfigured: unknown type, unknown option, missing extra, unreadable file, a need that the store does
            not meet: says what to do.
        StoreUnavailable: the store cannot be reached now, or there is none and it was not to be made.
    """
    found = _resolve(source)
    if not create and "create" in _options_of(runner_type(found.type)):
        found = found._replace(config={**found.config, "create": False})
    runner = _build(found, namespace).open()
    try:
        _require(runner, [*found.needs, *needs])
    except BaseException:
        runner.close()
        raise
    return runner


def make_runner(source: Source = None, *, namespace: str | None = None) -> Runner:
    """Like ``open_runner``, but the runner is not opened yet, and its needs are not looked at."""
    return _build(_resolve(source), namespace)


def kind_of(source: Source = None) -> RunnerType:
    """Which kind of runner a source names; see ``open_runner``. No driver is imported."""
    return runner_type(_resolve(source).type)


def _build(found: _Found, namespace: str | None) -> Runner:
    chosen = namespace if namespace is not None else found.namespace
    chosen = chosen if chosen is not None else DEFAULT_NAMESPACE
    check_namespace("namespace", chosen)
    kind = runner_type(found.type)
    options = _options(kind, found.config)
    try:
        return kind.build(options, chosen)
    except ImportError as error:
        raise _missing(kind, error) from error


def _require(runner: Runner, needs: Collection[str]) -> None:
    """Refuse a store that does not give what was asked for at start rather than to disappoint later."""
    missing = runner.traits.missing(needs)
    if missing:
        raise StoreMisconfigured(
            f"{runner.url} does not give what was asked for: {', '.join(missing)}; its traits are {runner.traits}. "
            "Take another store, configure this one accordingly, or ask for less"
        )


def runner_types() -> Mapping[str, EntryPoint]:
    """The kinds of runners that are installed, by name. Nothing is imported yet."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def runner_type(name: str) -> RunnerType:
    """The kind of runner with this name or alias."""
    known = runner_types()
    wanted = name if name in known else ALIASES.get(name.lower(), name.lower())
    if wanted in known:
        return _load(known[wanted])
    if wanted in _INSTEAD:
        raise StoreMisconfigured(f"runner type {name!r}: {_INSTEAD[wanted]}")
    guess = _guess(wanted, [*known, *(alias for alias, kind in ALIASES.items() if kind in known)])
    raise StoreMisconfigured(f"unknown runner type {shown(name)}{guess}; installed: {', '.join(known) or 'none'}")


def _load(point: EntryPoint) -> RunnerType:
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        raise StoreMisconfigured(
            f"runner type {point.name!r} cannot be imported from {point.value!r}: {error}; "
            f"install what it needs, for example: pip install 'onceward[{point.name}]'"
        ) from error
    if not isinstance(kind, RunnerType):
        raise StoreMisconfigured(f"entry point {point.name!r} = {point.value!r} is not a RunnerType")
    return kind


def _missing(kind: RunnerType, error: ImportError) -> StoreMisconfigured:
    hint = f"; install it with: pip install 'onceward[{kind.extra}]'" if kind.extra else ""
    return StoreMisconfigured(f"runner type {kind.name!r} needs a package that is not installed ({error}){hint}")


def _resolve(source: Source) -> _Found:
    """Type, options and namespace, wherever they stand."""
    if source is None:
        source = os.environ.get(VARIABLE) or DEFAULT_URL
    if isinstance(source, Mapping):
        return _from_mapping(source, where="the runner's mapping")
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith(".toml") and "://" not in source):
        return _from_toml(Path(source))
    if isinstance(source, str):
        return _from_url(source)
    raise StoreMisconfigured(
        f"a runner is given as a URL, a mapping or the path of a TOML file, not as {shown(source)}"
    )


def _from_url(text: str) -> _Found:
    try:
        url = urlsplit(text)
    except ValueError:  # its text would show the password
        raise StoreMisconfigured("the runner's URL cannot be read: look at its host name and brackets") from None
    if not url.scheme or "://" not in text:
        raise StoreMisconfigured(
            f"{shown(redacted(text))} is no runner URL; write for example sqlite:///jobs.db or memory://"
        )
    kind = runner_type(url.scheme)
    try:
        options: dict[str, object] = dict(kind.from_url(url))
    except OncewardError:
        raise
    except ValueError as error:  # what reading a port that is no number raises
        raise StoreMisconfigured(f"{redacted(text)}: {error}") from error
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    namespace = query.pop("namespace", None)
    needs = [need.strip() for need in query.pop("needs", "").split(",") if need.strip()]
    options.update(query)
    return _Found(url.scheme, options, namespace, needs)


def _from_toml(path: Path) -> _Found:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreMisconfigured(f"there is no configuration file {str(path)!r}") from None
    except tomllib.TOMLDecodeError as error:
        raise StoreMisconfigured(f"the configuration file {str(path)!r} is not valid TOML: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with NUL
        raise StoreMisconfigured(f"the configuration file {str(path)!r} cannot be read: {error}") from error
    section = document.get("runner", document)
    if not isinstance(section, Mapping):
        raise StoreMisconfigured(f"{path}: [runner] must be a table with type, namespace and config")
    return _from_mapping(section, where=str(path))


def _from_mapping(mapping: Mapping[str, object], *, where: str) -> _Found:
    unknown = sorted(set(map(str, mapping)) - set(_ENTRIES))
    if unknown:
        raise StoreMisconfigured(
            f"{where}: unknown entry {unknown[0]!r}{_guess(unknown[0], _ENTRIES)}; "
            "allowed: type and config, or url; namespace; needs"
        )
    namespace = mapping.get("namespace")
    if namespace is not None and not isinstance(namespace, str):
        raise StoreMisconfigured(f"{where}: namespace must be text, not {shown(namespace)}")
    needs = mapping.get("needs", ())
    if not isinstance(needs, (list, tuple)) or not all(isinstance(need, str) for need in needs):
        raise StoreMisconfigured(f'{where}: needs must be a list of traits, such as ["durable"], not {shown(needs)}')
    url = mapping.get("url")
    if url is not None and ("type" in mapping or "config" in mapping):
        raise StoreMisconfigured(f"{where}: has a url besides type and config; keep one of the two")
    if isinstance(url, str):
        found = _from_url(url)
        return found._replace(
            namespace=namespace if namespace is not None else found.namespace, needs=[*found.needs, *needs]
        )
    name, config = mapping.get("type"), mapping.get("config", {})
    if not isinstance(name, str):
        raise StoreMisconfigured(f'{where}: needs a type (such as "sqlite") with its config, or a url')
    if not isinstance(config, Mapping):
        raise StoreMisconfigured(f"{where}: config must be a mapping of options, not {shown(config)}")
    return _Found(name, config, namespace, needs)


def _options(kind: RunnerType, config: Mapping[str, object]) -> msgspec.Struct:
    """The typed options; texts from URLs become numbers and booleans where the option is one."""
    allowed = _options_of(kind)
    for name in config:
        if name not in allowed:
            raise StoreMisconfigured(
                f"runner {kind.name!r} has no option {shown(name)}{_guess(str(name), allowed)}; "
                f"allowed: {', '.join(allowed) or 'none'}"
            )
    try:
        return msgspec.convert(dict(config), kind.options, strict=False)
    except msgspec.ValidationError as error:
        problem = _wrong_option(kind, config) or str(error)
        raise StoreMisconfigured(f"options of runner {kind.name!r}: {problem}") from None


def _options_of(kind: RunnerType) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind.options)]


def _wrong_option(kind: RunnerType, config: Mapping[str, object]) -> str | None:
    """What is wrong with the first option that is wrong by itself.

    The value is shown: an option that holds a secret is free text, and that is never wrong by itself.
    """
    types = typing.get_type_hints(kind.options)
    for name, value in config.items():
        try:
            msgspec.convert(value, types[name], strict=False)
        except msgspec.ValidationError:
            choices = typing.get_args(types[name]) if typing.get_origin(types[name]) is typing.Literal else ()
            wanted = " or ".join(map(repr, choices)) or getattr(types[name], "__name__", str(types[name]))
            return f"{name}: {shown(value)} is not accepted; allowed: {wanted}"
    return None


def _guess(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def redacted(url: str) -> str:
    """The URL without its password and its query, for messages and logs."""
    if "://" not in url:
        return url.partition("?")[0].rpartition("@")[2]
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    location = parts.netloc.rpartition("@")[2]
    user = parts.username
    return f"{parts.scheme}://{f'{user}@' if user else ''}{location}{parts.path}"
