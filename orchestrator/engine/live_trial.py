"""What the driver knows of a trial from the choice of its job to its end."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from orchestrator.engine.room import Bundle


@dataclasses.dataclass
class LiveTrial:
    """A trial that has not ended."""

    #: The key of its job; None: its worker starts early, for jobs that wait for others.
    job: str | None
    #: The resources that it requests.
    bundle: Bundle
    #: Whether a worker has taken it.
    begun: bool = False
    #: How many processes this machine's kernel had killed for lack of memory when it began.
    kills: float = math.inf
    #: What its worker reported before it ended itself.
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: Ray's account of its worker's end, as a report.
    death: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: Whether its worker was ended because a trial beside it had faulted their GPU.
    beside_fault: bool = False
