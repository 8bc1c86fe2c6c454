import pytest

from lenet_exp.base.errors import DeviceError
from lenet_exp.training.device import resolve_device, resolve_precision


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_before_training(name: str) -> None:
    """A device has to compute something before it is believed; torch itself accepts cuda:99."""
    with pytest.raises(DeviceError, match="cannot be used"):
        resolve_device(name)


def test_auto_means_a_device_and_a_precision_that_are_there() -> None:
    """``auto`` never fails, and never stays ``auto``."""
    device = resolve_device("auto")

    assert resolve_precision("auto", device) in ("float32", "bfloat16")
    assert resolve_precision("float32", device) == "float32"
