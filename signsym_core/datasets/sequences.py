"""Generated sequences as images: one row for each time step, one column for each symbol.

Legend: symbols int64 [n, T], each in 0 .. S - 1, or [n, T, m] with up to m of them in a step; images uint8 [n, 1, T, S]
of one-hot rows, 0 or 255.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets.base import DataSource, Origin
from signsym_core.datasets.splits import Data
from signsym_core.registry import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequences(DataSource):
    """A task on sequences of symbols, each an image [1, T, S] whose rows are one-hot; the label is that of a sequence.

    20,000 training and 10,000 test sequences are drawn once, each by itself, from a stream that depends only on the
    name and the parameters of the task: short sequences may occur more than once. An epsilon is per entry of a row.
    """

    tags = frozenset({"offline"})
    stated = (20_000, 10_000)
    origin = Origin(url="generated; there are no files", licence="none needed", size="nothing to fetch")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size is None, "size", "null, since sequences are not resized", self.size)

    @property
    def flips(self) -> bool:
        return False

    @property
    @abstractmethod
    def steps(self) -> int:
        """T, the time steps of a sequence."""

    @property
    @abstractmethod
    def symbols(self) -> int:
        """S, the number of symbols."""

    @property
    @abstractmethod
    def stream(self) -> tuple[int, ...]:
        """The parameters of the task, which decide what is drawn."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names of the classes in order."""

    @abstractmethod
    def generate(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` sequences of symbols, [count, T] or [count, T, m], and their labels int64 [count]."""

    @property
    def sides(self) -> tuple[int, int]:
        return self.steps, self.symbols

    def load(self, root: Path) -> Data:
        train, test = self.stated
        symbols, labels = self.generate(train + test, seeds.generator(0, "generated", self.name, *self.stream))
        pool = torch.arange(train + test)
        chosen = self.choose(self.names(), labels, {"train": pool[:train], "test": pool[train:]})
        return self.assemble(self.names(), chosen, lambda positions: one_hot(symbols[positions], self.symbols))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfLength(Sequences):
    """A task whose number of time steps is its only parameter."""

    #: The fewest steps.
    shortest: ClassVar[int]

    #: L, the time steps of a sequence.
    length: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.shortest <= self.length <= 1000
        require(known, "length", f"a whole number in {self.shortest} .. 1000", self.length)

    @property
    def steps(self) -> int:
        return self.length

    @property
    def stream(self) -> tuple[int, ...]:
        return (self.length,)


def one_hot(symbols: Tensor, count: int) -> Tensor:
    """Images uint8 [n, 1, T, count] of symbols: 255 in the columns of each step's symbols, 0 elsewhere."""
    columns = symbols.unsqueeze(2) if symbols.dim() == 2 else symbols
    images = torch.zeros(*columns.shape[:2], count, dtype=torch.uint8)
    return images.scatter_(2, columns, 255).unsqueeze(1)
