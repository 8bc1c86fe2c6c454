import torch

from lenet_exp.cli.peak import matrix_peaks, training_flops
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay


def test_training_costs_three_forward_passes_but_for_the_first_input() -> None:
    """A fully connected 784 to 10 alone could be told by hand; here a 1x1 convolution and a linear layer."""
    network = configuration(
        overlay(
            PRESETS["lenet"],
            {"conv_layers": 1, "kernel_size": 1, "padding": 0, "channels": 1, "fc_layers": 1},
        )
    )
    first, last = 28 * 28, 14 * 14 * 10

    assert training_flops(network) == 2 * (2 * first + 3 * last)


def test_every_library_has_a_rate_and_the_threads_are_put_back() -> None:
    """The rates are those of real products, and who measures leaves nothing behind."""
    before = torch.get_num_threads()

    peaks = matrix_peaks(for_s=0.1, threads=before + 1)

    assert any(name.startswith("torch.mm") for name in peaks)
    assert all(1 < rate < 1e6 for rate in peaks.values())
    assert torch.get_num_threads() == before
