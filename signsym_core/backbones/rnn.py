"""A recurrent network of tanh units, written with Linear layers so that rules reach them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from signsym_core.backbones.base import Backbone
from signsym_core.registry import require


def rows_of(images: Tensor) -> Tensor:
    """The rows of images [n, channels, T, S], one for each time step: [T, n, channels · S]."""
    return images.permute(2, 0, 1, 3).flatten(2)


class Recurrence(nn.Module):
    """h_t = W_hh z_{t-1} + W_xh x_t + b_h, z_t = tanh h_t, z_0 = 0, for the rows x_t of images; outputs W_hy z_T + b_y.

    W_xh and b_h are the layer `inputs`, W_hh is `recurrent`, W_hy and b_y are `head`.
    """

    def __init__(self, entries: int, hidden: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(entries, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.head = nn.Linear(hidden, 10)
        for layer in (self.inputs, self.recurrent):
            nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(self.inputs.bias)

    def forward(self, images: Tensor) -> Tensor:
        currents = self.inputs(rows_of(images))
        states = torch.zeros_like(currents[0])
        for current in currents:
            states = torch.tanh(self.recurrent(states) + current)
        outputs: Tensor = self.head(states)
        return outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowReader(Backbone):
    """A recurrent network that reads an image row by row, as the time steps of a sequence."""

    min_size = 2
    head = "head"
    reads_rows = True
    mean = (0.0,)
    std = (1.0,)

    #: Units of the layer.
    hidden: int

    def __post_init__(self) -> None:
        require(1 <= self.hidden <= 4096, "hidden", "a whole number in 1 .. 4096", self.hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RNN(RowReader):
    """A layer of tanh units that reads an image row by row, and a Linear layer on its last state.

    h_t = W_hh z_{t-1} + W_xh x_t + b_h and z_t = tanh h_t, with z_0 = 0; W_hh and W_xh orthogonal at first, b_h 0. With
    BP this is backpropagation through time.
    """

    name = "rnn"
    label = "RNN"
    citation = "Elman 1990, Finding structure in time; as in Manchev, Garcia-Peraza-Herrera 2025, arXiv 2504.13531"

    hidden: int = 100

    def network(self, channels: int) -> Recurrence:
        return Recurrence(channels, self.hidden)
