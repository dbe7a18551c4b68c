"""The epsilon that a page is about: the chosen one, or the smallest at which little of BP is left.

People write 8/255 as 0.0314, and 0.3 as 0.30.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.members import certifying
from orchestrator.results.query import Query


def at_epsilon(query: Query, lines: Sequence[Line], chosen: str) -> tuple[float, str, str]:
    """The epsilon that a page about `lines` is about, its label, and a problem if the chosen one does not exist.

    Every page whose filter chooses the same lines gets the same one.
    """
    labels = {label: epsilon for label, epsilon in query.index.epsilons(lines).items() if epsilon > 0}
    known = matching(chosen, labels)
    if known is not None:
        return labels[known], known, ""
    epsilon = _halving(query, lines, labels.values())
    label = next((text for text, value in labels.items() if value == epsilon), f"{epsilon:g}")
    wrong = f"No line that the filter chooses has ε = “{chosen[:60]}”: ε = {label} is taken." if chosen else ""
    return epsilon, label, wrong


def halving(query: Query, lines: Sequence[Line]) -> float:
    """The smallest epsilon of `lines` at which some attack on them leaves BP at most half of its images.

    There the strongest attack is strong, and some images are still robust. Where no attack goes so far, the largest
    epsilon; without BP the first rule stands for it. Radii in L2 count only where there are none in L∞. BP is taken
    from all results of the store, under the exact gradient where that was run: the choice does not depend on which
    rules and gradients are shown.
    """
    return _halving(query, lines, [epsilon for epsilon in query.index.epsilons(lines).values() if epsilon > 0])


def _halving(query: Query, lines: Sequence[Line], shown: Collection[float]) -> float:
    index, baseline = query.index, _Baselines.of(query.index, lines)
    rows = np.concatenate([np.zeros(0, int), *(np.arange(line.start, line.stop) for line in baseline)])
    value, epsilon = index.numbers("value", rows), index.epsilon[rows]
    kept = ~np.isnan(value) & np.isin(epsilon, list(shown))
    if query.seeds:
        kept &= np.isin(index.seed[rows], sorted(query.seeds))
    in_linf = kept & (np.array(index.texts("norm", rows)) == "linf") & (epsilon > 0)
    kept = in_linf if in_linf.any() else kept
    value, epsilon, line = value[kept], epsilon[kept], index.line_numbers(rows[kept])
    if not len(value):
        return max(shown, default=0.0)
    first = np.flatnonzero(np.append(True, (line[1:] != line[:-1]) | (epsilon[1:] != epsilon[:-1])))
    score = np.add.reduceat(value, first) / np.diff(np.append(first, len(value)))
    lost = epsilon[first][score <= 0.5]
    return float(lost.min() if len(lost) else epsilon.max())


class _Baselines:
    """For each figure and attack of an index the line that stands for BP, under the gradient that decides."""

    def __init__(self, index: Index) -> None:
        numbers: dict[tuple[str, ...], int] = {}
        #: The figure and attack of each line, as a number.
        self.family = np.array([numbers.setdefault(line.attacked, len(numbers)) for line in index.lines], int)
        baselines: dict[int, tuple[tuple[bool, bool], Line]] = {}
        for line, family in zip(
            index.ordered, self.family[[line.number for line in index.ordered]].tolist(), strict=True
        ):
            rank = (line.rule != "bp", line.gradient != "exact")
            if family not in baselines or rank < baselines[family][0]:
                baselines[family] = rank, line
        self._lines = [baselines[family][1] for family in range(len(baselines))]

    @classmethod
    def of(cls, index: Index, lines: Sequence[Line]) -> list[Line]:
        """The lines that stand for BP in the figures and attacks of `lines`."""
        # Computed once: an index may have 100,000 lines.
        baselines = _KNOWN.get(index) or _KNOWN.setdefault(index, cls(index))
        families = np.unique(baselines.family[[line.number for line in lines]]).tolist()
        of_lines = [baselines._lines[family] for family in families]
        # That no certificate reaches so far does not say that an attack does.
        return [line for line in of_lines if not certifying(line.attack)] or of_lines


_KNOWN: WeakKeyDictionary[Index, _Baselines] = WeakKeyDictionary()


#: Tolerance as a share of the epsilon: the error of 8/255 written with three digits. Where two epsilons of a grid are
#: so close, the nearest is meant.
OFF = 1e-3


def matching(text: str, epsilons: Mapping[str, float]) -> str | None:
    """The label of the epsilon that `text` means, by its words or else by its number; None where there is none."""
    if text in epsilons:
        return text
    value = _number(text)
    if value is None or not epsilons:
        return None
    nearest = min(epsilons, key=lambda label: abs(epsilons[label] - value))
    return nearest if abs(epsilons[nearest] - value) <= OFF * epsilons[nearest] else None


def _number(text: str) -> float | None:
    above, _, below = text.partition("/")
    try:
        value = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None
