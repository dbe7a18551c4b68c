"""The worst case over attacks: an image is robust where it is robust under every run on its model.

Legend: X [seeds, images], the outcomes of a run: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.jobs.surrogates import TRANSFER, names_surrogate, transfers
from signsym_core.auditing.evidence import Run, paired


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The lowest outcome of each image under some runs on one model."""

    #: The runs, that with the lowest score on these seeds and images first.
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    #: [seeds, images].
    outcomes: NDArray[Any]


def worst_case(runs: Sequence[Run]) -> WorstCase | None:
    """W[s, i] = min over runs r of X_r[s, i], over the seeds s and images i that every run has.

    None where they have none in common, or where there is no run. For retrieval it is the lowest average precision of
    each query. The runs are of one model, at one ε of one norm. Source: the worst case of Croce and Hein 2020
    (2003.01690), section 6.
    """
    shared = paired(*runs) if runs else None
    if shared is None:
        return None
    scores = [
        run.score if x is run.outcomes else float(x.mean(dtype=np.float64)) for run, x in zip(runs, shared, strict=True)
    ]
    order = np.argsort(scores, kind="stable")
    return WorstCase(
        runs=tuple(runs[position] for position in order.tolist()),
        seeds=tuple(sorted(set.intersection(*(set(run.seeds) for run in runs)))),
        outcomes=np.minimum.reduce(shared),
    )


def paired_worst_cases(runs: Sequence[Run], bp: Sequence[Run]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The worst cases of a model and of BP, over the seeds and images that every run on either has.

    None where they share none, and where one side has no run. Whether both were attacked alike says `unmatched`.
    """
    shared = paired(*runs, *bp) if runs and bp else None
    if shared is None:
        return None
    return np.minimum.reduce(shared[: len(runs)]), np.minimum.reduce(shared[len(runs) :])


def unmatched(runs: Sequence[Run], bp: Sequence[Run]) -> list[Run]:
    """The runs of one side that the other has no counterpart of: a gap would compare attacks, not rules.

    For BP every source of gradient is the gradient: its run of an attack, with whatever source, is the counterpart of
    the model's run of that attack along any, and the model's along the exact gradient is that of each of BP's. A named
    surrogate is another model than both, or one of the two, and weaker against the other: its counterpart is the run of
    the same surrogate alone. A transfer from the BP twin to BP itself is a white box, so that it is no counterpart of
    the model's where the attack was run on the model in no other way. Runs at ε = 0 need none, whatever attack they are
    of: nothing is changed there.
    """
    of_model, of_bp = {_name(run) for run in runs}, {_name(run) for run in bp}
    along = {(run.attack, run.parameters) for run in bp if not names_surrogate(run.gradient)}
    own = {(run.attack, run.parameters) for run in runs if not transfers(run.gradient)}
    alone = {_name(run) for run in runs if run.gradient == TRANSFER and (run.attack, run.parameters) not in own}
    lacking = [
        *(
            run
            for run in runs
            if _name(run) in alone or not _matched(run, of_bp, (run.attack, run.parameters) in along)
        ),
        *(run for run in bp if not _matched(run, of_model, _exact(run) in of_model)),
    ]
    return [run for run in lacking if run.epsilon > 0]


def _matched(run: Run, other: Set[tuple[str, str, str]], otherwise: bool) -> bool:
    """Whether the `other` side has the same run, or, where its surrogate is not named, what stands for it otherwise."""
    return _name(run) in other or (otherwise and not names_surrogate(run.gradient))


def _exact(run: Run) -> tuple[str, str, str]:
    return run.attack, run.parameters, "exact"


def _name(run: Run) -> tuple[str, str, str]:
    return run.attack, run.parameters, run.gradient
