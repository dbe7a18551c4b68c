"""Many comparisons at once: which of a fixed family hold, with no more than a 5 % chance of any false one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from signsym_core.stats import Interval

K = TypeVar("K")


def holm(comparisons: Mapping[K, Callable[[float], Interval]], alpha: float = 0.05) -> set[K]:
    """Those of a family of m comparisons whose Holm-corrected interval excludes zero.

    A comparison gives its interval at a confidence. Step down: with k comparisons found so far, those whose interval
    at 1 - α / (m - k) excludes zero are found as well, until there are no more. An interval excludes zero at the
    confidences below 1 - p, p its test's probability, so this is Holm's procedure on these p. Source: Holm 1979,
    Scand. J. Stat. 6.
    """
    left = dict(comparisons)
    while left:
        level = 1 - alpha / len(left)
        # All that pass one threshold come next in Holm's order, since thresholds only grow.
        new = {key for key, find in left.items() if find(level).excludes_zero}
        if not new:
            break
        left = {key: find for key, find in left.items() if key not in new}
    return set(comparisons) - set(left)
