"""What people install: every module and nothing else, light to import, and the namespace that any part can share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("contracts", "runners", "toolkit", "conformance_tests", "benchmarks")
PACKAGES = ("contracts", "runners", "toolkit", "conformance", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: What a source distribution holds besides the source roots.
SOURCE_EXTRAS = {
    "CHANGELOG.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "pyproject.toml", ".ci", ".gitignore", "docs",
    "examples",
}  # fmt: skip


def run(code: str, *, forbidden: tuple[str, ...] = ()) -> str:
    """What a fresh interpreter prints in which the forbidden packages seem not to be installed."""
    block = f"import sys; sys.modules.update(dict.fromkeys({forbidden!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def build(kind: str, folder: Path) -> Path:
    """The distribution is built with the hatchling of this environment, from the tree as it is."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The wheel's files by name."""
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


# -- the namespace ----------------------------------------------------------------------------------------------------


def test_no_part_claims_the_namespace() -> None:
    assert [root for root in ROOTS if (ROOT / root / "onceward" / "__init__.py").exists()] == []


def test_each_part_is_typed() -> None:
    missing = [
        package
        for root, package in zip(ROOTS, PACKAGES, strict=True)
        if not (ROOT / root / "onceward" / package / "py.typed").exists()
    ]
    assert missing == []


# -- what is installed ------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Mapping[str, str]) -> None:
    sources = {
        str(path.relative_to(ROOT / root))
        for root in ROOTS
        for path in (ROOT / root / "onceward").rglob("*")
        if path.is_file() and not re.search(r"/(__pycache__|\.[a-z_]+)/", str(path))
    }
    assert {name for name in wheel if ".dist-info/" not in name} == sources


def test_the_wheel_brings_its_licence_and_its_readme(wheel: Mapping[str, str]) -> None:
    (licence,) = [text for name, text in wheel.items() if name.endswith("/licenses/LICENSE")]
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    (metadata,) = [text for name, text in wheel.items() if name.endswith("/METADATA")]
    assert "License-Expression: Apache-2.0" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8") in metadata


def test_the_source_distribution_holds_no_rubbish(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames()]
    assert {name.split("/")[0] for name in names} <= {*ROOTS, *SOURCE_EXTRAS}
    assert [name for name in names if re.search(r"__pycache__|\.db|\.egg-info|/\.[a-z]+_cache", name)] == []
    assert {"conformance_tests/tests/test_packaging.py", "docs/guarantees.md", "Makefile"} <= set(names)


def test_the_installed_version_is_the_projects() -> None:
    assert version("onceward") == PROJECT["version"]


def test_the_changelog_knows_the_version() -> None:
    assert re.search(rf"^## \[{re.escape(PROJECT['version'])}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


# -- entry points -----------------------------------------------------------------------------------------------------


def test_entry_points_of_the_project_are_installed_and_load() -> None:
    declared = {
        (group, name, value) for group, points in PROJECT["entry-points"].items() for name, value in points.items()
    } | {("console_scripts", name, value) for name, value in PROJECT["scripts"].items()}
    installed = {
        (group, point.name, point.value): point
        for group in {group for group, _, _ in declared}
        for point in entry_points(group=group)
    }
    assert declared <= set(installed), "the environment is older than pyproject.toml: pip install -e '.[dev]'"
    assert all(installed[each].load() is not None for each in declared)


# -- what an import costs ---------------------------------------------------------------------------------------------


def test_the_library_imports_neither_command_line_nor_suite_nor_drivers() -> None:
    modules = ("onceward.contracts", "onceward.runners.factory", "onceward.toolkit.director",
               "onceward.toolkit.locks", "onceward.toolkit.manager")  # fmt: skip
    heavy = ("typer", "rich", "click", "hypothesis", "pytest", "sqlite3", "redis", "pymongo", "kazoo", "grpc")
    code = f"import {', '.join(modules)}; print(*(name for name in {heavy!r} if name in sys.modules))"
    assert run(code) == ""


def test_no_driver_is_imported_before_its_runner_is_made() -> None:
    code = (
        "from onceward.runners.factory import make_runner, open_runner\n"
        "with open_runner('memory://') as runner: runner.lifecycle.counts()\n"
        "print('sqlite3' in sys.modules)"
    )
    assert run(code) == "False"


DRIVERS = ("redis", "hiredis", "pymongo", "bson", "grpc")


@pytest.mark.parametrize("kind", ["redis", "mongodb", "etcd"])
def test_a_driver_that_is_missing_is_named_with_its_extra(kind: str) -> None:
    code = (
        "from onceward.contracts import StoreMisconfigured\n"
        "from onceward.runners.factory import make_runner\n"
        f"try: make_runner('{kind}://localhost')\n"
        "except StoreMisconfigured as error: print(error)"
    )
    assert f"pip install 'onceward[{kind}]'" in run(code, forbidden=DRIVERS)


def test_every_extra_of_a_runner_exists_and_all_has_them_all() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = {point.load().extra for point in entry_points(group="onceward.runners")} - {"", None}
    assert needed == {"redis", "mongodb", "etcd", "zookeeper"}
    assert extras["all"] == [f"onceward[{','.join(name for name in extras if name in needed)}]"]


def test_the_contracts_need_nothing_but_msgspec() -> None:
    code = (
        "before = set(sys.modules)\nimport onceward.contracts\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(name for name in new if name not in sys.stdlib_module_names))"
    )
    assert run(code, forbidden=("typing_extensions",)) == "msgspec onceward"  # msgspec would take that if it were there


def test_the_pytest_plugin_does_no_harm_where_the_extra_is_missing() -> None:
    """Pytest loads it in every environment that has Onceward; without Hypothesis it must not stop pytest."""
    module = PROJECT["entry-points"]["pytest11"]["onceward"]
    assert run(f"import importlib; importlib.import_module({module!r}); print('ok')", forbidden=("hypothesis",)) == "ok"


# -- the makefile -----------------------------------------------------------------------------------------------------


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """What make does when it is called by a person, also if these tests were started by make."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=30, check=False
    )


def test_make_help_lists_every_command_in_one_line() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    done = make()
    listed = [re.fullmatch(r"  make ([a-z-]+) +(\S.+)", line) for line in done.stdout.splitlines()]
    assert all(listed), done.stdout
    assert {found[1] for found in listed if found} == set(phony[1].split()) - {"python"}


def test_an_interpreter_that_is_too_old_is_named() -> None:
    done = make("python", "PYTHON=false")
    assert done.returncode != 0
    assert "Onceward needs Python 3.11" in done.stderr
