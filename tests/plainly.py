"""Does the jobs of a grid one after the other, without Ray: `python plainly.py GRID STORE DATA`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import provenance
from orchestrator.work import execute

if __name__ == "__main__":
    grid, storage, data = sys.argv[1:]
    torch.set_num_threads(1)
    context = JobContext(storage=storage, data_root=data, git="", versions=provenance.versions())
    for key, job in compile_plan(load(Path(grid)), set(), set()).jobs.items():
        execute.execute(key, dict(job.spec), context)
