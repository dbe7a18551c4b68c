"""Positions of epsilons in a figure: ordinal, linear or logarithmic, with an axis for each norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.drawing import style
from orchestrator.results.curve import Curve

#: Letters of tick labels that fit into a panel, where a row has one, two or more panels.
NAMES = (96, 48, 32)
#: Half the length of a seed's dash, as a share of the axis.
DASH = 0.012
#: Smallest distance of two labelled ticks, as a share of the axis.
NEAR = 0.09


class Axis:
    """Positions of epsilons. Ordinal: one step apart, since a grid from 0.001 to 0.5 piles up at the left otherwise."""

    def __init__(self, curves: Sequence[Curve], scale: str) -> None:
        points = [point for curve in curves for point in curve.points]
        self.scale = scale
        self.labels = {p.epsilon: style.epsilon(p) for p in sorted(points, key=lambda p: p.epsilon)}
        self.norms = " / ".join(dict.fromkeys(style.norm(curve.norm) for curve in curves))
        attacked = [epsilon for epsilon in self.labels if epsilon > 0]
        # Integers: a page has thousands of them, and "3" is half as long as "3.0".
        self._ranks = {epsilon: rank for rank, epsilon in enumerate(self.labels)}
        # On a logarithmic axis the clean image is at a third of the smallest epsilon.
        self._clean = min(attacked, default=1.0) / 3 if scale == "log" else 0.0

    def position(self, epsilon: float) -> float:
        """The position of an epsilon; between those of the figure it is interpolated."""
        if self.scale == "ordinal":
            if epsilon in self._ranks:
                return self._ranks[epsilon]
            return float(np.interp(epsilon, list(self.labels), range(len(self.labels))))
        return epsilon if epsilon > 0 else self._clean

    def around(self, epsilon: float) -> tuple[float, float]:
        """A little to the left and to the right of an epsilon, the same length on every scale."""
        position = self.position(epsilon)
        if self.scale == "log":
            wide = float(np.exp(DASH * np.log(max(self.labels, default=1.0) / self._clean)))
            return _short(position / wide), _short(position * wide)
        reach = len(self.labels) - 1 if self.scale == "ordinal" else max(self.labels, default=1.0)
        return _short(position - DASH * (reach or 1)), _short(position + DASH * (reach or 1))

    def within(self, epsilon: float) -> bool:
        """Whether an epsilon lies within those of the figure."""
        return bool(self.labels) and min(self.labels) < epsilon <= max(self.labels)

    def dressed(self, titled: bool, columns: int) -> dict[str, Any]:
        """The axis of a panel, one of `columns` in a row, as plotly writes it: ticks and, with `titled`, the title."""
        ticks = {self.position(value): style.escape(text) for value, text in self.labels.items()}
        # Explicit: an automatic range would replace the one that was zoomed to when new results come.
        ends = self._range(list(ticks))
        texts = self._thinned(ticks, ends[1] - ends[0])
        axis: dict[str, Any] = {"tickvals": list(ticks), "ticktext": texts, "range": ends}
        # Rotated in all panels or in none: where the browser decides panel by panel, labels overlap.
        room = NAMES[min(columns, len(NAMES)) - 1]
        axis["tickangle"] = -45 if sum(len(text) + 1 for text in texts) > room else 0
        if self.scale == "log":
            axis["type"] = "log"
        if titled and self.labels:
            axis["title"] = {"text": f"ε ({self.norms}, [0, 1] pixels)", "standoff": 8}
        return axis

    def _thinned(self, ticks: Mapping[float, str], width: float) -> list[str]:
        """The labels of ticks, empty where a tick is too near to the labelled one before it."""
        if self.scale == "ordinal":
            return list(ticks.values())
        shown, last = [], -np.inf
        for tick, text in ticks.items():
            position = float(np.log10(tick)) if self.scale == "log" else tick
            near = position - last < NEAR * width
            shown.append("" if near else text)
            last = last if near else position
        return shown

    def _range(self, ticks: list[float]) -> list[float]:
        """From the first to the last tick with some room, on a logarithmic axis in exponents."""
        ends = [ticks[0], ticks[-1]] if ticks else [0.0, 1.0]
        if self.scale == "log":
            ends = [float(np.log10(end)) for end in ends]
        room = 0.06 * (ends[1] - ends[0]) or 0.5
        return [ends[0] - room, ends[1] + room]


def _short(value: float) -> float:
    """Rounded to four digits, an error below a pixel."""
    return float(f"{value:.4g}")


class Axes:
    """An axis for each norm, shared by its panels: a radius of one norm says nothing in another."""

    def __init__(self, curves: Sequence[Curve], scale: str) -> None:
        norms = list(dict.fromkeys(curve.norm for curve in curves))
        self._axes = {norm: Axis([curve for curve in curves if curve.norm == norm], scale) for norm in norms}
        self._all, self._empty = Axis(curves, scale), Axis([], scale)

    @property
    def several(self) -> bool:
        """Whether there is more than one norm."""
        return len(self._axes) > 1

    def of(self, curves: Sequence[Curve]) -> Axis:
        """The axis of a panel with these curves. Clean curves fit any norm and use that of the others."""
        norms = {curve.norm for curve in curves if any(point.epsilon > 0 for point in curve.points)}
        if not curves and self.several:
            return self._empty
        return self._axes[norms.pop()] if len(norms) == 1 else self._all
