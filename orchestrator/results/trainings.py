"""Fine-tunes over their epochs: loss and validation score, and the alignment of their layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.results.alignment import Alignment, JoinedAlignment
from orchestrator.results.histories import Histories, History, JoinedHistories
from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.test_images import on_clean_images, test_images

#: The columns of alignment that are drawn over epochs.
OF_LAYERS = ("cosine", "angle", "ratio", "feedback_ratio", "sign_agreement")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A fine-tune whose model has a result."""

    job: str
    #: Backbone, data set and settings as titles of figures have them.
    place: str
    rule: str
    rule_label: str
    seed: int
    #: The cell of its clean score, or else another one of its model; the row of that cell in the index.
    cell: str
    row: int
    #: Score 0 .. 1 on clean test images; None where it was not run.
    clean: float | None
    #: Jobs of the other fine-tunes of its model and seed, as those of two settings that no column tells apart.
    twins: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A fine-tune with what is stored of its epochs."""

    model: FineTuned
    history: History
    #: Rows of the table of alignment.
    rows: Sequence[Mapping[str, Any]]

    @property
    def layers(self) -> list[str]:
        """The names of its layers, in the order of the network."""
        return list(dict.fromkeys(str(row["layer"]) for row in self.rows))

    @property
    def epochs(self) -> list[int]:
        """The epochs that anything is stored of, ascending."""
        return sorted({epoch.epoch for epoch in self.history.epochs} | {int(row["epoch"]) for row in self.rows})

    def series(self, quantity: str, layer: str | None = None) -> dict[int, float]:
        """A quantity by epoch: "loss", "validation", or one of OF_LAYERS of a layer or, without one, the mean over
        those layers that have it. Epochs without a finite value are left out.
        """
        if quantity not in OF_LAYERS:
            by_epoch = {epoch.epoch: [getattr(epoch, quantity)] for epoch in self.history.epochs}
        else:
            by_epoch = {}
            for row in self.rows:
                if layer is None or row["layer"] == layer:
                    by_epoch.setdefault(int(row["epoch"]), []).append(row[quantity])
        known = {epoch: [v for v in values if v is not None] for epoch, values in sorted(by_epoch.items())}
        means = {epoch: sum(values) / len(values) for epoch, values in known.items() if values}
        return {epoch: mean for epoch, mean in means.items() if math.isfinite(mean)}


def fine_tuned(index: Index, lines: Iterable[Line], seeds: frozenset[int]) -> list[FineTuned]:
    """The fine-tunes behind the results of `lines`, each once, in the order of figures; of all seeds without `seeds`.

    Of a model whose clean score was run for some seeds those are its fine-tunes. Tested on corrupted images it
    is the same model. Of two fine-tunes of one model and seed there is one, which names the other.
    """
    by_model: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        by_model.setdefault(on_clean_images(line).model, []).append(line)
    found: dict[str, FineTuned] = {}
    for of_model in by_model.values():
        line = next(filter(_has_clean_score, of_model), of_model[0])
        jobs = _jobs_by_seed(index, of_model)
        own, first = np.unique(index.seed[line.start : line.stop], return_index=True)
        for seed, position in zip(own.tolist(), first.tolist(), strict=True):
            if not seeds or seed in seeds:
                one = _fine_tuned(index, line, line.start + position, seed)
                twins = tuple(job for job in jobs[seed] if job != one.job)
                found.setdefault(one.job, dataclasses.replace(one, twins=twins))
    return list(found.values())


def _jobs_by_seed(index: Index, lines: Sequence[Line]) -> dict[int, list[str]]:
    """The fine-tunes of each seed behind some lines of one model."""
    rows = np.concatenate([np.arange(line.start, line.stop) for line in lines])
    seed, job = index.seed[rows], index.codes("finetune_job", rows)
    _, first = np.unique(seed * (job.max(initial=0) + 1) + job, return_index=True)
    by_seed: dict[int, list[str]] = {}
    for of_seed, name in zip(seed[first].tolist(), index.texts("finetune_job", rows[first]), strict=True):
        by_seed.setdefault(of_seed, []).append(name)
    return by_seed


def _has_clean_score(line: Line) -> bool:
    return line.attack == "none" and not test_images(line.dataset_params).kind


def _fine_tuned(index: Index, line: Line, row: int, seed: int) -> FineTuned:
    return FineTuned(
        job=str(index.value("finetune_job", row)),
        place=index.labels.title(on_clean_images(line)),
        rule=line.rule,
        rule_label=index.labels.of(line, "rule"),
        seed=seed,
        cell=str(index.value("cell", row)),
        row=row,
        clean=float(index.numbers("value", [row])[0]) if _has_clean_score(line) else None,
    )


def trainings_of(
    models: Sequence[FineTuned], histories: Histories | JoinedHistories, alignment: Alignment | JoinedAlignment
) -> list[Training]:
    """The fine-tunes with what is stored of their epochs; those of which nothing is are left out."""
    jobs = [model.job for model in models]
    known, rows = histories.of(jobs), alignment.by_training(jobs)
    every = [
        Training(model=model, history=known.get(model.job, History()), rows=rows.get(model.job, [])) for model in models
    ]
    return [training for training in every if training.epochs]
