from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.loader import load

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
    ("name = 'a'\nspace = 3", "space: must be a table, found 3"),
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
    (
        "name = 'a'\n[confirm]\nresample = true\ntrain_on = 'train+validation'",
        r"e.toml:3: confirm.resample: not allowed with train_on = 'train\+validation', which leaves",
    ),
    (
        "name = 'a'\n[confirm]\ntrain_on = 'train, resampled'",
        "confirm.train_on: must be 'train' or 'train\\+",
    ),
    ("name = 3", "name: must be a valid string, found 3"),
    ("name = 'a'\nx = " + "[" * 5_000 + "]" * 5_000, "may be nested at most 10 deep|not TOML"),
    ("name = 'a'\nx = " + "9" * 5_000, "not TOML|unknown key"),
    (b"name = '\xff'", r"e\.toml:1: must be UTF-8, found byte 0xff; save"),
    (b"name = 'a\x00'", "not TOML"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED, ids=lambda value: repr(value)[:40])
def test_a_malformed_file_gets_one_line_that_says_what_is_wrong(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    """File and line where known, the key, the rule and what was found, in one line."""
    path = tmp_path / "e.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
