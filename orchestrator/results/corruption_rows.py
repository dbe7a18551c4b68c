"""The numbers of a model under corruptions as rows: each set of test images, and means over kinds and severities."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from orchestrator.results.corruptions import CorruptedModel
from signsym_core.statistics.intervals import Interval
from signsym_core.statistics.ratios import Ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionRow:
    """One score, and what compares it with BP."""

    #: "none" for clean images, "" for the mean over kinds.
    kind: str
    #: 0 for clean images, None for the mean over severities.
    severity: int | None
    score: Interval
    #: The key of its cell; "" for a mean.
    cell: str = ""
    #: Minus BP's, and whether that excludes zero after Holm's correction; None but for the mean over everything.
    gap: Interval | None = None
    clear: bool | None = None
    #: Errors over BP's, and the same of errors minus those on clean images: of a kind CE, of the mean mCE.
    ce: Ratio | None = None
    relative: Ratio | None = None


def corruption_rows(model: CorruptedModel) -> Iterator[CorruptionRow]:
    """Clean, each set, each kind over severities, each severity over kinds, and last the mean over everything."""
    beside = model.beside_bp
    if model.clean is not None:
        yield CorruptionRow(kind="none", severity=0, score=model.clean.score, cell=model.clean.cell)
    for (kind, severity), point in model.points.items():
        yield CorruptionRow(kind=kind, severity=severity, score=point.score, cell=point.cell)
    for kind, score in model.by_kind.items():
        yield CorruptionRow(kind=kind, severity=None, score=score, ce=None if beside is None else beside.ce.get(kind))
    for level, score in model.by_severity.items():
        yield CorruptionRow(kind="", severity=level, score=score)
    if model.mean is not None:
        last = CorruptionRow(kind="", severity=None, score=model.mean)
        if beside is not None:
            last = dataclasses.replace(last, ce=beside.mce, relative=beside.relative)
        if beside is not None and model.line.rule != "bp":
            last = dataclasses.replace(last, gap=beside.gap, clear=beside.clear)
        yield last
