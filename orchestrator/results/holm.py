"""Many comparisons at once: which of a fixed family hold, with no more than a 5 % chance of any false one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from signsym_core.statistics.intervals import Interval

K = TypeVar("K")
#: The chance of any false one.
ALPHA = 0.05


def holm(comparisons: Mapping[K, Interval]) -> set[K]:
    """Those of a family of m gaps that exclude zero after Holm's correction.

    Step down: in the order of their p, the k-th gap (from 0) holds while p < α / (m - k), which is while its interval
    at the confidence 1 - α / (m - k) excludes zero; the first that does not ends it. Source: Holm 1979, Scand. J.
    Stat. 6.
    """
    held: set[K] = set()
    for key, gap in sorted(comparisons.items(), key=lambda pair: pair[1].p):
        if gap.p >= ALPHA / (len(comparisons) - len(held)):
            break
        held.add(key)
    return held
