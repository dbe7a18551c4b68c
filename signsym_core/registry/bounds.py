"""Bounds of a parameter, written where it is declared: `steps: Count = 10`, `rate: Annotated[float, above(1)] = 2`."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from signsym_core.registry.parameters import require


class Bound(NamedTuple):
    """What a number is expected to be, in words, and whether one is."""

    expected: str
    holds: Callable[[Any], bool]


def integer(least: int, most: int | None = None) -> Bound:
    """A whole number from `least` on, to `most` where that is given."""
    if most is None:
        return Bound(f"a whole number, at least {least}", lambda number: number >= least)
    return Bound(f"a whole number in {least} .. {most}", lambda number: least <= number <= most)


def above(bound: float) -> Bound:
    """A number above `bound`."""
    return Bound(f"a number above {bound}", lambda number: number > bound)


def within(interval: str) -> Bound:
    """A number in an interval, such as "[0, 1)", whose round bracket leaves out its end."""
    low, high = map(float, interval[1:-1].split(","))
    ends = {low} if interval[0] == "[" else set()
    ends |= {high} if interval[-1] == "]" else set()
    return Bound(f"a number in {interval}", lambda number: low < number < high or number in ends)


Count = Annotated[int, integer(1)]
Positive = Annotated[float, above(0)]
NonNegative = Annotated[float, Bound("a number, at least 0", lambda number: number >= 0)]


def check_bounds(settings: Any) -> None:
    """Raise ParameterError for a field of a dataclass instance outside of its bounds; null has none."""
    for name, bound in _bounds(typing.cast(Any, type(settings))).items():
        value = getattr(settings, name)
        require(value is None or bound.holds(value), name, bound.expected, value)


@functools.cache
def _bounds(cls: type[Any]) -> Mapping[str, Bound]:
    """The bounds of the fields of a dataclass, those of its bases too where it gives a field another default."""
    bounds: dict[str, Bound] = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        for name, hint in typing.get_type_hints(base, include_extras=True).items():
            options = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
            for bound in (extra for option in options for extra in getattr(option, "__metadata__", ())):
                if isinstance(bound, Bound):
                    words = "null or " * (len(options) > 1) + bound.expected
                    bounds[name] = bound._replace(expected=words)
    return bounds
