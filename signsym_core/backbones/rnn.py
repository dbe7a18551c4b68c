"""A recurrent network of tanh units, written with Linear layers so that rules reach them."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from signsym_core.backbones.base import Backbone
from signsym_core.models.recurrence import Recurrence
from signsym_core.registry import integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowReader(Backbone):
    """A recurrent network that reads an image row by row, as the time steps of a sequence."""

    min_size = 2
    head = "head"
    reads_rows = True
    mean = (0.0,)
    std = (1.0,)

    #: Units of the layer.
    hidden: Annotated[int, integer(1, 4096)]


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
