"""How much of what all attacks on a model break together one of them breaks alone: its optimality.

Legend: X [seeds, images], the outcomes of a run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np

from orchestrator.results.evidence import Models
from orchestrator.results.line import Line
from signsym_core.auditing.evidence import Run, paired
from signsym_core.auditing.masking import GREY


def optimality(runs: Sequence[Run], all_runs: Sequence[Run]) -> float | None:
    """1 - (A - A*) / (X̄(0) ε_max - A*), 1 where no image falls to another run of the model that does not fall to these.

    `runs` are those of one attack at its ε, `all_runs` those of its model. A is the area under the attack's score X̄(ε)
    from 0 to its largest ε, by the trapezoidal rule; A* that under the worst case over all runs at the same ε, over the
    seeds and images that all of them have. Both begin at ε = 0 with the clean score. An L∞ attack is judged below 0.5,
    from where on every image can be made grey. None without a clean score, without an ε, where the runs share no seed
    or image, and where nothing breaks any image. Source: the local optimality of Cinà et al. 2025 (AttackBench, AAAI),
    which has each image's smallest perturbation where this has the ε of a grid.
    """
    by_epsilon = {run.epsilon: run for run in runs if run.epsilon > 0 and (run.norm != "linf" or run.epsilon < GREY)}
    if not by_epsilon:
        return None
    norm = next(iter(by_epsilon.values())).norm
    at = {
        epsilon: [run for run in all_runs if run.epsilon == epsilon and run.norm == norm]
        for epsilon in sorted(by_epsilon)
    }
    at = {0.0: [run for run in all_runs if run.epsilon == 0]} | at
    everything = [run for of_epsilon in at.values() for run in of_epsilon]
    shared = paired(*everything) if at[0.0] else None
    if shared is None:
        return None
    outcomes = iter(shared)
    score, lowest = [], []
    for epsilon, of_epsilon in at.items():
        x = {id(run): next(outcomes) for run in of_epsilon}
        worst = np.minimum.reduce(list(x.values()))
        lowest.append(float(worst.mean(dtype=np.float64)))
        score.append(float(x[id(by_epsilon[epsilon])].mean(dtype=np.float64)) if epsilon > 0 else lowest[0])
    area, best = (float(np.trapezoid(curve, list(at))) for curve in (score, lowest))
    most = lowest[0] * max(by_epsilon) - best
    return 1 - (area - best) / most if most > 0 else None


class Optimalities:
    """The optimality of attacks by line, computed when it is asked for, and kept."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._known: dict[int, float | None] = {}
        self._lock = threading.Lock()

    def of(self, lines: Iterable[Line]) -> list[float | None]:
        """The optimality of each line's attack; None where it has none, and where a seed was fine-tuned twice."""
        lines = list(lines)
        with self._lock:
            new = {line.number: line for line in lines if line.number not in self._known}
            self._known |= dict.fromkeys(new)
            by_name = dict.fromkeys(line.model for line in new.values())
            models = list(self.models.known(by_name))
            names = [model.name for model in models]
            for model in models:
                if names.count(model.name) > 1:
                    continue
                runs = model.evidence.runs
                for (attack, parameters, gradient), line in model.lines.items():
                    if line.number in new:
                        of_line = [
                            r for r in runs if (r.attack, r.parameters, r.gradient) == (attack, parameters, gradient)
                        ]
                        self._known[line.number] = optimality(of_line, runs)
            return [self._known[line.number] for line in lines]
