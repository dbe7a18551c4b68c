"""Pages as files: HTML that opens from disk, with the figures, tables and images beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Matrix, Page, Triple, as_csv, shown
from orchestrator.drawing.latex import latex
from orchestrator.drawing.paper import save
from orchestrator.drawing.screen import Screen
from orchestrator.results.examples import Example, picture
from orchestrator.results.live_stores import Results
from orchestrator.results.view import parse_view
from orchestrator.store.files import write_file

#: Rows of a table on a page; its CSV has all.
MOST_ROWS = 500
#: Cells whose images are kept: a page shows those of each seed of a point, and of BP.
CELLS_KEPT = 64


class PageWriter:
    """Writes pages of one store into a folder.

    `cells` are those that have a page of their own; `screen` also saves each figure as it looks on screen.
    """

    def __init__(
        self,
        data: Results,
        out: Path,
        title: str,
        menu: Sequence[tuple[str, str]],
        cells: set[str],
        screen: Screen | None = None,
    ) -> None:
        self.data, self.out, self.title, self.menu, self.cells, self.screen = data, out, title, menu, cells, screen
        environment = Environment(
            loader=PackageLoader("orchestrator.reports"), autoescape=True, undefined=StrictUndefined
        )
        environment.globals |= {"shown": shown, "json": as_json, "most": MOST_ROWS, "images": self._images}
        environment.globals |= {"address": self.address, "config": as_json(style.GRAPH_CONFIG)}
        environment.globals["cells"] = {cell: f"cells/{cell[:16]}.html" for cell in sorted(cells)}
        self._template = environment.get_template("page.html")
        #: The images of the cells and stores that were shown last.
        self._examples: dict[tuple[str, str], Sequence[Example]] = {}

    def add(self, page: Page, name: str, search: str = "") -> Path:
        """Write NAME.html with its tables and figures; `search` is the view that it shows. The path of the page."""
        root = "../" * name.count("/")
        stem = name.replace("/", "-")
        drawn: dict[str, list[tuple[str, str]]] = {}
        for table in page.tables:
            write_file(self.out / "tables" / f"{stem}-{table.name}.csv", as_csv(table).encode())
        for block in page.blocks:
            if isinstance(block, Matrix) and block.rows:
                write_file(self.out / "tables" / f"{stem}-{block.name}.tex", latex(block, page.warnings).encode())
            if isinstance(block, Figure) and block.drawing is not None:
                files = save(block.drawing, self.out / "figures" / f"{stem}-{block.name}", search)
                drawn[block.name] = [(_words(path), f"{root}figures/{path.name}") for path in files]
            if isinstance(block, Figure) and self.screen is not None:
                files = self.screen.save(block.figure, self.out / "figures/screen" / f"{stem}-{block.name}")
                links = [
                    (f"{path.suffix[1:].upper()} as on screen", f"{root}figures/screen/{path.name}") for path in files
                ]
                drawn.setdefault(block.name, []).extend(links)
        text = self._template.render(
            page=page,
            title=self.title,
            root=root,
            drawn=drawn,
            menu=[(words, address, address == f"{name}.html") for words, address in self.menu],
            file=lambda table: f"{stem}-{table}",
        ).replace('href="tables/', f'href="{root}tables/')
        write_file(self.out / f"{name}.html", text.encode())
        return self.out / f"{name}.html"

    def address(self, search: str) -> str:
        """The file of a view; "" where it has none."""
        view, _ = parse_view(search)
        if not search:
            return ""
        if view.page == "cell":
            # There is one page of a cell, with the images of every class.
            return f"cells/{view.cell[:16]}.html" if view.cell in self.cells and not view.label else ""
        address = f"{view.page}-{view.task}.html"
        return address if address in {known for _, known in self.menu} else ""

    def _images(self, triple: Triple) -> list[tuple[str, str]]:
        if (triple.cell, triple.store) not in self._examples:
            # Read once for all images of a cell; the pages of other cells need others.
            self._examples = dict(list(self._examples.items())[1 - CELLS_KEPT :])
            self._examples[triple.cell, triple.store] = self.data.examples(triple.cell, triple.store)
        images = []
        for kind in ("clean", "difference", "adversarial"):
            image = picture(self._examples[triple.cell, triple.store], triple.image, kind)
            if image is not None:
                images.append((f"data:image/png;base64,{base64.b64encode(image).decode()}", kind))
        return images


def as_json(value: dict[str, Any]) -> Markup:
    """JSON that may stand inside a script element, whatever names it holds."""
    text = json.dumps(value)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _words(path: Path) -> str:
    if path.suffix in (".csv", ".json"):
        return {".csv": "CSV of its numbers", ".json": "JSON of its view"}[path.suffix]
    width = path.stem.rpartition("-")[2].removesuffix("in")
    return f"{path.suffix[1:].upper()} {width} in"
