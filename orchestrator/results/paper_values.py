"""The numbers of the paper's Tables 1 to 4, and the interval that their digits imply.

Source: "Sign-Symmetry Learning Rules are Robust Fine-Tuners", arXiv 2502.05925.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from signsym_core.statistics.intervals import wilson

#: Every percentage of Tables 1, 3 and 4 is a multiple of 1/32, cut or rounded to one or two digits: the digits of one
#: batch of 32 images.
IMPLIED = 32
#: Largest error by truncation to one digit, or by a misprint in the second, in points.
_SLACK = 0.1
#: Table, backbone, data set, rule.
Place = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Printed:
    """A cell of the paper's tables: a number, 0 .. 1, or "–" where it has none.

    The interval is None where the digits imply no number of images.
    """

    text: str
    value: float | None
    interval: tuple[float, float] | None

    @property
    def words(self) -> str:
        """The number with its interval: "90.62 [75.8, 96.8]"."""
        if self.interval is None:
            return self.text
        return f"{self.text} [{100 * self.interval[0]:.1f}, {100 * self.interval[1]:.1f}]"


@functools.cache
def printed() -> Mapping[Place, Printed]:
    """Every cell of the four tables by table, backbone, data set and rule."""
    values: dict[Place, Printed] = {}
    with Path(__file__).with_name("paper_values.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place = (row["table"], row["backbone"], row["dataset"], row["rule"])
            if row["percent"] == "-":
                values[place] = Printed(text="–", value=None, interval=None)
                continue
            percent = float(row["percent"])
            interval = None if row["table"] == "2" else implied(percent)
            values[place] = Printed(text=row["percent"], value=percent / 100, interval=interval)
    return values


def implied(percent: float) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a percentage as k of 32 images; None where it is no such share."""
    k = round(percent / 100 * IMPLIED)
    if abs(100 * k / IMPLIED - percent) > _SLACK:
        return None
    return wilson(k, IMPLIED)
