"""Training as a generator: `fit` yields an `EpochResult` after every epoch; the caller decides what follows.

The images stay on the device as bytes and a batch is a selection by index. Losses and correct predictions are
summed on the device and read once per epoch, so that an accelerator never waits for the host.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from lenet_exp.base.errors import DivergedError
from lenet_exp.base.files import move_aside, own_folder, write_atomically
from lenet_exp.base.records import EpochResult
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import CLASSES, Configuration, Loss
from lenet_exp.data.images import ImageSet
from lenet_exp.training.cpu import gradients as written_out
from lenet_exp.training.device import resolve_precision
from lenet_exp.training.network import LeNet, initialise
from lenet_exp.training.optimizers import Optimizer, make_optimizer

#: The defaults of an experiment's ``[training]`` section: this package's layers on a CPU, not compiled.
DEFAULT_TRAINING = Training()
#: Batch size of evaluation, small enough for a batch to stay in the CPU's cache (experiments/LOG.md, "Speed:
#: the start, the end, and what lies between trainings").
EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Images:
    """A subset of the labelled images on a device, given by index.

    Attributes:
        pixels: ``(all, 1, size, size)`` uint8: all images; every subset shares this tensor.
        labels: ``(all,)`` int64: the classes of all images.
        index: ``(n,)`` int64: indices of the subset's images in ``pixels`` and ``labels``.
    """

    pixels: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)


def load(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Load an image set onto ``device``, and return its pixels and labels in the shapes of `Images`.

    On the CPU the pixels stay in the mapped file, shared with every process that reads it.

    Args:
        images: Image set whose files are opened.
        device: Device to copy pixels and labels to.

    Raises:
        DataError: If the files were deleted after they were verified.
    """
    pixels, labels = images.open()
    with warnings.catch_warnings():
        # The files are mapped read-only, and nothing here writes to the pixels.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        shared = torch.from_numpy(pixels)[:, None]
    return shared.to(device), torch.from_numpy(labels.astype("int64")).to(device)


_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

#: Maps a batch's pixels and labels to its mean loss and its logits.
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: Maps them likewise, and sets the gradients of the loss in the model's parameters.
Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class TrainingState:
    """The state of a training in progress, which `fit` changes.

    Attributes:
        configuration: Configuration to train; its precision is resolved, never ``auto``.
        model: The network, on ``device``.
        optimizer: Optimizer of the network's parameters.
        gradients: Function that computes a batch's loss and logits, and sets the gradients of ``model``.
        seed: Root of the training's random streams.
        device: Device to train on.
        epoch: Number of epochs trained so far.
        train_s: Seconds of all training passes so far, evaluation excluded.
    """

    configuration: Configuration
    model: LeNet
    optimizer: Optimizer
    gradients: Gradients
    seed: int
    device: torch.device
    epoch: int = 0
    train_s: float = 0.0


def begin(
    configuration: Configuration,
    *,
    seed: int,
    device: torch.device | None = None,
    image_size: int = 28,
    training: Training = DEFAULT_TRAINING,
) -> TrainingState:
    """Return a new training, at epoch 0, with its weights initialised.

    Args:
        configuration: Configuration to train.
        seed: Root of the training's random streams, which also determines the initial weights.
        device: Device to train on; None means the CPU.
        image_size: Side of the images, in pixels.
        training: Section of which two keys are used: on a CPU ``kernels``, for this package's layers or
            PyTorch's; on an accelerator ``compile``, for ``torch.compile``.
    """
    device = device or torch.device("cpu")
    if device.type == "cuda":
        # Otherwise some of cuDNN's float32 gradients are summed in whatever order they arrive, and neither a
        # replay nor a resumed training repeats the bits (experiments/LOG.md, "A first look at a GPU").
        torch.backends.cudnn.deterministic = True
    precision = resolve_precision(configuration.precision, device)
    configuration = configuration.model_copy(update={"precision": precision})
    model = LeNet(configuration, image_size)
    initialise(model, configuration.init, derive_seed(seed, "init"))
    # oneDNN's and cuDNN's convolutions are faster with the channels last; the results are the same.
    model = model.to(device).to(memory_format=torch.channels_last)
    forward = plain_forward(model, configuration)
    if device.type != "cpu":
        compiled = compiled_forward(forward, mode="reduce-overhead") if training.compile else forward
        gradients = autograd_gradients(compiled)
    elif training.kernels == "torch":
        gradients = autograd_gradients(forward)
    else:
        gradients = cpu_gradients(model, configuration)
    optimizer = make_optimizer(configuration, model.parameters())
    return TrainingState(configuration, model, optimizer, gradients, seed, device)


def cpu_gradients(model: LeNet, configuration: Configuration) -> Gradients:
    """Return a function that computes gradients with the layers of `lenet_exp.training.cpu`.

    Args:
        model: Network on the CPU, whose parameters get the gradients.
        configuration: The network's configuration; its loss and its precision, never ``auto``, are used.
    """
    dtype = _DTYPES[configuration.precision]

    def gradients(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return written_out.gradients(
            model, pixels, lambda logits: criterion(logits, labels, configuration.loss), dtype
        )

    return gradients


def autograd_gradients(forward: Forward) -> Gradients:
    """Return a function that calls ``forward`` and computes the gradients of its loss by autograd."""

    def gradients(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = forward(pixels, labels)
        torch.autograd.backward(loss)
        return loss.detach(), logits.detach()

    return gradients


def plain_forward(model: LeNet, configuration: Configuration) -> Forward:
    """Return a function that computes a batch's loss and logits with the network's own torch layers.

    Args:
        model: Network on any device.
        configuration: The network's configuration; its loss and its precision, never ``auto``, are used.
    """

    def forward(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        dtype = _DTYPES[configuration.precision]
        with torch.autocast(pixels.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits: Tensor = model(as_input(pixels))
        return criterion(logits.float(), labels, configuration.loss), logits.float()

    return forward


def compiled_forward(forward: Forward, **options: Any) -> Forward:
    """Return ``forward`` compiled by ``torch.compile``, which also compiles its backward pass.

    Args:
        forward: Function that `plain_forward` returned.
        options: Arguments for ``torch.compile``. ``mode="reduce-overhead"`` replays CUDA graphs, which have
            static shapes: one graph is for the full batches, another for a smaller last batch.
    """
    graph = torch.compile(forward, dynamic=False, **options)

    def step(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # The tensors that the previous replay returned are no longer needed, so this one may overwrite them.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch has no types
        result: tuple[Tensor, Tensor] = graph(pixels, labels)
        return result

    return step


def fit(state: TrainingState, train: Images, validation: Images) -> Iterator[EpochResult]:
    """Train the remaining epochs, and yield the result of each.

    Args:
        state: Training to continue, changed in place. If it has trained three epochs, it continues with the
            fourth, on the same batches as a training that was never interrupted.
        train: Images to train on.
        validation: Images to evaluate on after each epoch; without any, ``val_loss`` and ``val_accuracy``
            are NaN.

    Raises:
        DivergedError: By the end of the epoch in which the loss or a weight becomes NaN or infinite.
    """
    while state.epoch < state.configuration.epochs:
        loss, accuracy, seconds = _train_epoch(state, train)
        state.epoch += 1
        state.train_s += seconds
        val_loss = val_accuracy = math.nan
        if len(validation):
            val_loss, val_accuracy = evaluate(state.model, validation, state.configuration.loss)
        yield EpochResult(
            epoch=state.epoch,
            train_loss=loss,
            train_accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            examples_per_s=len(train) / seconds,
            train_s=state.train_s,
        )


def _train_epoch(state: TrainingState, train: Images) -> tuple[float, float, float]:
    """Train for one pass over ``train``; return its mean loss, its accuracy and its time in seconds."""
    loss_sum = torch.zeros((), device=state.device)
    n_correct = torch.zeros((), dtype=torch.int64, device=state.device)
    state.model.train()
    _synchronise(state.device)
    began = time.perf_counter()
    order = train.index[epoch_order(len(train), state.seed, state.epoch + 1).to(state.device)]
    for batch in torch.split(order, state.configuration.batch_size):
        labels = train.labels[batch]
        state.optimizer.zero_grad()
        # On a CPU index_select is many times faster than pixels[batch] (experiments/LOG.md, "Speed: gradients
        # written out, and on the bits").
        loss, logits = state.gradients(torch.index_select(train.pixels, 0, batch), labels)
        # Reading each loss would make an accelerator wait; there only the epoch's sum is checked.
        if state.device.type == "cpu" and not torch.isfinite(loss):
            raise DivergedError(f"loss is {loss.item()} in epoch {state.epoch + 1}")
        state.optimizer.step()
        loss_sum += loss * len(batch)
        n_correct += (logits.argmax(dim=1) == labels).sum()
    _synchronise(state.device)
    seconds = time.perf_counter() - began
    mean_loss = loss_sum.item() / len(train)
    if not math.isfinite(mean_loss):
        raise DivergedError(f"loss is {mean_loss} in epoch {state.epoch + 1}")
    # The loss can be finite although the weights are not: a ReLU computed on the bits can turn NaN into 0.
    if not all(bool(torch.isfinite(weights).all()) for weights in state.model.parameters()):
        raise DivergedError(f"weights are not finite after epoch {state.epoch + 1}")
    return mean_loss, n_correct.item() / len(train), seconds


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which an epoch visits the training images, ``(count,)`` int64.

    Every epoch has a random stream of its own, so a training restarted at any epoch repeats the same batches.

    Args:
        count: Number of training images.
        seed: Root of the training's random streams.
        epoch: Number of the epoch, counted from 1.
    """
    stream = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(count, generator=stream)


def as_input(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as the network's input: float32 in [0, 1], channels last in memory."""
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)


def criterion(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Return the mean loss of a batch.

    Args:
        logits: ``(batch, 10)`` float32, unnormalised.
        labels: ``(batch,)`` int64, class indices.
        loss: ``cross_entropy``, in nats per image, or ``mse`` against one-hot labels, the mean over classes.
    """
    if loss == "mse":
        return F.mse_loss(logits, F.one_hot(labels, CLASSES).to(logits.dtype))
    return F.cross_entropy(logits, labels)


@torch.inference_mode()
def predict(model: LeNet, images: Images) -> Tensor:
    """Return the logits of ``images``, ``(n, 10)``, computed in float32.

    Args:
        model: Network on the images' device; set to evaluation mode.
        images: Images to classify.
    """
    model.eval()
    batches = torch.split(images.index, EVALUATION_BATCH)
    return torch.cat([model(as_input(torch.index_select(images.pixels, 0, batch))) for batch in batches])


def evaluate(model: LeNet, images: Images, loss: Loss) -> tuple[float, float]:
    """Return the mean loss and the accuracy, in [0, 1], of a network on ``images``.

    They are computed in float32, so that the model logged to MLflow reproduces them.

    Args:
        model: Network on the images' device; set to evaluation mode.
        images: Images to evaluate on, at least one.
        loss: Kind of loss to average over the images.
    """
    logits, labels = predict(model, images), images.labels[images.index]
    n_correct = (logits.argmax(dim=1) == labels).sum()
    return criterion(logits, labels, loss).item(), n_correct.item() / len(images)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's weights as safetensors, whole or not at all.

    Args:
        model: Network on any device.
        path: File to write or replace; its folder is created if it does not exist.
    """
    own_folder(path.parent)
    if path.is_dir():
        move_aside(path)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, safetensors.save(weights))


def snapshot(state: TrainingState) -> bytes:
    """Return the training's state as safetensors; a training restored from it continues bit for bit.

    It holds the weights, the optimizer's state and the state of torch's random streams. The rest follows from
    the configuration, the seed and the last epoch's result.
    """
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for name, values in state.optimizer.state().items():
        tensors |= {f"optimizer.{index}.{name}": value for index, value in enumerate(values)}
    tensors["random"] = torch.get_rng_state()
    if state.device.type == "cuda":
        tensors["random_cuda"] = torch.cuda.get_rng_state(state.device)
    return safetensors.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def restore(state: TrainingState, taken: bytes, last: EpochResult) -> None:
    """Set a new training to the state that `snapshot` saved.

    Args:
        state: Training that `begin` returned for the same configuration and seed; changed in place.
        taken: Bytes that `snapshot` returned.
        last: Result of the last epoch before the snapshot.
    """
    tensors = safetensors.load(taken)
    state.model.load_state_dict(
        {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    )
    names = {name.split(".")[2] for name in tensors if name.startswith("optimizer.")}
    indices = range(len(state.optimizer.parameters))
    state.optimizer.load_state({name: [tensors[f"optimizer.{i}.{name}"] for i in indices] for name in names})
    torch.set_rng_state(tensors["random"])
    if state.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random_cuda"], state.device)
    state.epoch, state.train_s = last.epoch, last.train_s


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
