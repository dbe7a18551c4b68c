"""Running an attack on a model over all epsilons: one outcome per image and epsilon, and what it took.

Legend: n images, e epsilons; images float [n, channels, height, width] in [0, 1]; epsilon an L∞ radius in that range.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.attacks import ATTACKS, GRADIENTS, Attack
from signsym_core.attacks.problem import Passes, Problem
from signsym_core.registry import UnknownNameError, unknown
from signsym_core.retrieval import Gallery
from signsym_core.tasks import TASKS, Task

#: Images that share one draw of noise. Fixed, so that no result depends on how many images the device can hold.
BLOCK = 256


class WeakAttackWarning(UserWarning):
    """An attack whose steps cannot reach the border of the ball: its robust accuracy says little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attack did to each image, on the CPU."""

    epsilons: tuple[float, ...]
    #: float64 [e, n], 0 .. 1: how well the model handles the adversarial image; in classification 1 or 0.
    scores: Tensor
    #: float32 [e, n]: the largest change of a pixel that was made.
    linf: Tensor
    #: bool [n]: the loss had no gradient at all at the clean image; None where the attack did not ask for one.
    zero_gradient: Tensor | None
    #: int64 [e, n]: the class that the model sees.
    predictions: Tensor
    #: float [e, kept, channels, height, width]: the first adversarial images, as many as were asked for.
    adversarial: Tensor
    #: Calls of the model, forward and backward.
    forwards: int
    backwards: int
    #: The same in images.
    images_forward: int
    images_backward: int

    @property
    def robust(self) -> Tensor:
        """bool [e, n]: the model still handles the adversarial image rightly; in retrieval, at all."""
        return self.scores > 0

    @property
    def accuracy(self) -> list[float]:
        """The task's metric for each epsilon: the share of images still handled rightly, or mAP."""
        return [float(row.mean()) for row in self.scores]

    @property
    def reach(self) -> list[float]:
        """Mean of the largest change over epsilon, for each epsilon: 1 is the border of the ball; NaN at epsilon 0."""
        means = self.linf.double().mean(dim=1).tolist()
        return [mean / epsilon if epsilon else math.nan for mean, epsilon in zip(means, self.epsilons, strict=True)]


def attack(
    name: str | Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    *,
    gradient: str = "feedback",
    seed: int = 0,
    task: str | Task = "classification",
    surrogate: nn.Module | None = None,
    gallery: Gallery | None = None,
    carry: bool = False,
    keep: int = 0,
    micro_batch: int = BLOCK,
    **parameters: Any,
) -> Outcome:
    """Attack `model` at every epsilon and return what became of each image.

    `gradient` says where the attack's gradient comes from: "feedback", "exact", or "transfer", the exact gradient of
    the network `surrogate`, which no other one takes. `parameters` are the attack's. A task that retrieves needs a
    `gallery`: the model's codes of the database, and the codes that the network which is asked for gradients gives
    the training images.
    Every adversarial image is clipped to its ε-ball and to [0, 1] here, whatever the attack proposes. Each epsilon's
    outcome is that of a call with this epsilon alone. With `carry`, an image lost at one epsilon counts as lost at
    every larger one (its image is valid there) and is not attacked again: fewer passes, curves that never rise.
    `keep` is the number of adversarial images to return; `micro_batch` the largest number of images in one pass.

    The model is run in evaluation mode and left as it was found. Raises ValueError for images, labels, epsilons or
    a model that do not fit, saying what was expected and what came.
    """
    chosen = name if isinstance(name, Attack) else ATTACKS.build(name, **parameters)
    if isinstance(name, Attack) and parameters:
        raise TypeError(f"the attack is given as an object, so its parameters are set: got also {sorted(parameters)}")
    judge = task if isinstance(task, Task) else TASKS.build(task)
    if gradient not in GRADIENTS:
        raise UnknownNameError(unknown("gradient", gradient, list(GRADIENTS)))
    if judge.name not in chosen.tasks:
        raise ValueError(f"attack {chosen.name!r} does not fit task {judge.name!r}; it fits {sorted(chosen.tasks)}")
    if (gradient == "transfer") != (surrogate is not None):
        got = f"gradient {gradient!r} with{'out' if surrogate is None else ''} one"
        raise ValueError(f"gradient 'transfer', and no other one, needs a surrogate; got {got}")
    if judge.retrieves != (gallery is not None):
        raise ValueError(f"a task that retrieves, and no other one, needs a gallery: got task {judge.name!r}")
    if judge.retrieves and carry:
        raise ValueError(f"carry needs images that are lost or not, which task {judge.name!r} does not have")
    _check_inputs(images, labels, epsilons)
    if micro_batch < 1:
        raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
    _warn_if_weak(chosen, epsilons)
    passes = Passes()
    noise = torch.Generator(device=images.device).manual_seed(seed)
    blocks = []
    with _frozen(model), _frozen(surrogate or model):
        for start in range(0, len(images), BLOCK):
            at = slice(start, start + BLOCK)
            drawn = None
            if "random" in chosen.tags:
                drawn = torch.rand(images[at].shape, generator=noise, dtype=images.dtype, device=images.device)
            size = min(micro_batch, BLOCK)
            block = (judge, images[at], labels[at], drawn, GRADIENTS[gradient], passes, size, gallery)
            target = Problem(model, *block)
            problem = target if surrogate is None else Problem(surrogate, *block)
            blocks.append(_run_block(chosen, problem, target, epsilons, carry, max(0, keep - start)))
    zero = [block.zero_gradient for block in blocks if block.zero_gradient is not None]
    return Outcome(
        epsilons=tuple(float(epsilon) for epsilon in epsilons),
        scores=torch.cat([block.scores for block in blocks], dim=1),
        linf=torch.cat([block.linf for block in blocks], dim=1),
        zero_gradient=torch.cat(zero) if zero else None,
        predictions=torch.cat([block.predictions for block in blocks], dim=1),
        adversarial=torch.cat([block.adversarial for block in blocks], dim=1),
        forwards=passes.forwards,
        backwards=passes.backwards,
        images_forward=passes.images_forward,
        images_backward=passes.images_backward,
    )


@dataclasses.dataclass(kw_only=True)
class _Block:
    scores: Tensor
    linf: Tensor
    predictions: Tensor
    adversarial: Tensor
    zero_gradient: Tensor | None


def _run_block(
    attack: Attack, problem: Problem, target: Problem, epsilons: Sequence[float], carry: bool, keep: int
) -> _Block:
    """`problem` is what the attack works on, `target` the model that its images are scored on: mostly the same one."""
    count, shape = len(problem.images), (len(epsilons), len(problem.images))
    result = _Block(
        scores=torch.zeros(shape, dtype=torch.float64),
        linf=torch.zeros(shape, dtype=torch.float32),
        predictions=torch.full(shape, -1, dtype=torch.int64),
        adversarial=problem.images[:keep].cpu().repeat(len(epsilons), 1, 1, 1, 1),
        zero_gradient=None,
    )
    waiting: list[tuple[int, Tensor]] = []

    def judge_waiting() -> None:
        if not waiting:
            return
        outputs = target.outputs(torch.cat([images for _, images in waiting])).split(count)
        for (row, images), output in zip(waiting, outputs, strict=True):
            record(row, images, output, slice(None))
        waiting.clear()

    def record(row: int, images: Tensor, outputs: Tensor, where: slice | Tensor) -> None:
        labels, task = target.labels[where], target.task
        task.check(outputs, labels)
        result.scores[row, where] = task.score(outputs, labels, target.gallery).cpu()
        result.predictions[row, where] = task.predict(outputs, target.gallery).cpu()
        change = (images - problem.images[where]).abs().flatten(1).amax(dim=1)
        result.linf[row, where] = change.float().cpu()
        positions = torch.arange(count)[where]
        kept = positions < keep
        result.adversarial[row, positions[kept]] = images[kept.to(images.device)].cpu()

    alive = torch.ones(count, dtype=torch.bool)
    previous: int | None = None
    ascending = sorted(range(len(epsilons)), key=lambda row: epsilons[row])
    # Epsilon 0 comes last where nothing is carried: its outputs may come for free with a gradient.
    order = ascending if carry else sorted(ascending, key=lambda row: epsilons[row] == 0)
    for row in order:
        epsilon = float(epsilons[row])
        if epsilon == 0:
            record(row, target.images, target.clean_outputs, slice(None))
        elif not carry:
            waiting.append((row, within_ball(problem.images, attack.run(problem, epsilon), epsilon)))
            if (len(waiting) + 1) * count > problem.micro_batch:
                judge_waiting()
        elif previous is not None:
            # What was lost at a smaller epsilon keeps its image, which is valid here too.
            for kept in (result.linf, result.predictions, result.adversarial):
                kept[row] = kept[previous]
        if epsilon and carry and alive.any():
            part = problem.only(alive.to(problem.images.device))
            images = within_ball(part.images, attack.run(part, epsilon), epsilon)
            record(row, images, target.outputs(images), alive.clone())
        if carry:
            alive &= result.scores[row] > 0
            previous = row
    judge_waiting()
    if problem.has_clean_gradient:
        result.zero_gradient = (problem.clean_gradient.flatten(1) == 0).all(dim=1).cpu()
    return result


def within_ball(images: Tensor, proposed: Tensor, epsilon: float) -> Tensor:
    """`proposed` clipped to the L∞ ball of radius `epsilon` around `images` and to [0, 1], exactly.

    A sum rounded to float32 may lie outside the ball by one unit in the last place; such a pixel is set back by it.
    """
    radius = torch.tensor(epsilon, dtype=images.dtype)
    if float(radius) > epsilon:
        radius = torch.nextafter(radius, torch.zeros_like(radius))
    bound = float(radius)
    # A proposal that is no number is no proposal.
    proposed = torch.where(proposed.isnan(), images, proposed)
    clipped = (images + (proposed - images).clamp(-bound, bound)).clamp(0, 1)
    outside = (clipped.double() - images.double()).abs() > epsilon
    return torch.where(outside, torch.nextafter(clipped, images), clipped)


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and parameters without gradient inside the block; everything as before after it."""
    training = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in gradients:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, wanted in gradients.items():
            parameter.requires_grad_(wanted)


def _check_inputs(images: Tensor, labels: Tensor, epsilons: Sequence[float]) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be float[n, channels, height, width], got {images.dtype}{list(images.shape)}")
    if not isinstance(labels, Tensor) or labels.ndim == 0:
        raise ValueError(f"labels must be a tensor with an entry for each image, got {labels!r:.80}")
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"images and labels must be equally many and at least one: {len(images)} and {len(labels)}")
    if not torch.isfinite(images).all():
        broken = (~torch.isfinite(images.flatten(1))).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"images must be finite; NaN or infinity in the images {broken[:10]} ({len(broken)} in all)")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise ValueError(f"images must be in [0, 1] (normalisation is part of the model), got {low:g} .. {high:g}")
    if len(epsilons) == 0:
        raise ValueError("epsilons must hold at least one number")
    for epsilon in epsilons:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"an epsilon is an L∞ radius in [0, 1], got {epsilon}")


def _warn_if_weak(attack: Attack, epsilons: Sequence[float]) -> None:
    for epsilon in epsilons:
        reach = attack.steps_taken() * attack.step(epsilon)
        if attack.steps_taken() and reach < epsilon * (1 - 1e-9):
            warnings.warn(
                f"{attack.name}: {attack.steps_taken()} steps of {attack.step(epsilon):g} cannot reach the border of "
                f"the ball of radius {epsilon:g}; take more steps or larger ones",
                WeakAttackWarning,
                stacklevel=3,
            )
            return
