import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.layout import folder_name
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.loader import load, parse
from tests.labs.places import PROJECT

SHIPPED = sorted((PROJECT / "experiments").glob("*.toml"))


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "e.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_experiment_that_comes_with_the_project_is_valid(path: Path) -> None:
    """The files in experiments/ can be run as they are."""
    experiment = load(path)

    assert experiment.question
    assert experiment.baseline_configuration.optimizer == "adam"


def test_flags_are_stronger_than_set_and_set_is_stronger_than_the_file(tmp_path: Path) -> None:
    """The order of strength is flags, --set, file, defaults."""
    path = written(tmp_path, 'name = "x"\n[search]\ntrials = 1\nseed = 1\nmin_epochs = 2\n')

    search = load(
        path,
        ["search.trials=2", "search.seed=2", "search.sampler=random"],
        {"search.trials": 3, "search.seed": None},
    ).search

    assert (search.trials, search.seed, search.min_epochs, search.sampler) == (3, 2, 2, "random")
    assert search.pruner == "hyperband"


def test_runs_differ_from_the_baseline_only_in_what_they_say() -> None:
    """A listed run takes the rest from the baseline, or from the preset that it names."""
    experiment = parse(
        {
            "name": "x",
            "baseline": {"lr": 0.01},
            "training": {"epochs": 3},
            "run": [{"pooling": "avg"}, {"preset": "classic", "name": "book"}],
        }
    )

    (first_label, first), (second_label, second) = experiment.runs()

    assert (first_label, first.pooling, first.lr, first.epochs) == ("run 1", "avg", 0.01, 3)
    assert (second_label, second.activation, second.lr, second.epochs) == ("book", "sigmoid", 0.9, 3)


def test_an_alternative_differs_from_the_baseline_only_in_what_it_says() -> None:
    """The rest is the baseline's own, or the preset's that a table names; precision is everybody's."""
    experiment = parse(
        {
            "name": "x",
            "baseline": {"lr": 0.01},
            "training": {"epochs": 3, "precision": "float32"},
            "ablate": {
                "conv_layers": [3],
                "epochs": [7],
                "net": [{"name": "book", "preset": "classic", "pooling": "max"}],
            },
        }
    )

    (_, deep), (_, long), (_, book) = experiment.alternatives()

    assert (deep.conv_layers, deep.lr, deep.epochs) == (3, 0.01, 3)
    assert (long.conv_layers, long.lr, long.epochs) == (2, 0.01, 7)
    assert (book.activation, book.pooling, book.lr, book.epochs) == ("sigmoid", "max", 0.9, 3)
    resolved = parse({"name": "x", "ablate": {"lr": [0.1]}}).with_precision("bfloat16")
    assert [configuration.precision for _, configuration in resolved.alternatives()] == ["bfloat16"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"space": {"lr": [0.1, 0.2]}}, r"a \[space\] to search"),
        ({"ablate": {"lr": [0.1]}}, r"an \[ablate\]"),
    ],
)
def test_what_chooses_may_not_see_the_test_split(kind: dict[str, Any], said: str) -> None:
    """The file is refused, in one line; a fixed list, which chooses nothing, is not."""
    watch = {"watch": {"test_split": True}}
    with pytest.raises(ConfigError, match=rf"watch.test_split: {said} chooses .* only a list of \[\[run\]\]"):
        parse({"name": "x"} | kind | watch)

    listed = {"name": "x", "run": [{"lr": 0.1}]} | watch
    assert parse(listed).watch.test_split
    with pytest.raises(ConfigError, match=r"watch.test_split: \[confirm\] chooses before"):
        parse(listed | {"confirm": {"seeds": 3}})
    assert not parse({"name": "x"} | kind | {"watch": {"diagnostics": True}}).watch.test_split


MALFORMED: list[tuple[str | bytes, str]] = [
    ("", "name is missing"),
    ("name = ", r"not TOML: Invalid value \(at"),
    ("name = 'a'\nname = 'b'", "not TOML"),
    ("name = 'a'\n[trainin]\nepochs = 1", r"e.toml:2: unknown key 'trainin'; did you mean 'training'"),
    (
        "name = 'a'\n[training]\nepoch = 1",
        r"e.toml:3: unknown key 'epoch' in \[training\]; did you mean 'epochs'",
    ),
    ("name = 'a'\n[training]\nepochs = -1", r"e.toml:3: training.epochs: must be greater .* found -1"),
    ("name = 'a'\n[training]\nepochs = 1.5", "training.epochs: must be a valid integer, found 1.5"),
    ("name = 'a'\n[training]\nepochs = '9'", "training.epochs: must be a valid integer, found '9'"),
    ("name = 'a'\n[search]\ntrials = -3", "search.trials: must be greater than or equal to 0, found -3"),
    ("name = 'a'\n[search]\ntrials = nan", "search.trials"),
    ("name = 'a'\n[search]\ntrials = true", "search.trials: must be a valid integer, found True"),
    ("name = 'a'\n[search]\nsampler = 'tep'", "search.sampler: must be 'tpe'"),
    ("name = 'a'\n[baseline]\nlr = inf", "baseline.lr: must be a finite number, found inf"),
    ("name = 'a'\n[baseline]\nlr = 1e999", "baseline.lr: must be a finite number, found inf"),
    ("name = 'a'\n[baseline]\nlr = 1e308", "baseline.lr: must be less than or equal to 100"),
    ("name = 'a'\n[baseline]\nbatch_size = 123456789012345678901234567", "baseline.batch_size"),
    ("name = 'a'\n[baseline]\nbatch_size = 1000000000", "baseline.batch_size: must be less than"),
    (
        "name = 'a'\n[baseline]\nchannels = [6, 'x']",
        r"baseline.channels\[1\]: must be a valid integer, found 'x'",
    ),
    ("name = 'a'\n[space]\nlr = { low = 1, high = 0 }", "e.toml:3: space.lr: low must not be above high"),
    ("name = 'a'\n[space]\ndropout = [0.1]", "unknown hyper-parameter 'dropout'"),
    ("name = 'a'\nspace = 3", "space: must be a valid dictionary, found 3"),
    ("name = 'a'\n[[run]]\nchanels = 3", r"unknown key 'chanels' in \[run\[0\]\]; did you mean 'channels'"),
    (
        "name = 'a'\n[space]\nlr = [0.1]\n[[run]]\nlr = 0.1",
        r"a \[space\] to search or a list of \[\[run\]\], not both",
    ),
    (
        "name = 'a'\n[space]\nlr = [0.1]\n[ablate]\nlr = [0.1]",
        r"a \[space\] to search or an \[ablate\], not both",
    ),
    ("name = 'a'\n[ablate]\nlr = [0.1]\n[search]\ntrials = 3", r"an \[ablate\] is not searched"),
    ("name = 'a'\n[ablate]\npoling = ['avg']", "e.toml:3: ablate.poling: .* did you mean 'pooling'"),
    (
        "name = 'a'\n[ablate]\nkernel_size = [3, 5]",
        "ablate.kernel_size: '5' is the same configuration as the baseline",
    ),
    (
        "name = 'a'\n[ablate]\nlr = [0.1]\nother = [{ lr = 0.1 }]",
        "ablate.other: 'lr 0.1' is the same configuration as lr 0.1; leave it out",
    ),
    (
        "name = 'a'\n[watch]\ntest_splt = true",
        r"unknown key 'test_splt' in \[watch\]; did you mean 'test_split'",
    ),
    ("name = 3", "name: must be a valid string, found 3"),
    ("name = 'a'\nx = " + "[" * 5_000 + "]" * 5_000, "nested too deeply|not TOML"),
    ("name = 'a'\nx = " + "9" * 5_000, "not an experiment|unknown key"),
    (b"name = '\xff'", "must be UTF-8, found byte 0xff"),
    (b"name = 'a\x00'", "not TOML"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED, ids=lambda value: repr(value)[:40])
def test_a_malformed_file_gets_one_line_that_says_what_is_wrong(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    """File and line where known, the key, the rule and what was found, in one line."""
    with pytest.raises(ConfigError, match=message) as caught:
        load(written(tmp_path, text))

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Editors that begin files with a mark are no mistake of the user's."""
    assert load(written(tmp_path, b"\xef\xbb\xbfname = 'a'")).name == "a"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A gigabyte named by mistake costs nothing."""
    path = tmp_path / "e.toml"
    with path.open("wb") as file:
        file.truncate(10**9)

    with pytest.raises(ConfigError, match="at most 1,000,000 bytes"):
        load(path)


@pytest.mark.parametrize(
    ("what", "message"), [("missing.toml", "no such experiment file"), (".", "is a folder")]
)
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, what: str, message: str) -> None:
    """What was named is said."""
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / what)


@pytest.mark.parametrize(
    "override", ["trials", "search.trials=-1", "search=3", "search.trials.x=1", "name.x=1"]
)
def test_a_set_that_cannot_be_is_refused(tmp_path: Path, override: str) -> None:
    """--set is checked like the file."""
    path = written(tmp_path, 'name = "a"\n[search]\ntrials = 1')

    with pytest.raises(ConfigError, match=r"--set|search"):
        load(path, [override])


@pytest.mark.parametrize(
    "name",
    ["../../etc", "/etc", "a/b", "a\0", "x" * 300, "", ".", "..", "a\nb", " a", "-a", "a..b", "\x1b]0;x"],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    """Names are letters, digits, spaces, dots, dashes and underscores."""
    with pytest.raises(ConfigError, match="name: must be 1 to 100 letters"):
        parse({"name": name})


@given(st.text(min_size=1, max_size=100))
def test_a_folder_s_name_is_safe_whatever_the_experiment_is_called(name: str) -> None:
    """The folder is a lower-case name, with @ as in fashion-mnist@mnist, and none of the stores' own."""
    folder = folder_name(name)

    assert folder not in {"artifacts", "mlflow.db", "study.db", "con"}
    assert folder == folder.lower()
    assert re.fullmatch(r"[a-z0-9][a-z0-9_@-]*", folder)


@pytest.mark.parametrize(
    "name", ["CON", "nul", "com1", "LPT9", "artifacts", "mlflow.db", "study.db", "con.txt"]
)
def test_a_name_that_means_something_to_the_system_gets_another_folder(name: str) -> None:
    """The experiment may be called so; its folder is not."""
    assert folder_name(parse({"name": name}).name) != name.lower()


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_two_experiments_never_share_a_folder(names: list[str]) -> None:
    """Names that look alike keep apart."""
    one, other = names

    assert folder_name(one) != folder_name(other)


@pytest.mark.parametrize("name", ["Größe 5", "실험", "fashion-mnist", "a.b", "日本 1"])
def test_names_of_every_script_work(name: str) -> None:
    """A name is kept as it is written, composed."""
    assert parse({"name": name}).name == name


junk: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(Experiment.model_fields)), junk, max_size=4))
def test_no_table_makes_anything_but_an_experiment_or_an_error(data: dict[str, Any]) -> None:
    """Whatever a file says, the answer is an experiment or one line."""
    message = ""
    try:
        parse(data)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
