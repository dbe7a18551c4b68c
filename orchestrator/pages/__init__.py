"""The pages: each a function from the results and the view to the blocks of the page."""

from orchestrator.drawing.blocks import Page
from orchestrator.drawing.facets import arranged, portion
from orchestrator.pages import cell, curves, flags, gap, notes, runs, tables, training, worst
from orchestrator.pages.context import PageContext as PageContext
from orchestrator.pages.context import empty

_PAGES = {
    "curves": curves.page,
    "gap": gap.page,
    "tables": tables.page,
    "flags": flags.page,
    "training": training.page,
    "cell": cell.page,
    "runs": runs.page,
    "notes": notes.page,
}


def build(context: PageContext) -> Page:
    """The page of the view, with the notes on what it shows."""
    if not len(context.index) and context.view.page not in ("runs", "notes"):
        return empty(context)
    return notes.noted(_PAGES[context.view.page](context), context)


def portions(context: PageContext) -> int:
    """Number of portions of the page; tables have one."""
    view = context.view
    if view.page == "tables":
        return 1
    if view.page == "flags":
        return portion(1, context.attacking(), flags.MOST)[1]
    if view.page == "training":
        return training.portions(context)
    if view.over == "worst":
        return worst.portions(context)
    return arranged(view, context.index, gap.compared(context) if view.page == "gap" else context.lines()).portions
