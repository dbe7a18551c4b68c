"""The interface of a backbone: a network with a new task head, preceded by its normalisation of [0, 1] pixels."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.registry import Member


class Model(nn.Module):
    """Normalisation and network, from images float [n, channels, height, width] in [0, 1] to outputs [n, outputs]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, head: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        #: Name of the head inside `network`.
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # Broadcasting turns a grey image into three equal channels for a network that takes colour.
        outputs = self.network((images - self.mean) / self.std)
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"a backbone's network must return its outputs [n, outputs], got a {type(outputs).__name__}"
            )
        return outputs

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the head."""
        yield from self.network.get_submodule(self.head).parameters()

    def body_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters."""
        head = {id(parameter) for parameter in self.head_parameters()}
        yield from (parameter for parameter in self.parameters() if id(parameter) not in head)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone(Member, ABC):
    """A network by name."""

    #: Height and width of the smallest image that the network admits.
    min_size: ClassVar[int]
    #: Height and width of the largest; None where there is none.
    max_size: ClassVar[int | None] = None
    #: Name of the last layer, which is replaced by the task's head.
    head: ClassVar[str]
    #: Normalisation of the [0, 1] pixels, one value for each channel.
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    #: Whether it reads an image row by row, as the time steps of a sequence, so that it needs to know their width.
    reads_rows: ClassVar[bool] = False
    #: Whether its units spike, so that its gradient is that of a surrogate.
    spiking: ClassVar[bool] = False
    #: Prefix of the names of torchvision's published weights, such as "ResNet18_Weights"; None where there are none.
    published: ClassVar[str | None] = None

    @abstractmethod
    def network(self, channels: int) -> nn.Module:
        """The network with its last layer as published, for images of so many channels.

        One that reads rows is given the entries of a row instead, channels times width.
        """

    def admits(self, size: int) -> bool:
        """Whether the network takes images of this height and width."""
        return self.min_size <= size <= (size if self.max_size is None else self.max_size)

    @property
    def sizes(self) -> str:
        """The sizes of images that the network takes, in words."""
        least = f"at least {self.min_size} x {self.min_size} pixels"
        return least if self.max_size is None else f"{least} and at most {self.max_size} x {self.max_size}"

    def build(
        self, outputs: int, *, channels: int = 3, size: int | Sequence[int] | None = None, seed: int = 0
    ) -> Model:
        """A model with a new head of `outputs`, everything initialised from `seed`.

        `size` is the side of square images, or height and width. Raises ValueError where the network does not admit it,
        and where a network that reads rows is not told it.
        """
        sides = (size, size) if isinstance(size, int) else size
        if sides is not None and not all(self.admits(side) for side in sides):
            raise ValueError(
                f"backbone {self.name!r} needs images of {self.sizes}, got {' x '.join(map(str, sides))}: set the data "
                f"set's parameter 'size'"
            )
        entries = channels
        if self.reads_rows:
            if sides is None:
                raise ValueError(f"backbone {self.name!r} reads images row by row: expected their size, got none")
            entries *= sides[1]
        with seeds.seeded_globally(seed, "network"):
            network = self.network(entries)
        if not isinstance(network, nn.Module):
            kind = type(network).__name__
            raise TypeError(f"backbone {self.name!r}: network must return a torch.nn.Module, got a {kind}")
        path, _, last = self.head.rpartition(".")
        replaced = dict(network.named_modules()).get(self.head)
        if not isinstance(replaced, nn.Linear):
            layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
            kind = "no module" if replaced is None else f"a {type(replaced).__name__}"
            raise TypeError(
                f"backbone {self.name!r}: head expects the full name of the last Linear layer, got {self.head!r}, "
                f"which is {kind} of the network; its Linear layers: {', '.join(layers) or 'none'}"
            )
        with seeds.seeded_globally(seed, "head"):
            setattr(network.get_submodule(path), last, nn.Linear(replaced.in_features, outputs))
        return Model(network, self.head, self.mean, self.std)
