"""What survives an attack along a model's own backward pass, against the angle of its B to W."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from orchestrator.results.alignment import Alignment, JoinedAlignment
from orchestrator.results.curve import Curve, Point
from orchestrator.results.line import Line
from orchestrator.results.query import Query
from signsym_core.statistics.correlation import rank_correlation

#: Models from which on a rank correlation says anything.
FEW = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survivor:
    """One model under one attack along its own feedback."""

    curve: Curve
    point: Point
    #: The same weights and epsilon under the exact gradient; None where that was not run.
    exact: Point | None
    #: Degrees, in the epoch whose model was attacked: the mean over layers, and over the seeds of the point.
    angle: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnglePanel:
    """The models that one attack was run on, by their angles."""

    title: str
    members: tuple[Survivor, ...]

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation of angle and score along the own feedback."""
        return rank_correlation(
            [member.angle for member in self.members], [member.point.score.value for member in self.members]
        )

    @property
    def exact_correlation(self) -> float:
        """The same of the score under the exact gradient; NaN where a model lacks it."""
        scores = [member.exact.score.value for member in self.members if member.exact is not None]
        if len(scores) < len(self.members):
            return float("nan")
        return rank_correlation([member.angle for member in self.members], scores)


def angle_panels(
    query: Query, lines: Sequence[Line], epsilon: float, alignment: Alignment | JoinedAlignment
) -> list[AnglePanel]:
    """The attacks along the own feedback among `lines`, at an epsilon, that FEW models or more with an angle have.

    A model counts where each seed of its point has an angle.
    """
    along = [line for line in lines if line.gradient == "feedback" and line.attack != "none"]
    jobs = {line.number: _trainings(query, line, epsilon) for line in along}
    angles = alignment.angles({job: epoch for of_line in jobs.values() for job, epoch in of_line.items()})
    by_panel: dict[tuple[str, ...], list[Survivor]] = {}
    for line in along:
        known = [angles[job] for job in jobs[line.number] if job in angles]
        if known and len(known) == len(jobs[line.number]):
            members = by_panel.setdefault(line.panel, [])
            survivor = _survivor(query, line, epsilon, sum(known) / len(known))
            members += [] if survivor is None else [survivor]
    return [
        AnglePanel(title=f"{members[0].curve.title} / {members[0].curve.attack_label}", members=tuple(members))
        for members in by_panel.values()
        if len(members) >= FEW
    ]


def _trainings(query: Query, line: Line, epsilon: float) -> dict[str, int | None]:
    """The fine-tunes of a line's models at an epsilon, with the epochs that these are of; None: the last."""
    rows = np.array([*query.rows_by_seed(line, epsilon).values()], dtype=np.int64)
    epochs = query.index.numbers("finetune_epoch", rows).tolist()
    return {
        job: None if math.isnan(epoch) else int(epoch)
        for job, epoch in zip(query.index.texts("finetune_job", rows), epochs, strict=True)
    }


def _survivor(query: Query, line: Line, epsilon: float, angle: float) -> Survivor | None:
    curve = next(iter(query.curves([line])), None)
    point = None if curve is None else curve.point(epsilon)
    if curve is None or point is None:
        return None
    twin = query.exact(line)
    exact = next((other.point(epsilon) for other in query.curves([] if twin is None else [twin])), None)
    return Survivor(curve=curve, point=point, exact=exact, angle=angle)
