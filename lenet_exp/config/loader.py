"""Reads an experiment file into an `Experiment`; an invalid file is rejected with a one-line message."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lenet_exp.base.errors import ConfigError, shorten
from lenet_exp.config.experiment import Experiment, Run
from lenet_exp.config.refusals import Refusal, nearest, refusal

#: Maximum size of an experiment file; a larger file must have been named by mistake.
MAX_FILE_BYTES = 1_000_000

#: Maximum depth of nested tables and lists in an experiment file; no experiment needs more than five.
MAX_DEPTH = 10

_TOO_DEEP = f"tables and lists may be nested at most {MAX_DEPTH} deep, found more"


def experiment_path(name: str | Path | None) -> Path:
    """Return the path of the experiment file that a user names.

    Args:
        name: A path, or the bare name of an experiment such as ``quick``, which is searched in the folder
            ``experiments`` and among those that come with the project; None for ``fashion_mnist``.

    Raises:
        ConfigError: If a bare name is unknown.
    """
    given = Path(name or "fashion_mnist")
    if name is not None and (given.exists() or given.suffix or len(given.parts) > 1):
        return given
    package = Path(__file__).parent.parent
    folders = [Path("experiments"), package / "experiments", package.parent / "experiments"]
    for folder in folders:
        if (folder / f"{given}.toml").exists():
            return folder / f"{given}.toml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    raise ConfigError(f"no experiment called {str(given)!r}, and no such file; {nearest(str(given), known)}")


def load(
    path: Path, overrides: Iterable[str] | Mapping[str, Any] = (), flags: Mapping[str, Any] | None = None
) -> Experiment:
    """Read and validate the experiment file ``path``, and return its `Experiment`.

    Args:
        path: Experiment file, in TOML.
        overrides: Values that replace those of the file: texts ``section.key=value``, whose value is read as
            TOML or, if it is not TOML, as text; or a mapping by dotted key, where None replaces nothing.
        flags: Values of command-line flags by dotted key, which replace all others; None replaces nothing.

    Raises:
        ConfigError: If the experiment is invalid; the message has the key, the rule, the value and, where it
            can be found, the line.
    """
    text = _read(path)
    data = _parse(path, text)
    by_key = overrides if isinstance(overrides, Mapping) else dict(map(_override, overrides))
    chosen = [("--set", key, _plain(value)) for key, value in by_key.items()]
    chosen += [(f"--{str(key).rpartition('.')[2]}", key, value) for key, value in (flags or {}).items()]
    sources = {}
    for source, key, value in chosen:
        if not isinstance(key, str):
            raise ConfigError(f"--set takes section.key=value, found {key!r}")
        if value is not None:
            _put(data, key, value, source)
            sources[key] = source
    return parse(data, source=str(path), text=text, overrides=sources)


def parse(
    data: Mapping[str, Any],
    source: str = "experiment",
    text: str = "",
    overrides: Mapping[str, str] | None = None,
) -> Experiment:
    """Validate the content of an experiment file, and return its `Experiment`.

    Args:
        data: Content of the file, as `tomllib` returns it.
        source: Name of the file for messages.
        text: Text of the file, to find the line of an error in; empty if there is none.
        overrides: Flags by the dotted key that they set, for messages; None for none.

    Raises:
        ConfigError: If the experiment is invalid.
    """
    if _depth(data) > MAX_DEPTH:
        raise ConfigError(f"{source}: {_TOO_DEEP}")

    def place(key: str) -> str:
        flag = (overrides or {}).get(re.sub(r"\[\d+\]$", "", key))
        return f"{flag}: " if flag else _place(source, text, key)

    try:
        experiment = Experiment.model_validate(data)
    except ConfigError as error:
        raise ConfigError(f"{place(str(error).partition(':')[0])}{error}") from None
    except ValidationError as error:
        refused = refusal(error, data)
        raise ConfigError(f"{place(refused.key)}{_sentence(refused)}") from None
    if text:
        experiment.keep_source(text, source)
    return experiment


def _read(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder; name an experiment file (.toml)")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is not a regular file; name an experiment file (.toml)")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            limit = f"an experiment file has at most {MAX_FILE_BYTES:,} bytes"
            raise ConfigError(f"{path}: {limit}, found more; is it the right file?")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file") from None
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise ConfigError(
            f"{path}:{line}: must be UTF-8, found byte {byte:#x}; save the file as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from None
    except ValueError as error:  # an integer with thousands of digits
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _depth(value: Any) -> int:
    """Return how deeply tables and lists are nested; no recursion, which deep nesting would exhaust."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [item.values() if isinstance(item, Mapping) else item for item in level]
        level = [part for parts in inner for part in parts if isinstance(part, Mapping | list)]
    return depth


def _plain(value: Any) -> Any:
    """Return an override from Python as TOML would have it: no path, tuple or NumPy number."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        raise ConfigError(f"--set takes section.key=value, found {text!r}")
    return key.strip(), _toml_value(value.strip())


def _toml_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text
    return table["value"] if len(table) == 1 else text


def _put(data: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{source}: {section!r} in {dotted!r} is not a section")
        data = inner
    data[key] = value


def _sentence(refused: Refusal) -> str:
    """Return the message for a refusal, without the name of the file."""
    key = refused.key
    if refused.kind == "extra_forbidden":
        section, _, name = key.rpartition(".")
        place = f" in [{section}]" if section else ""
        return f"unknown key {name!r}{place}; {nearest(name, _known_keys(refused.location[:-1]))}"
    if refused.kind == "missing":
        return f"{key} is missing; an experiment needs it"
    if refused.kind == "value_error":
        return f"{key}: {refused.rule}" if key else refused.rule
    return f"{key}: {refused.rule}, found {shorten(refused.value)}"


def _known_keys(section: Sequence[str | int]) -> list[str]:
    model: Any = Experiment
    for part in section:
        if isinstance(part, str) and part in model.model_fields:
            model = Run if part == "run" else model.model_fields[part].annotation
    return list(model.model_fields)


def _place(source: str, text: str, key: str) -> str:
    """Return ``file:line: `` for the line that sets ``key``, or ``file: `` if no line does."""
    section, _, name = re.sub(r"\[\d+\]", "", key).rpartition(".")
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header and "=" not in line.partition("]")[0]:
            current = header[1]
            if current == key:
                return f"{source}:{number}: "
        elif current == section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[.=]", line):
            return f"{source}:{number}: "
    return f"{source}: "
