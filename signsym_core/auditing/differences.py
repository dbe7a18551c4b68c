"""Finite differences of a model's loss at images, compared with a gradient of it.

Legend: n images.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.auditing.gradientchecks import wrong_direction, wrong_gradient
from signsym_core.models.outputs import outputs_of

#: Larger steps than the usual one, up to a sixteenth, for a model that rounds its input.
LARGER = (1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16)
#: Values of a pixel between 0 and 1 that are tried to detect a model that rounds its input: 8 bits have 256.
VALUES = 1025
#: Random directions of `Probe.direction`.
DIRECTIONS = 4
#: Images in one pass.
BATCH = 64

#: (outputs [n, k], targets) to a loss [n] that a single image's attack would raise.
Loss = Callable[[Tensor, Tensor], Tensor]


@contextlib.contextmanager
def one_draw(device: torch.device) -> Iterator[None]:
    """Inside the block torch's global random numbers are those of one seed; the previous state is restored after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


@dataclasses.dataclass(frozen=True)
class Differences:
    """Finite differences of a model's loss at images, compared with a gradient [n, pixels] of it."""

    model: nn.Module
    images: Tensor
    targets: Tensor
    loss: Loss
    gradient: Tensor

    def first_fitting(self, step: float, only_this_step: bool) -> tuple[float, Tensor, Tensor]:
        """The first step at which ρ and the correlation are a gradient's, with both; `step` where there is none.

        With `only_this_step` no other step is tried.
        """
        first = self._agreement(step, inside=False)
        if only_this_step or fits(*first):
            return step, *first
        for larger in (step, *self._quanta(step), *LARGER):
            for inside in (True, False):
                rho, direction = self._agreement(larger, inside)
                if fits(rho, direction):
                    return larger, rho, direction
        return step, *first

    def _agreement(self, step: float, inside: bool) -> tuple[Tensor, Tensor]:
        """ρ [n] and the correlation [n]; with `inside`, pixels that a step would move out of [0, 1] stay fixed.

        A model may clip its input to [0, 1], where the difference of the two sides is half the slope.
        """
        x = self.images.flatten(1)
        free = ((x >= step) & (x <= 1 - step)).to(x.dtype) if inside else torch.ones_like(x)
        along = self.gradient.sign() * free
        promised = (self.gradient * along).sum(dim=1)
        # Where the gradient is 0 or NaN, ρ is 0: nothing is predicted, whatever the loss does.
        kept = promised.isfinite() & (promised > 0)
        slope = self._slope(along, step)
        rho = torch.where(kept, slope / torch.where(kept, promised, torch.ones_like(promised)), 0.0)
        generator = seeds.generator(0, "probe", device=x.device)
        measured, expected = [], []
        for _ in range(DIRECTIONS):
            ups = torch.randint(2, x.shape, generator=generator, device=x.device).to(x.dtype) * 2 - 1
            measured.append(self._slope(ups * free, step))
            expected.append((self.gradient * ups * free).sum(dim=1))
        return rho, cosine_of(torch.stack(measured, dim=1), torch.stack(expected, dim=1))

    def _slope(self, directions: Tensor, step: float) -> Tensor:
        moved = step * directions.view_as(self.images)
        sides = []
        for images in (self.images + moved, self.images - moved):
            with one_draw(images.device):
                sides.append(self.loss(outputs_in_batches(self.model, images), self.targets))
        return (sides[0] - sides[1]) / (2 * step)

    def _quanta(self, step: float) -> tuple[float, ...]:
        """The quantum of a model that rounds its input, and twice that; empty where it is finer than `step`.

        One pixel takes `VALUES` values, and the outputs of such a model change in as many jumps as it has levels.
        """
        pixel = int(torch.nan_to_num(self.gradient[0]).abs().argmax())
        images = self.images[:1].flatten(1).repeat(VALUES, 1)
        images[:, pixel] = torch.linspace(0, 1, VALUES, dtype=images.dtype, device=images.device)
        with one_draw(images.device):
            outputs = outputs_in_batches(self.model, images.view(-1, *self.images.shape[1:]))
        change = (outputs[1:] - outputs[:-1]).abs().amax(dim=1)
        # Ignoring the rounding of the model's arithmetic, which differs between positions of a batch.
        jumps = int((change > 1e-3 * change.max()).sum()) if change.max() > 0 else 0
        quantum = 1 / jumps if jumps else 0.0
        return (quantum, 2 * quantum) if step <= quantum <= 0.25 else ()


def fits(rho: Tensor, direction: Tensor) -> bool:
    """Whether the checks of a backward pass accept these values as a gradient's."""
    checks = (wrong_gradient(as_numpy(rho)), wrong_direction(as_numpy(direction)))
    return not any(finding.raised for finding in checks)


def cosine_of(one: Tensor, other: Tensor) -> Tensor:
    """The cosine of each row [n, entries] with that of the other; NaN for a row of zeros."""
    # Normalised first, since the product of two lengths may overflow.
    return (one / length_of(one).unsqueeze(1) * (other / length_of(other).unsqueeze(1))).sum(dim=1)


def length_of(vectors: Tensor) -> Tensor:
    """The length of each row."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths


def outputs_in_batches(model: nn.Module, images: Tensor) -> Tensor:
    """The outputs [n, k] without a graph, BATCH images at a time."""
    with torch.no_grad():
        return torch.cat([outputs_of(model, batch) for batch in images.split(BATCH)])


def as_numpy(values: Tensor) -> NDArray[np.float64]:
    """The numbers on the CPU in double precision."""
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array
