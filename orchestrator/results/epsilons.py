"""The epsilon that a text means: people write 8/255 as 0.0314, and 0.3 as 0.30."""

from __future__ import annotations

import math
from collections.abc import Mapping

#: Tolerance as a share of the epsilon: the error of 8/255 written with three digits. Where two epsilons of a grid are
#: so close, the nearest is meant.
OFF = 1e-3


def matching(text: str, epsilons: Mapping[str, float]) -> str | None:
    """The label of the epsilon that `text` means, by its words or else by its number; None where there is none."""
    if text in epsilons:
        return text
    value = _number(text)
    if value is None or not epsilons:
        return None
    nearest = min(epsilons, key=lambda label: abs(epsilons[label] - value))
    return nearest if abs(epsilons[nearest] - value) <= OFF * epsilons[nearest] else None


def _number(text: str) -> float | None:
    above, _, below = text.partition("/")
    try:
        value = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None
