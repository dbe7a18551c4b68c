"""Sources of an attack's gradient. A source is one small class: the views of a model that it differentiates."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from signsym_core.attacks.attacked import Join
from signsym_core.attacks.ball import direction, representable, within_ball
from signsym_core.attacks.base import Attack
from signsym_core.attacks.problem import Problem
from signsym_core.rules.base import Rule
from signsym_core.rules.convert import exact_gradient, redrawn, redraws
from signsym_core.validation import shown


class Source(ABC):
    """A source of gradients."""

    #: How grids, tables and the command line call it.
    name: ClassVar[str]
    #: Whether it needs a surrogate: in a sweep the twin, which was fine-tuned with BP from the same seed and data.
    twin: ClassVar[bool] = False

    @property
    def join(self) -> Join | None:
        """What makes one gradient of those of all views, in their order; None: their mean."""
        return None

    @abstractmethod
    def views(self, model: nn.Module) -> Sequence[AbstractContextManager[Any]]:
        """The contexts in which `model` is differentiated, each entered once; the gradient is the mean over them."""

    def craft(self, attack: Attack, problem: Problem, epsilon: float) -> Tensor:
        """The images that `attack` proposes for `problem`, which has a `twin` where the source needs one."""
        return attack.run(problem, epsilon)

    def followed(self, problem: Problem) -> Problem:
        """The problem whose gradients the attack follows: `problem`, or its twin."""
        return problem

    def computed(self, rule: Rule) -> str:
        """The name of the source with the same numbers under `rule`, so that they are computed only once."""
        return "exact" if rule.sends_gradient else self.name


class Feedback(Source):
    """The model's backward pass: the paper's protocol; for a rule with B ≠ W it is not the gradient."""

    name = "feedback"

    def views(self, model: nn.Module) -> Sequence[AbstractContextManager[Any]]:
        return [contextlib.nullcontext()]


class Exact(Source):
    """The gradient of the same weights, by ordinary autograd."""

    name = "exact"

    def views(self, model: nn.Module) -> Sequence[AbstractContextManager[Any]]:
        return [exact_gradient(model)]


class Transfer(Exact):
    """The exact gradient of the surrogate; the attacked model only scores the images."""

    name = "transfer"
    twin = True

    def craft(self, attack: Attack, problem: Problem, epsilon: float) -> Tensor:
        return attack.run(self.followed(problem), epsilon)

    def followed(self, problem: Problem) -> Problem:
        assert problem.twin is not None
        return problem.twin

    def computed(self, rule: Rule) -> str:
        # The twin is fine-tuned with BP: of a model of BP it is the model itself.
        return "exact" if rule.trains_as_bp else self.name


class EOT(Source):
    """The mean of the gradients over `DRAWS` draws of B: the expectation over transformation of Athalye et al. 2018.

    For a rule that redraws its magnitudes, such as brSF; for other rules it is the feedback. The draws are the same at
    every step, so an attack stays deterministic. Each gradient of the mean follows one feedback: the mean removes the
    noise of the draws, but not the bias that they share.
    """

    name = "eot"
    DRAWS: ClassVar[int] = 20

    def views(self, model: nn.Module) -> Sequence[AbstractContextManager[Any]]:
        if not redraws(model):
            return [contextlib.nullcontext()]
        return [redrawn(model, number) for number in range(self.DRAWS)]

    def computed(self, rule: Rule) -> str:
        return "feedback" if rule.redraws == "never" and not rule.sends_gradient else super().computed(rule)


def mean_direction(gradients: Sequence[Tensor]) -> Tensor:
    """`Mixed`'s gradient from the feedback and the exact gradient."""
    (along, size), (true, true_size) = map(direction, gradients)
    return torch.where(true_size > 0, true_size, size) * ((along + true) / 2)


class Mixed(Source):
    """The mean of the feedback and the exact gradient, each brought to length 1 first, image by image.

    g = |g_e| · (g_f / |g_f| + g_e / |g_e|) / 2, with the feedback g_f, the exact gradient g_e and Euclidean norms: the
    mean's direction, at the size of the exact gradient for attacks that measure with it. Where one of both is 0, g is
    half of the other. It goes up what both go up, however large B is; two forward and two backward passes.
    """

    name = "mixed"

    @property
    def join(self) -> Join | None:
        return mean_direction

    def views(self, model: nn.Module) -> Sequence[AbstractContextManager[Any]]:
        return [contextlib.nullcontext(), exact_gradient(model)]


class Hybrid(Feedback):
    """Transfer, then refine, and the best of both for each image: in the spirit of Lin and Sengupta 2025.

    Three candidates for each image: the surrogate's example; the attack along the feedback; and the same attack started
    from the surrogate's example, for attacks that can start from given images. The candidate with the lowest score is
    kept, so the result is at most that of `transfer` and that of `feedback`. Images that are lost already skip the
    remaining candidates. (arXiv 2504.08897 publishes no formula to check this against.)
    """

    name = "hybrid"
    twin = True

    def craft(self, attack: Attack, problem: Problem, epsilon: float) -> Tensor:
        assert problem.twin is not None
        moved = within_ball(problem.images, attack.run(problem.twin, epsilon), epsilon, attack.norm)
        best, scores = moved, problem.scores(moved)
        for start in (None, moved) if attack.goes_on else (None,):
            alive = scores > 0
            if not alive.any():
                break
            subset = problem.only(alive)
            subset.start = None if start is None else start[alive]
            candidates = within_ball(subset.images, attack.run(subset, epsilon), epsilon, attack.norm)
            new_scores = subset.scores(candidates)
            better = new_scores < scores[alive]
            places = alive.nonzero().flatten()[better]
            best = best.index_copy(0, places, candidates[better])
            scores = scores.index_copy(0, places, new_scores[better])
        return best

    def computed(self, rule: Rule) -> str:
        # Even with B = W it is a longer attack than one that follows the exact gradient.
        return self.name


#: Every source, by its name.
GRADIENTS: Mapping[str, Source] = {
    source.name: source for source in (Feedback(), Exact(), Mixed(), Transfer(), EOT(), Hybrid())
}


def crafted(attack: Attack, source: Source, problem: Problem, epsilon: float) -> Tensor:
    """What `attack` proposes along the gradients of `source`, projected into the ball of radius `epsilon` > 0.

    The problem's tally has the non-finite entries of the images' gradients afterwards: see `Tally`, which says too why
    an attack that met any runs again.
    """
    tally = problem.tally
    tally.entries.zero_()
    proposed = source.craft(attack, problem, epsilon)
    if tally.followed and tally.entries.any():
        tally.careful = True
        proposed = source.craft(attack, problem, epsilon)
        tally.careful = False
    _refuse_misfit(attack, problem.images, proposed)
    # A pixel whose proposal is NaN stays unchanged, like one whose gradient is NaN.
    tally.note(proposed.isnan().flatten(1).sum(dim=1), problem.numbers)
    images = within_ball(problem.images, proposed.to(problem.images.dtype), epsilon, attack.norm)
    return representable(problem.images, images, problem.attacked.dtype)


def _refuse_misfit(attack: Attack, images: Tensor, proposed: object) -> None:
    """Raise ValueError where what an attack returned are no images, such as bytes or those of a part of the block."""
    kind = (images.shape, images.device)
    if isinstance(proposed, Tensor) and proposed.is_floating_point() and (proposed.shape, proposed.device) == kind:
        return
    expected = f"float{list(images.shape)} in [0, 1] on {images.device}, one for each of problem.images"
    raise ValueError(f"attack {attack.name!r} must return images {expected}; got {shown(proposed)}")
