"""The temporal order of three marked symbols."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from signsym_core.datasets.temporal_order import TemporalOrder


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalOrder3Bit(TemporalOrder):
    """A or B at three places among c, d, e, f; the class says which stood where: AAA, AAB, ... BBB.

    The places are uniform over the steps p with 0.1 L <= p < 0.2 L, 0.3 L <= p < 0.4 L and 0.6 L <= p < 0.7 L, counted
    from 0. All symbols are uniform.
    """

    name = "temporal_order_3bit"
    label = "temporal order, 3 bits"
    tenths: ClassVar[tuple[int, ...]] = (1, 3, 6)
