"""Outcomes of attacks as the runs that checks are made on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from signsym_core.attacks import Attack
from signsym_core.auditing.evidence import Run
from signsym_core.evaluation.outcome import Outcome


def as_runs(outcome: Outcome, attack: Attack, gradient: str, *, seed: int, images: Tensor) -> list[Run]:
    """An attack's outcome on one model as evidence; `images` are the images' numbers in their data set, int64 [n]."""
    numbers = images.numpy()
    no_gradient = None if outcome.zero_gradient is None else outcome.zero_gradient.numpy()[None]
    survivors = outcome.scores > 0
    broken = outcome.nonfinite_gradient
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
            nonfinite=None if broken is None else float((broken[row] > 0).double().mean()),
        )
        for row, epsilon in enumerate(outcome.epsilons)
    ]


def stacked(runs: Sequence[Run]) -> Run:
    """One run of several seeds, from one of each."""
    no_gradient = [run.no_gradient for run in runs if run.no_gradient is not None]
    return dataclasses.replace(
        runs[0],
        seeds=tuple(run.seeds[0] for run in runs),
        outcomes=np.concatenate([run.outcomes for run in runs]),
        moved=np.concatenate([run.moved for run in runs if run.moved is not None]),
        no_gradient=np.concatenate(no_gradient) if no_gradient else None,
        nonfinite=None if runs[0].nonfinite is None else float(np.mean([run.nonfinite or 0.0 for run in runs])),
    )
