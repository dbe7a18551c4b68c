"""An LSTM written with Linear layers, so that rules reach them: the network without a memory beside `mnm`."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from signsym_core.backbones.rnn import RowReader
from signsym_core.models.recurrence import rows_of


class Cell(nn.Module):
    """One step of an LSTM: gates i, f, g, o = W_x x + b + W_h h; c' = σ(f) c + σ(i) tanh g; h' = σ(o) tanh c'.

    b is 1 for the forget gate at first.
    """

    def __init__(self, entries: int, hidden: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(entries, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        nn.init.zeros_(self.inputs.bias)
        nn.init.ones_(self.inputs.bias[hidden : 2 * hidden])

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.inputs(x) + self.recurrent(h)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class LongShortTermMemory(nn.Module):
    """The cell over the rows of images, from states 0, and a Linear layer on the last h."""

    def __init__(self, entries: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = Cell(entries, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, images: Tensor) -> Tensor:
        h = c = images.new_zeros(len(images), self.hidden)
        for row in rows_of(images):
            h, c = self.cell(row, h, c)
        outputs: Tensor = self.head(h)
        return outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTM(RowReader):
    """A layer of LSTM units that reads an image row by row, and a Linear layer on its last state."""

    name = "lstm"
    label = "LSTM"
    citation = "Hochreiter, Schmidhuber 1997, Long short-term memory; with the forget gate of Gers et al. 2000"

    hidden: int = 64

    def network(self, channels: int) -> LongShortTermMemory:
        return LongShortTermMemory(channels, self.hidden)
