"""How fast the jobs of a store were: what a plan multiplies its estimates by."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from orchestrator.jobs.job import Pace

#: Parts of a pace that two jobs share where one says something about the other.
LEAST = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speeds:
    """How fast the jobs of a store were."""

    #: Measured over estimated seconds, by pace and its beginnings, and the measured devices, the most used first.
    ratios: Mapping[Pace, float]
    devices: tuple[str, ...]

    def similar(self, pace: Pace) -> Pace:
        """The longest beginning of `pace` that was measured, on its kind of device; () where none was."""
        kind, requested, *names = pace or ("", "")
        for device in self.devices:
            if device == requested or ("cpu" not in (device, requested) and is_kind(device, requested)):
                measured = (kind, device, *names)
                for length in range(len(measured), LEAST - 1, -1):
                    if measured[:length] in self.ratios:
                        return measured[:length]
        return ()


def is_kind(device: str, kind: str) -> bool:
    """Whether the GPU of the name `device` is of Ray's `kind`, such as "A100" or "A100-80G"; every one is of ""."""
    return not kind or kind.split("-")[0] in re.split(r"[ -]", device)
