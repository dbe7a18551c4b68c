"""The adversarial images of a point: clean, difference, adversarial, with the model's predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set

import numpy as np

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Link, Links, Pictures, Triple
from orchestrator.pages.context import PageContext
from orchestrator.results.examples import GAIN, Example, classes_of
from orchestrator.results.line import Line
from orchestrator.results.members import certifying
from orchestrator.results.outcomes import CellOutcomes
from orchestrator.results.view import format_view

#: Triples on a page, and links to classes, at most.
MOST, MOST_CLASSES = 24, 40
#: The filters by their value in a view.
FILTERS = {"gained": "broken under BP only", "lost": "broken under the rule only"}


def pictures(context: PageContext, line: Line, epsilon: float) -> list[Block]:
    """Up to 24 triples of all seeds, those of the smallest true L∞ first, filtered against BP and by class as the view
    asks, and links to the classes. Where they are filtered against BP, BP's are below the rule's.
    """
    query = context.query
    bp = query.bp(line)
    baseline = query.cells(bp, epsilon) if bp is not None else {}
    # Without BP to compare with, the filter would hide every image.
    only = context.view.only if baseline else ""
    shown = query.cells(line, epsilon)
    matches: list[tuple[float, Example, int, str]] = []
    rows = query.rows_by_seed(line, epsilon)
    index, every = query.index, list(rows.values())
    examples = context.data.cells.examples(index, every)
    moved = context.data.cells.reach(index, every) if examples else {}
    stored = [example for of_cell in examples.values() for example in of_cell]
    jobs = set(index.texts("finetune_job", np.array(every, dtype=np.int64))) if stored else set()
    joined = frozenset().union(*(one.joined_names for one in context.data.histories.of(jobs).values()))
    for seed, row in rows.items():
        cell = str(index.value("cell", row))
        outcome_of_rule, reach = shown.get(seed), moved.get(cell, {})
        for example in examples.get(cell, ()):
            score, bp_score = (_score(outcome, example.image) for outcome in (outcome_of_rule, baseline.get(seed)))
            if (only and not _turned(score, bp_score, only)) or not _of_class(example, context.view.label, joined):
                continue
            size = reach.get(example.image)
            size = float("nan") if size is None else size
            words = _caption(example, seed, size, line, {"": score, " under BP": bp_score})
            matches.append((size, example, seed, words))
    # Unknown changes (NaN) come last.
    matches.sort(key=lambda match: (match[0] != match[0], match[0], match[1].image))
    below = _below(context, bp, epsilon) if only else {}
    chosen = [_triple(example, words, below.get((seed, example.image))) for _, example, seed, words in matches[:MOST]]
    if not stored:
        note = "The store keeps no images of this point."
    elif not chosen:
        note = f"None of the {len(stored)} images that the store keeps of this point fits the filter."
    else:
        note = f"{len(chosen)} of the {len(stored)} images that the store keeps of this point, smallest change first."
    if context.view.only and not only:
        why = "This is BP itself" if line.rule == "bp" else "No BP can be set beside this point"
        note += f" {why}, so the filter “{FILTERS[context.view.only]}” has nothing to compare with and is left out."
    over = f", {style.counted(len(rows), 'seed')} together" if len(rows) > 1 else ""
    of_class = f" of class {context.view.label}" if context.view.label else ""
    found = Pictures(title=f"Adversarial images{of_class}{over}", triples=chosen, gain=GAIN, note=note)
    return [*_classes(context, stored, joined), found]


def _classes(context: PageContext, stored: Sequence[Example], joined: Set[str]) -> list[Block]:
    """Links to the images of each class, where there are several."""
    names = {name for example in stored for name in classes_of(example.label, joined)}
    # Digits by their value, words by their letters.
    ordered = sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    if len(ordered) < 2:
        return []
    links = [
        Link(
            text=(name or "all") + " (these)" * (name == context.view.label),
            search=format_view(dataclasses.replace(context.view, label=name)),
        )
        for name in ("", *ordered[:MOST_CLASSES])
    ]
    return [Links(title="Images of the class", links=links)]


def _of_class(example: Example, label: str, joined: Set[str]) -> bool:
    return not label or label in classes_of(example.label, joined)


def _below(context: PageContext, bp: Line | None, epsilon: float) -> dict[tuple[int, int], Triple]:
    """BP's triples by seed and image."""
    rows = {} if bp is None else context.query.rows_by_seed(bp, epsilon)
    index = context.query.index
    examples = context.data.cells.examples(index, list(rows.values()))
    return {
        (seed, example.image): _triple(
            example, f"BP: {example.label or 'no class'} → {example.predicted or 'no class'}"
        )
        for seed, row in rows.items()
        for example in examples.get(str(index.value("cell", row)), ())
    }


def _triple(example: Example, words: str, beside: Triple | None = None) -> Triple:
    return Triple(cell=example.cell, image=example.image, caption=words, store=example.store, beside=beside)


def _score(outcome: CellOutcomes | None, image: int) -> float | None:
    if outcome is None:
        return None
    position = int(outcome.images.searchsorted(image))
    if position == len(outcome.images) or outcome.images[position] != image:
        return None
    return float(outcome.scores[position])


def _turned(score: float | None, bp_score: float | None, only: str) -> bool:
    """Whether an image does better ("gained") or worse ("lost") than under BP."""
    if score is None or bp_score is None:
        return False
    return score > bp_score if only == "gained" else score < bp_score


def _caption(example: Example, seed: int, size: float, line: Line, scores: dict[str, float | None]) -> str:
    words = [f"image {example.image}, seed {seed}: {example.label or 'no class'} → {example.predicted or 'no class'}"]
    if size == size:
        words.append(f"L∞ {size:.4f}")
    kept, lost = ("certified", "not certified") if certifying(line.attack) else ("robust", "broken")
    for under, score in scores.items():
        if score is not None:
            words.append((kept if score else lost) + under if line.metric == "top1" else f"AP {score:.3f}{under}")
    return ", ".join(words)
