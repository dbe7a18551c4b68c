"""What a check of the audit finds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check says: the two numbers that it compares, what they rest on, and whether it is raised."""

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
