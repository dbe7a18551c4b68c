"""Epsilons as radii: numbers, or texts such as "8/255"."""

from __future__ import annotations

import numbers
import re
import sys
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from signsym_core.attacks.ball import Norm
from signsym_core.validation import shown

_FRACTION = re.compile("([0-9]{1,15})/([0-9]{1,15})")


def fraction(text: str) -> float | None:
    """The value of a text such as "8/255", of two whole numbers; None for any other text and for one over 0."""
    match = _FRACTION.fullmatch(text)
    return int(match[1]) / int(match[2]) if match and int(match[2]) else None


def radii(epsilons: object, norm: Norm = "linf") -> tuple[float, ...]:
    """Epsilons as floats, in their order: a list, tuple, array or tensor of numbers or of texts such as "8/255".

    At least one; in L∞ each in [0, 1], in L2 finite and from 0 on.
    """
    if isinstance(epsilons, (Tensor, np.ndarray)):
        epsilons = epsilons.tolist()
    if not isinstance(epsilons, Sequence) or isinstance(epsilons, (str, bytes)):
        raise ValueError(f"epsilons must be a list of radii, such as [0.1], got {shown(epsilons)}")
    if len(epsilons) == 0:
        raise ValueError("epsilons must hold at least one number")
    return tuple(radius(epsilon, norm, f"epsilons[{number}]") for number, epsilon in enumerate(epsilons))


def radius(epsilon: object, norm: Norm = "linf", what: str = "epsilon") -> float:
    """One epsilon as a float; `what` names it in errors."""
    value: object = fraction(epsilon) if isinstance(epsilon, str) else epsilon
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    largest, where = (1.0, "an L∞ radius in [0, 1]")
    if norm == "l2":
        largest, where = (sys.float_info.max, "an L2 radius, a finite number from 0 on")
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= largest:  # type: ignore[operator]
        got = value if is_number else shown(epsilon)
        raise ValueError(f'{what} must be a number or a fraction such as "8/255", {where}, got {got}')
    # The sum turns -0.0 into 0.0.
    return float(value) + 0.0  # type: ignore[arg-type]
