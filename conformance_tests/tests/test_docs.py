"""The documents are true: links lead somewhere, snippets run, commands exist, every item of the seeds has its row."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
SOURCES = [
    path
    for root in ("contracts", "runners", "toolkit", "conformance_tests", "benchmarks")
    for path in sorted((ROOT / root / "onceward").rglob("*.py"))
]

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def named(path: Path) -> str:
    """The path as people write it."""
    return str(path.relative_to(ROOT))


def without_fences(text: str) -> str:
    """The text without its code blocks, where brackets are no links and # no headings."""
    return _FENCE.sub("", text)


def anchors(document: Path) -> set[str]:
    """The anchors that code hosts make of headings."""
    headings = _HEADING.findall(without_fences(document.read_text(encoding="utf-8")))
    bare = (re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in bare}


@dataclass(frozen=True)
class Snippet:
    """A block of code in a document."""

    document: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{named(self.document)}:{self.line}"


def snippets(*languages: str) -> Iterator[Snippet]:
    """All blocks in these languages, with their places."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            if found[1] in languages:
                yield Snippet(document, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def commands() -> Iterator[tuple[Snippet, list[str]]]:
    """Every line of a shell block, in words, without its comment."""
    for snippet in snippets("sh", "console"):
        for line in snippet.code.replace("\\\n", " ").splitlines():
            words = re.sub(r"\s+#.*", "", line.removeprefix("$ ").strip()).split()
            if words and not words[0].startswith("#"):
                yield snippet, words


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(without_fences(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert not broken


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        if document in seen or document.suffix != ".md" or not document.exists():
            continue  # a folder without a README of its own is shown as a list of its files
        seen.add(document)
        links = _LINK.findall(without_fences(document.read_text(encoding="utf-8")))
        places = [(document.parent / link.partition("#")[0]).resolve() for link in links if "://" not in link]
        todo += [place / "README.md" if place.is_dir() else place for place in places]
    assert not [named(document) for document in DOCUMENTS if document not in seen]


# -- code -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snippet", list(snippets("python")), ids=str)
def test_python_snippets_run_as_they_stand(snippet: Snippet, tmp_path: Path) -> None:
    """Each is a program of its own: whoever copies it gets what we show. In an empty folder, in a fresh process."""
    program = tmp_path / "snippet.py"
    program.write_text(snippet.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{snippet}\n{done.stdout}\n{done.stderr}"


def test_there_are_snippets_and_commands_to_check() -> None:
    assert len(list(snippets("python"))) >= 5
    assert len(list(commands())) >= 5


def test_make_targets_in_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    wrong = [
        f"{snippet}: make {word}"
        for snippet, words in commands()
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word and word not in targets
    ]
    assert not wrong


GROUPS = {"schedule"}  # commands that have commands


def onceward_commands() -> list[tuple[str, tuple[str, ...]]]:
    """Each subcommand that a document shows, with all options that are shown with it."""
    shown: dict[str, set[str]] = {}
    inline = [
        words.split()
        for document in DOCUMENTS
        for words in re.findall(r"`(onceward [^`]+)`", without_fences(document.read_text(encoding="utf-8")))
    ]
    for words in [*(words for _, words in commands()), *inline]:
        if words[0] != "onceward" or len(words) < 2:
            continue
        options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        name = " ".join(words[1:3]) if words[1] in GROUPS else words[1]
        shown.setdefault("" if name.startswith("-") else name, set()).update(options)
    return [(name, tuple(sorted(options))) for name, options in sorted(shown.items())]


@pytest.mark.parametrize(("name", "options"), onceward_commands())
def test_command_lines_in_documents_exist(name: str, options: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", "from onceward.toolkit.cli import main; main()", *name.split()]
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [*command, "--help"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert [option for option in options if option not in plain] == []


# -- guarantees, decisions --------------------------------------------------------------------------------------------


def test_every_guarantee_that_code_names_is_defined() -> None:
    from onceward.conformance.property import STATEMENTS

    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    defined = set(re.findall(r"^### (G\d+):", text, re.MULTILINE))
    assert defined == {f"G{number}" for number in range(1, 18)}
    used = {name for path in SOURCES for name in re.findall(r"\bG\d+\b", path.read_text(encoding="utf-8"))}
    assert used - defined == set()
    others = set(re.findall(r"^\| ([A-Z]\d+) \|", text, re.MULTILINE))
    assert others == set(STATEMENTS) - defined


def test_decisions_are_numbered_once_and_listed() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [name[:4] for name in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    listed = _LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert listed == decisions


# -- the seeds --------------------------------------------------------------------------------------------------------

ITEMS = [
    f"{letter}{number}"
    for letter, count in {"D": 64, "M": 60, "S": 115, "T": 39, "G": 39, "R": 12}.items()
    for number in range(1, count + 1)
]
STATES = {"here", "partly", "planned", "ruled"}


def rows() -> list[tuple[str, str, str, str]]:
    """The rows of docs/seeds.md: id, item, state, where."""
    text = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]
    return [(row[0], row[1], row[2], row[3]) for row in cells if re.fullmatch(r"[A-Z]\d+", row[0]) and len(row) == 4]


def test_every_item_of_the_seeds_has_one_row() -> None:
    assert [row[0] for row in rows()] == ITEMS


def test_every_row_says_where_it_stands() -> None:
    assert [row for row in rows() if row[2] not in STATES or not row[3]] == []


def test_nothing_of_this_release_is_called_planned() -> None:
    """The Director (D) and the locks (M) are complete: built, or ruled on."""
    assert [row for row in rows() if row[0][0] in "DM" and row[2] == "planned"] == []


def names_in(where: str) -> set[str]:
    """The names in code style of what is there now; what follows the word "planned" is not."""
    return {name for name in re.findall(r"`([^`]+)`", re.split(r"\bplanned\b", where)[0]) if name.strip()}


def test_what_is_here_can_be_found() -> None:
    """Files exist; names are those of modules, classes, members, functions and constants in the sources."""
    symbols = Symbols.of([*SOURCES, *(ROOT / "examples").rglob("*.py")])
    lost = [
        f"{item}: {name}"
        for item, _, state, where in rows()
        if state in ("here", "partly")
        for name in names_in(where)
        if not (exists(name) if "/" in name or name.endswith(".py") else symbols.know(name))
    ]
    assert not lost


def exists(path: str) -> bool:
    """The file or folder is there, from the root, next to the tests, or inside a part of the namespace."""
    roots = [ROOT, Path(__file__).parent, *ROOT.glob("*/onceward"), *ROOT.glob("*/onceward/*")]
    return any((root / path).exists() for root in roots)


@dataclass(frozen=True)
class Symbols:
    """What the sources define: names by module or class, and the bases of classes."""

    members: dict[str, set[str]]
    bases: dict[str, set[str]]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Symbols:
        """Read from the syntax trees; nothing is imported."""
        found = cls(defaultdict(set), defaultdict(set))
        for path in paths:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found.add(path.stem, tree)
            found.members[""] |= {*path.parts} | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        return found

    def add(self, owner: str, tree: ast.Module | ast.ClassDef) -> None:
        """Take note of what is defined directly in a module or class, and of what a class sets on itself."""
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self.members[owner].add(node.name)
            if isinstance(node, ast.ClassDef):
                self.bases[node.name] |= {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
                self.add(node.name, node)
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [name for target in targets for name in ast.walk(target)]
                self.members[owner] |= {name.id for name in names if isinstance(name, ast.Name)}
        if isinstance(tree, ast.ClassDef):
            self.members[owner] |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            }

    def know(self, text: str) -> bool:
        """True if the name with which the text begins is defined; texts that begin otherwise are not looked up."""
        found = re.match(r"([A-Za-z_][\w.]*)(?!\w* )", text)
        if found is None or text.startswith(("onceward ", "pip ", "from ", "with ")):
            return True
        owner, _, member = found[1].rpartition(".")
        return self.has(owner, member) if owner else any(member in members for members in self.members.values())

    def has(self, owner: str, member: str) -> bool:
        """True if the module or class has the member, or inherits it."""
        return member in self.members.get(owner, ()) or any(
            self.has(base, member) for base in self.bases.get(owner, ())
        )
