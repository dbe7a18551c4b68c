"""From the store's outcomes to the evidence on each model, and the verdict on it.

`signsym audit`, the Flags page and the report all use this module, with the checks of `ss.audit`
(`signsym_core.auditing.checks`).
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.judgements import SETTING, Judgement, ModelEvidence, judged_together
from orchestrator.results.line import LINE, Line
from orchestrator.results.members import SPIKING, measuring
from orchestrator.results.query import Query
from orchestrator.results.samples import Samples
from orchestrator.results.test_images import test_images
from signsym_core.auditing.checks import findings_of
from signsym_core.auditing.evidence import NULL, Evidence, Run

#: Rows of one batch of evidence.
AT_ONCE = 5_000
#: The lines of a model, and their rows.
_Rows = tuple[Sequence[Line], NDArray[np.int64]]
#: A run, and its epsilon as the grid wrote it.
_LabelledRun = tuple[Run, str]


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
            for models in self._batches(new):
                for model, judgement in zip(models, self._judgements_of(models), strict=True):
                    self._judged[model.name] = (*self._judged[model.name], judgement)
            return [self._judged[name] for name in names]

    def raised(self, lines: Iterable[Line]) -> list[tuple[int, float, str]]:
        """The checks that are raised on some lines: the line's number, the ε and the check's id, in their order.

        On models without a verdict the checks are made on these lines alone, and nothing is kept: a page of one attack
        shows few lines of many models.
        """
        names: dict[tuple[str, ...], None] = {}
        checked = set[int]()
        for line in lines:
            names[line.model] = None
            checked.add(line.number)
        places: list[tuple[int | None, float | None, str]] = []
        with self._lock:
            judgements = [judgement for name in names for judgement in self._judged.get(name, ())]
            for judgement in judgements:
                for check, known in judgement.findings.items():
                    places += [(one.line, one.epsilon, check) for one in known if one.finding.raised]
            for models in self._batches([name for name in names if name not in self._judged], checked):
                findings = findings_of([model.evidence for model in models])
                for model, by_check in zip(models, findings, strict=True):
                    for check, new in by_check.items():
                        places += [(model.line_of(one.run), one.epsilon, check) for one in new if one.finding.raised]
        return [
            (line, epsilon, check)
            for line, epsilon, check in places
            if line is not None and line in checked and epsilon is not None
        ]

    def judgement(self, model: ModelEvidence) -> Judgement:
        """The verdict on one model by its outcomes, computed once."""
        with self._lock:
            return self._judgements_of([model])[0]

    def _judgements_of(self, models: Sequence[ModelEvidence]) -> list[Judgement]:
        keys = [(model.name, *model.jobs.items()) for model in models]
        new = {key: model for key, model in zip(keys, models, strict=True) if key not in self._judgements}
        self._judgements |= zip(new, judged_together([*new.values()]), strict=True)
        return [self._judgements[key] for key in keys]

    def known(self, names: Iterable[tuple[str, ...]] | None = None) -> Iterator[ModelEvidence]:
        """The evidence on the models of some names, or on all of the store but those of corrupted images alone.

        Attacks that only measure are no evidence: runs with fewer seeds would narrow what the others are compared on.
        """
        for models in self._batches(self._judged_names() if names is None else names):
            yield from models

    def _batches(
        self, names: Iterable[tuple[str, ...]], checked: Container[int] | None = None
    ) -> Iterator[list[ModelEvidence]]:
        """The models of some names; the outcomes of AT_ONCE rows are read together and not kept.

        Findings are made on the lines of the numbers `checked`, by default on all.
        """
        some: list[_Rows] = []
        for name in names:
            lines = [line for line in self.query.index.models[name] if not self._left_out(line)]
            some.append((lines, self.query.rows(lines)))
            if sum(len(rows) for _, rows in some) >= AT_ONCE:
                yield list(self._put_together(some, checked))
                some = []
        yield list(self._put_together(some, checked))

    def _left_out(self, line: Line) -> bool:
        """Whether a line is no evidence: of an attack that only measures, or of an older version of one."""
        return measuring(line.attack) or line.number in self.query.index.outdated

    def _judged_names(self) -> list[tuple[str, ...]]:
        """All models but those that were only scored on corrupted images: they are others, tested again."""
        models = self.query.index.models.items()
        return [
            name
            for name, lines in models
            if not test_images(lines[0].dataset_params).kind or any(line.attack != "none" for line in lines)
        ]

    def _put_together(self, models: Sequence[_Rows], checked: Container[int] | None) -> Iterator[ModelEvidence]:
        rows = np.concatenate([np.zeros(0, int), *(rows for _, rows in models)])
        model = np.repeat(np.arange(len(models)), [len(rows) for _, rows in models])
        version = self._versions(rows, model)
        by_version = []
        for number in range(int(version.max(initial=-1)) + 1):
            chosen = version == number
            ends = np.searchsorted(model[chosen], np.arange(1, len(models)))
            runs = self._runs(Samples(self.query.index, self.query.outcomes, rows[chosen]), checked)
            by_version.append((runs, np.split(rows[chosen], ends)))
        for position, (lines, _) in enumerate(models):
            for runs, rows_by_model in by_version:
                members = [run for line in lines for run in runs.get(line.number, ())]
                if members:
                    yield self._known(lines, members, rows_by_model[position])

    def _versions(self, rows: NDArray[np.int64], model: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each row how many other fine-tunes of its model and seed were finished before."""
        index = self.query.index
        job, seed = index.codes("finetune_job", rows), index.seed[rows]
        order = np.lexsort((job, seed, model))
        same = (np.diff(model[order]) == 0) & (np.diff(seed[order]) == 0)
        if not (same & (np.diff(job[order]) != 0)).any():
            # Each model of each seed was fine-tuned once.
            return np.zeros(len(rows), dtype=np.int64)
        jobs = index.texts("finetune_job", rows)
        places = list(zip(model.tolist(), seed.tolist(), strict=True))
        first: dict[tuple[int, int], dict[str, int]] = {}
        for place, name, row in zip(places, jobs, rows.tolist(), strict=True):
            first.setdefault(place, {}).setdefault(name, row)
        number_of: dict[tuple[tuple[int, int], str], int] = {}
        for place, members in first.items():
            if len(members) > 1:
                # By the time that they were finished: names of files do not tell their order.
                ranked = sorted((str(index.value("finished_at", row)), name) for name, row in members.items())
                number_of |= {(place, name): number for number, (_, name) in enumerate(ranked)}
        return np.array([number_of.get(key, 0) for key in zip(places, jobs, strict=True)], dtype=np.int64)

    def _known(self, lines: Sequence[Line], runs: Sequence[_LabelledRun], rows: NDArray[np.int64]) -> ModelEvidence:
        index = self.query.index
        columns = dict(zip(LINE, lines[0].key, strict=True))
        seeds, first = np.unique(index.seed[rows], return_index=True)
        chance = index.numbers("chance", rows)
        return ModelEvidence(
            setting={name: columns[name] for name in SETTING},
            jobs=dict(zip(seeds.tolist(), index.texts("finetune_job", rows[first]), strict=True)),
            evidence=Evidence(
                runs=tuple(run for run, _ in runs),
                chance=0.0 if np.isnan(chance).all() else float(np.nanmax(chance)),
                # Every other rule has its own backward pass, and spikes a surrogate's.
                autograd=columns["rule"] == "bp" and columns["backbone"] not in SPIKING,
            ),
            # Findings are about radii in L∞, whose labels therefore come last.
            labels={run.epsilon: label for run, label in sorted(runs, key=lambda pair: pair[0].norm == "linf")},
            lines={(line.attack, line.attack_params, line.gradient): line for line in lines},
        )

    def _runs(self, samples: Samples, checked: Container[int] | None) -> dict[int, list[_LabelledRun]]:
        """The runs of each line."""
        index, places, measured = self.query.index, samples.points(), samples.measured()
        rows = samples.rows[[sample.first for sample in places.values()]]
        labels, norms = index.texts("epsilon_label", rows), index.texts("norm", rows)
        steps, sizes = (np.nan_to_num(index.numbers(name, rows)).tolist() for name in ("steps", "step_size"))
        share = index.numbers("nonfinite_grad", samples.rows) / index.numbers("n", samples.rows)
        # Most attacks do not record it.
        unknown = np.isnan(share[[sample.first for sample in places.values()]]).tolist()
        runs: dict[int, list[_LabelledRun]] = {}
        norm_of_line: dict[int, str] = {}
        for place, ((number, epsilon), sample) in enumerate(places.items()):
            norm = norm_of_line.setdefault(number, norms[place])
            if (number, epsilon) not in measured:
                continue
            line, known = index.lines[number], measured[number, epsilon]
            stop = sample.first + len(sample.seeds)
            nonfinite = None if unknown[place] else float(share[sample.first : stop].mean())
            run = Run(
                attack=line.attack,
                parameters=line.attack_params,
                gradient=line.gradient,
                epsilon=epsilon,
                norm=norm,
                steps=int(steps[place]),
                step_size=sizes[place],
                seeds=sample.seeds,
                images=known.images,
                outcomes=known.scores,
                moved=known.moved,
                no_gradient=None if line.attack in NULL else known.zero,
                nonfinite=None if nonfinite is None or np.isnan(nonfinite) else nonfinite,
                checked=checked is None or number in checked,
            )
            runs.setdefault(number, []).append((run, labels[place]))
        return runs
