"""Rules per layer in grids, keys, columns and labels."""

from __future__ import annotations

import json

from gridfiles import base, written

from orchestrator.gridfile.grid import load
from orchestrator.jobs.setting import member_columns
from orchestrator.jobs.setting import written as written_member
from orchestrator.pages.provenance import settings
from orchestrator.plan.compile import compile_plan
from orchestrator.results.labels import words
from signsym_core import RULES

RULE = {"name": "mixed", "layers": {"conv1_1": "usf", "conv2_*": {"name": "frsf", "scale": "xavier"}, "*": "bp"}}


def plan(folder, rule):
    return compile_plan(load(written(folder, base(rule=rule))), frozenset(), frozenset())


def test_what_is_the_same_in_every_layer_is_the_same_job(tmp_path):
    other = {"name": "mixed", "layers": {"*": {"name": "bp"}, "conv2_*": RULE["layers"]["conv2_*"]}}
    other["layers"]["conv1_1"] = {"name": "usf", "scale": "rms"}
    assert plan(tmp_path, RULE).jobs.keys() == plan(tmp_path, other).jobs.keys()
    other["layers"]["conv1_1"] = {"name": "usf", "scale": "xavier"}
    assert not plan(tmp_path, RULE).jobs.keys() & plan(tmp_path, other).jobs.keys()


def test_the_rule_is_rebuilt_from_its_job_and_written_as_a_grid_has_it(tmp_path):
    (job,) = [job for job in plan(tmp_path, RULE).jobs.values() if job.kind == "finetune"]
    rule = RULES.rebuild(json.loads(json.dumps(job.spec["rule"])))
    assert rule == RULES.build("mixed", layers=RULE["layers"])
    plain = written_member(rule, resolved=False)
    assert RULES.build(plain["name"], layers=plain["layers"]) == rule
    assert type(plain["layers"]) is dict


def test_a_condition_names_the_rule_without_its_layers(tmp_path):
    grid = base(rule=["bp", RULE])
    grid["exclude"] = [{"rule": "mixed", "epsilon": 0.1}]
    assert len(load(written(tmp_path, base(rule=["bp", RULE])))) > len(load(written(tmp_path, grid)))


def test_columns_and_labels_say_the_rules_of_the_layers():
    text = member_columns("rule", RULES.build("mixed", layers=RULE["layers"]))["rule_params"]
    layers = "{conv1_1: usf(scale=rms), conv2_*: frsf(scale=xavier), *: bp}"
    assert words(json.loads(text)["layers"]) == layers
    assert settings(text) == f"layers={layers}"
