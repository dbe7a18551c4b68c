"""Metalearned neural memory: a controller that writes into the weights of a small network, by a learned local rule.

Legend: n sequences; W_l [n, d, d] the weights of the memory's layers, of each sequence its own; a_0 [n, d] a key and
a_l = tanh(W_l a_{l-1}), the last layer linear; k_w, v_w, k_r [n, d] write key, value and read key; β [n, 1] in (0, 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from signsym_core.backbones.lstm import Cell
from signsym_core.backbones.rnn import RowReader
from signsym_core.models.recurrence import rows_of
from signsym_core.registry import NonNegative, integer


def activations(weights: Sequence[Tensor], key: Tensor) -> list[Tensor]:
    """a_0 .. a_L, each [n, d]: the key, and what each layer of the memory makes of it."""
    states = [key]
    for number, weight in enumerate(weights, start=1):
        sums = (weight @ states[-1].unsqueeze(2)).squeeze(2)
        states.append(sums if number == len(weights) else torch.tanh(sums))
    return states


def written(weights: Sequence[Tensor], key: Tensor, targets: Sequence[Tensor], rate: Tensor) -> list[Tensor]:
    """W_l - rate (a_l - t_l) a_{l-1}ᵀ for the activations a of `key` before the write: no layer waits for another."""
    states = activations(weights, key)
    return [
        weight - ((after - target) * rate).unsqueeze(2) * before.unsqueeze(1)
        for weight, before, after, target in zip(weights, states, states[1:], targets, strict=False)
    ]


class InitialMemory(nn.Module):
    """The weights of the memory before the first write, trained like any others: [layers, width, width].

    What multiplies by them is written anew at every step, an activation and no weight: rules do not serve it, and the
    outer backward pass goes through every write.
    """

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.empty(layers, width, width))
        # As nn.Linear draws its weights.
        nn.init.uniform_(self.memory, -(width**-0.5), width**-0.5)

    def forward(self, count: int) -> list[Tensor]:
        """The weights of each layer for `count` sequences."""
        return [weight.expand(count, -1, -1) for weight in self.memory]


class MemoryNetwork(nn.Module):
    """LSTM controller and memory over the rows of images; outputs are a Linear layer's on the last state and reading.

    `penalty` is set by a forward pass in training: see `signsym_core.models.penalty`.
    """

    penalty: Tensor | None = None

    def __init__(self, entries: int, hidden: int, width: int, layers: int, consistency: float) -> None:
        super().__init__()
        self.hidden, self.width, self.layers, self.consistency = hidden, width, layers, consistency
        self.controller = Cell(entries + width, hidden)
        self.interface = nn.Linear(hidden, 3 * width + 1)
        self.targets = nn.Linear(width, layers * width)
        self.initial = InitialMemory(layers, width)
        self.head = nn.Linear(hidden + width, 10)

    def forward(self, images: Tensor) -> Tensor:
        count = len(images)
        h = c = images.new_zeros(count, self.hidden)
        reading = images.new_zeros(count, self.width)
        weights, errors = self.initial(count), list[Tensor]()
        for row in rows_of(images):
            h, c = self.controller(torch.cat([row, reading], dim=1), h, c)
            *vectors, rate = self.interface(h).split([self.width] * 3 + [1], dim=1)
            write_key, value, read_key = (torch.tanh(vector) for vector in vectors)
            targets = self.targets(value).chunk(self.layers, dim=1)
            weights = written(weights, write_key, targets, self.rate(rate))
            reading = activations(weights, read_key)[-1]
            if self.training:
                errors.append((activations(weights, write_key)[-1] - value).square().mean())
        if self.training:
            self.penalty = self.consistency * torch.stack(errors).mean()
        outputs: Tensor = self.head(torch.cat([h, reading], dim=1))
        return outputs

    def rate(self, raw: Tensor) -> Tensor:
        """2 β / d, β = sigmoid(raw): the size of a write."""
        return 2 / self.width * torch.sigmoid(raw)

    def __getstate__(self) -> dict[str, Any]:
        # A penalty belongs to one pass; its graph cannot be copied.
        return {name: value for name, value in self.__dict__.items() if name != "penalty"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MNM(RowReader):
    """MNM-p: an LSTM reads an image row by row, writes into a memory network and reads from it, once each step.

    A write moves W_l by -(2 β / d) (a_l - t_l) a_{l-1}ᵀ, with the activations a of the write key before the write and
    targets t = W_t v_w + b_t: a local rule without a backward pass, so inference needs no gradient. Training adds
    `consistency` times the mean over steps and entries of (f(k_w) - v_w)², f the memory after the write. MNM-g, which
    writes by gradient steps, is not here.
    """

    name = "mnm"
    label = "MNM-p"
    citation = (
        "Munkhdalai, Sordoni, Wang, Trischler 2019, Metalearned neural memory, arXiv 1907.09720; details after "
        "models/MNM.py of taylorwwebb/emergent_symbols, but for the initial memory, which is trained and saved here"
    )

    #: Units of the controller, and width and layers of the memory.
    hidden: int = 48
    width: Annotated[int, integer(1, 4096)] = 24
    layers: Annotated[int, integer(1, 16)] = 3
    #: Weight of the meta objective in the training loss.
    consistency: NonNegative = 1.0

    def network(self, channels: int) -> MemoryNetwork:
        return MemoryNetwork(channels, self.hidden, self.width, self.layers, self.consistency)
