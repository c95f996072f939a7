"""One way to any runner, and an error that says what to do for every way of getting it wrong."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import msgspec
import pytest

from onceward.contracts import InvalidRequest, OncewardError, Runner, RunnerType, StoreMisconfigured
from onceward.runners import factory
from onceward.runners.factory import make_runner, open_runner, redacted, runner_type, runner_types
from onceward.runners.memory import MemoryStore


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the third party's runner can be told."""

    host: str = ""
    port: int = 1
    verify: bool = True
    password: str = ""


BUILT: list[Options] = []


def build(options: Options, namespace: str) -> Runner:
    if options.host == "absent":
        raise ImportError("No module named 'driver'", name="driver")
    BUILT.append(options)
    return Runner.of(MemoryStore(namespace), namespace=namespace, url=f"acme://{options.host}")


def from_url(url: SplitResult) -> Mapping[str, object]:
    return {
        name: value
        for name, value in {"host": url.hostname, "port": url.port, "password": url.password}.items()
        if value is not None
    }


ACME = RunnerType(name="acme", options=Options, build=build, from_url=from_url, extra="acme")


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's distribution, installed for one test: metadata in a folder, and its modules."""
    metadata = tmp_path / "site" / "acme_runner-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-runner\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        "[onceward.runners]\nacme = acme_runner:TYPE\nlost = acme_runner_is_not_there:TYPE\n"
        "wrong = acme_runner:NOTHING\nodd = acme_runner:ODD\n",
        encoding="utf-8",
    )
    module = types.ModuleType("acme_runner")
    vars(module).update(TYPE=ACME, ODD="no type")
    monkeypatch.setitem(sys.modules, "acme_runner", module)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delenv("ONCEWARD_RUNNER", raising=False)
    monkeypatch.chdir(tmp_path)
    BUILT.clear()


def refusal(source: Any, **more: Any) -> str:
    """What the error says."""
    with pytest.raises(StoreMisconfigured) as refused:
        make_runner(source, **more)
    return str(refused.value)


# -- the ways to say it -----------------------------------------------------------------------------------------


def test_a_third_partys_runner_is_found_by_its_entry_point() -> None:
    assert {"acme", "memory", "sqlite"} <= set(runner_types())
    with open_runner("acme://h:7?verify=false", namespace="orders") as runner:
        assert runner.namespace == "orders"
    assert [Options(host="h", port=7, verify=False)] == BUILT


def test_a_mapping_says_the_same_as_a_url() -> None:
    with open_runner({"type": "acme", "config": {"host": "h", "port": 7}, "namespace": "orders"}) as runner:
        assert runner.namespace == "orders"
    with open_runner({"url": "acme://h:7", "namespace": "orders"}) as runner:
        assert runner.namespace == "orders"
    assert [Options(host="h", port=7)] * 2 == BUILT


@pytest.mark.parametrize("head", ["", "[runner]\n", "[other]\nx = 1\n[runner]\n"])
def test_a_toml_file_says_the_same_too(head: str, tmp_path: Path) -> None:
    table = "[runner.config]" if head else "[config]"
    path = tmp_path / "jobs.toml"
    path.write_text(f'{head}type = "acme"\nnamespace = "orders"\n{table}\nhost = "h"\nport = 7\n', encoding="utf-8")
    for source in (path, str(path)):
        with open_runner(source) as runner:
            assert runner.namespace == "orders"
    assert [Options(host="h", port=7)] * 2 == BUILT


def test_the_environment_names_a_url_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEWARD_RUNNER", "acme://env?namespace=there")
    assert make_runner().namespace == "there"
    path = tmp_path / "env.toml"
    path.write_text('type = "acme"\nconfig.host = "file"', encoding="utf-8")
    monkeypatch.setenv("ONCEWARD_RUNNER", str(path))
    make_runner()
    assert [options.host for options in BUILT] == ["env", "file"]


def test_the_default_is_the_embedded_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(name: str) -> RunnerType:
        asked.append(name)
        return RunnerType(name=name, options=Options, build=build, from_url=lambda url: {"host": url.path})

    monkeypatch.setattr(factory, "runner_type", note)
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("ONCEWARD_RUNNER", value)
        assert make_runner().namespace == "default"
    assert set(asked) == {"sqlite"}
    assert {options.host for options in BUILT} == {"/onceward.db"}


def test_the_namespace_given_by_the_caller_wins() -> None:
    assert make_runner("acme://h?namespace=url").namespace == "url"
    assert make_runner("acme://h?namespace=url", namespace="mine").namespace == "mine"
    assert make_runner({"url": "acme://h?namespace=url", "namespace": "mapping"}).namespace == "mapping"
    assert make_runner("acme://h").namespace == "default"


def test_memory_runners_share_a_store_only_by_name() -> None:
    def store(url: str, namespace: str = "a") -> object:
        return make_runner(url, namespace=namespace).executor

    assert store("memory://") is not store("memory://")
    assert store("memory://shared") is store("memory://shared")
    assert store("memory://shared") is not store("memory://shared", "b")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    assert isinstance(runner_types()["lost"], importlib.metadata.EntryPoint)


# -- aliases (CHECKLIST R12) ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "kind"),
    [
        ("pulse", "mongodb"),
        ("bullmq", "redis"),
        ("bull", "redis"),
        ("simple", "memory"),
        ("db", "sqlite"),
        ("file", "sqlite"),
        ("mongo", "mongodb"),
        ("mongodb+srv", "mongodb"),
        ("rediss", "redis"),
        ("zk", "zookeeper"),
    ],
)
def test_r12_names_of_the_systems_we_follow_lead_to_ours(
    alias: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = importlib.metadata.EntryPoint(kind, "acme_runner:TYPE", factory.GROUP)
    monkeypatch.setattr(factory, "entry_points", lambda group: [point] if group == factory.GROUP else [])
    assert runner_type(alias) is ACME
    assert runner_type(alias.upper()) is ACME


@pytest.mark.parametrize(
    ("name", "instead"), [("ignite", "redis, mongodb, etcd"), ("elasticsearch", "mongodb or sqlite")]
)
def test_r12_what_we_do_not_have_names_what_to_take_instead(name: str, instead: str) -> None:
    for source in (f"{name}://h", {"type": name}):
        assert instead in refusal(source)


def test_a_third_party_may_take_the_name_of_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("pulse", "acme_runner:TYPE", factory.GROUP)
    monkeypatch.setattr(factory, "entry_points", lambda group: [point])
    assert runner_type("pulse") is ACME


# -- the ways to get it wrong -----------------------------------------------------------------------------------


def test_an_unknown_type_lists_what_is_installed() -> None:
    said = refusal("memroy://")
    assert "did you mean 'memory'?" in said
    assert "acme" in said


def test_a_misspelt_option_is_guessed_and_the_allowed_ones_listed() -> None:
    for source in ("acme://h?prot=7", {"type": "acme", "config": {"prot": 7}}):
        said = refusal(source)
        assert "did you mean 'port'?" in said
        assert "allowed: host, port, verify, password" in said


@pytest.mark.parametrize("source", ["acme://h?port=many", {"type": "acme", "config": {"verify": "perhaps"}}])
def test_an_option_of_the_wrong_kind_is_refused(source: Any) -> None:
    assert "options of runner 'acme'" in refusal(source)


def test_a_missing_driver_names_the_extra() -> None:
    assert "pip install 'onceward[acme]'" in refusal("acme://absent")


@pytest.mark.parametrize("name", ["lost", "wrong", "odd"])
def test_a_broken_entry_point_is_an_error_of_ours(name: str) -> None:
    assert f"'{name}'" in refusal({"type": name})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type = ", "not valid TOML"),
        ("runner = 5", "must be a table"),
        ('tpye = "acme"', "did you mean 'type'?"),
        ('type = "acme"\nnamespace = 5', "namespace must be text"),
        ('type = "acme"\nconfig = 5', "config must be a mapping"),
        ('type = "acme"\nurl = "acme://h"', "keep one of the two"),
        ("type = 5", "needs a type"),
        ("url = 5", "needs a type"),
        ("", "needs a type"),
    ],
)
def test_a_bad_file_says_what_is_wrong_with_it(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    found = refusal(path)
    assert said in found
    assert str(path) in found


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert "there is no configuration file 'none.toml'" in refusal("none.toml")
    assert "cannot be read" in refusal(tmp_path)
    assert "cannot be read" in refusal("nul\0.toml")
    (tmp_path / "latin.toml").write_bytes(b'type = "\xe9"')
    assert "cannot be read" in refusal(tmp_path / "latin.toml")


@pytest.mark.parametrize("source", ["jobs.db", "sqlite:jobs.db", "", "://", "acme://[h", "ACME:", 5, b"acme://h"])
def test_what_is_no_source_is_refused_with_an_example(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(source)


@pytest.mark.parametrize("namespace", ["", " ", "a\nb", "n" * 129, 5])
def test_g16_a_bad_namespace_is_refused_before_anything_is_built(namespace: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^namespace"):
        make_runner("acme://h", namespace=namespace)
    assert BUILT == []


@pytest.mark.parametrize(
    "source",
    [
        "acme://user:geheim@h:port/",
        "acme://user:geheim@h?prot=1",
        "acme://user:geheim@h?port=x&password=geheim",
        "acme://user:geheim@[h",
        "acme://user:geheim@ex\u2100mple.com",
        "unknown://user:geheim@h",
        "acme:user:geheim@h",
        "//user:geheim@h",
        "user:geheim@h",
        {"url": "unknown://user:geheim@h"},
        {"type": "acme", "config": {"password": "geheim", "port": "x"}},
    ],
)
def test_passwords_are_never_in_a_message(source: Any) -> None:
    with pytest.raises((OncewardError, ValueError)) as refused:
        make_runner(source)
    error: BaseException | None = refused.value
    assert isinstance(error, OncewardError)
    while error is not None:
        assert "geheim" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_redacted_urls_keep_what_is_no_secret() -> None:
    assert redacted("redis://user:geheim@h:6379/0?password=geheim") == "redis://user@h:6379/0"
    assert redacted("redis://:geheim@h") == "redis://h"
    assert redacted("sqlite:///a@b.db") == "sqlite:///a@b.db"
    assert redacted("redis://[geheim") == "a URL that cannot be read"
