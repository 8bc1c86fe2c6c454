"""Training as a generator: `fit` yields an `EpochResult` after every epoch, and the caller decides.

The images stay on the device as bytes and a batch is a selection by index, so nothing in an epoch
waits for the host: losses and hits are summed where they arise and read once, at the end.
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

from lenet_exp.base.errors import DeviceError, DivergedError
from lenet_exp.base.files import sync_file
from lenet_exp.base.records import EpochResult
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Training
from lenet_exp.config.hyperparameters import CLASSES, Configuration, Loss, Precision
from lenet_exp.data.images import ImageSet
from lenet_exp.training.cpu import gradients as fast
from lenet_exp.training.network import LeNet, initialise
from lenet_exp.training.optimizers import Optimizer, optimizer

#: How a step is computed unless an experiment says otherwise.
DEFAULT_TRAINING = Training()
#: Images a step of evaluation: few enough to stay in the cache. The result does not depend on it.
EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Images:
    """Some of the labelled images on a device.

    Attributes:
        pixels: ``(all, 1, size, size)`` uint8, shared by every selection from them.
        labels: ``(all,)`` int64.
        index: ``(n,)`` int64, which of them these are.
    """

    pixels: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)


def load(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return all pixels and labels of a data set on ``device``, as `Images` has them.

    On the CPU the pixels stay where the file is mapped, shared with every process that reads it.

    Raises:
        DataError: If the files have gone since they were verified.
    """
    pixels, labels = images.open()
    with warnings.catch_warnings():
        # torch cannot know that we only read what is mapped read-only.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        shared = torch.from_numpy(pixels)[:, None]
    return shared.to(device), torch.from_numpy(labels.astype("int64")).to(device)


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``, after it has computed something.

    Args:
        name: ``auto`` (an accelerator if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        DeviceError: If there is no such device, or it does not compute.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        name = accelerator.type
    try:
        device = torch.device(name)
        (torch.ones(1, device=device) + 1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DeviceError(
            f"device {name!r} cannot be used: {reason.rstrip('.')}; try --device auto"
        ) from None
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision to train in: ``auto`` is bfloat16 where the device computes in it natively."""
    if precision != "auto":
        return precision
    if device.type == "cpu":
        # float32 convolutions beat emulated bfloat16, so the CPU has to say that it has the instructions.
        native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    elif device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = False
    return "bfloat16" if native else "float32"


_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

#: From a batch's pixels and labels to its mean loss and its logits.
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: The same, and it leaves the gradients in the model's parameters.
Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class TrainingState:
    """A training under way: all that `fit` changes.

    Attributes:
        configuration: With the precision resolved.
        model: On the device.
        optimizer: Of the model's parameters.
        gradients: Of a batch.
        seed: Root of the training's random streams.
        device: Where it happens.
        epoch: Epochs done.
        train_s: Seconds of training passes so far.
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
    """Return a training before its first epoch, the weights drawn from the seed's own stream.

    Args:
        configuration: What to train.
        seed: Root of its random streams.
        device: Where; None for the CPU.
        image_size: Side of the images, in pixels.
        training: How a step is computed: ``kernels`` on a CPU, where ``torch`` means PyTorch's own layers and
            autograd; ``compile`` on an accelerator, where a step is a graph compiled by ``torch.compile``.
    """
    device = device or torch.device("cpu")
    precision = resolve_precision(configuration.precision, device)
    configuration = configuration.model_copy(update={"precision": precision})
    model = LeNet(configuration, image_size)
    initialise(model, configuration.init, derive_seed(seed, "init"))
    # oneDNN's and cuDNN's convolutions are faster with the channels last; the numbers are the same.
    model = model.to(device).to(memory_format=torch.channels_last)
    steps = optimizer(configuration, model.parameters())
    forward = plain_forward(model, configuration)
    if device.type != "cpu":
        compiled = compiled_forward(forward, mode="reduce-overhead") if training.compile else forward
        gradients = recorded_gradients(compiled)
    elif training.kernels == "torch":
        gradients = recorded_gradients(forward)
    else:
        gradients = fast_gradients(model, configuration)
    return TrainingState(configuration, model, steps, gradients, seed, device)


def fast_gradients(model: LeNet, configuration: Configuration) -> Gradients:
    """Return the gradients by the layers of `fast`, for a CPU."""
    dtype = _DTYPES[configuration.precision]

    def gradients(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return fast.gradients(
            model, pixels, lambda logits: criterion(logits, labels, configuration.loss), dtype
        )

    return gradients


def recorded_gradients(forward: Forward) -> Gradients:
    """Return the gradients that autograd has from a recorded ``forward``."""

    def gradients(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = forward(pixels, labels)
        torch.autograd.backward(loss)
        return loss.detach(), logits.detach()

    return gradients


def plain_forward(model: LeNet, configuration: Configuration) -> Forward:
    """Return the way from a batch to its loss, in the configuration's precision."""

    def forward(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        dtype = _DTYPES[configuration.precision]
        with torch.autocast(pixels.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits: Tensor = model(as_input(pixels))
        return criterion(logits.float(), labels, configuration.loss), logits.float()

    return forward


def compiled_forward(forward: Forward, **options: Any) -> Forward:
    """Return ``forward`` compiled by ``torch.compile``, which also compiles its backward pass.

    Args:
        forward: Of `plain_forward`.
        options: Of ``torch.compile``; ``mode="reduce-overhead"`` replays CUDA graphs, which have static
            shapes: one for the full batches, one for the last.
    """
    graph = torch.compile(forward, dynamic=False, **options)

    def step(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # What the last replay returned has been used up.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch has no types
        result: tuple[Tensor, Tensor] = graph(pixels, labels)
        return result

    return step


def fit(state: TrainingState, train: Images, validation: Images) -> Iterator[EpochResult]:
    """Train for the epochs that are left, and yield the result of each.

    Args:
        state: Changed in place; a state that has done three epochs goes on with the fourth, which
            sees the same batches as if it had never stopped.
        train: What is learned from.
        validation: What is measured on; if there is nothing, its metrics are NaN.

    Raises:
        DivergedError: If the loss becomes NaN or infinite.
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
    """Return mean loss, accuracy and seconds of one pass over ``train``."""
    loss_sum = torch.zeros((), device=state.device)
    hits = torch.zeros((), dtype=torch.int64, device=state.device)
    state.model.train()
    _synchronise(state.device)
    began = time.perf_counter()
    order = train.index[epoch_order(len(train), state.seed, state.epoch + 1).to(state.device)]
    for batch in torch.split(order, state.configuration.batch_size):
        labels = train.labels[batch]
        state.optimizer.zero_grad()
        # Ten times as fast as indexing, on a CPU.
        loss, logits = state.gradients(torch.index_select(train.pixels, 0, batch), labels)
        # Reading a number from an accelerator would stall it; there the epoch's sum is looked at.
        if state.device.type == "cpu" and not torch.isfinite(loss):
            raise DivergedError(f"loss is {loss.item()} in epoch {state.epoch + 1}")
        state.optimizer.step()
        loss_sum += loss * len(batch)
        hits += (logits.argmax(dim=1) == labels).sum()
    _synchronise(state.device)
    seconds = time.perf_counter() - began
    mean = loss_sum.item() / len(train)
    if not math.isfinite(mean):
        raise DivergedError(f"loss is {mean} in epoch {state.epoch + 1}")
    # A ReLU can hide that a layer before it is lost: what is not a number may come out as 0.
    if not all(bool(torch.isfinite(weights).all()) for weights in state.model.parameters()):
        raise DivergedError(f"weights are not finite after epoch {state.epoch + 1}")
    return mean, hits.item() / len(train), seconds


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which an epoch visits the training images, ``(count,)`` int64.

    Every epoch has a stream of its own, so a run restarted at any epoch repeats the same batches.
    """
    stream = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(count, generator=stream)


def as_input(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as the network takes them: float32 in [0, 1], channels last in memory."""
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)


def criterion(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Return the mean loss of a batch.

    Args:
        logits: ``(batch, 10)`` float32.
        labels: ``(batch,)`` int64.
        loss: ``cross_entropy`` in nats an example; ``mse`` against one-hot labels, mean over the classes.
    """
    if loss == "mse":
        return F.mse_loss(logits, F.one_hot(labels, CLASSES).to(logits.dtype))
    return F.cross_entropy(logits, labels)


@torch.inference_mode()
def predict(model: LeNet, images: Images) -> Tensor:
    """Return the logits of all images, ``(n, 10)`` float32, computed in float32."""
    model.eval()
    batches = torch.split(images.index, EVALUATION_BATCH)
    return torch.cat([model(as_input(torch.index_select(images.pixels, 0, batch))) for batch in batches])


def evaluate(model: LeNet, images: Images, loss: Loss) -> tuple[float, float]:
    """Return mean loss and accuracy on ``images``, in float32 so that the logged model gives the same."""
    logits, labels = predict(model, images), images.labels[images.index]
    hits = (logits.argmax(dim=1) == labels).sum()
    return criterion(logits, labels, loss).item(), hits.item() / len(images)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's weights to ``path`` as safetensors, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    part = path.with_name(f"{path.name}.part")
    safetensors.save_file(weights, part)
    sync_file(part)
    part.replace(path)
    sync_file(path.parent)


def snapshot(state: TrainingState) -> bytes:
    """Return what a training has learned so far, as safetensors: `restore` goes on from it bit for bit.

    The order of each epoch has a stream of its own and settings follow from the configuration, so what
    is left are the weights, what the optimizer accumulated, and torch's own stream of random numbers.
    """
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for name, values in state.optimizer.state().items():
        tensors |= {f"optimizer.{index}.{name}": value for index, value in enumerate(values)}
    tensors["random"] = torch.get_rng_state()
    if state.device.type == "cuda":
        tensors["random_cuda"] = torch.cuda.get_rng_state(state.device)
    return safetensors.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def restore(state: TrainingState, taken: bytes, last: EpochResult) -> None:
    """Bring a training that has just begun to where `snapshot` took it.

    Args:
        state: As `begin` gives it, of the same configuration and seed.
        taken: The snapshot.
        last: The result of the last epoch before it.
    """
    tensors = safetensors.load(taken)
    state.model.load_state_dict(
        {n.removeprefix("model."): t for n, t in tensors.items() if n[:6] == "model."}
    )
    names = {name.split(".")[2] for name in tensors if name.startswith("optimizer.")}
    count = range(len(state.optimizer.parameters))
    state.optimizer.load_state({name: [tensors[f"optimizer.{i}.{name}"] for i in count] for name in names})
    torch.set_rng_state(tensors["random"])
    if state.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random_cuda"], state.device)
    state.epoch, state.train_s = last.epoch, last.train_s


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
