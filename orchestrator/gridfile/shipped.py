"""The shipped grids, and the file of a grid that the command line names."""

from __future__ import annotations

import itertools
from pathlib import Path

from orchestrator.gridfile.nodes import GridError
from signsym_core.registry import unknown

_PACKAGE = Path(__file__).resolve().parents[1]
#: The repository's folder of grids: a link in a checkout, a copy in an installed package.
_SHIPPED = _PACKAGE / "grids"


def shipped_grids() -> dict[str, Path]:
    """The file of each shipped grid by its name, in the order of the names."""
    return dict(sorted((path.stem, path) for path in _SHIPPED.resolve().glob("*.yaml")))


def grid_path(grid: str) -> Path:
    """The file that the command line calls `grid`: a path, or the name of a shipped grid.

    A path that does not exist is also searched beside the packages, where the head of a cluster has the repository: a
    submitted sweep starts in the head's home. Raises GridError for a bare name that is no shipped grid's.
    """
    path = Path(grid)
    if path.is_file():
        return path
    if (mounted := _PACKAGE.parent / path).is_file():
        return mounted
    shipped = shipped_grids()
    if grid in (path.stem, path.name, f"grids/{path.name}") and path.stem in shipped:
        return shipped[path.stem]
    if grid == path.stem and not path.is_dir():
        raise GridError(f"expected a grid file or the name of a shipped grid: {unknown('grid', grid, list(shipped))}")
    return path


def first_sentence(path: Path) -> str:
    """The first sentence of the comment at the beginning of a shipped grid."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    comment = " ".join(line.removeprefix("# ") for line in lines if "yaml-language-server" not in line)
    return comment.partition(". ")[0].removesuffix(".")
