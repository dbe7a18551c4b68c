"""Associative recall: pairs of a key and a value, then one of the keys; the class is its value."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import torch
from torch import Tensor

from signsym_core.datasets.sequences import Sequences
from signsym_core.registry import integer, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recall(Sequences):
    """`pairs` steps with a key and its value, then a step with one of the keys; the class is its value.

    A row is a one-hot key and beside it a one-hot value, which is all 0 in the last row: T = pairs + 1 and S = keys +
    values. The keys of a sequence differ; values are uniform and may repeat, and so is the pair that is asked for.
    """

    name = "recall"
    label = "associative recall"
    citation = (
        "after the associative recall of Graves, Wayne, Danihelka 2014, arXiv 1410.5401, section 4.3, with one symbol "
        "for an item; a task for Munkhdalai, Sordoni, Wang, Trischler 2019, arXiv 1907.09720"
    )

    #: Pairs of a key and a value in a sequence.
    pairs: Annotated[int, integer(1, 100)] = 3
    #: Symbols that are keys, and symbols that are values.
    keys: int = 8
    values: Annotated[int, integer(2, 256)] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pairs <= self.keys <= 256, "keys", "a whole number from 'pairs' to 256", self.keys)

    @property
    def steps(self) -> int:
        return self.pairs + 1

    @property
    def symbols(self) -> int:
        return self.keys + self.values

    @property
    def stream(self) -> tuple[int, ...]:
        return (self.pairs, self.keys, self.values)

    def names(self) -> list[str]:
        return [str(value) for value in range(self.values)]

    def generate(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # The order of as many random numbers is a uniform choice of keys that differ.
        keys = torch.rand(count, self.keys, generator=generator).argsort(dim=1)[:, : self.pairs]
        values = torch.randint(self.values, (count, self.pairs), generator=generator)
        asked_pair = torch.randint(self.pairs, (count, 1), generator=generator)
        shown = torch.stack([keys, self.keys + values], dim=2)
        # The last row has its key twice, which is once.
        asked_key = keys.gather(1, asked_pair).unsqueeze(2).expand(-1, -1, 2)
        return torch.cat([shown, asked_key], dim=1), values.gather(1, asked_pair).squeeze(1)
