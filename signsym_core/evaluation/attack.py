"""Running an attack on a model over all epsilons: one outcome per image and epsilon, and what it took.

Legend: n images, e epsilons; images float [n, channels, height, width] in [0, 1]; epsilon a radius in that range, in
the attack's norm, which is L∞ for most.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.arithmetic import arithmetic
from signsym_core.attacks import ATTACKS, GRADIENTS, Attack
from signsym_core.attacks.attacked import AttackedModel, Passes
from signsym_core.attacks.finite import Tally
from signsym_core.attacks.gradients import Exact
from signsym_core.attacks.problem import Problem
from signsym_core.attacks.radii import radii
from signsym_core.backbones.lif import refuse_slope_without_spikes, surrogate_slope
from signsym_core.datasets.batches import Prepared
from signsym_core.evaluation.block import joined, run_block
from signsym_core.evaluation.outcome import Outcome
from signsym_core.models.frozen import frozen
from signsym_core.models.outputs import NonFiniteOutputError, outputs_of, refuse_non_finite
from signsym_core.registry import UnknownNameError, unknown
from signsym_core.retrieval.codes import Gallery
from signsym_core.rules.bypassed import refuse_bypassed
from signsym_core.tasks import TASKS, Task
from signsym_core.training.health import refuse_broken
from signsym_core.validation import check_images, check_labels, check_module, whole_number

#: Images that share one draw of noise. Fixed, so that no result depends on how many images the device can hold.
BLOCK = 256


class WeakAttackWarning(UserWarning):
    """An attack whose steps cannot reach the border of the ball: its robust accuracy says little."""


def attack(
    name: str | Attack,
    model: nn.Module,
    images: Tensor | Prepared,
    labels: Tensor,
    epsilons: Sequence[float | str],
    *,
    gradient: str = "feedback",
    seed: int = 0,
    task: str | Task = "classification",
    surrogate: nn.Module | None = None,
    gallery: Gallery | None = None,
    surrogate_gallery: Gallery | None = None,
    carry: bool = False,
    keep: int = 0,
    micro_batch: int = BLOCK,
    **parameters: Any,
) -> Outcome:
    """Attack `model` at every epsilon and return what became of each image.

    `images` are float [n, channels, height, width] in [0, 1], of the type that the model takes (in 16 bits too: then
    the attack computes in float32 and the model sees, and is judged on, images of its own type); `labels` int64 [n], or
    0/1 [n, classes]; `epsilons` a list of numbers or fractions such as "8/255". The model gives logits [n, classes],
    as they are or as `.logits` or under the key "logits" of what it returns.

    `gradient` says where the attack's gradient comes from, a name of `GRADIENTS`: "feedback"; "exact"; "mixed", the
    mean of the directions of both; "transfer", the exact gradient of the network `surrogate`; "eot", the mean over
    draws of B; "hybrid", the best of feedback and transfer, which takes a `surrogate` too. `parameters` are the
    attack's. A task that retrieves needs a `gallery`, the model's codes of the database and of the training images, and
    for a surrogate a `surrogate_gallery`, with the surrogate's codes of the training images.
    Every adversarial image is brought back into its ε-ball and into [0, 1] here, whatever the attack proposes. Each
    epsilon's outcome is that of a call with this epsilon alone. With `carry`, an image lost at one epsilon counts as
    lost at every larger one (its image is valid there) and is not attacked again: fewer passes, curves that never
    rise.
    Of `images` that are `Prepared` only those under attack are floats, 256 at a time.
    `keep` is the number of adversarial images to return; `micro_batch` the largest number of images in one pass.

    The model is run in evaluation mode and left as it was found. Raises ValueError for images, labels, epsilons or
    a model that do not fit, saying what was expected and what came; and NonFiniteOutputError, a ValueError, where the
    model or the surrogate gives NaN or infinity for an image, -infinity too; NonFiniteWeightsError where one of their
    weights or running statistics is none. A gradient may have entries that are not finite: they count as 0, and the
    outcome says how many there were. BypassedLayerError, a ValueError too, where the attack follows the feedback of
    layers that the model goes around.

    >>> import torch, signsym_core as ss
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> model[1].weight.data = torch.eye(2)
    >>> image, label = torch.tensor([0.6, 0.5]).view(1, 2, 1, 1), torch.tensor([0])
    >>> outcome = ss.attack("fgsm", model, image, label, epsilons=[0.04, 0.06])
    >>> outcome.robust.tolist()
    [[True], [False]]
    >>> outcome.accuracy
    [1.0, 0.0]
    """
    chosen = name if isinstance(name, Attack) else ATTACKS.build(name, **parameters)
    if isinstance(name, Attack) and parameters:
        raise TypeError(f"the attack is given as an object, so its parameters are set: got also {sorted(parameters)}")
    judge = task if isinstance(task, Task) else TASKS.build(task)
    if gradient not in GRADIENTS:
        raise UnknownNameError(unknown("gradient", gradient, list(GRADIENTS)))
    if judge.name not in chosen.tasks:
        raise ValueError(f"attack {chosen.name!r} does not fit task {judge.name!r}; it fits {sorted(chosen.tasks)}")
    source = GRADIENTS[gradient]
    if source.twin != (surrogate is not None):
        needing = " or ".join(repr(name) for name, source in GRADIENTS.items() if source.twin)
        got = f"gradient {gradient!r} with{'out' if surrogate is None else ''} one"
        raise ValueError(f"gradient {needing}, and no other one, needs a surrogate; got {got}")
    if chosen.certifying and surrogate is not None:
        raise ValueError(f"attack {chosen.name!r} certifies the model itself: expected no surrogate, got one")
    if judge.retrieves != (gallery is not None):
        raise ValueError(f"a task that retrieves, and no other one, needs a gallery: got task {judge.name!r}")
    if judge.retrieves and carry:
        raise ValueError(f"carry needs images that are lost or not, which task {judge.name!r} does not have")
    if not isinstance(images, Prepared):
        check_images(images)
    check_labels(labels, images)
    radius = radii(epsilons, chosen.norm)
    seed, keep, micro_batch = (
        whole_number("seed", seed, 0),
        whole_number("keep", keep, 0),
        whole_number("micro_batch", micro_batch, 1),
    )
    for argument, module in (("model", model), *([] if surrogate is None else [("surrogate", surrogate)])):
        check_module(module, argument)
        refuse_slope_without_spikes(module, chosen.spike_slope, argument)
        refuse_broken(module, f"the {argument}")
    _warn_if_weak(chosen, radius)
    dtype, passes = images.dtype, Passes()
    # Steps and distances of an attack are below what a float of 16 bits can tell apart.
    if not isinstance(images, Prepared):
        images = images.detach() if dtype.itemsize >= 4 else images.detach().float()
    noise = torch.Generator(device=images.device).manual_seed(seed)
    blocks, followed = [], False
    models = (model, surrogate or model)
    computing = arithmetic(chosen.precision, chosen.deterministic, images.device, *models)
    slopes = surrogate_slope(models, chosen.spike_slope)
    with computing, frozen(model), frozen(surrogate or model), slopes:
        for start in range(0, len(images), BLOCK):
            rows = slice(start, start + BLOCK)
            clean, drawn = images[rows], None
            if "random" in chosen.tags:
                drawn = torch.rand(clean.shape, generator=noise, dtype=clean.dtype, device=clean.device)
            size = min(micro_batch, BLOCK)
            image_seeds = [seeds.derive(seed, "image", start + place) for place in range(len(clean))]
            block = (judge, clean, labels[rows], drawn, image_seeds)
            twin, tally = None, Tally(len(clean), clean.device)
            if surrogate is not None:
                # Whatever rule a surrogate has, its own gradient is what it is there for.
                codes = surrogate_gallery or gallery
                exact = GRADIENTS["exact"]
                helper = AttackedModel(surrogate, exact.views, None, dtype, passes, size, tally, judges=False)
                twin = Problem(helper, *block, codes)
            attacked = AttackedModel(model, source.views, source.join, dtype, passes, size, tally)
            problem = Problem(attacked, *block, gallery, twin)
            if start == 0:
                # So that what a library draws for the first block can be drawn without us too.
                problem.seed = seed
            try:
                blocks.append(run_block(chosen, source, problem, radius, carry, max(0, keep - start)))
                if passes.backwards and not isinstance(source, Exact):
                    refuse_bypassed(model, images[:1].to(dtype))
            except NonFiniteOutputError:
                for who, shown_to in (("the model", model), ("the surrogate", surrogate)):
                    _refuse_on_clean_images(shown_to, images, dtype, problem.micro_batch, who)
                raise
            followed |= tally.followed
    results = joined(blocks)
    results["adversarial"] = results["adversarial"].to(dtype)
    results["measured"] = dict(zip(chosen.measures, results["measured"].unbind(dim=2), strict=True))
    if not followed and not results["nonfinite_gradient"].any():
        results["nonfinite_gradient"] = None
    return Outcome(
        epsilons=radius,
        norm=chosen.norm,
        **results,
        forwards=passes.forwards,
        backwards=passes.backwards,
        images_forward=passes.images_forward,
        images_backward=passes.images_backward,
    )


@torch.no_grad()
def _refuse_on_clean_images(
    model: nn.Module | None, images: Tensor | Prepared, dtype: torch.dtype, micro_batch: int, who: str
) -> None:
    """Raise NonFiniteOutputError, saying for which of all clean images, where the outputs for some are not finite."""
    if model is not None:
        starts = range(0, len(images), micro_batch)
        outputs = [outputs_of(model, images[start : start + micro_batch].to(dtype), who) for start in starts]
        refuse_non_finite(torch.cat(outputs), who, "clean images")


def _warn_if_weak(attack: Attack, epsilons: Sequence[float]) -> None:
    if hopeless := [epsilon for epsilon in epsilons if epsilon > 0 and attack.hopeless(epsilon)]:
        beyond = ", ".join(f"{epsilon:g}" for epsilon in hopeless)
        words = f"{attack.name}: {attack.hopeless(hopeless[0])}, so that its score at {beyond} is 0 whatever the model"
        warnings.warn(words, WeakAttackWarning, stacklevel=3)
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
