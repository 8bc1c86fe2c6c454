"""The documents as tests read them: their blocks, links, tables and commands."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.labs.places import PROJECT

README = PROJECT / "README.md"
EXPERIMENTS = PROJECT / "experiments" / "README.md"
STATISTICS = PROJECT / "experiments" / "STATISTICS.md"
BENCHMARKS = PROJECT / "experiments" / "BENCHMARKS.md"
OPERATIONS = PROJECT / "experiments" / "OPERATIONS.md"
TESTS = PROJECT / "tests" / "README.md"
PACKAGE = PROJECT / "lenet_exp" / "README.md"

#: What people read, in the order in which the README leads to it.
DOCUMENTS = (README, EXPERIMENTS, STATISTICS, BENCHMARKS, OPERATIONS, TESTS, PACKAGE)


def title(document: Path) -> str:
    """Return what a test is called that looks at a document."""
    return str(document.relative_to(PROJECT))


def blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def prose(document: Path) -> str:
    """Return the text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def code_spans(document: Path) -> list[str]:
    """Return what stands between backticks in the text."""
    return re.findall(r"`([^`\n]+)`", prose(document))


def section(document: Path, heading: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", prose(document), re.DOTALL | re.MULTILINE
    )
    assert found, f"{title(document)} has no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables in a text, each a list of cells; headings and rules are left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {number for number, line in enumerate(lines) if re.fullmatch(r"[|:\- ]+", line)}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if number not in rules and number + 1 not in rules
    ]


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> list[tuple[str, bool]]:
    """Return the targets of all relative links, each with whether it is a picture."""
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", prose(document))
    return [(target, bool(mark)) for mark, target in found if not target.startswith("http")]


def pasted(document: Path) -> Iterator[list[str]]:
    """Yield the words of every command in the blocks that people paste."""
    for block in blocks(document, "bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                cut = words.index("&&")
                yield words[:cut]
                words = words[cut + 1 :]
            if words:
                yield words


def sessions() -> set[str]:
    """Return the names of the nox sessions."""
    tree = ast.parse((PROJECT / "noxfile.py").read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(d) for d in node.decorator_list)
    }


def copied_study(root: Path, folder: Path) -> Path:
    """Return a copy of a study, made by the command in experiments/OPERATIONS.md.

    Args:
        root: Folder of everything that the sweep wrote.
        folder: Folder to write the copy to.
    """
    (code,) = re.findall(r'python -c "(import sqlite3; .*)"$', OPERATIONS.read_text(), re.MULTILINE)
    (folder / "mlruns").symlink_to(root)
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return folder / "copy.db"
