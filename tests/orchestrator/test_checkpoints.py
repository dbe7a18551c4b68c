"""How often a training writes a checkpoint."""

from __future__ import annotations

import json

import pytest
from gridfiles import base, written

from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store
from orchestrator.work import execute, training


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    # The clock of this test advances by a second when it is read, and by the seconds of each write: twice after an
    # epoch whose checkpoint is written, once after another. A write of 2 + 1 seconds is followed by 30 without one.
    [(-0.5, list(range(1, 41))), (2.0, [1, 31])],
)
def test_checkpoints_that_take_long_are_written_less_often(tmp_path, monkeypatch, seconds, epochs):
    changes = {"dataset": {"name": "digits", "size": 8, "train_images": 4, "test_images": 4}, "attacks": ["none"]}
    changes |= {"backbone": {"name": "smallcnn", "width": 2}, "finetune": {"epochs": 40}}
    jobs = compile_plan(load(written(tmp_path, base(**changes))), set(), set()).jobs
    (job,) = [job for job in jobs.values() if job.kind == "finetune"]
    now, written_epochs = 0.0, []

    class Clock:
        @staticmethod
        def monotonic():
            nonlocal now
            now += 1
            return now

    def save(store, key, tensors, state):
        nonlocal now
        now += seconds
        written_epochs.append(state["epoch"])

    monkeypatch.setattr(training, "time", Clock)
    monkeypatch.setattr(Store, "save_progress", save)
    where = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    execute.execute(job.key, json.loads(json.dumps(dict(job.spec))), where)
    assert written_epochs == epochs
