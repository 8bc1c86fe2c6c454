import itertools
import math

import pytest
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file

from lenet_exp.base.errors import DivergedError
from lenet_exp.base.records import EpochResult
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import PRESETS, Configuration, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.training.loop import (
    Images,
    TrainingState,
    autograd_gradients,
    begin,
    compiled_forward,
    cpu_gradients,
    criterion,
    epoch_order,
    evaluate,
    fit,
    plain_forward,
    predict,
    restore,
    save_weights,
    snapshot,
)
from tests.labs import cuda_checks


def variant(**values: object) -> Configuration:
    small = {"channels": 4, "fc_layers": 1, "epochs": 3, "batch_size": 32, "lr": 0.01, "precision": "float32"}
    return configuration(overlay(PRESETS["lenet"], small | values))


@pytest.fixture(scope="module")
def images() -> Images:
    """Return 200 images of two kinds that a network can tell apart: bright above, or bright below."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    pixels = torch.randint(0, 100, (200, 1, 28, 28), generator=stream, dtype=torch.uint8)
    pixels[labels == 0, :, :14] += 100
    pixels[labels == 1, :, 14:] += 100
    return Images(pixels, labels, torch.arange(200))


def train(
    configuration: Configuration, images: Images, seed: int = 1
) -> tuple[TrainingState, list[EpochResult]]:
    state = begin(configuration, seed=seed)
    return state, list(fit(state, images, images))


def outcome(results: list[EpochResult]) -> list[tuple[float, ...]]:
    return [(r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy) for r in results]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_training_learns(images: Images, optimizer: str, loss: str) -> None:
    """The loss falls and the classes are told apart, with either optimiser and either loss."""
    _, results = train(
        variant(optimizer=optimizer, loss=loss, epochs=5, lr=0.01 if optimizer == "adam" else 0.1), images
    )

    assert results[-1].train_loss < results[0].train_loss
    assert results[-1].val_accuracy > 0.95


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(images: Images) -> None:
    """Whatever else the caller draws from torch's random stream."""
    _, first = train(variant(), images)
    torch.rand(7)
    _, second = train(variant(), images)
    _, other = train(variant(), images, seed=2)

    assert outcome(first) == outcome(second)
    assert outcome(first) != outcome(other)


def test_a_training_goes_on_after_an_epoch_as_if_it_had_never_stopped(images: Images) -> None:
    """Epochs taken one by one, from a generator each, are those of one go."""
    _, whole = train(variant(), images)
    state = begin(variant(), seed=1)

    parts = [next(fit(state, images, images)) for _ in range(3)]

    assert outcome(parts) == outcome(whole)
    assert [part.epoch for part in parts] == [1, 2, 3]


def test_each_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    """The order depends on seed and epoch, and leaves no image out."""
    first, second = epoch_order(50, 0, 1), epoch_order(50, 0, 2)

    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()


def test_the_training_loss_and_accuracy_are_means_over_examples(images: Images) -> None:
    """With a learning rate of nearly nothing they are the untrained network's, last batch included."""
    state = begin(variant(lr=1e-30, epochs=1, batch_size=48, optimizer="sgd"), seed=1)
    loss, accuracy = evaluate(state.model, images, "cross_entropy")

    (result,) = fit(state, images, images)

    assert result.train_loss == pytest.approx(loss, rel=1e-5)
    assert result.train_accuracy == pytest.approx(accuracy)


def test_a_loss_that_is_not_finite_ends_the_training(images: Images) -> None:
    """No result is given for the epoch in which it happened."""
    state = begin(variant(optimizer="sgd", lr=100.0, loss="mse"), seed=1)

    with pytest.raises(DivergedError, match=r"loss is (nan|inf) in epoch"):
        list(fit(state, images, images))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weights_that_are_not_numbers_end_the_training(images: Images, sign: float) -> None:
    """Also where a ReLU turns what they make into zeros, so that the loss stays a number."""
    state = begin(variant(optimizer="sgd", lr=1e-3), seed=1)
    convolution = next(layer for layer in state.model.modules() if isinstance(layer, torch.nn.Conv2d))
    with torch.no_grad():
        convolution.weight[0] = torch.copysign(torch.tensor(torch.nan), torch.tensor(sign))

    with pytest.raises(DivergedError, match=r"(loss is nan in|weights are not finite after) epoch 1"):
        list(fit(state, images, images))


def test_examples_per_s_counts_training_examples_over_the_training_pass(images: Images) -> None:
    """Speed and time agree, and the seconds add up over the epochs."""
    _, results = train(variant(), images)

    spent = sum(len(images) / result.examples_per_s for result in results)
    assert results[-1].train_s == pytest.approx(spent)


def test_mse_compares_logits_with_one_hot_labels() -> None:
    """The mean over examples and classes of the squared difference."""
    logits = torch.zeros(2, 10)

    assert criterion(logits, torch.tensor([3, 4]), "mse").item() == pytest.approx(0.1)


def test_bfloat16_and_float32_agree_within_their_noise(images: Images) -> None:
    """Half the bits change the loss by little."""
    _, exact = train(variant(epochs=1), images)
    _, rough = train(variant(epochs=1, precision="bfloat16"), images)

    assert outcome(rough) != outcome(exact)
    assert rough[0].train_loss == pytest.approx(exact[0].train_loss, rel=0.05)


def test_evaluation_looks_at_the_images_of_the_index_and_no_others(images: Images) -> None:
    """A selection is measured on its own."""
    state = begin(variant(), seed=1)
    some = Images(images.pixels, images.labels, torch.tensor([5, 9, 150]))

    logits = predict(state.model, some)

    assert torch.allclose(logits, predict(state.model, images)[some.index], atol=1e-6)
    assert math.isfinite(evaluate(state.model, some, "cross_entropy")[0])


def test_weights_are_written_whole_and_read_back_equal(images: Images, tmp_path: object) -> None:
    """The file has the network's weights under their names."""
    from pathlib import Path

    state, _ = train(variant(epochs=1), images)
    path = Path(str(tmp_path)) / "deep" / "weights.safetensors"

    save_weights(state.model, path)

    read = load_file(path)
    assert all(torch.equal(read[name], value) for name, value in state.model.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_every_way_to_the_gradients_computes_the_same(images: Images, loss: str) -> None:
    """What autograd records for an accelerator, its compiled form, and what is written out for a CPU."""
    network = variant(loss=loss)
    model = begin(network, seed=1).model
    forward = plain_forward(model, network)
    # Traced and differentiated ahead of time, but not turned into machine code, which takes a minute.
    compiled = compiled_forward(forward, backend="aot_eager")
    found = []
    for gradients in (
        autograd_gradients(forward),
        autograd_gradients(compiled),
        cpu_gradients(model, network),
    ):
        model.zero_grad()
        results = gradients(images.pixels[:32], images.labels[:32])
        found.append([*results, *(parameter.grad for parameter in model.parameters())])

    for recorded, of_graph, written_out in zip(*found, strict=True):
        torch.testing.assert_close(of_graph, recorded)
        torch.testing.assert_close(written_out, recorded, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("values", [{}, {"pooling": "avg", "activation": "gelu", "conv_layers": 1}])
def test_pytorch_s_own_layers_train_what_ours_train(
    images: Images, monkeypatch: pytest.MonkeyPatch, values: dict[str, object], precision: str
) -> None:
    """``kernels = "torch"`` uses not one of our layers, and gives the same numbers but for rounding."""
    ours = list(fit(begin(variant(precision=precision, **values), seed=1), images, images))

    def unused(*_: object) -> None:
        raise AssertionError("our own layers were used")

    monkeypatch.setattr("lenet_exp.training.cpu.gradients.gradients", unused)
    plain = Training(kernels="torch")
    theirs = list(fit(begin(variant(precision=precision, **values), seed=1, training=plain), images, images))

    tolerance = 1e-3 if precision == "float32" else 0.25  # of a loss that is nearly 0 by then
    for one, other in zip(ours, theirs, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=tolerance)
        assert other.val_accuracy == pytest.approx(one.val_accuracy, abs=0.02)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_train_as_the_plain_step_does(mini: ImageSet) -> None:
    """Three epochs, the last batch smaller than the others, on a CUDA device."""
    cuda_checks.cuda_graphs_train_as_the_plain_step_does(cuda_checks.whole(mini), torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_trains_what_a_cpu_trains(mini: ImageSet) -> None:
    """The same configuration and seed give the same numbers but for rounding."""
    cuda_checks.a_cuda_device_trains_what_a_cpu_trains(cuda_checks.whole(mini), torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_repeats_its_bits(mini: ImageSet) -> None:
    """The same configuration and seed give the same numbers to the last bit, in either precision."""
    cuda_checks.a_training_repeats_its_bits(cuda_checks.whole(mini), torch.device("cuda"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", [{"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.9}])
def test_a_training_goes_on_from_a_snapshot_bit_for_bit(
    images: Images, optimizer: dict[str, object], precision: str
) -> None:
    """Cut off after any epoch, it ends with the weights and numbers of one that never stopped."""
    chosen = variant(precision=precision, weight_decay=0.01, **optimizer)
    whole, results = train(chosen, images)

    for epochs in (1, 2):
        first = begin(chosen, seed=1)
        before = list(itertools.islice(fit(first, images, images), epochs))
        taken = snapshot(first)
        torch.rand(7)  # whatever the process did meanwhile
        second = begin(chosen, seed=1)
        restore(second, taken, before[-1])
        after = list(fit(second, images, images))

        assert outcome(before + after) == outcome(results)
        assert [result.epoch for result in before + after] == [1, 2, 3]
        assert after[-1].train_s > before[-1].train_s
        for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.stride() == other.stride()


def test_a_snapshot_cannot_run_code(images: Images) -> None:
    """It is safetensors, and has the layout that the optimizer expects when it is restored."""
    state, results = train(variant(), images)
    taken = snapshot(state)

    names = set(load_bytes(taken))
    assert {"random", *(f"model.{name}" for name in state.model.state_dict())} < names
    # As torch's own optimizers name it, which earlier checkpoints have from there.
    assert {f"optimizer.0.{name}" for name in ("exp_avg", "exp_avg_sq", "step")} < names
    other = begin(variant(), seed=1)
    restore(other, taken, results[-1])
    averages = other.optimizer.state()["exp_avg"]
    for parameter, average in zip(other.model.parameters(), averages, strict=True):
        assert average.stride() == parameter.stride()
