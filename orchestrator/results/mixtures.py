"""Where scores or gaps mix results of different arithmetic, kinds of device, or texts of the user's modules.

A CPU has no TF32, and GPUs of two kinds have other kernels, so that seeds of one line may be fine-tuned in other
arithmetic: where a grid's jobs ran on several kinds of device, or where stores of two machines are shown together. And
the key of a user's rule or attack is what it was before its code was edited.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.categories import Categories, Numbers
from orchestrator.results.devices import WAYS
from orchestrator.results.index import Index
from orchestrator.results.line import ATTACK, FIGURE, LINE


def mixtures(index: Index, rows: Numbers | None = None) -> list[str]:
    """What is said of them: a sentence for fine-tunes and one for attacks, of the first case; of `rows` alone.

    Attacks on models that were fine-tuned in several ways are not told apart from these.
    """
    rows, sentences = np.arange(len(index)) if rows is None else rows, []
    figures: set[tuple[str, ...]] = set()
    for prefix, what in WAYS.items():
        way = index.ways[prefix]
        if sum(map(bool, way.values)) < 2:
            # As in most stores, of whatever size.
            continue
        group = index.groups(FIGURE if prefix else (*FIGURE, *ATTACK[:2]))[index.line_numbers(rows)]
        first = [place for place in _mixed(way, rows, group) if index.line_of(rows[place]).figure not in figures]
        figures |= {index.line_of(rows[place]).figure for place in first}
        if first:
            line, mixed = index.line_of(rows[first[0]]), rows[group == group[first[0]]]
            where = index.labels.title(line) + ("" if prefix else f" under {index.labels.of(line, 'attack')}")
            sentences.append(_sentence(index, where, what, way, mixed, len(first) - 1))
    return [*sentences, *_edited(index, rows)]


def _edited(index: Index, rows: Numbers) -> list[str]:
    """Where a rule was attacked, along whatever gradient, with several texts of a module of the user's."""
    text = index.modules
    if sum(map(bool, text.values)) < 2:
        return []
    group = index.groups(name for name in LINE if name != "gradient")[index.line_numbers(rows)]
    first = _mixed(text, rows, group)
    if not first:
        return []
    line, mixed = index.line_of(rows[first[0]]), rows[group == group[first[0]]]
    where = f"{index.labels.of(line, 'rule')} under {index.labels.of(line, 'attack')}, {index.labels.title(line)},"
    by_name = []
    for name in filter(None, text.distinct(mixed)):
        by_name.append(f"{name} ({_seeds(index, mixed[_are(text, mixed, name)])})")
    further = f"; {len(first) - 1:,} more do likewise" if len(first) > 1 else ""
    return [
        f"Scores of {where} mix results of several texts of your modules, by the digests of their files: "
        f"{' and '.join(by_name)}{further}. Where the edit moves their numbers, compute them anew in another --storage."
    ]


def _seeds(index: Index, rows: Numbers) -> str:
    seeds = np.unique(index.seed[rows]).tolist()
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _are(column: Categories, rows: Numbers, value: str) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = column.codes[rows] == column.values.index(value)
    return equal


def _mixed(way: Categories, rows: Numbers, group: Numbers) -> list[int]:
    """The place among `rows` of the first of each group with several ways; `group` is of each of them."""
    codes = way.codes[rows]
    known = np.flatnonzero(np.array([bool(value) for value in way.values])[codes])
    pairs, first = np.unique(group[known] * len(way.values) + codes[known], return_index=True)
    _, place, counts = np.unique(pairs // len(way.values), return_index=True, return_counts=True)
    mixed: list[int] = np.sort(known[first[place[counts > 1]]]).tolist()
    return mixed


def _sentence(index: Index, where: str, what: str, way: Categories, rows: Numbers, more: int) -> str:
    ways = []
    for name in filter(None, way.distinct(rows)):
        of_way = rows[_are(way, rows, name)]
        lines = [index.lines[number] for number in np.unique(index.line_numbers(of_way)).tolist()]
        rules = ", ".join(dict.fromkeys(index.labels.of(line, "rule") for line in lines))
        ways.append(f"{name} ({rules}; {_seeds(index, of_way)})")
    further = f"; {more:,} more mix likewise" if more else ""
    return (
        f"Scores and gaps of {where} mix models that were {what} in {' and in '.join(ways)}{further}: a part of what "
        "they differ by may be that. The page of a cell has the arithmetic and device of each seed."
    )
