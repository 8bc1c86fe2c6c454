import torch

from lenet_exp.cli.peak import matrix_peak, training_flops
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


def test_the_peak_is_a_rate_and_the_threads_are_put_back() -> None:
    """It is that of real products, and who measures leaves nothing behind."""
    before = torch.get_num_threads()

    assert 1 < matrix_peak(for_s=0.1, threads=before + 1) < 1e6
    assert torch.get_num_threads() == before
