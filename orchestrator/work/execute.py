"""Executes one job: its spec in, its tables and its model in the store out."""

from __future__ import annotations

import socket
from typing import Any

from orchestrator.jobs.job import JobContext
from orchestrator.store.store import Store, StoreError
from orchestrator.work.attacking import attack
from orchestrator.work.training import train


def execute(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float] | None:
    """Run the job `spec` and commit its results to the store under `key`; returns numbers for the progress display."""
    _refuse_another_store(context)
    run = {"pretrain": train, "finetune": train, "attack": attack}[spec["kind"]]
    return run(key, spec, context)


def _refuse_another_store(context: JobContext) -> None:
    store = Store(context.storage)
    if context.sign is not None and not store.exists([context.sign]):
        raise StoreError(
            f"storage {store.uri} on {socket.gethostname()} is not the one that the sweep was started with: it "
            f"was moved or unmounted since, or is of this machine alone; with several nodes it must be a bucket "
            f"(--storage s3://...) or a folder that all of them mount"
        )
