"""The full plans of grid files, without torch in this process where it has none."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.plan import written
from orchestrator.plan.full import FullPlan
from orchestrator.plan.remembered import Content, Request, remembered


class GridText(NamedTuple):
    """The text of a grid file, the file that errors name, and the settings KEY=VALUE that replace values."""

    text: str
    source: str
    sets: tuple[str, ...] = ()


def full_plan(grid: GridText) -> FullPlan:
    """The full plan of a grid. Raises GridError, PlanError and ExtensionError."""
    (plan,) = full_plans([grid])
    if isinstance(plan, Exception):
        raise plan
    return plan


def full_plans(grids: Sequence[GridText]) -> list[FullPlan | ValueError | OSError]:
    """The full plan of each grid, or the error that it has."""
    if "torch" in sys.modules:
        # This process may have members of the user's, and needs no other one.
        return [_plan_or_error(grid) for grid in grids]
    results = remembered([Request(plan_as_bytes, (grid.text, list(grid.sets)), grid.source) for grid in grids])
    return [written.read(result) if isinstance(result, bytes) else result for result in results]


def plan_as_bytes(text: str, sets: Sequence[str], source: str) -> Content:
    """The full plan of a grid as bytes; one is not kept whose keys hold the digest of a weights file."""
    plan = _plan(GridText(text, source, tuple(sets)))
    weights = [job.spec["weights"] for job in plan.jobs.values() if job.spec.get("weights")]
    return Content(written.written(plan), kept=not any("file" in start for start in weights))


def _plan_or_error(grid: GridText) -> FullPlan | ValueError | OSError:
    try:
        return _plan(grid)
    except (ValueError, OSError) as error:
        return error


def _plan(grid: GridText) -> FullPlan:
    from orchestrator.gridfile.grid import grid_of
    from orchestrator.plan.compile import compile_full

    return compile_full(grid_of(grid.text, Path(grid.source), grid.sets))
