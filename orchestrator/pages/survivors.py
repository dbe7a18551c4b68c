"""Scores over the seeds that are left: where a job failed for good, such as a fine-tune that diverged."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from orchestrator.drawing import style
from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.status import Status
from orchestrator.results.test_images import on_clean_images

#: Characters of an error.
LONGEST = 120


def survivors(index: Index, status: Status, lines: Iterable[Line], seeds: Collection[int]) -> list[str]:
    """What pages say of the models of `lines`: a sentence with the first that lacks a seed, and how many more do.

    Of `seeds` alone, if there are any. A mean over the seeds that did not diverge is higher than one over all.
    """
    if not status.failed_lines:
        return []
    models: dict[tuple[str, ...], str] = {}
    for line in lines:
        failed = status.failed_lines.get(line.grid_key, {})
        failed = {seed: why for seed, why in failed.items() if not seeds or seed in seeds}
        model = on_clean_images(line).model
        known = index.seed[line.start : line.stop] if failed else ()
        if model not in models and (errors := {seed: why for seed, why in failed.items() if seed not in known}):
            seed, error = min(errors.items())
            more = f" and {len(errors) - 1:,} more" if len(errors) > 1 else ""
            rule, place = style.label(index.labels.of(line, "rule")), index.labels.title(line)
            models[model] = f"{rule} on {place} lacks seed {seed}{more} ({error[:LONGEST]})"
    if not models:
        return []
    further = f"; so do {len(models) - 1:,} more models" if len(models) > 1 else ""
    return [
        f"Scores are over the seeds that are left where jobs failed for good: {next(iter(models.values()))}{further}. "
        "The explorer's page Runs and signsym status say which and why."
    ]
