"""The JSON Schema of grid files: it accepts what the loader accepts, and refuses every fault of shape."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jsonschema
import pytest
from gridfiles import BASE, written
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.commands.cli import main
from orchestrator.gridfile import schema
from orchestrator.gridfile.grid import GridError, load
from orchestrator.gridfile.parameters import parameters
from orchestrator.gridfile.schema import grid_schema
from orchestrator.gridfile.values import NAMED_AXES
from orchestrator.gridfile.yamlfile import parse, read
from orchestrator.jobs.job import Resources
from signsym_core.attacks import ATTACKS
from signsym_core.registry import build, require
from signsym_core.training.settings import FineTune

ROOT = Path(__file__).resolve().parents[2]
BROKEN = sorted((Path(__file__).parent / "broken_grids").glob("*.yaml"))

#: Broken grids whose shape is right: their fault is a cell, a model or a value that two places make together.
BEYOND_SHAPE = {
    *(
        "attack_combination",
        "callbacks_secret",
        "callbacks_twice",
        "cell_in_two_experiments",
        "cell_twice",
        "epsilon_fraction_above_one",
    ),
    *("epsilon_fraction_huge", "epsilon_twice", "exclude_everything", "exclude_matches_nothing", "images_too_small"),
    *("override_matches_nothing", "override_parameter_matches_nothing", "parameter_combination", "rule_twice"),
    *("resources_of_one_model", "rule_layers_absent", "seeds_in_two_places", "weights_not_published"),
    *("coupled_decay", "coupled_decay_before", "rule_layers_missing", "rule_points_absent"),
    *("split_named", "validation_all", "validation_none", "validation_none_before", "validation_steps"),
    *("classes_one", "classes_unknown", "coupled_decay_stated"),
    *("foolbox_step", "foolbox_unknown", "idle_exclusion_beside_a_misfit"),
    *("keep_in_an_override", "min_delta_alone", "pretrain_another_backbone"),
    *("pretrain_other_classes", "pretrain_classes_in_another_order", "pretrain_too_small", "resize_below_size"),
    *("rule_layers_uncovered", "rule_needs_another_backbone", "rule_points_empty"),
    *("sequences_too_small", "spike_slope_without_spikes", "spike_slope_zero"),
    *("adversarial_hashing", "steps_beside_keep"),
    *("surrogate_misfit", "surrogate_other_seeds", "surrogate_twice"),
}


@functools.cache
def validator():
    return jsonschema.Draft202012Validator(grid_schema())


def plain(path):
    """A grid file as an editor has it; None where it is no YAML of the kind that grids are."""
    try:
        return parse(read(path), str).plain
    except GridError:
        return None


@pytest.mark.slow
def test_the_schema_is_one_and_the_file_is_what_the_command_prints(capsys):
    validator().check_schema(validator().schema)
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs/grid.schema.json").read_text(), (
        "signsym schema > docs/grid.schema.json"
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_grid_is_valid_and_names_the_schema(path):
    validator().validate(plain(path))
    first = path.read_text().partition("\n")[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / "docs/grid.schema.json"


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_grid_is_refused_where_its_fault_is_one_of_shape(path):
    grid = plain(path)
    if grid is not None:
        assert validator().is_valid(grid) == (path.stem in BEYOND_SHAPE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounded:
    """Parameters with bounds of every kind."""

    #: At least two.
    whole: int | None = 2
    share: float = 0.5
    open: float = 0.5
    above: float = 1.5
    pair: float = 0.1

    def __post_init__(self) -> None:
        require(self.whole is None or self.whole >= 2, "whole", "a whole number, at least 2", self.whole)
        require(0 <= self.share < 1, "share", "a share in [0, 1)", self.share)
        require(0 < self.open <= 1, "open", "a share in (0, 1]", self.open)
        require(self.above > 1, "above", "a number above 1", self.above)
        require(self.pair < 1 or self.share == 0, "share", "0 beside a pair from 1 on", self.share)


def test_bounds_are_those_that_the_class_holds_to_and_comments_describe():
    schemas = parameters(Bounded)
    bounds = {name: {key: value for key, value in s.items() if "imum" in key.lower()} for name, s in schemas.items()}
    assert bounds == {
        "whole": {"minimum": 2},
        "share": {"minimum": 0, "exclusiveMaximum": 1},
        "open": {"exclusiveMinimum": 0, "maximum": 1},
        "above": {"exclusiveMinimum": 1},
        # It depends on the share, so no value of its own is wrong.
        "pair": {},
    }
    assert schemas["whole"]["description"] == "At least two. Expects a whole number, at least 2."
    assert schemas["whole"]["type"] == ["integer", "null"]
    assert schemas["open"]["default"] == 0.5
    without_source = dataclasses.make_dataclass("WithoutSource", [("steps", int, 3)], frozen=True, kw_only=True)
    assert parameters(without_source) == {"steps": {"type": "integer", "default": 3}}


MEMBERS = [(registry.family, member) for registry in (*NAMED_AXES.values(), ATTACKS) for member in registry]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "member"), [*MEMBERS, ("", FineTune)], ids=lambda value: getattr(value, "name", ""))
def test_parameters_that_a_member_takes_are_valid(family, member):
    """Whatever values are taken together: a bound of the schema never depends on another parameter."""
    definitions = {"$defs": validator().schema["$defs"]}
    schemas = {name: jsonschema.Draft202012Validator(each | definitions) for name, each in parameters(member).items()}
    numbers = st.sampled_from([-1, 0, 1, 2, 3, 7, 8, 11, 12, 32, 64, 100, 224]) | st.sampled_from([-0.5, 0.0, 0.3, 1.0])
    values = st.none() | st.booleans() | numbers | st.lists(numbers, max_size=2) | st.sampled_from(["x", "stop", "l2"])

    @settings(max_examples=40, deadline=None)
    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(schemas, values)))
    def whatever_builds_is_valid(chosen):
        try:
            build(member, "", chosen)
        except ValueError:
            return
        assert all(schemas[name].is_valid(value) for name, value in chosen.items())

    whatever_builds_is_valid()


def test_resources_are_those_that_jobs_have():
    assert set(schema._AMOUNTS) == {field.name for field in dataclasses.fields(Resources)}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"finetune": {"adversarial": {"name": "pgd", "epsilon": "8/255", "steps": 7, "gradient": "feedback"}}}, True),
        ({"finetune": {"adversarial": {"name": "foolbox:LinfPGD", "epsilon": 0.1, "steps": 3}}}, True),
        ({"finetune": {"adversarial": None}}, True),
        ({"finetune": {"adversarial": {"name": "pgd", "epsilon": 0.1, "queries": 7}}}, False),
        ({"finetune": {"adversarial": {"name": "noise", "epsilon": 0.1, "gradient": "exact"}}}, False),
        ({"attacks": ["none"]}, True),
        ({"attacks": "none"}, True),
        ({"attacks": {"name": ["fgsm", "pgd"], "epsilon": "8/255", "precision": "bf16"}}, True),
        ({"attacks": {"name": ["fgsm", "pgd"], "epsilon": 0.1, "steps": 5}}, False),
        ({"attacks": {"name": "boundary", "epsilon": 3}}, True),
        ({"attacks": {"name": "pgd", "epsilon": 3}}, False),
        ({"attacks": {"name": ["fgsm", "foolbox:LinfPGD"], "epsilon": 0.1, "images": 50}}, True),
        ({"attacks": {"name": "foolbox", "epsilon": 0.1}}, False),
        ({"attacks": {"name": "noise", "epsilon": 0.1, "gradient": "exact"}}, False),
        ({"rule": [{"name": "usf", "scale": "unit", "bp_layers": ["head"]}]}, True),
        ({"rule": {"name": "bp", "scale": "unit"}}, False),
        ({"resources": {"gpu": 1.5}}, False),
        ({"resources": {"gpu": 2, "attack": {"gpu": "auto"}}}, True),
        ({"weights": {"pretrain": {"dataset": "digits", "epochs": 1}}}, True),
        ({"weights": {"pretrain": {"epochs": 1}}}, False),
    ],
)
def test_values_in_an_experiment(tmp_path, change, valid):
    path = written(tmp_path, {**BASE, "experiments": [{**BASE["experiments"][0], **change}]})
    assert validator().is_valid(plain(path)) is valid
    if valid:
        load(path)
    else:
        with pytest.raises(GridError):
            load(path)
