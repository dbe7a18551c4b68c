"""A sweep from a weights file: every job loads the bytes that were planned, or fails with nothing stored."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store
from orchestrator.work import execute
from signsym_core.backbones.weights import WeightsError

GRID = """
name: from-a-file
seeds: [0, 1]
experiments:
  - task: classification
    dataset: {{name: digits, size: 8, train_images: 60, test_images: 20}}
    backbone: {{name: smallcnn, width: 4}}
    weights: {file}
    rule: [usf]
    finetune: {{epochs: 1}}
    attacks:
      - {{name: fgsm, gradient: [feedback], epsilon: 0.1}}
"""


def write(file, seed):
    model = ss.BACKBONES.build("smallcnn", width=4).build(10, channels=1, size=8, seed=seed)
    save_file(model.network.state_dict(), file)


def test_a_file_that_is_replaced_between_two_jobs_fails_the_second(tmp_path):
    file = tmp_path / "start.safetensors"
    write(file, 5)
    (tmp_path / "grid.yaml").write_text(GRID.format(file=file))
    plan = compile_plan(load(tmp_path / "grid.yaml"), set(), set())
    first, second = (job for job in plan.jobs.values() if job.kind == "finetune")
    context = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    execute.execute(first.key, dict(first.spec), context)
    write(file, 6)
    with pytest.raises(WeightsError, match=f"expected sha256 {second.spec['weights']['sha256']}, got "):
        execute.execute(second.key, dict(second.spec), context)
    assert Store(context.storage).done_models() == {first.key}
    write(file, 5)
    execute.execute(second.key, dict(second.spec), context)
    assert Store(context.storage).done_models() == {first.key, second.key}
