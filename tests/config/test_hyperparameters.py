import pytest
from pydantic import ValidationError

from lenet_exp.config.hyperparameters import (
    HYPERPARAMETERS,
    PRESETS,
    Configuration,
    PartialConfiguration,
    configuration,
    overlay,
)


def test_the_baseline_is_the_network_and_training_of_the_seed() -> None:
    """LeNet with ReLU, max pooling, 6 and 16 channels of 5x5, then 120, 84, 10; Adam, lr 0.009, batch 256."""
    baseline = configuration(PRESETS["lenet"])

    assert (baseline.kernel_size, baseline.padding, baseline.channels) == ((5, 5), (2, 0), (6, 16))
    assert (baseline.pooling, baseline.activation, baseline.fc_width) == ("max", "relu", (120, 84))
    assert (baseline.init, baseline.optimizer, baseline.lr) == ("xavier_uniform", "adam", 0.009)
    assert (baseline.batch_size, baseline.epochs, baseline.loss) == (256, 10, "cross_entropy")


def test_the_classic_is_the_book_s_first_lenet() -> None:
    """The second named baseline has sigmoid, average pooling and SGD with lr 0.9."""
    classic = configuration(PRESETS["classic"])

    assert (classic.pooling, classic.activation) == ("avg", "sigmoid")
    assert (classic.optimizer, classic.lr) == ("sgd", 0.9)


def test_values_that_are_not_used_do_not_count() -> None:
    """The third kernel of a two-layer network, and Adam's momentum, leave the identity as it is."""
    plain = configuration(PRESETS["lenet"])
    other = configuration(
        overlay(PRESETS["lenet"], {"kernel_size_3": 7, "fc_width": [120, 84], "momentum": 0.5})
    )

    assert other.id == plain.id


@pytest.mark.parametrize(
    ("key", "value"), [("channels_2", 17), ("lr", 0.01), ("epochs", 9), ("precision", "float32")]
)
def test_values_that_are_used_count(key: str, value: object) -> None:
    """Whatever changes the training changes the identity."""
    plain = configuration(PRESETS["lenet"])

    assert configuration(overlay(PRESETS["lenet"], {key: value})).id != plain.id


def test_a_copy_has_a_hash_of_its_own() -> None:
    """The hash of the original is not carried along with its fields."""
    plain = configuration(PRESETS["lenet"])
    assert plain.id

    changed = plain.model_copy(update={"lr": 0.5})

    assert changed.id == configuration(overlay(PRESETS["lenet"], {"lr": 0.5})).id != plain.id


def test_hyperparameters_have_always_the_same_keys_and_lead_back() -> None:
    """A configuration written out and read again is the same, with all keys in the order of the columns."""
    one_layer = configuration(
        overlay(PRESETS["classic"], {"conv_layers": 1, "fc_layers": 1, "momentum": 0.9})
    )

    written = one_layer.to_dict()

    assert tuple(written) == (*HYPERPARAMETERS, "epochs")
    assert written["kernel_size_2"] is None
    assert Configuration.from_dict(written) == one_layer


def test_one_value_goes_to_all_layers_a_list_to_each_and_a_key_to_its_own() -> None:
    """The more exact way of writing a layer's value is the stronger."""
    full = overlay(PRESETS["lenet"], {"kernel_size_2": 7, "kernel_size": 3, "channels": [8, 9]})

    assert full["kernel_size"] == [3, 7, 3]
    assert full["channels"] == [8, 9, 32]


def test_same_padding_keeps_the_map_whatever_the_kernel() -> None:
    """``same`` is half the kernel, in pixels, so that equal networks have equal identities."""
    same = configuration(overlay(PRESETS["lenet"], {"padding": "same", "kernel_size": [7, 3]}))

    assert same.padding == (3, 1)


@pytest.mark.parametrize(
    "values",
    [{"channels": []}, {"channels": [1, 2, 3, 4]}, {"lr": 0}, {"lr": float("inf")}, {"activation": "rely"}],
)
def test_a_table_refuses_what_cannot_be(values: dict[str, object]) -> None:
    """A value outside its bounds never becomes a configuration."""
    with pytest.raises(ValidationError, match="validation error"):
        PartialConfiguration.model_validate(values)
