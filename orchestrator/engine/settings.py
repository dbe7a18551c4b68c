"""How a sweep is run, beside its grid."""

from __future__ import annotations

import dataclasses

from orchestrator.engine.retries import Retries


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a sweep is run; nothing here changes a number."""

    storage: str
    data_root: str
    address: str | None = None
    retry_failed: bool = False
    #: Whether a Ray that is started here gets a dashboard.
    dashboard: bool = False
    #: Where the grid's callbacks write.
    trackers: str = "ray_results"
    retries: Retries = dataclasses.field(default_factory=Retries)
