"""`signsym sweep`: runs the jobs that a grid still lacks."""

from __future__ import annotations

import argparse
import os

from rich.console import Console

from orchestrator.commands import plan
from orchestrator.engine.address import check_address
from orchestrator.engine.settings import Settings
from orchestrator.engine.sweep import COMPLETE, sweep


def run(parsed: argparse.Namespace, console: Console) -> int:
    """Run the sweep, or print its plan. Raises AddressError where there is no cluster to join, also for a plan."""
    # Ray sets this variable in a job that was submitted to a cluster.
    address = parsed.address or os.environ.get("RAY_ADDRESS") or None
    check_address(address)
    if parsed.plan:
        plan.run(parsed, console)
        return COMPLETE
    settings = Settings(
        storage=parsed.storage,
        data_root=str(parsed.data_root),
        address=address,
        dashboard=parsed.dashboard,
        trackers=str(parsed.trackers.expanduser().resolve()),
        retry_failed=parsed.retry_failed,
    )
    return sweep(plan.file_of(parsed.grid, console), parsed.sets, settings, console)
