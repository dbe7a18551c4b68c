"""Where scores or gaps mix results of different arithmetic or kinds of device.

A CPU has no TF32, so that seeds of one line may be fine-tuned in other arithmetic: where some of a grid's jobs ran on a
CPU and others on a GPU, or where stores of two machines are shown together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from orchestrator.results.categories import Categories, Numbers
from orchestrator.results.devices import WAYS
from orchestrator.results.index import Index
from orchestrator.results.line import ATTACK, FIGURE, Line


def mixtures(index: Index) -> list[str]:
    """What pages, exports and audits say of them: a sentence for fine-tunes and one for attacks, of the first case.

    Attacks on models that were fine-tuned in several ways are not told apart from these.
    """
    sentences = []
    told: set[tuple[str, ...]] = set()
    for prefix, what in WAYS.items():
        way = index.ways[prefix]
        if sum(map(bool, way.values)) < 2:
            # As in most stores, of whatever size.
            continue
        group = index.groups(FIGURE if prefix else (*FIGURE, *ATTACK[:2]))
        mixed = _mixed(way, group[index.line_numbers(np.arange(len(index)))])
        found = {line: by_way for by_way in mixed if (line := _line(index, by_way)).figure not in told}
        told |= {line.figure for line in found}
        if found:
            line, by_way = next(iter(found.items()))
            where = index.labels.title(line) + ("" if prefix else f" under {index.labels.of(line, 'attack')}")
            sentences.append(_sentence(index, where, what, by_way, len(found) - 1))
    return sentences


def _mixed(way: Categories, group: Numbers) -> list[Mapping[str, Numbers]]:
    """The rows of each group with several ways, by way; `group` is of each row."""
    rows = np.flatnonzero(np.array([bool(value) for value in way.values])[way.codes])
    pairs, place = np.unique(group[rows] * len(way.values) + way.codes[rows], return_inverse=True)
    groups, counts = np.unique(pairs // len(way.values), return_counts=True)
    by_group: dict[int, dict[str, Numbers]] = {number: {} for number in groups[counts > 1].tolist()}
    for number, pair in enumerate(pairs.tolist()):
        if (of_group := by_group.get(pair // len(way.values))) is not None:
            of_group[way.values[pair % len(way.values)]] = rows[place == number]
    return list(by_group.values())


def _line(index: Index, by_way: Mapping[str, Numbers]) -> Line:
    return index.line_of(int(next(iter(by_way.values()))[0]))


def _sentence(index: Index, where: str, what: str, by_way: Mapping[str, Numbers], more: int) -> str:
    parts = []
    for way, rows in by_way.items():
        lines = [index.lines[number] for number in np.unique(index.line_numbers(rows)).tolist()]
        rules = ", ".join(dict.fromkeys(index.labels.of(line, "rule") for line in lines))
        seeds = np.unique(index.seed[rows]).tolist()
        parts.append(f"{way} ({rules}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})")
    further = f"; {more:,} more mix likewise" if more else ""
    return (
        f"Scores and gaps of {where} mix models that were {what} in {' and in '.join(parts)}{further}: a part of what "
        "they differ by may be that. The page of a cell has the arithmetic and device of each seed."
    )
