"""The words of the code: parameters are described so that an editor's tooltip can stand alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.labs.places import PROJECT

PACKAGE = PROJECT / "lenet_exp"
FILES = sorted(PACKAGE.rglob("*.py"))

#: A description that begins so leans on something else, and says nothing where only its own line is shown.
BARE = {
    *("of", "as", "how", "where", "what", "when", "whether", "which", "whose", "than", "per", "not", "if"),
    *("in", "on", "by", "for", "to", "from", "with", "without", "at", "below", "above", "after", "before"),
    *("so", "those", "that", "this", "it", "its", "also", "until", "since", "likewise", "see"),
}
#: Variables that say "some value"; a name says which.
VAGUE = {"found", "one"}


class Function(NamedTuple):
    """A function, and what is written about it.

    Attributes:
        place: File and name.
        parameters: Names of its parameters but for ``self`` and ``cls``.
        text: Its docstring, with the class's for a constructor.
        is_public: True if neither it nor its class begins with an underscore.
    """

    place: str
    parameters: list[str]
    text: str
    is_public: bool


def functions(file: Path) -> Iterator[Function]:
    """Yield the functions of a module and the methods of its classes; those within functions are private."""
    module = ast.parse(file.read_text())
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    holders: list[ast.Module | ast.ClassDef] = [module, *classes]
    for holder in holders:
        for node in holder.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            owner, text = "", ast.get_docstring(node) or ""
            if isinstance(holder, ast.ClassDef):
                owner = f"{holder.name}."
                if node.name == "__init__":
                    text = f"{ast.get_docstring(holder) or ''}\n{text}"
            given = node.args
            names = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            parameters = [name.arg for name in names if name and name.arg not in ("self", "cls")]
            is_public = not owner.startswith("_") and (
                not node.name.startswith("_") or node.name == "__init__"
            )
            place = f"{file.relative_to(PACKAGE)}: {owner}{node.name}"
            yield Function(place, parameters, text, is_public)


def described(text: str) -> dict[str, str]:
    """Return what a docstring says of each parameter, or attribute, by name."""
    sections = re.findall(r"^[ ]*(?:Args|Attributes):\n(.*?)(?:\n\s*\n|\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [
        line for section in sections for line in re.findall(r"^ +(\**\w+(?:, \**\w+)*): (.+)$", section, re.M)
    ]
    return {name.lstrip("*"): said for names, said in lines for name in names.split(", ")}


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each docstring of a file with the name of what it describes."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            yield node.name, ast.get_docstring(node) or ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_public_function_says_what_its_parameters_are(file: Path) -> None:
    """From two parameters on, each has a line of its own under ``Args``."""
    silent = {
        function.place: missing
        for function in functions(file)
        if function.is_public and len(function.parameters) >= 2
        if (missing := set(function.parameters) - set(described(function.text)))
    }

    assert silent == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_a_parameter_is_can_be_read_alone(file: Path) -> None:
    """No description begins with a bare "Of" or the like, which an editor would show without its subject."""
    bare = [
        f"{name}: {parameter}: {said}"
        for name, text in docstrings(file)
        for parameter, said in described(text).items()
        if re.split(r"\W", said.lower(), maxsplit=1)[0] in BARE
    ]

    assert bare == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_variables_name_their_value(file: Path) -> None:
    """None is called "found" or "one"."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    variables = [(node.lineno, node.id) for node in nodes if isinstance(node, ast.Name)]
    parameters = [(node.lineno, node.arg) for node in nodes if isinstance(node, ast.arg)]

    assert [(line, name) for line, name in (*variables, *parameters) if name in VAGUE] == []
