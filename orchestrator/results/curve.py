"""A curve and its points: every number with its interval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from signsym_core.statistics.intervals import Interval

#: A result with fewer images or seeds is called small.
FEW_IMAGES, FEW_SEEDS = 1000, 3


def few(numbers: Iterable[Interval]) -> bool:
    """Whether one of them rests on too few images or seeds for a firm claim."""
    return any(number.n < FEW_IMAGES or number.seeds < FEW_SEEDS for number in numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A curve at one epsilon."""

    epsilon: float
    label: str
    score: Interval
    #: The score of each seed.
    by_seed: dict[int, float]
    #: Score minus that of BP in the same panel, paired by seed and image; None where BP is absent, or for BP itself.
    over_bp: Interval | None
    #: Score minus that under the exact gradient on the same weights, paired; None where there is none.
    over_exact: Interval | None
    #: Mean over images of the largest change of a pixel, over epsilon.
    reach: float
    #: Key of the cell of the first seed, which identifies the point; of a worst case, that of its strongest run.
    cell: str
    #: The runs that a worst case is over, the strongest first; none for a point of one attack.
    runs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: a rule under one attack with one source of gradient."""

    #: The line's number in its index.
    line: int
    #: Values of FIGURE's columns.
    figure: tuple[str, ...]
    #: Name and parameters of the figure, rule and attack, as people read them.
    title: str
    backbone_label: str
    #: With the settings that `title` has.
    dataset_label: str
    rule: str
    rule_label: str
    attack: str
    attack_label: str
    gradient: str
    task: str
    #: What its values are: "robust accuracy", "mAP@1000".
    score_name: str
    norm: str
    chance: float
    points: tuple[Point, ...]

    def thin(self, point: Point) -> bool:
        """Whether the worst case at a point is over fewer runs than at another ε: it may be higher for that alone."""
        return point.epsilon > 0 and len(point.runs) < self._most

    @functools.cached_property
    def _most(self) -> int:
        """The runs that the worst case at an ε is over, at most."""
        return max((len(point.runs) for point in self.points if point.epsilon > 0), default=0)

    def point(self, epsilon: float) -> Point | None:
        """The point at an epsilon."""
        return next((point for point in self.points if point.epsilon == epsilon), None)
