"""Certified accuracy where no image can be certified: 0 % whatever the model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestrator.results.curve import Curve
from orchestrator.results.index import Index
from orchestrator.results.members import certifying, default
from signsym_core.statistics.certified import beyond, farthest


def out_of_reach(index: Index, curves: Sequence[Curve], epsilon: float | None = None) -> list[str]:
    """What pages say of points of curves, all or those at one ε, that samples keep at 0: a sentence for each attack."""
    sentences: dict[str, None] = {}
    for curve in curves:
        if not certifying(curve.attack):
            continue
        parameters = json.loads(index.lines[curve.line].attack_params)
        draws = [parameters.get(name, default(curve.attack, name)) for name in ("samples", "sigma", "alpha")]
        if None in draws:
            # Another's, with parameters of its own.
            continue
        points = (point for point in curve.points if point.epsilon > 0 and epsilon in (None, point.epsilon))
        labels = [point.label for point in points if point.epsilon >= farthest(*draws)]
        if labels:
            where = ", ".join(labels)
            sentences[f"{curve.attack_label}: {beyond(*draws)}: its 0 % at {where} says nothing of the models."] = None
    return [*sentences]
