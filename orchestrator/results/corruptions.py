"""Scores under natural corruptions: by kind and severity, their mean beside BP's, and errors relative to BP's.

Legend: X [sets, seeds, images], the outcomes of a model on some sets of test images; a set is a kind c at a severity s.
The error E is 1 minus the score. Source: Hendrycks and Dietterich 2019 (1903.12261), section 4.2, with BP of the same
seed in the place of its AlexNet.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.curve import Point
from orchestrator.results.holm import holm
from orchestrator.results.line import Line
from orchestrator.results.members import rank
from orchestrator.results.pairing import together
from orchestrator.results.query import Query
from orchestrator.results.test_images import on_clean_images, test_images
from signsym_core.statistics.intervals import Interval, gap, interval
from signsym_core.statistics.ratios import Ratio, ratio

#: A kind and a severity.
Set = tuple[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BesideBP:
    """A model's scores under corruptions beside BP's, over the seeds and images that both have."""

    #: Mean score minus BP's, and whether it excludes zero after Holm's correction over the rules of the setting.
    gap: Interval
    clear: bool
    #: The mean over kinds of CE_c = Σ_s E_{c,s} / Σ_s E^BP_{c,s}; None where BP has no error of a kind.
    mce: Ratio | None
    #: The same of errors minus those on clean images; None without a clean score and where BP loses nothing to a kind.
    relative: Ratio | None
    #: CE_c by kind.
    ce: Mapping[str, Ratio]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptedModel:
    """A model without its seed, on every corrupted set of test images that the store has of it."""

    #: Its line on clean images; without one that on the first set, as if it were on clean images.
    line: Line
    clean: Point | None
    #: By kind and severity.
    points: Mapping[Set, Point]
    lines: Mapping[Set, Line]
    #: The mean over severities by kind, over kinds by severity, and over both, of the seeds and images that every set
    #: has: each kind counts once. Empty and None where the sets share none.
    by_kind: Mapping[str, Interval]
    by_severity: Mapping[int, Interval]
    mean: Interval | None
    beside_bp: BesideBP | None
    #: Why it is not compared with BP; "" where it is.
    reason: str = ""
    #: Comparisons that Holm's correction is over.
    family: int = 0

    @property
    def kinds(self) -> list[str]:
        """The kinds that the store has of it, in the order of its sets."""
        return list(dict.fromkeys(kind for kind, _ in self.points))


class Corruptions:
    """The corrupted models of a query, computed setting by setting when they are asked for, and kept.

    Holm's correction is over the rules of a setting that can be compared with BP, whatever is shown.
    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self._models: dict[tuple[str, ...], list[CorruptedModel]] = {}
        self._lock = threading.Lock()

    def of(self, figures: Iterable[tuple[str, ...]]) -> list[CorruptedModel]:
        """The models of some settings, which `Line.figure` names on clean images, in their order."""
        figures = list(dict.fromkeys(figures))
        with self._lock:
            new = [figure for figure in figures if figure not in self._models]
            self._models |= self._computed(new) if new else {}
            return [model for figure in figures for model in self._models[figure]]

    def _computed(self, figures: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], list[CorruptedModel]]:
        clean: dict[tuple[str, ...], Line] = {}
        sets: dict[tuple[str, ...], dict[tuple[str, ...], dict[Set, Line]]] = {figure: {} for figure in figures}
        for line in self.query.index.chosen(clean=True):
            images, on_clean = test_images(line.dataset_params), on_clean_images(line)
            if on_clean.figure in sets and images.kind:
                of_setting = sets[on_clean.figure].setdefault(on_clean.model, {})
                of_setting[images.kind, images.severity] = line
            elif on_clean.figure in sets:
                clean[line.model] = line
        return {
            figure: _compared([_Sets(self.query, clean.get(name), lines) for name, lines in of_setting.items()])
            for figure, of_setting in sets.items()
        }


def _compared(members: Sequence[_Sets]) -> list[CorruptedModel]:
    """The models of one setting."""
    bp = next((member for member in members if member.line.rule == "bp"), None)
    beside = ["there is no BP beside it" if bp is None else member.beside(bp) for member in members]
    family = {
        number: compared.gap
        for number, (member, compared) in enumerate(zip(members, beside, strict=True))
        if isinstance(compared, BesideBP) and member is not bp
    }
    clear = holm(family)
    return [
        member.model(
            dataclasses.replace(compared, clear=number in clear) if isinstance(compared, BesideBP) else compared,
            len(family),
        )
        for number, (member, compared) in enumerate(zip(members, beside, strict=True))
        if member.lines
    ]


def kinds_of(models: Iterable[CorruptedModel]) -> list[str]:
    """The kinds that any of the models was tested on, in the benchmark's order: noise, blur, weather, digital."""
    kinds = {kind for model in models for kind in model.kinds}
    return sorted(kinds, key=lambda kind: rank("corruption", kind))


def _place(entry: tuple[Set, Line]) -> tuple[tuple[int, str], int]:
    (kind, severity), _ = entry
    return rank("corruption", kind), severity


class _Sets:
    """The lines of one model, clean and corrupted, with their outcomes."""

    def __init__(self, query: Query, clean: Line | None, lines: Mapping[Set, Line]) -> None:
        curves = {curve.line: curve for curve in query.curves([*([clean] if clean else []), *lines.values()])}
        self._points = {number: curve.points[0] for number, curve in curves.items()}
        self.lines = {key: line for key, line in sorted(lines.items(), key=_place) if line.number in curves}
        self.clean = clean if clean is not None and clean.number in curves else None
        self.line = clean or on_clean_images(next(iter(lines.values())))
        self.kinds = np.array([kind for kind, _ in self.lines])
        self.severities = np.array([severity for _, severity in self.lines])
        self.cells = [query.cells(line, 0.0) for line in self.lines.values()]
        self.clean_cells = None if self.clean is None else query.cells(self.clean, 0.0)

    def model(self, beside: BesideBP | str, family: int) -> CorruptedModel:
        x = together(self.cells)
        of_kind = {} if x is None else self._means(x)
        mean = np.mean(list(of_kind.values()), axis=0) if of_kind else None
        levels = [] if x is None else sorted(set(self.severities.tolist()))
        return CorruptedModel(
            line=self.line,
            clean=None if self.clean is None else self._points[self.clean.number],
            points={key: self._points[line.number] for key, line in self.lines.items()},
            lines=self.lines,
            by_kind={kind: interval(of_one) for kind, of_one in of_kind.items()},
            by_severity={} if x is None else {s: interval(x[self.severities == s].mean(axis=0)) for s in levels},
            mean=None if mean is None else interval(mean),
            beside_bp=beside if isinstance(beside, BesideBP) else None,
            reason=beside if isinstance(beside, str) else "",
            family=family,
        )

    def beside(self, bp: _Sets) -> BesideBP | str:
        """The comparison with BP, or why there is none."""
        if not self.lines or self.lines.keys() != bp.lines.keys():
            return "it was tested under other corruptions than BP"
        clean = [cells for cells in (self.clean_cells, bp.clean_cells) if cells is not None]
        clean = clean if len(clean) == 2 else []
        x = together([*self.cells, *bp.cells, *clean])
        if x is None:
            return "it has no seed or image in common with BP"
        own, of_bp = (self._means(side) for side in (x[: len(self.cells)], x[len(self.cells) : 2 * len(self.cells)]))
        means = [np.mean(list(side.values()), axis=0) for side in (own, of_bp)]
        errors, bp_errors = (
            {kind: 1 - of_kind.mean(axis=1) for kind, of_kind in side.items()} for side in (own, of_bp)
        )
        lost: list[list[NDArray[np.float64]]] = [
            [error - (1 - on_clean.mean(axis=1)) for error in side.values()]
            for side, on_clean in zip((errors, bp_errors), x[2 * len(self.cells) :], strict=False)
        ]
        return BesideBP(
            gap=gap(*means),
            clear=False,
            mce=ratio(list(errors.values()), list(bp_errors.values())),
            relative=ratio(*lost) if clean else None,
            ce={k: of_kind for k, e in errors.items() if (of_kind := ratio([e], [bp_errors[k]])) is not None},
        )

    def _means(self, x: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The mean over severities [seeds, images] of each kind."""
        return {kind: x[self.kinds == kind].mean(axis=0) for kind in dict.fromkeys(self.kinds.tolist())}
