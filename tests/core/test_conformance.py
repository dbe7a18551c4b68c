"""Every member of every registry passes the suite that the package ships for its family."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from targets import QUICK

from signsym_core import ATTACKS, BACKBONES, DATASETS, RULES, TASKS
from signsym_core.attacks import Attack
from signsym_core.rules import ScaledRule, record
from signsym_core.rules.snapshot import Snapshot
from signsym_core.rules.usf import USF
from signsym_core.testing import check_attack, check_backbone, check_member, check_rule


def recurrent():
    return BACKBONES.build("rnn", hidden=6).build(3, channels=1, size=5, seed=0)


#: What a rule that trains no network of convolutions is checked on.
NETWORKS = {"lra": (recurrent, torch.rand(6, 1, 4, 5, generator=torch.Generator().manual_seed(1)))}


@pytest.mark.parametrize("rule", RULES, ids=RULES.names)
def test_rule(rule):
    check_rule(rule(), *NETWORKS.get(rule.name, ()))


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["rms", "rms_channel", "mean_abs", "xavier", "he_fanout", "unit"])
@pytest.mark.parametrize("name", [rule.name for rule in RULES if issubclass(rule, ScaledRule)])
def test_rule_at_every_scale(name, scale):
    check_rule(RULES.build(name, scale=scale))


def test_rule_redrawn_at_every_forward_passes_too():
    check_rule(RULES.build("brsf", redraw="forward"))


@pytest.mark.parametrize("name", ATTACKS.names)
def test_attack(name):
    check_attack(ATTACKS.build(name, **QUICK.get(name, {})))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES, ids=BACKBONES.names)
def test_backbone(backbone):
    check_backbone(backbone())


@pytest.mark.parametrize("member", [*DATASETS, *TASKS], ids=[*DATASETS.names, *TASKS.names])
def test_member(member):
    check_member(member())


def test_the_suite_fails_a_rule_with_wrong_signs():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flipped(USF):
        """B = -s · sign(W)."""

        def build(self, weight, draw, size, out):
            super().build(weight, draw, size, out)
            out.neg_()

    with pytest.raises(AssertionError, match="signs of W"):
        check_rule(Flipped())


def test_the_suite_fails_a_matrix_that_is_kept_by_counters(monkeypatch):
    monkeypatch.setattr(Snapshot, "holds", lambda self, weight: True)
    with pytest.raises(AssertionError, match="weights as they are"):
        check_rule(USF())


def test_the_suite_fails_a_rule_that_keeps_a_matrix_of_its_own():
    kept = {}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Keeping(USF):
        """B = s · sign(W) as it was when the tensor was met first."""

        def build(self, weight, draw, size, out):
            if weight.data_ptr() not in kept:
                super().build(weight, draw, size, out)
                kept[weight.data_ptr()] = out.clone()
            out.copy_(kept[weight.data_ptr()])

    with pytest.raises(AssertionError, match="weights as they are"):
        check_rule(Keeping())


def test_the_suite_fails_records_that_cannot_be_averaged(monkeypatch):
    monkeypatch.setattr(record, "write", lambda fields: torch.zeros(len(str(fields)), dtype=torch.uint8))
    with pytest.raises((AssertionError, RuntimeError), match="lerp"):
        check_rule(USF())


def test_the_suite_fails_a_tag_that_promises_a_fixed_b():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Promising(USF):
        """B = s · sign(W)."""

        tags = frozenset({"fixed-after-init"})

    with pytest.raises(AssertionError, match="fixed after initialisation"):
        check_rule(Promising())


def test_the_suite_fails_an_attack_that_depends_on_the_other_epsilons():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Drifting(Attack):
        """A new random image each time it is asked."""

        name, label, citation = "drifting", "drifting", "a test"

        def run(self, problem, epsilon):
            return torch.rand_like(problem.images)

    with pytest.raises(AssertionError, match=r"one seed|depends on others"):
        check_attack(Drifting())
