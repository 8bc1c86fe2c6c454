import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lenet_exp.training.cpu.convolution import BlockConvolution, OneDnnConvolution, convolution


def windows(out: Tensor) -> Tensor:
    """Return ``(n, c, h, w)`` as ``(2, 2, c, h // 2, w // 2, n)``, by the place in each window."""
    h, w = out.shape[2] // 2 * 2, out.shape[3] // 2 * 2
    places = [[out[:, :, i:h:2, j:w:2].permute(1, 2, 3, 0) for j in range(2)] for i in range(2)]
    return torch.stack([torch.stack(row) for row in places])


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from([BlockConvolution, OneDnnConvolution]),
    batch=st.integers(1, 9),
    channels=st.tuples(st.sampled_from([1, 2, 5]), st.sampled_from([1, 3, 20])),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    kernel=st.integers(1, 9),
    padding=st.integers(0, 7),
    scale=st.sampled_from([1.0, 0.25]),
)
def test_a_convolution_and_its_gradients_are_torch_s(
    kind: type[BlockConvolution | OneDnnConvolution],
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: int,
    padding: int,
    scale: float,
) -> None:
    """Odd maps, any kernel and padding: output and all three gradients agree in double precision."""
    assume(min(size) + 2 * padding - kernel + 1 >= 2)
    stream = torch.Generator().manual_seed(batch)
    inputs, outputs = channels
    shapes = [(batch, inputs, *size), (outputs, inputs, kernel, kernel), (outputs,)]
    x, weight, bias = (
        torch.randn(shape, generator=stream, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    expected = windows(F.conv2d(x * scale, weight, bias, padding=padding))

    with torch.no_grad():
        ours = kind(weight.detach(), bias.detach(), padding, torch.float64, scale)
        found = ours.forward(x.permute(1, 2, 3, 0))
        seen = torch.randn(found.shape, generator=stream, dtype=torch.float64)
        of_weight, of_bias, of_x = ours.backward(seen, with_input=True)

    torch.testing.assert_close(found, expected)
    assert of_x is not None
    references = torch.autograd.grad(expected, (x, weight, bias), seen)
    for mine, reference in zip((of_x.permute(3, 0, 1, 2), of_weight, of_bias), references, strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("channels", [(1, 6), (40, 64), (64, 128)])
def test_many_channels_go_another_way_to_the_same_result(channels: tuple[int, int]) -> None:
    """Either way the layer is the same, and in bfloat16 it is the same within its precision."""
    stream = torch.Generator().manual_seed(1)
    inputs, outputs = channels
    x = torch.randn(8, inputs, 12, 12, generator=stream)
    weight = torch.randn(outputs, inputs, 3, 3, generator=stream) / (3 * inputs**0.5)
    bias = torch.randn(outputs, generator=stream)
    expected = windows(F.conv2d(x, weight, bias, padding=1))

    exact = convolution(weight, bias, 1, torch.float32).forward(x.permute(1, 2, 3, 0))
    rough = convolution(weight, bias, 1, torch.bfloat16).forward(x.permute(1, 2, 3, 0))

    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rough.float(), expected, atol=0.1, rtol=0.05)


def test_bytes_are_taken_as_they_are() -> None:
    """Pixels need no conversion beforehand, and keep their values in bfloat16."""
    x = torch.arange(2 * 36, dtype=torch.uint8).view(1, 6, 6, 2) * 3
    weight, bias = torch.ones(1, 1, 1, 1), torch.zeros(1)

    found = BlockConvolution(weight, bias, 0, torch.bfloat16).forward(x)

    assert torch.equal(found, windows(x.permute(3, 0, 1, 2)).to(torch.bfloat16))
