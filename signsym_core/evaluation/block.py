"""One block of images attacked at every epsilon: the attack's proposals are projected into the ball and scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from signsym_core.attacks import Attack
from signsym_core.attacks.ball import sizes
from signsym_core.attacks.gradients import Source, crafted
from signsym_core.attacks.problem import Problem


@dataclasses.dataclass(kw_only=True)
class Block:
    """The results of the images of a block, with the fields of `Outcome`."""

    scores: Tensor
    linf: Tensor
    sizes: Tensor
    predictions: Tensor
    confidence: Tensor
    #: [epsilons, n, measures].
    measured: Tensor
    adversarial: Tensor
    queries: Tensor | None = None
    distances: Tensor | None = None
    zero_gradient: Tensor | None = None
    nonfinite_gradient: Tensor

    def on_host(self) -> Block:
        """The same, on the CPU."""
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        here: dict[str, Any] = {name: None if tensor is None else tensor.cpu() for name, tensor in tensors.items()}
        return Block(**here)


def joined(blocks: Sequence[Block]) -> dict[str, Any]:
    """The fields of `Block` for the images of all blocks, one after the other; None where no block has any.

    A block without one, since the attack was run on none of its images, has zeros: they were asked nothing.
    """
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Block):
        by_block = [getattr(block, field.name) for block in blocks]
        first = next((tensor for tensor in by_block if tensor is not None), None)
        if first is None:
            fields[field.name] = None
            continue
        tensors = [
            first.new_zeros((*first.shape[:-1], block.scores.shape[1])) if tensor is None else tensor
            for block, tensor in zip(blocks, by_block, strict=True)
        ]
        # [n], or [epsilons, n] and [epsilons, kept, ...].
        fields[field.name] = torch.cat(tensors, dim=min(1, first.ndim - 1))
    return fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """Images within the ball, on the device, and for each the number of non-finite gradient entries (int64), and what
    counts in the place of its score where the attack reports that."""

    images: Tensor
    nonfinite: Tensor | None = None
    scores: Tensor | None = None


def run_block(
    attack: Attack, source: Source, problem: Problem, epsilons: Sequence[float], carry: bool, keep: int
) -> Block:
    """Attack the block's images at every epsilon and score them; `keep` adversarial images are returned.

    `source` is where the attack's gradient comes from.

    With `carry`, an image that is lost at one epsilon counts as lost at every larger one and is not attacked again.
    """
    count, shape, device = len(problem.images), (len(epsilons), len(problem.images)), problem.images.device
    # On the device until the end: each copy to the host would wait for what was launched before.
    result = Block(
        scores=torch.zeros(shape, dtype=torch.float64, device=device),
        linf=torch.zeros(shape, dtype=torch.float32, device=device),
        sizes=torch.zeros(shape, dtype=torch.float64, device=device),
        predictions=torch.full(shape, -1, dtype=torch.int64, device=device),
        confidence=torch.full(shape, torch.nan, dtype=torch.float64, device=device),
        measured=torch.full((*shape, len(attack.measures)), torch.nan, dtype=torch.float64, device=device),
        nonfinite_gradient=torch.zeros(shape, dtype=torch.int64, device=device),
        adversarial=problem.images[:keep].repeat(len(epsilons), 1, 1, 1, 1),
    )
    waiting: list[tuple[int, Proposal]] = []

    def judge_waiting() -> None:
        if not waiting:
            return
        outputs = problem.outputs(torch.cat([proposal.images for _, proposal in waiting])).split(count)
        for (row, proposal), output in zip(waiting, outputs, strict=True):
            record(row, proposal, output, slice(None))
        waiting.clear()

    def record(row: int, proposal: Proposal, outputs: Tensor, where: slice | Tensor) -> None:
        images = proposal.images
        labels, task, gallery = problem.labels[where], problem.task, problem.gallery
        problem.check(outputs)
        problem.tally.refuse()
        scores = task.score(outputs, labels, gallery) if proposal.scores is None else proposal.scores
        result.scores[row, where] = scores.to(device)
        result.predictions[row, where] = task.predict(outputs, gallery).to(device)
        if (confidence := task.confidence(outputs, labels)) is not None:
            result.confidence[row, where] = confidence.to(device)
        if proposal.nonfinite is not None:
            result.nonfinite_gradient[row, where] = proposal.nonfinite
        change = images - problem.images[where]
        result.linf[row, where] = sizes(change).float()
        result.sizes[row, where] = sizes(change, attack.norm)
        if isinstance(where, slice):
            result.adversarial[row] = images[:keep]
        elif keep:
            kept = where < keep
            result.adversarial[row, where[kept]] = images[kept]

    def proposed(row: int, subset: Problem, where: slice | Tensor) -> Proposal:
        epsilon = float(epsilons[row])
        images = crafted(attack, source, subset, epsilon)
        reported = source.followed(subset).told
        if reported is not None and reported.queries is not None:
            if result.queries is None:
                result.queries = torch.zeros(shape, dtype=torch.int64, device=device)
            result.queries[row, where] = reported.queries.to(device)
        if reported is not None and reported.distances is not None:
            if result.distances is None:
                result.distances = torch.zeros(count, dtype=torch.float64, device=device)
            result.distances[where] = reported.distances.to(device)
        if reported is not None and reported.measured is not None:
            result.measured[row, where] = reported.measured.to(device)
        scores = None if reported is None else reported.scores
        return Proposal(images=images, nonfinite=subset.tally.entries[subset.numbers], scores=scores)

    alive = torch.ones(count, dtype=torch.bool, device=device)
    previous: int | None = None
    ascending = sorted(range(len(epsilons)), key=lambda row: epsilons[row])
    # Epsilon 0 comes last where nothing is carried: a gradient pass may have computed its outputs already.
    order = ascending if carry else sorted(ascending, key=lambda row: epsilons[row] == 0)
    for row in order:
        epsilon = float(epsilons[row])
        if epsilon == 0:
            record(row, Proposal(images=problem.images), problem.clean_outputs, slice(None))
        elif not carry:
            waiting.append((row, proposed(row, problem, slice(None))))
            if (len(waiting) + 1) * count > problem.micro_batch:
                judge_waiting()
        elif previous is not None:
            # An image lost at a smaller epsilon keeps its adversarial image, which is valid here too.
            inherited = (result.linf, result.sizes, result.predictions, result.confidence, result.adversarial)
            for kept in (*inherited, result.nonfinite_gradient):
                kept[row] = kept[previous]
        if epsilon and carry:
            places = alive.nonzero().flatten()
            if len(places):
                proposal = proposed(row, problem.only(alive.clone()), places)
                record(row, proposal, problem.outputs(proposal.images), places)
        if carry:
            alive &= result.scores[row] > 0
            previous = row
    judge_waiting()
    result.zero_gradient = source.followed(problem).zero_gradient
    return result.on_host()
