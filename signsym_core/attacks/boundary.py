"""The boundary attack: a random walk along the decision boundary that approaches the clean image."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import torch
from torch import Tensor

from signsym_core.attacks.ball import Norm
from signsym_core.attacks.minimisation import MinimisationAttack, Oracle
from signsym_core.registry import Count, Positive, above

#: Lengths of the records of decisions that the steps are adapted to, and the step at whose multiples they are kept.
_SPHERICAL_RECORD, _STEP_RECORD, _EVERY = 100, 30, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundary(MinimisationAttack):
    """A step: a random move of δ · d(x, xₜ) along the sphere around x, then ε · d(x, xₜ) towards x; kept if it is lost
    and nearer. δ and ε grow where more than half (a quarter) of the moves along the sphere (of the steps) stay lost,
    and shrink where fewer than a fifth (a tenth) do.

    Minimises the L2 distance by Foolbox's version of the algorithm: with the same random numbers it gives Foolbox's
    image for a batch of one. In Foolbox a whole batch shares each random direction; here each image has separate
    directions, drawn for all images at once (`streams.Counted`). A few thousand steps hardly improve on the start; the
    published comparison takes 25,000.
    """

    name = "boundary"
    label = "Boundary"
    citation = "Brendel, Rauber, Bethge 2018, Decision-based adversarial attacks, arXiv 1712.04248"

    steps: Count = 25_000
    #: The first δ.
    spherical_step: Positive = 0.01
    #: The first ε.
    source_step: Positive = 0.01
    #: An image whose ε falls below this has converged.
    convergence: Positive = 1e-7
    #: Factor by which δ and ε grow and shrink.
    adaptation: Annotated[float, above(1)] = 1.5

    @property
    def norm(self) -> Norm:
        return "l2"

    def walk(self, oracle: Oracle, originals: Tensor, start: Tensor, places: Tensor) -> Tensor:
        shape, clean, best = originals.shape[1:], originals.flatten(1), start.flatten(1).clone()
        spherical = torch.full((len(best),), self.spherical_step, dtype=best.dtype, device=best.device)
        source = torch.full_like(spherical, self.source_step)
        # NaN: no decision yet.
        spheres = best.new_full((len(best), _SPHERICAL_RECORD), torch.nan)
        moves = best.new_full((len(best), _STEP_RECORD), torch.nan)
        noise, going = oracle.problem.counted, torch.arange(len(best), device=best.device)
        for step in range(1, self.steps + 1):
            active = (source[going] >= self.convergence) & oracle.affords(places[going])
            if (step - 1) % oracle.problem.looks_every == 0:
                going, active = going[active], active[active]
                if len(going) == 0:
                    break
            going_places, here, x = places[going], best[going], clean[going]
            direction = noise.normal(going_places, step - 1, clean.shape[1])
            on_sphere, proposed, distance = _proposals(x, here, direction, spherical[going], source[going])
            lost = oracle.lost(proposed.view(-1, *shape), going_places, active)
            nearer = lost & ((x - proposed).norm(dim=1) < distance)
            best.index_copy_(0, going, torch.where(nearer[:, None], proposed, here))
            if step % _EVERY == 0:
                sphere_lost = oracle.lost(on_sphere.view(-1, *shape), going_places, active)
                for record, decisions in ((spheres, sphere_lost), (moves, lost)):
                    column = record[:, (step // _EVERY - 1) % record.shape[1]]
                    column.index_copy_(0, going, torch.where(active, decisions.to(x.dtype), column[going]))
                self._adapt(spheres, (spherical, source), 0.5, 0.2)
                self._adapt(moves, (source,), 0.25, 0.1)
        return best.view(originals.shape)

    def _adapt(self, record: Tensor, lengths: tuple[Tensor, ...], many: float, few: float) -> None:
        """Scale the `lengths` of images whose record is full by the share of its ones, and begin their record anew."""
        share = record.mean(dim=1)
        shorter = torch.where(share < few, 1 / self.adaptation, torch.ones_like(share))
        factor = torch.where(share > many, self.adaptation, shorter)
        for length in lengths:
            length *= factor
        record.masked_fill_((factor != 1)[:, None], torch.nan)

    def needed(self) -> float:
        # A start takes up to fifty decisions.
        return 50 + self.steps * (1 + 1 / _EVERY)


def _proposals(
    clean: Tensor, here: Tensor, noise: Tensor, spherical: Tensor, source: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves along the sphere and steps from there towards the clean images, [m, pixels], and the distances [m] before.

    The noise [m, pixels] is made orthogonal to the way to the clean image; the theorem of Pythagoras brings the moved
    image back to the sphere, up to what clipping to [0, 1] changes, which the step makes up for.
    """
    inward = clean - here
    distance = inward.norm(dim=1)
    towards = inward / distance[:, None]
    across = noise - (towards * noise).sum(dim=1, keepdim=True) * towards
    across = across * (spherical * distance / across.norm(dim=1))[:, None]
    on_sphere = clean + (across - inward) / (spherical.square() + 1).sqrt()[:, None]
    on_sphere = on_sphere.clamp(0, 1)
    inward = clean - on_sphere
    left = inward.norm(dim=1)
    length = (source * distance + left - distance).clamp(min=0) / left
    return on_sphere, (on_sphere + length[:, None] * inward).clamp(0, 1), distance
