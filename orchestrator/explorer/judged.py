"""The audit's verdict on the models of a store, from their outcomes alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from orchestrator.explorer.line import Line
from orchestrator.explorer.query import Query
from orchestrator.explorer.samples import Samples
from signsym_core.evidence import Evidence, Run
from signsym_core.verdict import Verdict, judge


class Judged:
    """Verdicts of models, each found once."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._found: dict[tuple[str, ...], Verdict | None] = {}
        self._lock = threading.Lock()

    def of(self, model: tuple[str, ...]) -> Verdict | None:
        """The verdict on a model (see `Line.model`); None where it has no outcome.

        The checks and the decision are those of `signsym audit`, which also probes the models themselves: without
        that a model that no check calls masked stays undecided.
        """
        with self._lock:
            if model not in self._found:
                lines = self.query.index.models[model]
                runs = tuple(self._runs(lines))
                chance = float(np.nan_to_num(self.query.index.numbers("chance")[lines[0].start]))
                self._found[model] = judge(Evidence(runs=runs, chance=chance)) if runs else None
            return self._found[model]

    def _runs(self, lines: Sequence[Line]) -> Iterator[Run]:
        index = self.query.index
        samples: Samples = self.query.samples(lines)
        places = [(line.number, epsilon) for line in lines for epsilon in self.query.epsilons(line)]
        regular = samples.regular(places)
        steps, sizes = index.numbers("steps"), index.numbers("step_size")
        for (number, epsilon), x in regular.items():
            line = index.lines[number]
            sample = samples.of(line, epsilon)
            assert sample is not None, "what has outcomes has a sample"
            row = int(samples.rows[sample.first])
            yield Run(
                attack=line.attack,
                parameters=line.attack_params,
                gradient=line.gradient,
                epsilon=epsilon,
                norm=str(index.value("norm", row)),
                steps=int(np.nan_to_num(steps[row])),
                step_size=float(np.nan_to_num(sizes[row])),
                seeds=sample.seeds,
                images=samples.images(sample).astype(np.int64),
                outcomes=x.astype(np.float64),
            )
