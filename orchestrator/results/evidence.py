"""From the store's outcomes to the evidence on each model, and the verdict on it.

`signsym audit`, the Flags page and the report all use this module, with the checks of `ss.audit`
(`signsym_core.auditing.checks`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.judgements import SETTING, Judgement, ModelEvidence
from orchestrator.results.line import LINE, Line
from orchestrator.results.query import Query
from orchestrator.results.samples import Sample, Samples
from signsym_core.auditing.evidence import NULL, Evidence, Run

#: Rows of one batch of evidence.
AT_ONCE = 5_000


class Models:
    """The evidence on the models of a query, and the verdicts on them.

    A model is named by `Line.model`. Two fine-tunes of one setting and seed, such as those of two versions of this
    program, are two models of that name.
    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self._judged: dict[tuple[str, ...], tuple[Judgement, ...]] = {}
        self._judgements: dict[tuple[object, ...], Judgement] = {}
        self._lock = threading.RLock()

    def judged(self, names: Iterable[tuple[str, ...]]) -> list[tuple[Judgement, ...]]:
        """The verdicts on the models of each name, computed once; empty where they have no outcome."""
        names = list(names)
        with self._lock:
            new = dict.fromkeys(name for name in names if name not in self._judged)
            self._judged |= dict.fromkeys(new, ())
            for model in self.known(new):
                self._judged[model.name] = (*self._judged[model.name], self.judgement(model))
            return [self._judged[name] for name in names]

    def judgement(self, model: ModelEvidence) -> Judgement:
        """The verdict on one model by its outcomes, computed once."""
        key = (model.name, *model.jobs.items())
        with self._lock:
            if key not in self._judgements:
                self._judgements[key] = model.judged()
            return self._judgements[key]

    def known(self, names: Iterable[tuple[str, ...]] | None = None) -> Iterator[ModelEvidence]:
        """The evidence on the models of some names, or on all of the store, in their order.

        The outcomes of AT_ONCE rows are read together and not kept.
        """
        some: dict[tuple[str, ...], list[Line]] = {}
        size = 0
        for name in self.query.index.models if names is None else names:
            some[name] = self.query.index.models[name]
            size += sum(line.stop - line.start for line in some[name])
            if size >= AT_ONCE:
                yield from self._put_together(some)
                some, size = {}, 0
        yield from self._put_together(some)

    def _put_together(self, models: Mapping[tuple[str, ...], Sequence[Line]]) -> Iterator[ModelEvidence]:
        rows = self.query.rows(line for lines in models.values() for line in lines)
        jobs = np.array(self.query.index.texts("finetune_job", rows), dtype=object)
        version = self._versions(rows, jobs)
        by_version = []
        for number in range(int(version.max(initial=-1)) + 1):
            chosen = version == number
            samples = Samples(self.query.index, self.query.outcomes, rows[chosen])
            by_version.append(
                (self._runs(samples), dict(zip(rows[chosen].tolist(), jobs[chosen].tolist(), strict=True)))
            )
        for lines in models.values():
            for runs, by_row in by_version:
                members = [run for line in lines for run in runs.get(line.number, ())]
                if members:
                    yield self._known(lines, members, by_row)

    def _versions(self, rows: NDArray[np.int64], jobs: NDArray[np.object_]) -> NDArray[np.int64]:
        """For each row how many other fine-tunes of its model and seed were finished before."""
        index = self.query.index
        number = index.line_numbers(rows)
        names: dict[tuple[str, ...], int] = {}
        models = {line: names.setdefault(index.lines[line].model, len(names)) for line in np.unique(number).tolist()}
        places = [(models[line], seed) for line, seed in zip(number.tolist(), index.seed[rows].tolist(), strict=True)]
        first: dict[tuple[int, int], dict[str, int]] = {}
        for place, job, row in zip(places, jobs.tolist(), rows.tolist(), strict=True):
            first.setdefault(place, {}).setdefault(job, row)
        order: dict[tuple[tuple[int, int], str], int] = {}
        for place, members in first.items():
            if len(members) > 1:
                # By the time that they were finished: names of files do not tell their order.
                ranked = sorted((str(index.value("finished_at", row)), job) for job, row in members.items())
                order |= {(place, job): number for number, (_, job) in enumerate(ranked)}
        return np.array([order.get(key, 0) for key in zip(places, jobs.tolist(), strict=True)], dtype=np.int64)

    def _known(self, lines: Sequence[Line], runs: Sequence[tuple[Run, int]], jobs: Mapping[int, str]) -> ModelEvidence:
        index = self.query.index
        columns = dict(zip(LINE, lines[0].key, strict=True))
        rows = [row for line in lines for row in line.rows if row in jobs]
        chance = index.numbers("chance")[rows]
        return ModelEvidence(
            setting={name: columns[name] for name in SETTING},
            jobs=dict(sorted({int(index.seed[row]): jobs[row] for row in reversed(rows)}.items())),
            evidence=Evidence(
                runs=tuple(run for run, _ in runs),
                chance=0.0 if np.isnan(chance).all() else float(np.nanmax(chance)),
                # Every other rule has its own backward pass.
                autograd=columns["rule"] == "bp",
            ),
            labels={run.epsilon: str(index.value("epsilon_label", row)) for run, row in runs},
            lines={(line.attack, line.attack_params, line.gradient): line for line in lines},
        )

    def _runs(self, samples: Samples) -> dict[int, list[tuple[Run, int]]]:
        """The runs of each line with their first row."""
        index = self.query.index
        places = samples.points()
        regular = samples.regular(list(places))
        steps, sizes = (np.nan_to_num(index.numbers(name)) for name in ("steps", "step_size"))
        broken, n = index.numbers("nonfinite_grad"), index.numbers("n")
        runs: dict[int, list[tuple[Run, int]]] = {}
        norms: dict[int, str] = {}
        for (number, epsilon), sample in places.items():
            x: NDArray[Any] | None
            if (number, epsilon) in regular:
                images, x = samples.images(sample), regular[number, epsilon]
            elif (shared := samples.shared(sample)) is not None:
                images, x = shared
            else:
                continue
            rows = samples.rows[sample.first : sample.first + len(sample.seeds)]
            row, nonfinite = int(rows[0]), float((broken[rows] / n[rows]).mean())
            line = index.lines[number]
            run = Run(
                attack=line.attack,
                parameters=line.attack_params,
                gradient=line.gradient,
                epsilon=epsilon,
                norm=norms.setdefault(number, str(index.value("norm", row))),
                steps=int(steps[row]),
                step_size=float(sizes[row]),
                seeds=sample.seeds,
                images=images,
                outcomes=x,
                moved=_moved(samples, sample, x),
                no_gradient=None if line.attack in NULL else samples.zero(sample),
                nonfinite=None if np.isnan(nonfinite) else nonfinite,
            )
            runs.setdefault(number, []).append((run, row))
        return runs


def _moved(samples: Samples, sample: Sample, x: NDArray[Any]) -> NDArray[np.float64] | None:
    """The mean change of each seed's robust images; None where it is unknown for a seed that has any."""
    moved = samples.moved(sample)
    return None if (np.isnan(moved) & (x > 0).any(axis=1)).any() else moved
