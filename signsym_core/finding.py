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
