"""The rules of the house, which keep its structure visible: who imports whom, and how large a room may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.labs.places import PROJECT

PACKAGE = PROJECT / "lenet_exp"
#: The wings, from the ground up; the two that share a floor do not know each other.
FLOORS = (
    ("base",),
    ("config",),
    ("data", "study"),
    ("execution",),
    ("training",),
    ("tracking",),
    ("results",),
    ("progress",),
    ("sweep",),
    ("cli",),
)
FLOOR_OF = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}
MAX_ROOMS = 10
MAX_ENTRIES = 15
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400

#: Who alone imports a library: a wing, a floor of one, or a room; elsewhere it would spread.
OWNERS = {
    "torch": {
        "training",
        "data",
        "results.views",
        "tracking.model",
        "cli.bench",
        "cli.usual_loop",
        "cli.peak",
    },
    "torchvision": {"data", "cli.usual_loop"},
    "PIL": {"cli.usual_loop"},
    "optuna": {"study"},
    "sqlalchemy": {"study"},
    "psycopg": {"study.postgres"},
    "mlflow": {"tracking"},
    "alembic": {"tracking.store"},
    "pydantic": {"config"},
    "pandas": {"results"},
    "scipy": {"results.verdicts"},
    "matplotlib": {"results.figures", "results.views"},
    "plotly": {"results.figures", "results.views"},
    "rich": {"results.views.console", "data.download", "progress"},
    "typer": {"cli"},
    "multiprocessing": {"execution"},
    "ctypes": {"execution"},
}

#: What opens the test images, and the rooms that alone may name it.
SEALED = {
    "read_test_split": {"data.testset", "sweep.confirmation"},
    "shown_test_images": {"data.__init__", "data.testset", "sweep.run"},
    # These open whatever part of a data set they are given.
    "image_set": {"data.images", "data.testset"},
    "obtain": {"data.images", "data.sources", "data.testset"},
}


def rooms() -> list[str]:
    """Return the dotted name of every module below the package, faces left out."""
    found = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts) for path in found if path.name != "__init__" and len(path.parts) > 1)


def source(room: str) -> Path:
    return PACKAGE / f"{room.replace('.', '/')}.py"


def wing(room: str) -> str:
    return room.partition(".")[0]


def folder(room: str) -> str:
    return room.rpartition(".")[0]


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(found)


def names(path: Path) -> frozenset[str]:
    """Return the names in a file, of variables, attributes, functions and imports, and all its strings."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.alias(name=name):
                found |= set(name.split("."))
            case ast.Constant(value=str(name)):
                found.add(name)
    return frozenset(found)


def ours(path: Path) -> Iterator[str]:
    """Yield the rooms of ours that a file imports."""
    known = set(rooms())
    for name in imports(path):
        room = name.removeprefix("lenet_exp.")
        if room != name and room in known:
            yield room


def test_the_top_of_the_package_is_its_wings() -> None:
    """Whoever opens the folder sees its wings and hardly anything else."""
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert folders == set(FLOOR_OF)
    assert entries - folders <= {"__init__.py", "__main__.py", "py.typed", "README.md"}
    assert len(entries) <= MAX_ENTRIES


@pytest.mark.parametrize("wing", sorted({folder(room) for room in rooms()}))
def test_a_wing_has_at_most_ten_rooms(wing: str) -> None:
    """What no longer fits is divided anew instead of added to."""
    assert sum(folder(room) == wing for room in rooms()) <= MAX_ROOMS


def test_no_file_is_too_long() -> None:
    """What grows beyond is divided where its subjects part."""
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")
    }

    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    """From ``def`` to its last line, its docstring included, it can be seen at once."""
    lengths = {
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("room", rooms())
def test_imports_run_downward_only(room: str) -> None:
    """A wing knows those below it, but for ``python -m lenet_exp.sweep``, which is the command line."""
    for other in ours(source(room)):
        below = wing(other) == wing(room) or FLOOR_OF[wing(other)] < FLOOR_OF[wing(room)]
        assert below or (room == "sweep.__main__" and wing(other) == "cli"), f"{room} imports {other}"


@pytest.mark.parametrize("room", rooms())
def test_what_others_use_of_a_wing_is_in_its_face(room: str) -> None:
    """Who changes a wing sees in its ``__init__`` which of its names are not its own affair."""
    for node in ast.walk(ast.parse(source(room).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lenet_exp."):
            other = node.module.removeprefix("lenet_exp.")
            if other in rooms() and folder(other) != folder(room):
                face = dir(import_module(f"lenet_exp.{folder(other)}"))
                assert {alias.name for alias in node.names} <= set(face), f"{room} uses {other}"


@pytest.mark.parametrize("wing", sorted({folder(room) for room in rooms()}))
def test_a_face_shows_what_is_there_and_hides_no_room(wing: str) -> None:
    """Each name is its room's own object, and no room has a name of the face."""
    face = import_module(f"lenet_exp.{wing}")
    names = set(dir(face)) if "__getattr__" in vars(face) else set()

    assert not names & {room.rpartition(".")[2] for room in rooms() if folder(room) == wing}
    for name in names:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = face.nothing


def test_the_floor_plan_says_what_the_wings_say() -> None:
    """The package's README has a row for each wing, from the ground up, in the words of its docstring."""
    plan = re.findall(r"^\| `([\w/]+)` \| (.*) \|$", (PACKAGE / "README.md").read_text(), re.MULTILINE)
    said = {
        wing: ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text())) for wing, _ in plan
    }

    assert dict(plan) == said
    assert {wing.replace("/", ".") for wing in said} == {folder(room) for room in rooms()}
    floors = [FLOOR_OF[wing.partition("/")[0]] for wing, _ in plan]
    assert floors == sorted(floors)


def test_no_room_is_imported_in_a_circle() -> None:
    """Within a wing too, there is an order in which the rooms can be read."""
    left = {room: set(ours(source(room))) - {room} for room in rooms()}
    # The exception above leads up, from where nothing leads back.
    left["sweep.__main__"] = set()
    while left:
        free = {room for room, needs in left.items() if not needs & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {room: needs for room, needs in left.items() if room not in free}


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_is_imported_by_its_owners_alone(library: str) -> None:
    """What a library may change touches few places."""
    users = {r for r in rooms() if library in {name.split(".")[0] for name in imports(source(r))}}

    assert users
    for user in users:
        assert any(f"{user}.".startswith(f"{owner}.") for owner in OWNERS[library]), user


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("cli.program", ["torch", "optuna", "mlflow", "pandas", "pydantic", "numpy"]),
        ("execution.executor", ["torch", "optuna", "mlflow", "pandas"]),
        ("execution.worker", ["torch", "optuna", "mlflow", "pandas"]),
        ("execution.processes", ["torch", "optuna", "mlflow", "pandas", "pydantic", "numpy"]),
        ("progress.display", ["torch", "optuna", "mlflow", "pandas", "pydantic", "numpy", "rich"]),
        ("sweep.driver", ["torch", "mlflow", "pandas", "scipy"]),
        ("sweep.run", ["torch", "optuna", "mlflow", "pandas", "scipy"]),
        ("sweep.confirmation", ["torch", "optuna", "mlflow", "scipy"]),
        ("results.read", ["torch", "mlflow", "pandas", "scipy"]),
        ("results.views.console", ["torch", "optuna", "mlflow", "pandas", "scipy"]),
        ("training.evaluate", ["torch", "optuna", "mlflow", "pandas"]),
        ("results.verdicts.judging", ["torch", "optuna", "mlflow", "pandas", "scipy"]),
        ("training.loop", ["optuna", "mlflow", "pandas"]),
        ("sweep.__main__", ["typer", "torch"]),
    ],
)
def test_importing_a_module_does_not_load_what_it_does_not_need(module: str, forbidden: list[str]) -> None:
    """The command line is quick, the driver light, and a worker never sees study or tracking."""
    code = f"import sys, lenet_exp.{module}; print(*[n for n in {forbidden} if n in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.split() == []


@pytest.mark.parametrize("opener", sorted(SEALED))
def test_the_sweep_cannot_see_the_test_split(opener: str) -> None:
    """What opens the test images is named where finalists are confirmed, or a fixed list shows its curves.

    Naming it is to import it, under whatever name, to reach it through its module, or to spell it.
    """
    rooms_that_name_it = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if opener in names(path)
    }

    assert rooms_that_name_it == SEALED[opener]


def test_tests_lie_as_the_code_lies() -> None:
    """The tests of a room are in the folder of its wing, in a file that begins with its name."""
    for path in (PROJECT / "tests").rglob("test_*.py"):
        place = path.parent.relative_to(PROJECT / "tests")
        if place.parts and place.parts[0] in FLOOR_OF:
            names = [r.rpartition(".")[2] for r in rooms() if folder(r) == ".".join(place.parts)]
            stem = path.stem.removeprefix("test_")
            assert any(stem == name or stem.startswith(f"{name}_") for name in names), path
