"""Keys: one canonical text for one value, and the same key for ever."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gridfile.grid import load
from orchestrator.jobs import keys
from orchestrator.plan.compile import compile_plan
from signsym_core import ATTACKS, BACKBONES, DATASETS, RULES, TASKS, FineTune

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = [(family, name) for family in (TASKS, DATASETS, BACKBONES, RULES, ATTACKS) for name in family.names]


def shuffled(value):
    """The same value with every mapping in the reverse order."""
    if isinstance(value, dict):
        return {name: shuffled(inner) for name, inner in reversed(value.items())}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_the_order_of_a_mapping_does_not_matter(value):
    assert keys.canonical(shuffled(value)) == keys.canonical(value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_every_value_comes_back_from_its_text_exactly(value):
    text = keys.canonical(value)
    assert json.loads(text) == value
    assert keys.canonical(json.loads(text)) == text


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_other_texts_have_other_keys(one, other):
    assert (keys.key(one) == keys.key(other)) == (keys.canonical(one) == keys.canonical(other))


@given(st.floats(0, 1))
def test_neighbouring_epsilons_are_other_cells(epsilon):
    after = math.nextafter(epsilon, 2)
    assert keys.cell_keys("base")("exact", epsilon) != keys.cell_keys("base")("exact", after)


def test_text_is_compact_sorted_and_unescaped():
    assert keys.canonical({"b": [1, 2.0, True, None], "a": "ε"}) == '{"a":"ε","b":[1,2.0,true,null]}'


def test_a_tuple_is_a_list():
    assert keys.key({"classes": (1, 2)}) == keys.key({"classes": [1, 2]})


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, None), ("1", 1), ([], {}), (0.1, 0.1 + 1e-17 * 2), ("a", "A")]
)
def test_values_of_other_types_are_other_keys_and_equal_floats_are_not(one, other):
    assert (keys.key(one) == keys.key(other)) == (type(one) is type(other) and one == other)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        keys.key({"spec": [value]})


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes"], ids=["set", "object", "bytes"])
def test_values_without_a_canonical_text_are_refused(value):
    with pytest.raises(TypeError):
        keys.key({"spec": value})


def test_a_key_is_the_sha256_of_the_text():
    value = {"kind": "pretrain", "seed": 0}
    assert keys.key(value) == hashlib.sha256(b'{"kind":"pretrain","seed":0}').hexdigest()


def test_a_cell_is_its_attack_its_gradient_and_its_epsilon():
    expected = hashlib.sha256(b'{"a":1}|exact|0.03137254901960784').hexdigest()
    assert keys.cell_keys('{"a":1}')("exact", 8 / 255) == expected
    others = [('{"a":2}', "exact", 8 / 255), ('{"a":1}', "feedback", 8 / 255), ('{"a":1}', "exact", 0.1)]
    assert expected not in {keys.cell_keys(base)(gradient, epsilon) for base, gradient, epsilon in others}


@pytest.mark.parametrize(("family", "name"), MEMBERS, ids=[f"{f.family}-{n}" for f, n in MEMBERS])
def test_a_member_is_described_by_its_name_and_every_resolved_parameter_that_is_not_neutral(family, name):
    described, fields = keys.described(family.build(name)), dataclasses.fields(family[name])
    left_out = {field.name: field.metadata["neutral"] for field in fields if "neutral" in field.metadata}
    assert described["name"] == name
    assert described["parameters"] | left_out == family[name]().parameters()
    assert not described["parameters"].keys() & left_out
    assert keys.key(described) == keys.key(json.loads(keys.canonical(described)))


def test_no_two_members_are_described_alike():
    described = [keys.canonical([family.family, keys.described(family.build(name))]) for family, name in MEMBERS]
    assert len(set(described)) == len(described)


GRID = """
name: golden
seeds: [4]
experiments:
  - task: classification
    dataset: {name: digits, classes: [3, 8], train_images: 100}
    backbone: {name: smallcnn, width: 4}
    rule: {name: usf, scale: mean_abs}
    finetune: {epochs: 2, lr: 0.001}
    attacks:
      - {name: pgd, steps: 7, gradient: exact, epsilon: [8/255, 0.1], images: 50}
"""
#: Written by hand from the grid and the documented defaults.
FINETUNE = (
    '{"backbone":{"name":"smallcnn","parameters":{"width":4}},'
    '"dataset":{"name":"digits","parameters":'
    '{"classes":[3,8],"database_images":null,"size":null,"split":null,"test_images":null,"train_images":100}},'
    '"finetune":{"augment":true,"batch_size":32,"beta1":0.9,"beta2":0.999,"epochs":2,"head_lr":0.0001,'
    '"log_alignment":0,"lr":0.001,"optimizer":"adam","weight_decay":0.0005},'
    '"kind":"finetune","rule":{"name":"usf","parameters":{"bp_layers":[],"scale":"mean_abs"}},'
    '"seed":4,"semantics":1,"task":{"name":"classification","parameters":{}},"weights":null}'
)


@pytest.fixture
def golden(tmp_path):
    """The jobs of the golden grid, by kind; of its attack jobs, PGD's."""
    (tmp_path / "grid.yaml").write_text(GRID)
    plan = compile_plan(load(tmp_path / "grid.yaml"), set(), set())
    return {job.kind: job for job in plan.jobs.values() if job.kind != "attack" or "pgd" in job.title}


def test_a_fine_tune_has_the_key_of_its_hand_written_text(golden):
    # By sha256sum; a key that moves makes every stored result look missing, so it moves with
    # SEMANTICS or with the parameters that a member has, and with nothing else.
    assert golden["finetune"].key == hashlib.sha256(FINETUNE.encode()).hexdigest()
    assert golden["finetune"].key == "d3c55383f0e8ccef1a766ab93c1e39fa41db2edbe91368735ba730a0e522eb67"


def test_an_attack_has_the_keys_of_its_hand_written_text(golden):
    base = (
        '{"attack":{"name":"pgd","parameters":{"random_start":true,"relative_step":null,"step_size":null,"steps":7}},'
        '"gradient":"exact","images":50,"kind":"attack",'
        f'"model":"{golden["finetune"].key}","seed":4,"semantics":1'
    )
    cells = [hashlib.sha256(f"{base}}}|exact|{epsilon!r}".encode()).hexdigest() for epsilon in (8 / 255, 0.1)]
    assert [cell for cell, *_ in keys.cells(golden["attack"].spec)] == cells
    listed = ",".join(f'"{cell}"' for cell in sorted(cells))
    text = base.replace('"gradient"', f'"cells":[{listed}],"gradient"', 1) + "}"
    assert golden["attack"].key == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight_decay", 1e-3), ("beta2", 0.99), ("head_lr", 1e-3), ("augment", False), ("batch_size", 64)],
)
def test_a_changed_default_of_the_fine_tune_is_another_job(golden, tmp_path, monkeypatch, field, value):
    monkeypatch.setitem(FineTune.__init__.__kwdefaults__, field, value)
    changed = compile_plan(load(tmp_path / "grid.yaml"), set(), set())
    assert not changed.jobs.keys() & {job.key for job in golden.values()}


def test_a_changed_default_of_an_attack_is_another_attack_and_no_other_model(golden, tmp_path, monkeypatch):
    monkeypatch.setitem(ATTACKS["pgd"].__init__.__kwdefaults__, "random_start", False)
    changed = compile_plan(load(tmp_path / "grid.yaml"), set(), set()).jobs
    assert golden["finetune"].key in changed
    assert golden["attack"].key not in changed


@pytest.mark.parametrize("kind", ["finetune", "attack"])
def test_raised_semantics_are_other_jobs(golden, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(keys.SEMANTICS, kind, 2)
    changed = compile_plan(load(tmp_path / "grid.yaml"), set(), set()).jobs
    assert golden["attack"].key not in changed
    assert (golden["finetune"].key in changed) == (kind == "attack")


@pytest.mark.parametrize(
    ("attack", "parameters", "raised"),
    [
        *((name, {}, 1) for name in ("fgsm", "bim", "mim", "pgd", "apgd", "geometry")),
        ("apgd", {"loss": "dlr"}, 1),
        ("autoattack", {}, 2),
        *((name, {}, 0) for name in ("none", "noise", "fab", "square", "hopskipjump", "boundary", "hag", "sdha")),
    ],
)
def test_losses_are_others_on_images_with_several_labels_alone(attack, parameters, raised):
    attack = ATTACKS.build(attack, **parameters)
    assert keys.attack_semantics(attack, several=True) == keys.attack_semantics(attack) + raised
    assert keys.training_semantics("finetune", attack, several=True) == keys.SEMANTICS["finetune"] + raised
    assert {source.name for source in DATASETS if source.several} == {"coco", "nuswide"}


@pytest.mark.parametrize("attack", ["pgd", "boundary", "autoattack"])
def test_the_revision_of_a_result_counts_the_changes_of_its_attack_and_its_training(monkeypatch, attack):
    attack, model = ATTACKS.build(attack), {"semantics": keys.SEMANTICS["finetune"]}

    def revision():
        return keys.revision(attack, {"semantics": keys.attack_semantics(attack)}, model)

    assert revision() == 0
    assert keys.revision(attack, {"semantics": keys.attack_semantics(attack)}, {"semantics": 2}) == 1
    monkeypatch.setitem(keys.RAISED, attack.name, keys.RAISED.get(attack.name, 0) + 1)
    monkeypatch.setitem(keys.SEMANTICS, "attack", 2)
    assert revision() == 2
