from typing import Any

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.config.ablation import DEFAULT_SEEDS, parse_factors


def test_a_factor_lists_values_lists_per_layer_or_named_tables() -> None:
    """Each is one alternative, shown as people would say it."""
    factors = parse_factors(
        {
            "lr": [0.001],
            "channels": [12, [3, 8]],
            "epochs": [20],
            "network": [{"name": "book", "preset": "classic"}, {"lr": 0.1, "init": "default"}],
        }
    )

    assert [(each.factor, each.value) for each in factors.alternatives] == [
        ("lr", "0.001"),
        ("channels", "12"),
        ("channels", "3-8"),
        ("epochs", "20"),
        ("network", "book"),
        ("network", "lr 0.1 init default"),
    ]
    assert factors.alternatives[2].table.values() == {"channels": [3, 8]}
    assert factors.alternatives[4].table.preset == "classic"
    assert factors.seeds == DEFAULT_SEEDS


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"seeds": 3}, "ablate: needs a factor with its alternatives"),
        ({"seeds": 0, "lr": [0.1]}, "ablate.seeds: must be a whole number from 1 to 1,000, found 0"),
        ({"seeds": True, "lr": [0.1]}, "ablate.seeds: must be a whole number .* found True"),
        ({"lr": 0.1}, r"ablate.lr: must be a list of alternatives, as in \[3, 7\]; found 0.1"),
        ({"lr": []}, r"ablate.lr: must be a list of alternatives, .* found \[\]"),
        ({"poling": ["avg"]}, "ablate.poling: unknown hyper-parameter 'poling'; did you mean 'pooling'"),
        ({"x": ["avg"]}, "ablate.x: unknown hyper-parameter 'x'; known are pooling, .* needs tables"),
        ({"pooling": ["mean"]}, "ablate.pooling: must be 'avg' or 'max', found 'mean'"),
        ({"kernel_size": [99]}, "ablate.kernel_size: must be less than or equal to 28, found 99"),
        ({"channels": [[1, 2, 3, 4]]}, "channels must have 1 to 3 entries, one per layer, found 4$"),
        ({"net": [{"chanels": 3}]}, "ablate.net: unknown key 'chanels'; did you mean 'channels'"),
        ({"net": [{"name": "nothing"}]}, "ablate.net: each table must set at least one key"),
    ],
)
def test_an_alternative_that_cannot_be_is_refused(written: dict[str, Any], message: str) -> None:
    """With the factor, the rule and what was found, in one line."""
    with pytest.raises(ConfigError, match=message) as error:
        parse_factors(written)

    assert "\n" not in str(error.value)
