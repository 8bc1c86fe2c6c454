"""A small sweep that several tests read, and its experiment file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.labs.places import MINI_FOLDER

SWEPT = f"""\
name = "swept"
question = "Does it <b>work</b>?"

[data]
dataset = "fashion-mnist-mini"
folder = "{MINI_FOLDER}"
validation = 200
limit = 300

[baseline]
channels = [3, 5]
fc_layers = 1

[training]
epochs = 2
batch_size = 64

[space]
pooling = ["avg", "max"]
activation = ["relu", "tanh"]
conv_layers = {{ low = 1, high = 2 }}
lr = {{ low = 1e-3, high = 3e-2, log = true }}

[search]
trials = 3
pruner = "none"
"""


@dataclass(frozen=True)
class Swept:
    """A sweep that has been run: its experiment file, and the folder it wrote to."""

    file: Path
    root: Path

    @property
    def home(self) -> Path:
        """The experiment's folder."""
        return self.root / "swept"
