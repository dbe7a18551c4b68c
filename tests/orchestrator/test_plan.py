"""Plans: every job once, parents first, and nothing that the store already holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import keys
from orchestrator.grid import load
from orchestrator.plan import PlanError, compile_plan

TEXT = """
name: small
seeds: {seeds}
experiments:
  - task: classification
    dataset: {{name: digits, size: 8}}
    backbone: {{name: smallcnn, width: 4}}
    weights: {weights}
    rule: {rules}
    finetune: {{epochs: {epochs}}}
    resources: {{gpu: {gpu}, cpu: 1}}
    attacks:
      - {{name: {attacks}, gradient: [feedback, exact], epsilon: {epsilons}}}
"""
DEFAULTS = {
    "seeds": [0, 1],
    "weights": "{pretrain: {dataset: digits, epochs: 1}}",
    "rules": "[bp, usf]",
    "epochs": 2,
    "gpu": 0,
    "attacks": "[fgsm, pgd]",
    "epsilons": [0, 0.1, 0.2],
}


def grid(path, **changes):
    file = path / "grid.yaml"
    file.write_text(TEXT.format(**DEFAULTS | changes))
    return load(file)


def plan(path, done_cells=(), done_models=(), **changes):
    return compile_plan(grid(path, **changes), set(done_cells), set(done_models))


def kinds(made):
    found = [job.kind for job in made.jobs.values()]
    return {kind: found.count(kind) for kind in ("pretrain", "finetune", "attack")}


def test_a_small_grid_by_hand(tmp_path):
    made = plan(tmp_path)
    # 2 rules x 2 seeds; each with its clean cell and 2 attacks x 2 gradients x 3 epsilons.
    assert len(made.cells) == 4 * (1 + 12)
    # One pre-training for all. Under bp both gradients are one job: 1 + 2 attack jobs; under usf 1 + 4.
    assert kinds(made) == {"pretrain": 1, "finetune": 4, "attack": 2 * 3 + 2 * 5}
    assert len(made.finetunes) == 4


def test_parents_come_before_their_children(tmp_path):
    seen = set()
    for job in plan(tmp_path).jobs.values():
        assert job.parent is None or job.parent in seen
        seen.add(job.key)


def test_what_is_done_is_left_out(tmp_path):
    whole = plan(tmp_path)
    models = {job.key for job in whole.jobs.values() if job.kind != "attack"}
    assert plan(tmp_path, whole.cells, models).jobs == {}
    assert kinds(plan(tmp_path, done_models=models)) == {"pretrain": 0, "finetune": 0, "attack": 16}
    # All cells there but the models gone: nothing needs them.
    assert plan(tmp_path, whole.cells).jobs == {}
    half = sorted(whole.cells)[::2]
    rest = plan(tmp_path, half, models)
    served = {cell["cell"] for job in rest.jobs.values() for cell in job.spec["cells"]}
    assert served == whole.cells - set(half)


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        ({"epsilons": [0, 0.1, 0.2, 0.3]}, {"pretrain": 0, "finetune": 0, "attack": 12}),
        ({"seeds": [0, 1, 2]}, {"pretrain": 0, "finetune": 2, "attack": 8}),
        ({"rules": "[bp, usf, fa]"}, {"pretrain": 0, "finetune": 2, "attack": 10}),
        ({"gpu": 1}, {"pretrain": 0, "finetune": 0, "attack": 0}),
        ({"epochs": 3}, {"pretrain": 0, "finetune": 4, "attack": 16}),
    ],
)
def test_a_changed_grid_runs_only_what_is_new(tmp_path, changes, jobs):
    whole = plan(tmp_path)
    models = {job.key for job in whole.jobs.values() if job.kind != "attack"}
    assert kinds(plan(tmp_path, whole.cells, models, **changes)) == jobs


def test_weights_files_count_by_content(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b.pth").write_bytes(b"one")
    (tmp_path / "c.pth").write_bytes(b"two")
    made = [plan(tmp_path, weights=str(tmp_path / f"{name}.pth")).finetunes for name in "abc"]
    assert made[0] == made[1]
    assert not made[0] & made[2]
    with pytest.raises(PlanError, match=r"none\.pth cannot be read"):
        plan(tmp_path, weights=str(tmp_path / "none.pth"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seeds=st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    rules=st.lists(st.sampled_from(["bp", "usf", "frsf", "fa"]), min_size=1, max_size=3, unique=True),
    epsilons=st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]), min_size=1, max_size=4, unique=True),
    data=st.data(),
)
def test_plan_minus_done_is_always_just_the_rest(tmp_path, seeds, rules, epsilons, data):
    changes = {"seeds": seeds, "rules": f"[{', '.join(rules)}]", "epsilons": epsilons}
    whole = plan(tmp_path, **changes)
    assert len(whole.cells) == len(seeds) * len(rules) * (1 + 4 * len(epsilons))
    done = data.draw(st.sets(st.sampled_from(sorted(whole.cells))))
    rest = plan(tmp_path, done, **changes)
    served = [cell["cell"] for job in rest.jobs.values() if job.kind == "attack" for cell in job.spec["cells"]]
    assert len(served) == len(set(served))
    assert set(served) == whole.cells - done
    assert rest.missing == len(whole.cells) - len(done)


def test_keys_are_those_of_canonical_json():
    assert keys.canonical({"b": 1, "a": [0.1, 1e-05, None]}) == '{"a":[0.1,1e-05,null],"b":1}'
    # By sha256sum; a key that moves would make every stored result look missing.
    assert keys.key({"kind": "attack", "epsilon": 0.1}).startswith("b905309bc47a3b2b")
    with pytest.raises(ValueError, match="not JSON compliant"):
        keys.key({"epsilon": float("nan")})


def test_a_changed_default_would_be_another_job(tmp_path):
    job = next(job for job in plan(tmp_path).jobs.values() if job.kind == "finetune")
    assert job.spec["rule"]["parameters"] == {"bp_layers": ()}
    assert job.spec["finetune"]["weight_decay"] == 5e-4
    assert torch.__version__ not in keys.canonical(dict(job.spec))
