"""The audit of a model at hand, whoever made it: run what the checks need, probe its gradient, judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from signsym_core.attacks import ATTACKS
from signsym_core.evaluate import attack
from signsym_core.evidence import Evidence, Run
from signsym_core.masking import GREY
from signsym_core.probes import Probe, measure
from signsym_core.rules.convert import converted
from signsym_core.tasks import TASKS
from signsym_core.verdict import Verdict, judge

#: Images that a probe is made at.
PROBED = 200


def audit(
    model: nn.Module | Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    *,
    twin: nn.Module | Sequence[nn.Module] | None = None,
    steps: int = 20,
    seed: int = 0,
) -> Verdict:
    """Whether the robustness of a classifier is real: the verdict with its findings.

    `model` is any module that gives logits [n, classes] for images float [n, channels, height, width] in [0, 1]; a
    converted one is attacked with its exact gradient too. Several models are one setting with several seeds. `twin`
    is a model of the same data and backbone that was trained by backpropagation, one for each model: examples made on
    it are tried on the model. FGSM, and PGD with `steps` steps, run at every ε of `epsilons` (L∞) and at 0.5.

    Raises ValueError for inputs that do not fit (see `signsym_core.attack`) and for numbers of models and twins that
    differ.
    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    twins: list[nn.Module | None] = [None] * len(models)
    if twin is not None:
        twins = [twin] if isinstance(twin, nn.Module) else [*twin]
    if not models or len(models) != len(twins):
        raise ValueError(f"expected a twin for each model or none at all, got {len(models)} models, {len(twins)} twins")
    radii = [*sorted(set(epsilons) - {0.0}), *({GREY} - set(epsilons))]
    own = any(converted(each) for each in models)
    by_seed: list[dict[tuple[str, str, float], Run]] = []
    probes: list[Probe] = []
    for number, (each, beside) in enumerate(zip(models, twins, strict=True)):
        found = _runs(each, beside, images, labels, radii, steps=steps, seed=seed + number, own=own)
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
    seed: int,
    own: bool,
) -> Iterator[Run]:
    gradients = ["feedback", *(["exact"] if own else []), *([] if twin is None else ["transfer"])]
    plan = [("none", "feedback"), *((name, gradient) for name in ("fgsm", "pgd") for gradient in gradients)]
    for name, gradient in plan:
        chosen = ATTACKS.build(name, **({"steps": steps} if name == "pgd" else {}))
        radii = [0.0] if name == "none" else epsilons
        surrogate = twin if gradient == "transfer" else None
        outcome = attack(chosen, model, images, labels, radii, gradient=gradient, seed=seed, surrogate=surrogate)
        for row, epsilon in enumerate(radii):
            yield Run(
                attack=name,
                parameters="",
                gradient="none" if name == "none" else gradient,
                epsilon=float(epsilon),
                steps=chosen.steps_taken(),
                step_size=chosen.step(epsilon),
                seeds=(seed,),
                images=torch.arange(len(images)).numpy(),
                outcomes=outcome.scores[row : row + 1].numpy(),
                linf=outcome.linf[row : row + 1].double().numpy(),
            )


def _stacked(runs: Sequence[Run]) -> Run:
    """One run of several seeds, from one of each."""
    first = runs[0]
    return Run(
        attack=first.attack,
        parameters=first.parameters,
        gradient=first.gradient,
        epsilon=first.epsilon,
        steps=first.steps,
        step_size=first.step_size,
        seeds=tuple(run.seeds[0] for run in runs),
        images=first.images,
        outcomes=np.concatenate([run.outcomes for run in runs]),
        linf=np.concatenate([run.linf for run in runs if run.linf is not None]),
    )
