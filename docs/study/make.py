"""Writes what docs/study.md and the README say of the study, from its store: `python docs/study/make.py`.

The store is docs/study/store.tar.xz: results, outcomes and records as the sweep wrote them, without weights. Every
table between `<!-- begin: NAME -->` and `<!-- end -->` is written here, and the figures beside them.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator import pages
from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Matrix, Value
from orchestrator.drawing.paper import save
from orchestrator.drawing.screen import Screen
from orchestrator.pages import overview
from orchestrator.pages.context import context_of
from orchestrator.results.live_store import LiveStore

HERE = Path(__file__).resolve().parent
#: The pages that have such tables.
PAGES = (HERE.parents[1] / "README.md", HERE.parent / "study.md")
IMAGES = HERE.parent / "images"
_RADII = ("1/255", "2/255", "4/255", "8/255")
_GRADIENTS = ("feedback", "exact", "transfer")


def store(folder: Path) -> Path:
    """Unpack the study's store into `folder`."""
    with tarfile.open(HERE / "store.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "study-h100"


def tables(data: LiveStore) -> dict[str, str]:
    """Each table as Markdown, by its name."""
    makers: Mapping[str, Callable[[LiveStore], str]] = {
        "verdicts": _verdicts,
        "pgd": _pgd,
        "apgd": _apgd,
        "square": _square,
    }
    return {name: make(data) for name, make in makers.items()}


def written(text: str, by_name: Mapping[str, str]) -> str:
    """A page with its tables written anew."""

    def table(found: re.Match[str]) -> str:
        return f"<!-- begin: {found[1]} -->\n{by_name[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- begin: (\w+) -->\n(?:.*?\n)??<!-- end -->", table, text, flags=re.S)


def _verdicts(data: LiveStore) -> str:
    _, matrix = overview.blocks(context_of(data, ""))
    assert isinstance(matrix, Matrix)
    rows = [[*left, *("; ".join(entry.lines) for entry in entries)] for left, entries in matrix.rows]
    return _markdown(matrix.header, rows)


def _pgd(data: LiveStore) -> str:
    rows = _curves(data, "?a=pgd")
    header = ["rule", "gradient", *(f"ε = {radius}" for radius in _RADII), "seeds × images"]
    lines = []
    for rule in dict.fromkeys(str(row["rule"]) for row in rows):
        # Under BP the three sources are one, and its twin is the model itself.
        for gradient in _GRADIENTS if rule != "BP" else ("exact",):
            at = {row["epsilon"]: row for row in rows if (row["rule"], row["gradient"]) == (rule, gradient)}
            rests = f"{at[_RADII[0]]['seeds']} × {at[_RADII[0]]['images']:,}"
            lines.append([rule, style.gradient(gradient), *(_score(at[radius]) for radius in _RADII), rests])
    return _markdown(header, lines)


def _apgd(data: LiveStore) -> str:
    figure = next(block for block in pages.build(context_of(data, "?p=gap&a=apgd")).blocks if isinstance(block, Figure))
    lines = [
        [str(row[name]) for name in ("rule", "epsilon")]
        + [style.gradient(str(row["gradient"])), _points(row), str(row["clear"]), f"{row['seeds']} × {row['images']}"]
        for row in figure.table.rows
        if row["epsilon"] in _RADII[:2]
    ]
    header = ["rule", "ε", "APGD along", "points over BP", "after Holm", "seeds × images"]
    return _markdown(header, lines)


def _square(data: LiveStore) -> str:
    rows = [row for row in _curves(data, "?a=square,noise") if row["epsilon"] == "2/255"]
    lines = []
    for rule in dict.fromkeys(str(row["rule"]) for row in rows):
        at = {row["attack"]: row for row in rows if row["rule"] == rule}
        lines.append([rule, *(_score(at[name]) for name in ("noise", "square"))])
    return _markdown(["rule", "noise, ε = 2/255", "Square, 500 queries, ε = 2/255"], lines)


def _curves(data: LiveStore, search: str) -> Sequence[Mapping[str, Value]]:
    page = pages.build(context_of(data, search))
    return next(block for block in page.blocks if isinstance(block, Figure)).table.rows


def _score(row: Mapping[str, Value]) -> str:
    value, low, high = (100 * float(row[name] or 0) for name in ("value", "lo", "hi"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _points(row: Mapping[str, Value]) -> str:
    value, low, high = (100 * float(row[name] or 0) for name in ("gap", "lo", "hi"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(data: LiveStore, screen: Screen) -> None:
    first, _ = overview.blocks(context_of(data, ""))
    assert isinstance(first, Figure)
    # For a column of text, half as wide as a page of the report.
    layout = first.figure["layout"]
    larger = {"font": layout["font"] | {"size": 18}, "height": 1.4 * layout["height"]}
    larger["margin"] = layout["margin"] | {"b": 1.5 * layout["margin"]["b"]}
    larger["legend"] = layout["legend"] | {"font": {"size": 19}}
    figure = first.figure | {"layout": layout | larger}
    with tempfile.TemporaryDirectory() as folder:
        for path in screen.save(figure, Path(folder) / "study"):
            if path.suffix == ".svg":
                path.replace(IMAGES / "study.svg")
        search = "?a=pgd&g=feedback,exact,transfer"
        curves = next(block for block in pages.build(context_of(data, search)).blocks if isinstance(block, Figure))
        assert curves.drawing is not None
        for path in save(curves.drawing, Path(folder) / "study-pgd", search):
            if path.name == "study-pgd-6.75in.svg":
                path.replace(IMAGES / "study-pgd.svg")


def main() -> None:
    """Write the tables and the figures."""
    with tempfile.TemporaryDirectory() as folder, Screen() as screen:
        data = LiveStore(str(store(Path(folder))), at_once=True)
        by_name = tables(data)
        for page in PAGES:
            page.write_text(written(page.read_text(encoding="utf-8"), by_name), encoding="utf-8")
        _figures(data, screen)


if __name__ == "__main__":
    main()
