"""`signsym figure`: one view of the explorer as a file for a paper."""

from __future__ import annotations

import argparse
import shlex

from plotly.io import to_html
from rich.console import Console

from orchestrator import pages
from orchestrator.commands.progress import Lines
from orchestrator.drawing import paper, style
from orchestrator.drawing.blocks import Figure, Matrix, Page
from orchestrator.drawing.latex import latex
from orchestrator.pages.context import context_of, settled
from orchestrator.results.live_stores import opened
from orchestrator.results.view import parse_view
from orchestrator.store.files import write_file
from orchestrator.store.store import open_store

_IMAGES = ("pdf", "svg", "png")


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write the figure or the tables of a view, whole or not at all, and print the problems of its page.

    Raises ValueError for another suffix, for a view that has nothing of this kind, and for an address with a filter
    that would be ignored or an ε or part that is not there: the file would show something else than the address says.
    """
    kind = parsed.out.suffix.removeprefix(".")
    if kind not in (*_IMAGES, "tex", "html"):
        raise ValueError(f"--out: expected a file that ends with .pdf, .svg, .png, .tex or .html, got {parsed.out}")
    data = opened([open_store(storage).uri for storage in parsed.storages], progress=Lines(console))
    search = parsed.address.partition("?")[2] if "?" in parsed.address else parsed.address
    view, problems = parse_view(search)
    problems += settled(view, data)[2]
    if problems:
        raise ValueError(" ".join(problems))
    context = context_of(data, search)
    if not len(context.snapshot.index):
        raise ValueError(f"{data.uri} has no result to draw yet; see: signsym status {shlex.quote(data.uris[0])}")
    page = pages.build(context)
    if context.replaced:
        raise ValueError(" ".join(context.replaced))
    content = _latex(page) if kind == "tex" else _drawn(page, kind, parsed.width)
    write_file(parsed.out, content)
    for problem in context.problems:
        console.print(problem, soft_wrap=True)
    console.print(f"figure: {parsed.out.resolve()}", soft_wrap=True)


def _latex(page: Page) -> bytes:
    tables = [latex(block, page.warnings) for block in page.blocks if isinstance(block, Matrix) and block.rows]
    if not tables:
        raise ValueError(f"the page “{page.title}” has no table for LaTeX; those of ?p=tables and ?p=flags have")
    return "\n".join(tables).encode()


def _drawn(page: Page, kind: str, width: float) -> bytes:
    figure = next((block for block in page.blocks if isinstance(block, Figure)), None)
    if figure is None:
        raise ValueError(
            f"the page “{page.title}” has no figure; those of ?p=curves, ?p=gap and ?p=training have, and that of "
            "?p=tables&t=corruptions"
        )
    if kind == "html":
        # The page's figures have a transparent background, which would be dark in a dark viewer.
        spec = figure.figure | {"layout": figure.figure["layout"] | {"paper_bgcolor": style.PAGE["light"]}}
        return str(to_html(spec, config=style.GRAPH_CONFIG, validate=False)).encode()
    if figure.drawing is None:
        what = "a heat map" if page.title == "Gap" else "a figure of trainings"
        instead = ", or as=lines in the address" if page.title == "Gap" else ""
        raise ValueError(f"{what} is drawn for the screen alone: --out FILE.html{instead}")
    return paper.drawn(figure.drawing, width, kind)
