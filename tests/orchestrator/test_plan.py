"""Plans: every job once, parents first, and nothing that the store already holds."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.gridfile.grid import load
from orchestrator.jobs import keys
from orchestrator.plan.compile import compile_full, compile_plan
from orchestrator.plan.full import PlanError

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
        assert seen.issuperset(job.parents)
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
    served = {cell for job in rest.jobs.values() for cell, *_ in keys.cells(job.spec)}
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


@pytest.mark.slow
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
    served = [cell for job in rest.jobs.values() if job.kind == "attack" for cell, *_ in keys.cells(job.spec)]
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


SEEDS = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)
SOME_RULES = st.lists(st.sampled_from(["bp", "usf", "frsf", "fa"]), min_size=1, max_size=3, unique=True)
EPSILONS = st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]), min_size=1, max_size=4, unique=True)
SOME_ATTACKS = st.lists(st.sampled_from(["fgsm", "pgd"]), min_size=1, max_size=2, unique=True)
GRIDS = st.fixed_dictionaries({"seeds": SEEDS, "rules": SOME_RULES, "epsilons": EPSILONS, "attacks": SOME_ATTACKS})


def listed(**axes):
    """Axes as `plan` wants them."""
    return {name: f"[{', '.join(map(str, values))}]" for name, values in axes.items()}


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=GRIDS, data=st.data())
def test_a_larger_grid_only_adds(tmp_path, axes, data):
    small = plan(tmp_path, **listed(**axes))
    models = {key for key, job in small.jobs.items() if job.kind != "attack"}
    axis = data.draw(st.sampled_from(sorted(axes)))
    new = {"seeds": 9, "rules": "brsf", "epsilons": 0.25, "attacks": "pgd"}[axis]
    # At any place: what a grid has before does not depend on where something new is written.
    at = data.draw(st.integers(0, len(axes[axis])))
    values = [value for value in axes[axis] if value != new]
    larger = axes | {axis: [*values[:at], new, *values[at:]]}
    whole = plan(tmp_path, **listed(**larger))
    assert small.cells <= whole.cells
    assert small.finetunes <= whole.finetunes
    rest = plan(tmp_path, small.cells, models, **listed(**larger))
    served = {cell for job in rest.jobs.values() if job.kind == "attack" for cell, *_ in keys.cells(job.spec)}
    assert served == whole.cells - small.cells
    assert not rest.jobs.keys() & small.jobs.keys()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=GRIDS, data=st.data())
def test_parents_come_first_and_no_job_comes_twice_in_any_grid(tmp_path, axes, data):
    whole = plan(tmp_path, **listed(**axes))
    done = data.draw(st.sets(st.sampled_from(sorted(whole.cells))))
    models = {key for key, job in whole.jobs.items() if job.kind != "attack"}
    there = data.draw(st.sets(st.sampled_from(sorted(models))))
    rest = plan(tmp_path, done, there, **listed(**axes))
    seen = set(there)
    for key, job in rest.jobs.items():
        assert job.key == key
        assert seen.issuperset(job.parents)
        assert key not in there
        seen.add(key)
    texts = [keys.canonical(job.spec) for job in rest.jobs.values()]
    assert len(set(texts)) == len(texts)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=GRIDS)
def test_a_grid_with_everything_done_has_nothing_to_do(tmp_path, axes):
    whole = plan(tmp_path, **listed(**axes))
    rest = plan(
        tmp_path, whole.cells, {key for key, job in whole.jobs.items() if job.kind != "attack"}, **listed(**axes)
    )
    assert (dict(rest.jobs), rest.missing, rest.done) == ({}, 0, whole.cells)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=GRIDS, data=st.data())
def test_the_order_in_which_axes_are_written_changes_no_job(tmp_path, axes, data):
    mixed = {name: data.draw(st.permutations(values)) for name, values in axes.items()}
    assert plan(tmp_path, **listed(**mixed)).jobs.keys() == plan(tmp_path, **listed(**axes)).jobs.keys()


def test_every_attack_job_starts_from_the_one_fine_tune_of_its_model(tmp_path):
    made = plan(tmp_path)
    titles = [job.title for job in made.jobs.values() if job.kind == "finetune"]
    assert sorted(titles) == [
        f"finetune {rule} smallcnn digits seed {seed}" for rule in ("bp", "usf") for seed in (0, 1)
    ]
    for job in made.jobs.values():
        if job.kind == "attack":
            assert [made.jobs[parent].kind for parent in job.parents] == ["finetune"]
            assert [job.spec["model"]] == list(job.parents)


def test_both_gradients_of_bp_are_one_job_with_cells_under_both_names(tmp_path):
    made = plan(tmp_path, rules="[bp]", seeds=[0], attacks="[pgd]")
    (job,) = [job for job in made.jobs.values() if "pgd" in job.title]
    cells = [(gradient, epsilon) for _, gradient, epsilon, _ in keys.cells(job.spec)]
    assert sorted(cells) == [(gradient, epsilon) for gradient in ("exact", "feedback") for epsilon in (0.0, 0.1, 0.2)]
    assert len({cell for cell, *_ in keys.cells(job.spec)}) == 6


def test_one_attack_job_serves_every_epsilon(tmp_path):
    few, many = (plan(tmp_path, epsilons=values) for values in ([0.1], [0, 0.01, 0.1, 0.2, 0.5]))
    assert kinds(few) == kinds(many)


def test_a_fraction_and_its_decimals_are_one_cell(tmp_path):
    written, decimal = (plan(tmp_path, epsilons=values) for values in (["8/255"], [8 / 255]))
    assert written.cells == decimal.cells


def test_resources_are_the_jobs_and_no_part_of_their_keys(tmp_path):
    small, large = plan(tmp_path, gpu=0), plan(tmp_path, gpu=0.25)
    assert small.jobs.keys() == large.jobs.keys()
    assert {job.resources.gpu for job in large.jobs.values()} == {0.25}


def test_where_the_data_lie_and_what_the_grid_is_called_change_no_key(tmp_path):
    before = plan(tmp_path).jobs.keys()
    (tmp_path / "elsewhere").mkdir()
    text = (tmp_path / "grid.yaml").read_text().replace("name: small\n", "name: other\n")
    (tmp_path / "elsewhere/renamed.yaml").write_text(text)
    moved = compile_plan(load(tmp_path / "elsewhere/renamed.yaml"), set(), set())
    assert moved.jobs.keys() == before


def test_a_default_that_is_written_out_is_the_same_job(tmp_path):
    spelled = plan(tmp_path, epochs="2, lr: 0.00001, weight_decay: 0.0005, optimizer: adam, batch_size: 32")
    assert spelled.jobs.keys() == plan(tmp_path).jobs.keys()


@pytest.mark.parametrize("setting", ["lr: 0.002", "weight_decay: 0", "optimizer: adamw", "batch_size: 8"])
def test_every_setting_of_the_fine_tune_counts(tmp_path, setting):
    assert not plan(tmp_path, epochs=f"2, {setting}").finetunes & plan(tmp_path).finetunes


def test_pre_training_counts_for_the_models_that_start_from_it(tmp_path):
    other = plan(tmp_path, weights="{pretrain: {dataset: digits, epochs: 2}}")
    assert not other.finetunes & plan(tmp_path).finetunes
    assert kinds(plan(tmp_path, weights="null"))["pretrain"] == 0


def test_a_pre_training_that_is_there_is_not_repeated_for_a_new_model(tmp_path):
    made = plan(tmp_path)
    (pretrain,) = [key for key, job in made.jobs.items() if job.kind == "pretrain"]
    rest = plan(tmp_path, set(), {pretrain})
    assert kinds(rest) == {"pretrain": 0, "finetune": 4, "attack": 16}
    assert {job.parents for job in rest.jobs.values() if job.kind == "finetune"} == {(pretrain,)}


def test_a_weights_file_that_is_written_anew_is_another_model(tmp_path):
    file = tmp_path / "w.pth"
    file.write_bytes(b"one")
    before = plan(tmp_path, weights=str(file)).finetunes
    file.write_bytes(b"two")
    assert not plan(tmp_path, weights=str(file)).finetunes & before


def test_a_folder_as_weights_file_is_refused(tmp_path):
    with pytest.raises(PlanError, match=f"{tmp_path} cannot be read"):
        plan(tmp_path, weights=str(tmp_path))


def test_a_plan_holds_plain_values_alone(tmp_path):
    for job in plan(tmp_path).jobs.values():
        assert json.loads(keys.canonical(dict(job.spec)))["kind"] == job.kind


def sources(path, rule, gradient):
    """The attack jobs that fgsm needs under a rule with these gradients."""
    file = path / "grid.yaml"
    text = TEXT.format(**DEFAULTS | {"rules": f"[{rule}]", "seeds": [0], "attacks": "fgsm"})
    file.write_text(text.replace("[feedback, exact]", gradient))
    made = compile_plan(load(file), set(), set())
    return made, [job for job in made.jobs.values() if job.kind == "attack" and job.spec["attack"]["name"] == "fgsm"]


@pytest.mark.parametrize(
    ("rule", "computed"),
    [
        ("bp", ["exact", "hybrid"]),
        ("frsf", ["exact", "feedback", "hybrid", "mixed", "transfer"]),
        ("brsf", ["eot", "exact", "feedback", "hybrid", "mixed", "transfer"]),
    ],
)
def test_every_source_of_gradients_is_planned_and_equal_ones_are_one_job(tmp_path, rule, computed):
    made, jobs = sources(tmp_path, rule, "[feedback, exact, mixed, transfer, eot, hybrid]")
    assert sorted(job.spec["gradient"] for job in jobs) == computed
    # The clean cell and six sources with three epsilons each, whether they share a job or not.
    assert len(made.cells) == 1 + 18
    by_key = made.jobs
    for job in jobs:
        rules = [by_key[key].spec["rule"]["name"] for key in job.parents]
        twin = job.spec["gradient"] in ("transfer", "hybrid") and rule != "bp"
        assert rules == ([rule, "bp"] if twin else [rule])


def test_draws_and_the_attacks_of_a_hybrid_are_part_of_the_estimate(tmp_path):
    _, jobs = sources(tmp_path, "brsf", "[feedback, eot, hybrid]")
    feedback, eot, hybrid = (
        next(job.default_seconds for job in jobs if job.spec["gradient"] == name)
        for name in ("feedback", "eot", "hybrid")
    )
    assert feedback < hybrid < eot


def test_jobs_that_differ_in_a_setting_have_titles_that_say_so(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("""
name: titles
seeds: [0]
defaults:
  task: classification
  dataset: {name: digits, size: 8}
  backbone: {name: smallcnn, width: 4}
  finetune: {epochs: 2, lr: 0.01}
  attacks:
    - {name: pgd, steps: 5, gradient: exact, epsilon: [0.1]}
    - {name: pgd, steps: 10, gradient: exact, epsilon: [0.1]}
experiments:
  - {rule: [bp, usf]}
  - {rule: usf, finetune: {epochs: 2, lr: 0.5}}
  - {rule: usf, weights: {pretrain: {dataset: {name: digits, size: 8}, epochs: 3}}}
""")
    jobs = compile_full(load(path)).jobs.values()
    titles = [job.title for job in jobs]
    assert len(set(titles)) == len(titles)
    assert "finetune bp smallcnn digits seed 0" in titles, "the only one of its rule"
    assert "finetune usf smallcnn digits seed 0 (lr 0.5, weights null)" in titles
    assert "attack pgd exact (steps 10): usf smallcnn digits seed 0 (lr 0.01, weights null)" in titles
    assert "finetune usf smallcnn digits seed 0 (lr 0.01, pretrain yes)" in titles
    assert "attack none: bp smallcnn digits seed 0" in titles


def test_settings_that_the_same_jobs_have_are_named_by_the_first_of_them(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("""
name: titles
seeds: [0]
defaults:
  task: classification
  dataset: {name: digits, size: 8}
  backbone: {name: smallcnn, width: 4}
  rule: usf
  finetune: {epochs: 2}
  attacks: [{name: none}]
experiments:
  - {}
  - {finetune: {epochs: 2, adversarial: {name: pgd, epsilon: 0.1, gradient: exact}}}
  - {finetune: {epochs: 2, adversarial: {name: pgd, epsilon: 0.1, gradient: feedback}}}
  - {finetune: {epochs: 2, steps: 3}}
  - {finetune: {epochs: 2, precision: float32}}
""")
    titles = [job.title for job in compile_full(load(path)).jobs.values() if job.kind == "finetune"]
    ends = ("", " (adversarial pgd, gradient exact)", " (adversarial pgd, gradient feedback)", " (precision float32)")
    assert sorted(titles) == sorted(f"finetune usf smallcnn digits seed 0{end}" for end in (*ends, " (steps 3)"))


def test_a_title_names_the_settings_of_every_training_before_and_no_key(tmp_path):
    path = tmp_path / "grid.yaml"
    data = "dataset: {name: digits, size: 8}"
    before = f"{{pretrain: {{{data}, head: keep, weights: {{pretrain: {{{data}, epochs: %d}}}}}}}}"
    path.write_text(f"""
name: chained
seeds: [0]
defaults:
  task: classification
  {data}
  backbone: {{name: smallcnn, width: 4}}
  attacks: [{{name: fgsm, epsilon: [0.1]}}]
experiments:
  - {{rule: usf, weights: {before % 3}}}
  - {{rule: usf, weights: {before % 4}}}
""")
    jobs = compile_full(load(path)).jobs
    titles = [job.title for job in jobs.values()]
    assert "finetune usf smallcnn digits seed 0 (pretrain pretrain epochs 4)" in titles, "that of the one before it"
    assert not any(key[:8] in title for key in jobs for title in titles)
