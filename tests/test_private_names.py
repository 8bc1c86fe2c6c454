"""The private names that are taken from libraries, each of which may be gone with their next release."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.labs.places import PROJECT

#: Each with the reason why it is needed; of the standard library, what has an underscore is documented.
NEEDED = {
    "optuna.storages._rdb.models": "Optuna's tables; read and written where their revision is known",
    "torch.cpu._is_avx512_bf16_supported": "get_capabilities is public, but young; we take torch 2.9",
    "torch.cpu._is_amx_tile_supported": "the same",
    "_linear_pointwise": "oneDNN's float32 product, an operator of Inductor's; we do without if it is gone",
    "mlflow.tracking._tracking_service.utils": "has MLflow's memory of artifacts' places; it may be without",
    "_artifact_repos_cache": "the same",
    "_engine_map": "MLflow's connections, to close when its file was replaced; the next sweep mends it too",
    "_thread": "starts a thread in a signal handler, as threading's locks may be held there",
    "os._exit": "ends a forked process without what its parent registered for its own end",
    "_replace": "gives a named tuple with other fields",
}

#: A name that begins with one underscore, alone or within a path of names.
_PRIVATE = re.compile(r"(\w+\.)*_(?!_)\w+(\.\w+)*")
#: What takes a piece of a name rather than a name.
_PIECES = ("startswith", "endswith", "removeprefix", "removesuffix")


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a file defines: functions, classes, variables, parameters, attributes, slots."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=slots):
                yield from (str(slot.value) for slot in ast.walk(slots) if isinstance(slot, ast.Constant))


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what a file imports of libraries: as the file calls it, and whole."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.asname or alias.name.split(".")[0], alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith("lenet_exp"):
                yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in names)


def used(tree: ast.AST, ours: set[str]) -> Iterator[str]:
    """Yield the private names that a file imports, reads, passes by keyword or spells in strings.

    Args:
        tree: The file.
        ours: The names that the package defines, which ``self`` may have inherited. What else has such a name
            is a library's, unless this file defines the name.
    """
    own = set(defined(tree))
    libraries = dict(imported(tree))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    pieces = [
        a for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in _PIECES for a in c.args
    ]
    pieces += [part for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values]
    names = set(libraries.values())
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if _PRIVATE.fullmatch(name):
                path = ast.unparse(node)
                if path.split(".")[0] in libraries:
                    names.add(path)
                elif name not in (ours if path in (f"self.{name}", f"cls.{name}") else own):
                    names.add(name)
            case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)) if node not in pieces:
                names |= {name} - own
    yield from filter(_PRIVATE.fullmatch, names)


def private_names(*sources: str) -> set[str]:
    trees = [ast.parse(source) for source in sources]
    ours = {name for tree in trees for name in defined(tree)}
    return {name for tree in trees for name in used(tree, ours)}


def test_each_private_name_of_a_library_is_listed_with_its_reason() -> None:
    """What a release of a library may break is known beforehand, and what is needed no more is not listed."""
    files = sorted((PROJECT / "lenet_exp").rglob("*.py"))

    assert private_names(*(path.read_text() for path in files)) == set(NEEDED)


def test_a_private_name_is_found_however_it_is_taken() -> None:
    """By an import, from an object, through a module, by keyword, in a string; what is ours is left out."""
    elsewhere = "class A:\n    def _exit(self): self._trial_id = 1"
    here = """
import os, torch._dynamo
from optuna.storages._rdb import models
def f(trial, a):
    os._exit(trial._trial_id)
    getattr(trial, "_named")(_option=a._set, b=a._slot, c=a._given, d=a._ours)
    return "x_type".endswith("_type") or trial.__class__
OPERATIONS = ("get_all_trials", "_get_trials", "_ours")
class B(A):
    __slots__ = ('_slot',)
    def _ours(self, _given):
        self._set = _local = self._exit(self._inherited)
"""

    assert private_names(elsewhere, here) == {
        "torch._dynamo",
        "optuna.storages._rdb.models",
        "os._exit",
        "_trial_id",
        "_named",
        "_inherited",
        "_option",
        "_get_trials",
    }
