"""Keys of the shipped grids as they were: a key that moves makes finished work look missing.

`golden_keys.json` has, for each grid of commit d842999, that grid's text and the first 16 digits of each key of its
plan for an empty store; an attack job's key has those of its cells in it. A key moves with `SEMANTICS`, `RAISED` and
`RAISED_SEVERAL`, with a value in the grid or with a changed default, and with nothing else: then it stands under
"moved", in a commit that says why.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs import keys
from orchestrator.plan.compile import compile_plan
from signsym_core import registry
from signsym_core.registry import Member, Registry, neutral

GOLDEN = json.loads(Path(__file__).with_name("golden_keys.json").read_text())


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_every_key_is_the_one_that_it_was(name, tmp_path, monkeypatch):
    path = tmp_path / f"{name}.yaml"
    path.write_text(GOLDEN[name]["grid"])
    jobs = compile_plan(load(path), set(), set()).jobs
    attacks = {key: job.spec["semantics"] for key, job in jobs.items() if job.kind == "attack"}
    raised = {key for key, version in attacks.items() if version > keys.SEMANTICS["attack"]}
    assert sorted(key[:16] for key in jobs.keys() - raised) == GOLDEN[name]["jobs"]
    # With the versions of then, the keys of then.
    monkeypatch.setattr(keys, "RAISED", {})
    monkeypatch.setattr(keys, "RAISED_SEVERAL", {})
    before = compile_plan(load(path), set(), set()).jobs.keys() - jobs.keys() if raised else set()
    assert sorted(key[:16] for key in before) == GOLDEN[name].get("moved", [])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown(ss.FineTune):
    """The settings of a fine-tune, one field later."""

    precision: str = neutral("float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved(ss.FineTune):
    """The same, once the default is another than what was done before the field existed."""

    precision: str = neutral("float32", default="bf16")


def test_a_new_field_at_its_neutral_value_moves_no_key():
    assert keys.key(registry.identity(Grown())) == keys.key(registry.identity(ss.FineTune()))
    assert registry.changed(Grown()) == {}
    assert registry.identity(Grown(precision="bf16"))["precision"] == "bf16"
    assert registry.changed(Grown(precision="bf16")) == {"precision": "bf16"}


def test_a_changed_default_of_a_field_with_a_neutral_value_is_another_key():
    assert keys.key(registry.identity(Moved())) == keys.key(registry.identity(Grown(precision="bf16")))
    assert keys.key(registry.identity(Moved(precision="float32"))) == keys.key(registry.identity(ss.FineTune()))
    # A column names what is not neutral; a grid has to write what is not the default.
    assert registry.changed(Moved()) == {"precision": "bf16"}
    assert registry.not_default(Moved()) == {}
    assert registry.not_default(Moved(precision="float32")) == {"precision": "float32"}


@pytest.mark.parametrize("cls", [Grown, Moved])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kept", [registry.identity, registry.changed])
def test_what_is_stored_is_rebuilt_whatever_the_default_has_become(cls, precision, kept):
    settings = cls(epochs=3, precision=precision)
    assert registry.rebuild(cls, "finetune", kept(settings)) == settings
    # A store of before the field existed.
    assert registry.rebuild(cls, "finetune", registry.identity(ss.FineTune())).precision == "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Later(Member):
    """A member with a field that came later."""

    name = "later"
    scale: float = 1.0
    draw: int | bool = neutral(0, default=1)


def test_a_member_is_described_without_what_is_neutral_and_rebuilt_from_it():
    family = Registry("thing", [Later])
    assert keys.described(Later(draw=0)) == {"name": "later", "parameters": {"scale": 1.0}}
    # False is not 0: the keys would not have been equal either.
    assert keys.described(Later(draw=False))["parameters"] == {"scale": 1.0, "draw": False}
    for draw in (0, 1, False):
        assert family.rebuild(keys.described(Later(draw=draw))) == Later(draw=draw)
    assert Later().changed() == {"draw": 1}
