"""One block of images under attack at every epsilon: what the attack proposes is brought into the ball and judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from signsym_core.attacks import Attack
from signsym_core.attacks.ball import sizes, within_ball
from signsym_core.attacks.problem import Problem


@dataclasses.dataclass(kw_only=True)
class Block:
    """What became of the images of a block, as `Outcome` has it of all images."""

    scores: Tensor
    linf: Tensor
    sizes: Tensor
    predictions: Tensor
    adversarial: Tensor
    queries: Tensor | None = None
    distances: Tensor | None = None
    zero_gradient: Tensor | None = None


def run_block(attack: Attack, problem: Problem, epsilons: Sequence[float], carry: bool, keep: int) -> Block:
    """Attack the block's images at every epsilon and score them; `keep` adversarial images are returned.

    With `carry`, an image that is lost at one epsilon counts as lost at every larger one and is not attacked again.
    """
    count, shape = len(problem.images), (len(epsilons), len(problem.images))
    result = Block(
        scores=torch.zeros(shape, dtype=torch.float64),
        linf=torch.zeros(shape, dtype=torch.float32),
        sizes=torch.zeros(shape, dtype=torch.float64),
        predictions=torch.full(shape, -1, dtype=torch.int64),
        adversarial=problem.images[:keep].cpu().repeat(len(epsilons), 1, 1, 1, 1),
    )
    waiting: list[tuple[int, Tensor]] = []

    def judge_waiting() -> None:
        if not waiting:
            return
        outputs = problem.outputs(torch.cat([images for _, images in waiting])).split(count)
        for (row, images), output in zip(waiting, outputs, strict=True):
            record(row, images, output, slice(None))
        waiting.clear()

    def record(row: int, images: Tensor, outputs: Tensor, where: slice | Tensor) -> None:
        labels, task, gallery = problem.labels[where], problem.task, problem.gallery
        task.check(outputs, labels)
        result.scores[row, where] = task.score(outputs, labels, gallery).cpu()
        result.predictions[row, where] = task.predict(outputs, gallery).cpu()
        change = images - problem.images[where]
        result.linf[row, where] = sizes(change).float().cpu()
        result.sizes[row, where] = sizes(change, attack.norm).cpu()
        positions = torch.arange(count)[where]
        kept = positions < keep
        result.adversarial[row, positions[kept]] = images[kept.to(images.device)].cpu()

    def proposed(row: int, part: Problem, where: slice | Tensor) -> Tensor:
        epsilon = float(epsilons[row])
        images = within_ball(part.images, part.source.craft(attack, part, epsilon), epsilon, attack.norm)
        told = part.source.asked(part).told
        if told is not None:
            if result.queries is None:
                result.queries = torch.zeros(shape, dtype=torch.int64)
            result.queries[row, where] = told.queries.cpu()
        if told is not None and told.distances is not None:
            if result.distances is None:
                result.distances = torch.zeros(count, dtype=torch.float64)
            result.distances[where] = told.distances.cpu()
        return images

    alive = torch.ones(count, dtype=torch.bool)
    previous: int | None = None
    ascending = sorted(range(len(epsilons)), key=lambda row: epsilons[row])
    # Epsilon 0 comes last where nothing is carried: its outputs may come for free with a gradient.
    order = ascending if carry else sorted(ascending, key=lambda row: epsilons[row] == 0)
    for row in order:
        epsilon = float(epsilons[row])
        if epsilon == 0:
            record(row, problem.images, problem.clean_outputs, slice(None))
        elif not carry:
            waiting.append((row, proposed(row, problem, slice(None))))
            if (len(waiting) + 1) * count > problem.micro_batch:
                judge_waiting()
        elif previous is not None:
            # What was lost at a smaller epsilon keeps its image, which is valid here too.
            for kept in (result.linf, result.sizes, result.predictions, result.adversarial):
                kept[row] = kept[previous]
        if epsilon and carry and alive.any():
            part = problem.only(alive.to(problem.images.device))
            images = proposed(row, part, alive.clone())
            record(row, images, problem.outputs(images), alive.clone())
        if carry:
            alive &= result.scores[row] > 0
            previous = row
    judge_waiting()
    asked = problem.source.asked(problem)
    if asked.has_clean_gradient:
        result.zero_gradient = (asked.clean_gradient.flatten(1) == 0).all(dim=1).cpu()
    return result
