"""The full plans of grid files, without torch in this process where it has none."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.gridfile.stored import grid_names, stored_text
from orchestrator.jobs.job import Job
from orchestrator.plan import written
from orchestrator.plan.full import FullPlan
from orchestrator.plan.remembered import Content, Request, remembering
from orchestrator.store.reasons import reason_of
from orchestrator.store.store import Store


class GridText(NamedTuple):
    """The text of a grid file, the file that errors name, and the settings KEY=VALUE that replace values."""

    text: str
    source: str
    sets: tuple[str, ...] = ()


@contextlib.contextmanager
def planning(grids: Sequence[GridText]) -> Iterator[Callable[[], list[FullPlan | ValueError | OSError]]]:
    """Yields what waits for the full plan of each grid, or for the error that it has; another process may be at it."""
    if "torch" in sys.modules:
        # This process may have members of the user's, and needs no other one.
        yield lambda: [_plan_or_error(grid) for grid in grids]
        return
    requests = [Request(plan_as_bytes, (grid.text, list(grid.sets)), grid.source) for grid in grids]
    with remembering(requests) as results:
        yield lambda: [written.read(result) if isinstance(result, bytes) else result for result in results()]


@contextlib.contextmanager
def planning_one(grid: GridText) -> Iterator[Callable[[], FullPlan]]:
    """`planning` of one grid. What it yields raises GridError, PlanError and ExtensionError."""
    with planning([grid]) as plans:

        def plan() -> FullPlan:
            (result,) = plans()
            if isinstance(result, Exception):
                raise result
            return result

        yield plan


@contextlib.contextmanager
def planning_stored(store: Store) -> Iterator[Callable[[], dict[str, FullPlan]]]:
    """`planning` of the grids that sweeps keep in a store, by their names.

    One that cannot be read, such as that of another version of signsym, is named in `store.skipped`.
    """
    grids = {}
    for name in grid_names(store):
        try:
            text, sets = stored_text(store, name)
            grids[name] = GridText(text, f"{name}.yaml", sets)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            store.skipped[f"grids/{name}.yaml"] = reason_of(error)
    with planning([*grids.values()]) as plans_of_grids:

        def plans() -> dict[str, FullPlan]:
            readable = {}
            for name, full in zip(grids, plans_of_grids(), strict=True):
                if isinstance(full, FullPlan):
                    readable[name] = full
                else:
                    store.skipped[f"grids/{name}.yaml"] = reason_of(full)
            return readable

        yield plans


def plan_as_bytes(text: str, sets: Sequence[str], source: str) -> Content:
    """The full plan of a grid as bytes; one is not kept whose keys hold the digest of a weights file."""
    plan = _plan(GridText(text, source, tuple(sets)))
    return Content(written.written(plan), kept=not names_weights_files(plan.jobs))


def names_weights_files(jobs: Mapping[str, Job]) -> bool:
    """Whether keys of a plan hold the digest of a weights file, which may be another one the next time."""
    weights = [job.spec["weights"] for job in jobs.values() if job.spec.get("weights")]
    return any("file" in start for start in weights)


def _plan_or_error(grid: GridText) -> FullPlan | ValueError | OSError:
    try:
        return _plan(grid)
    except (ValueError, OSError) as error:
        return error


def _plan(grid: GridText) -> FullPlan:
    from orchestrator.gridfile.grid import grid_of
    from orchestrator.plan.compile import compile_full

    return compile_full(grid_of(grid.text, Path(grid.source), grid.sets))
