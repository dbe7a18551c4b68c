"""Binary codes of a retrieval network: made from its outputs, and packed for a store.

Legend: n items, b bits, c classes.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from signsym_core.arithmetic import arithmetic
from signsym_core.datasets import DataSource, Split, inputs
from signsym_core.models.outputs import outputs_of, refuse_non_finite
from signsym_core.retrieval.validation import binary_codes, check_code_labels
from signsym_core.validation import shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codes:
    """Binary codes with their items' labels, on one device.

    `signs` is int8 [n, b] of -1 and +1, n and b at least 1; it is made from bool codes and from numbers that are
    exactly -1 and +1. `labels` is int64 [n] from 0 on, or 0/1 [n, c] where an item has several. Two items are relevant
    to each other when they share a label. `features` are the outputs float [n, b] that the signs were taken of; None
    where nothing asks for them. Raises ValueError for anything else.
    """

    signs: Tensor
    labels: Tensor
    features: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "signs", binary_codes(self.signs, "signs"))
        check_code_labels(self.labels, len(self.signs), self.signs.device, "labels")
        if self.features is not None and not _fit(self.features, self.signs):
            expected = f"finite floats {list(self.signs.shape)} on {self.signs.device}, as the codes"
            raise ValueError(f"features must be {expected}, got {shown(self.features)}")

    def __len__(self) -> int:
        return len(self.signs)

    def to(self, device: torch.device | str) -> Codes:
        features = None if self.features is None else self.features.to(device)
        return Codes(signs=self.signs.to(device), labels=self.labels.to(device), features=features)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """The database that a model's queries are ranked against, and the codes of its training images for the attacker."""

    database: Codes
    train: Codes

    def to(self, device: torch.device | str) -> Gallery:
        return Gallery(database=self.database.to(device), train=self.train.to(device))


def encode(model: nn.Module, split: Split, source: DataSource, batch: int = 256) -> Codes:
    """The codes of the images of `split`, which lie on the device of `model`, in evaluation mode.

    Raises NonFiniteOutputError where outputs are NaN or infinite: they have no sign.
    """
    outputs = evaluated(model, split, source, batch)
    return Codes(signs=signs(outputs), labels=split.labels, features=outputs)


@torch.no_grad()
def evaluated(model: nn.Module, split: Split, source: DataSource, batch: int = 256) -> Tensor:
    """The outputs float [n, outputs] for the images of `split`, in evaluation mode and float32, `batch` at a time.

    Raises NonFiniteOutputError where outputs are NaN or infinite.
    """
    training = model.training
    model.eval()
    try:
        outputs = []
        with arithmetic("float32", True, split.device):
            for places in torch.arange(len(split)).split(batch):
                images = split.take(places).images
                assert isinstance(images, Tensor)
                outputs.append(outputs_of(model, inputs(images, source)))
    finally:
        model.train(training)
    together = torch.cat(outputs)
    refuse_non_finite(together, what=f"images of {type(source).name}")
    return together


def _fit(features: Tensor, codes: Tensor) -> bool:
    alike = features.shape == codes.shape and features.device == codes.device
    return alike and features.is_floating_point() and bool(features.isfinite().all())


def signs(outputs: Tensor) -> Tensor:
    """int8 of -1 and +1: the sign of real outputs, of ±1 or of bool codes. The sign of 0 is +1."""
    above = outputs if outputs.dtype == torch.bool else outputs >= 0
    return above.to(torch.int8) * 2 - 1


def pack(codes: Tensor) -> Tensor:
    """Codes of -1 and +1 [n, b] as uint8 [n, ceil(b / 8)]: +1 is a set bit, the first bit the lowest."""
    bits = (codes > 0).to(torch.uint8)
    padded = torch.nn.functional.pad(bits, (0, -bits.shape[1] % 8)).view(len(bits), -1, 8)
    weights = (1 << torch.arange(8, device=codes.device)).to(torch.uint8)
    return (padded * weights).sum(dim=2, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The inverse of `pack`: int8 [n, bits] of -1 and +1."""
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    values = (packed.unsqueeze(2) >> places) & 1
    return values.flatten(1)[:, :bits].to(torch.int8) * 2 - 1
