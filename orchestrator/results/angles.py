"""What survives an attack along a model's own backward pass, against the angle of its B to W."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from orchestrator.results.curve import Curve, Point
from orchestrator.results.line import Line
from orchestrator.results.query import Query
from signsym_core.stats import rank_correlation

#: Models from which on a rank correlation says anything.
FEW = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survivor:
    """One model under one attack along its own feedback."""

    curve: Curve
    point: Point
    #: The same weights and epsilon under the exact gradient; None where that was not run.
    exact: Point | None
    #: Degrees, of the last epoch: the mean over layers, and over the seeds of the point.
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


def angle_panels(query: Query, lines: Sequence[Line], epsilon: float, angles: Mapping[str, float]) -> list[AnglePanel]:
    """The attacks along the own feedback among `lines`, at an epsilon, that FEW models or more with an angle have.

    `angles` are those of trainings, by key. A model counts where each seed of its point has one.
    """
    by_panel: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        if line.gradient == "feedback" and line.attack != "none":
            by_panel.setdefault(line.panel, []).append(line)
    panels = []
    for panel_lines in by_panel.values():
        members = [member for line in panel_lines if (member := _survivor(query, line, epsilon, angles)) is not None]
        if len(members) >= FEW:
            curve = members[0].curve
            panels.append(AnglePanel(title=f"{curve.title} / {curve.attack_label}", members=tuple(members)))
    return panels


def _survivor(query: Query, line: Line, epsilon: float, angles: Mapping[str, float]) -> Survivor | None:
    rows = query.rows_by_seed(line, epsilon)
    of_seeds = [angles.get(str(query.index.value("finetune_job", row))) for row in rows.values()]
    known = [angle for angle in of_seeds if angle is not None]
    if not known or len(known) < len(of_seeds):
        return None
    curve = next(iter(query.curves([line])), None)
    point = None if curve is None else curve.point(epsilon)
    if curve is None or point is None:
        return None
    twin = query.exact(line)
    exact = next((other.point(epsilon) for other in query.curves([] if twin is None else [twin])), None)
    return Survivor(curve=curve, point=point, exact=exact, angle=sum(known) / len(known))
