"""The audit of a model at hand, whoever made it: run what the checks need, probe its gradient, judge."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from signsym_core import validation
from signsym_core.attacks import ATTACKS, Attack
from signsym_core.evaluate import Outcome
from signsym_core.evaluate import attack as run_attack
from signsym_core.evidence import Evidence, Run
from signsym_core.masking import GREY
from signsym_core.probes import Probe, measure
from signsym_core.rules.convert import converted
from signsym_core.tasks import TASKS
from signsym_core.verdict import Verdict, judge

#: Images that a probe is made at.
PROBED = 100


def audit(
    model: nn.Module | Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float | str],
    *,
    twin: nn.Module | Sequence[nn.Module] | None = None,
    steps: int = 20,
    queries: int = 500,
    seed: int = 0,
) -> Verdict:
    """Whether the robustness of a classifier is real: the verdict with its findings.

    `model` is any module that gives logits [n, classes] for images float [n, channels, height, width] in [0, 1]; a
    converted one is attacked with its exact gradient too. Several models are one setting with several seeds. `twin`
    is a model of the same data and backbone that was trained by backpropagation, one for each model: examples made on
    it are tried on the model. FGSM, and PGD with `steps` steps, run at every ε of `epsilons` (L∞) and at 0.5. Without
    a twin APGD and, with `queries` looks at each image, the black-box attack Square run too: for a model that is not a
    converted one they stand for it.

    Raises ValueError for inputs that do not fit (see `signsym_core.attack`) and for numbers of models and twins that
    differ.
    """
    validation.check_images(images)
    validation.check_labels(labels, images)
    asked, steps = validation.radii(epsilons), validation.whole("steps", steps, 1)
    queries, seed = validation.whole("queries", queries, 2), validation.whole("seed", seed, 0)
    if not isinstance(model, (nn.Module, list, tuple)) or not isinstance(twin, (nn.Module, list, tuple, type(None))):
        wrong = validation.shown(twin if isinstance(model, (nn.Module, list, tuple)) else model)
        raise ValueError(f"model and twin must be a torch.nn.Module or a list of them, got {wrong}")
    models = [model] if isinstance(model, nn.Module) else list(model)
    twins: list[nn.Module | None] = [None] * len(models)
    if twin is not None:
        twins = [twin] if isinstance(twin, nn.Module) else [*twin]
    if not models or len(models) != len(twins):
        raise ValueError(f"expected a twin for each model or none at all, got {len(models)} models, {len(twins)} twins")
    for each_model in [*models, *(each_twin for each_twin in twins if each_twin is not None)]:
        validation.check_module(each_model, "each model and twin")
    radii = [*sorted(set(asked) - {0.0}), *({GREY} - set(asked))]
    own = any(converted(each) for each in models)
    by_seed: list[dict[tuple[str, str, float], Run]] = []
    probes: list[Probe] = []
    for number, (each, beside) in enumerate(zip(models, twins, strict=True)):
        found = _runs(each, beside, images, labels, radii, steps=steps, queries=queries, seed=seed + number, own=own)
        by_seed.append({(run.attack, run.gradient, run.epsilon): run for run in found})
        probes.append(measure(each, images[:PROBED], labels[:PROBED]))
    runs = [_stacked([runs[key] for runs in by_seed]) for key in by_seed[0]]
    chance = TASKS.build("classification").chance(labels, None)
    return judge(Evidence(runs=tuple(runs), chance=chance, probes=tuple(probes), converted=own))


def _runs(
    model: nn.Module,
    twin: nn.Module | None,
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    *,
    steps: int,
    queries: int,
    seed: int,
    own: bool,
) -> Iterator[Run]:
    own_gradients = ["feedback", *(["exact"] if own else [])]
    gradients = [*own_gradients, *([] if twin is None else ["transfer"])]
    plan = [("none", "none"), *((name, gradient) for name in ("fgsm", "pgd") for gradient in gradients)]
    if twin is None:
        plan += [*(("apgd", gradient) for gradient in own_gradients), ("square", "none")]
    parameters = {"pgd": {"steps": steps}, "apgd": {"steps": steps}, "square": {"queries": queries}}
    for name, asked in plan:
        chosen = ATTACKS.build(name, **parameters.get(name, {}))
        # Where every image can be grey a black-box attack proves nothing that the others do not.
        radii = [0.0] if name == "none" else [e for e in epsilons if name != "square" or e < GREY]
        if not radii:
            continue
        surrogate = twin if asked == "transfer" else None
        gradient = "feedback" if asked == "none" else asked
        outcome = run_attack(chosen, model, images, labels, radii, gradient=gradient, seed=seed, surrogate=surrogate)
        yield from as_runs(outcome, chosen, asked, seed=seed, images=torch.arange(len(images)))


def as_runs(outcome: Outcome, attack: Attack, gradient: str, *, seed: int, images: Tensor) -> list[Run]:
    """An attack's outcome on one model as evidence; `images` are the images' numbers in their data set, int64 [n]."""
    numbers = images.numpy()
    no_gradient = None if outcome.zero_gradient is None else outcome.zero_gradient.numpy()[None]
    survivors = outcome.scores > 0
    # The mean over no survivor is NaN.
    moved = (outcome.linf.double() * survivors).sum(dim=1) / survivors.sum(dim=1)
    return [
        Run(
            attack=attack.name,
            parameters=json.dumps(attack.changed(), sort_keys=True, separators=(",", ":")),
            gradient=gradient,
            epsilon=epsilon,
            norm=outcome.norm,
            steps=attack.steps_taken(),
            step_size=attack.step(epsilon),
            seeds=(seed,),
            images=numbers,
            outcomes=outcome.scores[row : row + 1].numpy(),
            moved=moved[row : row + 1].numpy(),
            no_gradient=no_gradient,
        )
        for row, epsilon in enumerate(outcome.epsilons)
    ]


def _stacked(runs: Sequence[Run]) -> Run:
    """One run of several seeds, from one of each."""
    no_gradient = [run.no_gradient for run in runs if run.no_gradient is not None]
    return dataclasses.replace(
        runs[0],
        seeds=tuple(run.seeds[0] for run in runs),
        outcomes=np.concatenate([run.outcomes for run in runs]),
        moved=np.concatenate([run.moved for run in runs if run.moved is not None]),
        no_gradient=np.concatenate(no_gradient) if no_gradient else None,
    )
