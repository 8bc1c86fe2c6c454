"""A few hundred experiment files that cannot be: each is one line and exit code 2, and nothing is written."""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from lenet_exp.cli import program
from lenet_exp.config.ablation import FACTORS
from lenet_exp.config.experiment import Confirm, Data, Experiment, Run, Search, Training, Watch
from lenet_exp.config.hyperparameters import PartialConfiguration
from lenet_exp.config.space import SPACE_KEYS
from lenet_exp.sweep import run
from tests.labs.places import PROJECT

#: What is wrong for any key that takes one number, one name or one truth.
NEVER = ["nan", "-inf", "1e999", "-1", "[]", "[[]]", "{}", "{ a = 1 }", "1979-05-27", "07:32:00", '"\\u0000"']
SECTIONS: dict[str, type[BaseModel]] = {
    "data": Data,
    "baseline": PartialConfiguration,
    "training": Training,
    "search": Search,
    "confirm": Confirm,
    "watch": Watch,
}


def section(name: str, *lines: str) -> str:
    """Return a file with a section of these lines."""
    return "\n".join(['name = "a"', f"[{name}]", *lines])


def wrong_values() -> Iterator[str]:
    """Yield every key of every section with values that it cannot have."""
    for name, model in SECTIONS.items():
        for key in model.model_fields:
            for value in NEVER:
                if (key, value) != ("folder", '"\\u0000"'):
                    yield section(name, f"{key} = {value}")
            if key != "folder":
                yield section(name, f'{key} = "{"x" * 10_000}\x7f"')
                yield section(name, f"{key} = 123456789012345678901234567")
                # A number is no truth, and a truth no number.
                is_truth = model.model_fields[key].annotation is bool
                yield section(name, f"{key} = {1 if is_truth else 'true'}")
    for key in Experiment.model_fields:
        yield f"{key} = 1.5" if key == "name" else f'name = "a"\n{key} = 1.5'


def spaces() -> Iterator[str]:
    """Yield spaces that cannot be searched."""
    for key in SPACE_KEYS:
        for value in [*NEVER, "[nan]", "[[1]]", "[{}]", "{ low = 2, high = 1 }", "{ low = 1 }", "[true]"]:
            yield section("space", f"{key} = {value}")
    for value in [
        "{ low = 0, high = 1, log = true }",
        "{ low = -1, high = 1 }",
        "{ low = 0.1, high = 0.2, step = 0 }",
        "{ low = 0.1, high = 0.2, step = -0.1 }",
        "{ low = 0.1, high = 0.2, step = nan }",
        "{ low = 0.1, high = 0.2, step = inf }",
        "{ low = 0.1, high = 0.2, log = true, step = 0.1 }",
        "{ low = 0.1, high = 0.2, lgo = true }",
        "{ low = 0.1, high = 0.2, log = 1 }",
        '{ low = "0.1", high = "0.2" }',
        "{ low = 0.1, high = 1e308 }",
        "{ low = nan, high = nan }",
        "{ low = 0.1, high = inf }",
        "[0.1, 0.1]",
        "[0.1, -0.1]",
        '["0.1"]',
        "0.0",
    ]:
        yield section("space", f"lr = {value}")
    yield section("space", "channels = { low = 4, high = 8, step = 0.5 }")
    yield section("space", "channels = { low = 4.5, high = 8.5 }")
    yield section("space", "conv_layers = 4")
    yield section("space", "conv_layers = { low = 1, high = 4 }")
    yield section("space", "pooling = { low = 1, high = 2 }")
    yield section("space", 'pooling = ["avg", "avg"]')
    yield section("space", 'pooling = ["avg", "man"]')
    yield section("space", "epochs = 3")
    yield section("space", "kernel_size_4 = 3")
    yield section("space", "lr = [0.1]", "[search]", 'sampler = "grid"', "[space.x]")
    yield section("space", "lr = { low = 0.1, high = 0.2 }", "[search]", 'sampler = "grid"')
    yield section("space", "batch_size = { low = 1, high = 60000 }", "[search]", 'sampler = "grid"')
    yield section("space", "lr = { low = 0.1, high = 0.2, step = 1e-300 }", "[search]", 'sampler = "grid"')


def ablations() -> Iterator[str]:
    """Yield ablations that vary nothing, or what cannot be."""
    for factor in FACTORS:
        for value in NEVER:
            yield section("ablate", f"{factor} = {value}")
            yield section("ablate", f"{factor} = [{value}]")
        yield section("ablate", f"{factor} = [{{ {factor} = nan }}]")
    yield section("ablate", "seeds = 3")
    for seeds in ["0", "-1", "1.5", "true", '"3"', "[3]", "1001", "0x" + "f" * 5_000]:
        yield section("ablate", f"seeds = {seeds}", "lr = [0.1]")
    yield section("ablate", "lr = [0x" + "f" * 5_000 + "]")
    yield section("ablate", "lr = [" + "0.1, " * 1_001 + "]")
    yield section("ablate", "dropout = [0.1]")
    yield section("ablate", "network = [{ name = 3 }]")
    yield section("ablate", 'network = [{ name = "x" }]')
    yield section("ablate", "lr = [0.1]", "[space]", "lr = [0.1]")
    yield section("ablate", "lr = [0.1]", "[[run]]")
    yield section("ablate", "lr = [0.1]", "[search]", "trials = 3")


def names() -> Iterator[str]:
    """Yield names that lead elsewhere, or are none."""
    for name in [
        "../../etc",
        "..",
        ".",
        "",
        " ",
        "/etc/passwd",
        "a/b",
        "a\\\\b",
        "C:\\\\x",
        "~",
        "-rf",
        "a..b",
        " a",
        "a ",
        "x" * 101,
        "x" * 300,
        "a\\u0000b",
        "a\\nb",
        "a\\tb",
        "\\u001b]0;x\\u0007",
        "<script>",
        "a\\u202eb",
        "a\\u200bb",
        "😀",
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "a*",
        "a?",
        "a:b",
        "%2e%2e",
        "_" * 101,
        "\\U0001F600",
    ]:
        yield f'name = "{name}"'
        yield f'name = "a"\n[data]\ndataset = "{name}"'


def broken() -> Iterator[str | bytes]:
    """Yield files that are no TOML, or none of ours."""
    yield from [
        "",
        "\n",
        "# only a comment",
        "name",
        "name =",
        "name = a",
        'name = "a',
        'name = "a"\nname = "b"',
        'name = "a"\n[data]\n[data]',
        'name = "a"\n[training]\nepochs = 1\nepochs = 2',
        'name = "a"\nname.b = 1',
        '[name]\na = "b"',
        '[[name]]\na = "b"',
        'name = "a"\n[[data]]\n[[data]]',
        'name = "a"\n[[space]]',
        'name = "a"\n[run]',
        'name = "a"\nrun = [1]',
        'name = "a"\nrun = [[]]',
        'name = "a"\n[[run]]\n[space]\nlr = 0.1',
        'name = "a"\n[[run]]\n[search]\ntrials = 1',
        'name = "a"\n[[run]]\nname = 3',
        'name = "a"\n[[run]]\nname = "' + "x" * 101 + '"',
        'name = "a"\n[[run]]\npreset = "alexnet"',
        'name = "a"\n[[run]]\nchannels = [1, 2, 3, 4]',
        'name = "a"\n[[run]]\nchannels = []',
        'name = "a"\n[[run]]\nchannels_9 = 4',
        'name = "a"\n' + "[[run]]\n" * 1_001,
        'name = "a"\n"" = 1',
        'name = "a"\n"a\\nb" = 1',
        'name = "a"\n"\\u001b[31m" = 1',
        'name = "a"\n"__class__" = 1',
        'name = "a"\n"model_config" = 1',
        f'name = "a"\n{"k" * 100_000} = 1',
        f'name = "a"\n[space]\n{"k" * 100_000} = 1',
        'name = "a"\nquestion = "' + "x" * 10_001 + '"',
        'name = "a"\nx = ' + "[" * 5_000 + "]" * 5_000,
        'name = "a"\nx = ' + "{ a = " * 5_000 + "1" + "}" * 5_000,
        'name = "a"\nspace' + ".lr" * 5_000 + " = 1",
        'name = "a"\nspace.lr.low' + ".lr" * 5_000 + " = 1",
        'name = "a"\n[' + ".".join("a" * 5_000) + "]\nx = 1",
        'name = "a"\n[data' + ".a" * 5_000 + "]\nx = 1",
        'name = "a"\nbaseline.lr' + ".a" * 5_000 + " = 1",
        'name = "a"\nspace.lr = [' + "[" * 500 + "]" * 500 + "]",
        'name = "a"\nx = ' + "9" * 5_000,
        'name = "a"\n[search]\nseed = -' + "9" * 27,
        'name = "a"\n[search]\nseed = 9223372036854775808',
        'name = "a"\n[search]\nseed = 0x' + "f" * 4_000,
        'name = "a"\n[training]\nepochs = 1_0_0_0_0_0_0',
        'name = "a"\n[search]\nmin_epochs = 4\n[training]\nepochs = 3\n[space]\nlr = [0.1]',
        "".join(f"k{n} = 1\n" for n in range(50_000)),
        "\x00",
        'name = "a\x00"',
        'name = "a"\r# \x01',
        "<!doctype html><html></html>",
        '{"name": "a"}',
        "#!/bin/sh\necho",
        "PK\x03\x04",
    ]
    yield from [
        b"\xff\xfe" + 'name = "a"'.encode("utf-16-le"),
        'name = "a"'.encode("utf-16"),
        'name = "Größe"'.encode("latin-1"),
        b'name = "\xed\xa0\x80"',
        b"\xef\xbb\xbf\xef\xbb\xbfname = 'a'",
        b"\x80\x04\x95K\x00",
        os.urandom(64) + b"\xff",
        b"name = 'a'\n#" + b"x" * 1_000_000,
    ]


def unknown() -> Iterator[str]:
    """Yield a key that nobody knows, everywhere."""
    yield 'name = "a"\nnmae = 1'
    for name in [*SECTIONS, "run", "space"]:
        head = f"[[{name}]]" if name == "run" else f"[{name}]"
        for key in ["unknown", "trails", '"lr "', "Lr", "__init__", "values", "identity"]:
            yield f'name = "a"\n{head}\n{key} = 1'


MALFORMED: list[str | bytes] = list(
    itertools.chain(wrong_values(), spaces(), ablations(), names(), broken(), unknown())
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a sweep would write, if it began."""

    def begin(*_: object) -> None:
        raise AssertionError("the file was taken")

    monkeypatch.setattr(run, "run_main_job", begin)
    # typer builds all commands anew in each call, which takes longer than everything else here.
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    return tmp_path / "runs"


def refused(path: Path, root: Path, *flags: str) -> str:
    """Return what is said of a file that is refused with exit code 2."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        program.main(["sweep", str(path), "--root", str(root), *flags])
    said = err.getvalue()
    assert (end.value.code, out.getvalue()) == (2, ""), said
    assert re.fullmatch(r"error: [^\n]+\n", said), said
    assert all(char.isprintable() for char in said[:-1])
    assert len(said) < 2_000
    return said


def test_every_malformed_file_is_one_line_and_nothing_else(tmp_path: Path, root: Path) -> None:
    """Each ends with exit code 2, one printable line that names the file, and nothing written."""
    assert len(MALFORMED) > 700
    path = tmp_path / "e.toml"
    for number, text in enumerate(MALFORMED):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            assert str(path) in refused(path, root)
        except BaseException as error:
            error.add_note(f"file {number}: {text[:200]!r}")
            raise
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", range(0, len(MALFORMED), 200))
def test_so_it_is_for_who_runs_the_command(tmp_path: Path, number: int) -> None:
    """The same in a process of its own, without a traceback."""
    path, text = tmp_path / "e.toml", MALFORMED[number]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    done = subprocess.run(
        [sys.executable, "-m", "lenet_exp.sweep", "e.toml", "--root", "runs"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: e\.toml[^\n]+\n", done.stderr)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_regular_file_is_not_read(tmp_path: Path, root: Path) -> None:
    """A pipe would wait for ever, a device never end."""
    os.mkfifo(tmp_path / "pipe.toml")

    assert "is not a regular file" in refused(tmp_path / "pipe.toml", root)
    assert "is not a regular file" in refused(Path("/dev/zero"), root)


OVERRIDES = [
    "",
    "=",
    "=3",
    "x",
    ".=1",
    "a.=1",
    "search.=1",
    "search..trials=1",
    "search=1",
    "search.trials=nan",
    "search.trials=",
    "search.trials=1e3",
    "search.trials=1\n[data]\nvalidation=5",
    "search.trials=[1",
    "space.lr={low=nan,high=1}",
    "space.lr=[",
    "name=../../etc",
    "name=",
    "name=x\x00",
    "\x1b[31m=1",
    "data.folder.x=1",
    "search.trials=" + "[" * 5_000,
    ".".join("a" * 5_000) + "=1",
]


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: repr(text)[:30])
def test_every_malformed_override_is_one_line(tmp_path: Path, root: Path, override: str) -> None:
    """``--set`` is as strict as the file."""
    path = tmp_path / "e.toml"
    path.write_text('name = "a"\n[data]\nfolder = "x"\n[space]\nlr = [0.1, 0.2]\n')

    refused(path, root, "--set", override)

    assert list(tmp_path.iterdir()) == [path]


def test_a_run_s_fields_are_a_configuration_s_and_its_name() -> None:
    """What is tried above for a configuration is, but for the count of seeds, all that there is."""
    assert set(Run.model_fields) == {*PartialConfiguration.model_fields, "name", "seeds"}
