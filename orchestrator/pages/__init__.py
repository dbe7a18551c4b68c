"""The five pages: each a function of what the store holds and what is asked for, to what is said."""

from orchestrator.drawing.blocks import Page
from orchestrator.drawing.facets import arranged, portion
from orchestrator.pages import cell, curves, flags, gap, tables
from orchestrator.pages.context import Context as Context
from orchestrator.pages.context import empty

_PAGES = {"curves": curves.page, "gap": gap.page, "tables": tables.page, "flags": flags.page, "cell": cell.page}


def build(context: Context) -> Page:
    """The page that the view asks for."""
    if not len(context.snapshot.index):
        return empty(context)
    return _PAGES[context.view.page](context)


def parts(context: Context) -> int:
    """How many parts the page has."""
    if context.view.page == "flags":
        return portion(1, context.lines(), flags.MOST)[1]
    return arranged(context.view, context.snapshot.index, context.lines()).parts
