"""A layer of tanh units that reads an image row by row: the network that LRA trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
