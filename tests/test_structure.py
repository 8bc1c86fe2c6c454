"""The rules on who imports whom, which keep the structure visible."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lenet_exp"

#: A module imports only from rows above its own; the README has the table, a line for each module.
README = Path(__file__).parent.parent / "README.md"
ROWS = {
    module: int(row)
    for row, module in re.findall(r"^\| (\d+) \| `(\w+)` \|", README.read_text(), re.MULTILINE)
}

#: Who alone imports a library; elsewhere it would spread.
OWNERS = {
    "pydantic": {"config", "space", "factors", "experiment"},
    "torch": {
        "kernels",
        "convolution",
        "optimizers",
        "model",
        "fast",
        "train",
        "trainer",
        "data",
        "mlflow_model",
        "activations",
        "diagnostics",
        "peak",
        "seed_loop",
        "bench",
        "scoring",
    },
    "matplotlib": {"activations", "figures", "curves"},
    "plotly": {"figures", "report"},
    "ctypes": {"memory"},
    "torchvision": {"data", "seed_loop"},
    "PIL": {"seed_loop"},
    "multiprocessing": {"processes", "executor", "worker", "calls"},
    "psycopg": {"postgres"},
    "optuna": {
        "trial_storage",
        "single_writer",
        "postgres",
        "storage",
        "sampling",
        "trials",
        "study",
        "rebuild",
    },
    "sqlalchemy": {"trial_storage", "postgres", "storage"},
    "mlflow": {"mlflow_store", "mlflow_model", "projection", "tracking", "champion"},
    "pandas": {"leaderboard", "ablation", "curves"},
    "scipy": {"significance"},
    "typer": {"cli", "options"},
    "rich": {"tables", "download"},
}


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imports(module: str) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def test_every_module_has_its_row_and_every_row_its_module() -> None:
    """A new module says where it belongs."""
    assert sorted(ROWS) == modules()


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_rows_above(module: str) -> None:
    """Imports point one way."""
    ours = {name.split(".")[1] for name in imports(module) if name.startswith("lenet_exp.")}

    for other in ours & set(modules()) - {module}:
        assert ROWS[other] < ROWS[module] or {module, other} == {"cli", "sweep"}, f"{module} imports {other}"


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_is_imported_by_its_owners_alone(library: str) -> None:
    """What a library may change touches few places."""
    users = {m for m in modules() if library in {name.split(".")[0] for name in imports(m)}}

    assert users <= OWNERS[library]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("cli", ["torch", "optuna", "mlflow", "pandas", "pydantic", "numpy"]),
        ("executor", ["torch", "optuna", "mlflow", "pandas"]),
        ("worker", ["torch", "optuna", "mlflow", "pandas"]),
        ("processes", ["torch", "optuna", "mlflow", "pandas", "pydantic", "numpy"]),
        ("driver", ["torch", "mlflow", "pandas", "scipy"]),
        ("pipeline", ["torch", "optuna", "mlflow", "pandas", "scipy"]),
        ("confirm", ["torch", "optuna", "mlflow", "scipy"]),
        ("results", ["torch", "mlflow", "pandas", "scipy"]),
        ("tables", ["torch", "optuna", "mlflow", "pandas", "scipy"]),
        ("scoring", ["torch", "optuna", "mlflow", "pandas"]),
        ("compare", ["torch", "optuna", "mlflow", "pandas"]),
        ("train", ["optuna", "mlflow", "pandas"]),
        ("sweep", ["typer", "torch"]),
    ],
)
def test_importing_a_module_does_not_load_what_it_does_not_need(module: str, forbidden: list[str]) -> None:
    """The command line is quick, the driver light, and a worker never sees study or tracking."""
    code = f"import sys, lenet_exp.{module}; print(*[n for n in {forbidden} if n in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.split() == []


def test_the_sweep_cannot_see_the_test_split() -> None:
    """Only what confirms finalists, and what shows a fixed list's curves, opens the test images.

    The second is one small module with one user, the assembly of the main job; it refuses whatever chooses.
    """
    users = {module for module in modules() if "lenet_exp.testset" in imports(module)}
    shown_by = {module for module in modules() if "lenet_exp.shown_test" in imports(module)}

    assert users <= {"confirm", "shown_test"}
    assert shown_by <= {"pipeline"}
