"""The audit of a given model: run the attacks that the checks need, probe its gradient, judge."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core import validation
from signsym_core.attacks import ATTACKS, Attack
from signsym_core.attacks.attacked import NoGradientWarning
from signsym_core.attacks.radii import radii
from signsym_core.auditing import gradientchecks
from signsym_core.auditing.evidence import Evidence, Run
from signsym_core.auditing.finding import Finding
from signsym_core.auditing.masking import GREY
from signsym_core.auditing.probes import Probe, measure
from signsym_core.auditing.runs import as_runs, stacked
from signsym_core.auditing.verdict import Verdict, judge
from signsym_core.evaluation.attack import attack as run_attack
from signsym_core.models.outputs import outputs_of
from signsym_core.rules.convert import converted
from signsym_core.tasks import TASKS

#: Images at which a model is probed.
PROBED = 100
#: Draws that the gradient of a random model is averaged over.
DRAWS = 20


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

    `model` is any module that returns logits [n, classes] for images float [n, channels, height, width] in [0, 1]; a
    converted one is also attacked with its exact gradient. Several models are one setting with several seeds. `twin`
    is a model of the same data and backbone that was trained by backpropagation, one for each model: examples made on
    it are tested on the model. FGSM, and PGD and APGD with `steps` steps, run at every ε of `epsilons` (L∞) and at 0.5.
    Without a twin the black-box attack Square, with `queries` queries per image, runs too; for a model that is not
    converted it replaces the twin. A model with random outputs or gradients is also attacked along its gradient
    averaged over 20 draws. A model without any gradient is attacked too, and judged by the attacks that need none.
    Where the twin's examples or Square alone say that a gradient is masked, APGD on the targeted ratio of logits runs
    too, before it is accused: the cross-entropy may be what misled the others.

    Raises ValueError for invalid inputs (see `signsym_core.attack`) and for different numbers of models and twins.

    >>> import torch, signsym_core as ss
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2, bias=False))
    >>> weights = torch.tensor([1.0, -1.0]).repeat(24)
    >>> model[1].weight.data = torch.stack([weights, -weights])
    >>> images = torch.rand(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> verdict = ss.audit(model, images, model(images).argmax(dim=1), ["5/255"], steps=5, queries=20)
    >>> verdict.words
    'sound'
    """
    validation.check_images(images)
    validation.check_labels(labels, images)
    requested, steps = radii(epsilons), validation.whole_number("steps", steps, 1)
    queries, seed = validation.whole_number("queries", queries, 2), validation.whole_number("seed", seed, 0)
    if not isinstance(model, (nn.Module, list, tuple)) or not isinstance(twin, (nn.Module, list, tuple, type(None))):
        wrong = validation.shown(twin if isinstance(model, (nn.Module, list, tuple)) else model)
        raise ValueError(f"model and twin must be a torch.nn.Module or a list of them, got {wrong}")
    models = [model] if isinstance(model, nn.Module) else list(model)
    twins: list[nn.Module | None] = [None] * len(models)
    if twin is not None:
        twins = [twin] if isinstance(twin, nn.Module) else [*twin]
    if not models or len(models) != len(twins):
        raise ValueError(f"expected a twin for each model or none at all, got {len(models)} models, {len(twins)} twins")
    for module in [*models, *(other_twin for other_twin in twins if other_twin is not None)]:
        validation.check_module(module, "each model and twin")
    attacked = [*sorted(set(requested) - {0.0}), *({GREY} - set(requested))]
    # What does not fit is refused before anything is computed.
    probes = [measure(network, images[:PROBED], labels[:PROBED]) for network in models]
    is_converted = any(converted(network) for network in models)
    random = any(finding.raised for probe in probes for finding in _randomness(probe))
    plans = [
        _plan(network, paired_twin, is_converted=is_converted, random=random, steps=steps, queries=queries)
        for network, paired_twin in zip(models, twins, strict=True)
    ]
    chance = TASKS.build("classification").chance(labels, None)
    evidence = Evidence(
        runs=_of_all(plans, models, images, labels, attacked, seed),
        chance=chance,
        probes=tuple(probes),
        converted=is_converted,
    )
    verdict = judge(evidence)
    if verdict.may_be_the_loss:
        classes = outputs_of(models[0], images[:1]).shape[1]
        # Of two classes the ratio of logits is the cross-entropy's, and nothing else is to be asked.
        verdict = dataclasses.replace(verdict, may_be_the_loss=margins(classes) is not None)
    if verdict.may_be_the_loss:
        plans = [_along_margins(classes, steps, is_converted=is_converted) for _ in models]
        runs = _of_all(plans, models, images, labels, attacked, seed)
        verdict = judge(dataclasses.replace(evidence, runs=(*evidence.runs, *runs)))
    return verdict


class Averaged(nn.Module):
    """The mean of a random classifier's probabilities over draws, as logits: for expectation over transformation.

    log (1/K Σ softmax f_k(x)), K = DRAWS. Source: Athalye, Carlini, Wagner 2018 (1802.00420), section 4.2.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """[n, classes]: log of the mean probabilities."""
        log_probabilities = [outputs_of(self.model, images).log_softmax(dim=1) for _ in range(DRAWS)]
        return torch.stack(log_probabilities).logsumexp(dim=0) - math.log(DRAWS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned:
    """An attack to run: the gradient that its runs are recorded under, and the one that it follows."""

    attack: Attack
    recorded_gradient: str
    gradient: str = "feedback"
    surrogate: nn.Module | None = None


def _plan(
    model: nn.Module, twin: nn.Module | None, *, is_converted: bool, random: bool, steps: int, queries: int
) -> Iterator[_Planned]:
    """The attacks that the checks need on a model."""
    yield _Planned(attack=ATTACKS.build("none"), recorded_gradient="none")
    fgsm, pgd, apgd = (
        ATTACKS.build("fgsm"),
        ATTACKS.build("pgd", steps=steps),
        ATTACKS.build("apgd", steps=max(2, steps)),
    )
    for attack in (fgsm, pgd, apgd):
        for gradient in ("feedback", "exact") if is_converted else ("feedback",):
            yield _Planned(attack=attack, recorded_gradient=gradient, gradient=gradient)
        if twin is not None and attack is not apgd:
            yield _Planned(attack=attack, recorded_gradient="transfer", gradient="transfer", surrogate=twin)
    if twin is None:
        yield _Planned(attack=ATTACKS.build("square", queries=queries), recorded_gradient="none")
    if random:
        yield _Planned(attack=pgd, recorded_gradient="eot", gradient="transfer", surrogate=Averaged(model))


def margins(classes: int) -> Mapping[str, Any] | None:
    """The parameters of APGD on a ratio of logits, which does not depend on their size; None for two classes, of which
    it is the cross-entropy's.
    """
    if classes < 3:
        return None
    return {"loss": "targeted-dlr", "targets": min(9, classes - 1)} if classes > 3 else {"loss": "dlr"}


def _along_margins(classes: int, steps: int, *, is_converted: bool) -> Iterator[_Planned]:
    if (parameters := margins(classes)) is not None:
        attack = ATTACKS.build("apgd", steps=max(2, steps), **parameters)
        for gradient in ("feedback", "exact") if is_converted else ("feedback",):
            yield _Planned(attack=attack, recorded_gradient=gradient, gradient=gradient)


def _of_all(
    plans: Iterable[Iterable[_Planned]],
    models: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    seed: int,
) -> tuple[Run, ...]:
    """The runs of each model's plan, of which a seed stands for each model."""
    by_seed: list[dict[tuple[str, str, float], Run]] = []
    for number, (plan, network) in enumerate(zip(plans, models, strict=True)):
        runs = _runs(plan, network, images, labels, epsilons, seed=seed + number)
        by_seed.append({(run.attack, run.gradient, run.epsilon): run for run in runs})
    return tuple(stacked([runs[key] for runs in by_seed]) for key in by_seed[0])


def _runs(
    plan: Iterable[_Planned], model: nn.Module, images: Tensor, labels: Tensor, epsilons: Sequence[float], *, seed: int
) -> Iterator[Run]:
    for planned in plan:
        attack, surrogate = planned.attack, planned.surrogate
        # At ε ≥ 0.5, where every image can be made grey, attacks without a gradient and EOT add no information.
        fitting = [e for e in epsilons if e < GREY or planned.recorded_gradient not in ("none", "eot")]
        fitting = [0.0] if attack.name == "none" else fitting
        if not fitting:
            continue
        with warnings.catch_warnings():
            # Without a gradient there is a finding that says so.
            warnings.simplefilter("ignore", NoGradientWarning)
            outcome = run_attack(
                attack, model, images, labels, fitting, gradient=planned.gradient, seed=seed, surrogate=surrogate
            )
        yield from as_runs(outcome, attack, planned.recorded_gradient, seed=seed, images=torch.arange(len(images)))


def _randomness(probe: Probe) -> tuple[Finding, Finding]:
    return gradientchecks.random_outputs(probe.unsteady), gradientchecks.random_gradient(probe.repeat)
