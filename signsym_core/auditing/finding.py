"""The finding of a check of the audit."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check: the two numbers that it compares, their sample size, and whether the check is raised."""

    flag: str
    raised: bool
    #: The two numbers, and what they are.
    first: float
    second: float
    names: tuple[str, str]
    n: int
    seeds: int
    #: The evidence in a sentence.
    words: str


def finding(
    flag: str,
    raised: bool,
    numbers: tuple[float, float],
    names: tuple[str, str],
    shape: tuple[int, ...],
    words: str = "",
) -> Finding:
    """A finding on images [seeds, n] or [n], which its words say at their end; by default both numbers in percent."""
    seeds, n = (1, *shape)[-2:]
    first, second = numbers
    words = words or f"{names[0]} {100 * first:.1f} %, {names[1]} {100 * second:.1f} %"
    words += f" ({seeds} seed{'s' * (seeds > 1)} × {n:,} images)"
    return Finding(flag=flag, raised=raised, first=first, second=second, names=names, n=n, seeds=seeds, words=words)
