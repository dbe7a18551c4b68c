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
    flag: str, raised: bool, numbers: tuple[float, float], names: tuple[str, str], words: str, *, n: int, seeds: int
) -> Finding:
    """A finding on n images of each of some seeds, which its words say at their end."""
    words += f" ({seeds} seed{'s' * (seeds > 1)} × {n:,} images)"
    first, second = numbers
    return Finding(flag=flag, raised=raised, first=first, second=second, names=names, n=n, seeds=seeds, words=words)
