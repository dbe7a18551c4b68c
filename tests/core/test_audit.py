"""The audit tells the truth: about rules, about BP by another name, and about models that are masked on purpose."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
from torch import nn

import signsym_core as ss
from signsym_core.datasets import inputs
from signsym_core.rules import Rule

pytestmark = pytest.mark.slow

SEEDS = (0, 1)
EPSILONS = [0.1]
#: Enough images for every check.
IMAGES = 180


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sham(Rule):
    """B = W, sent down by the feedback layers: backpropagation by another way."""

    name = "sham"
    label = "sham"
    citation = "a control"
    tags = frozenset({"follows-weights", "sign-symmetric"})

    def build(self, weight, draw, size, out):
        out.copy_(weight)


class Quantised(nn.Module):
    """Masked on purpose: 16 grey levels have no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images * 15).round() / 15)


class Saturated(nn.Module):
    """Masked on purpose: with logits times 100 the cross-entropy's gradient is 0 in single precision."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return 100 * self.model(images)


class Faint(nn.Module):
    """Not masked: the gradient is right, and the cross-entropy of logits so small is a poor loss to raise."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images) / 100


@functools.cache
def digits():
    source = ss.DATASETS.build("digits")
    data = source.load(Path("."))
    return source, data, inputs(data.test.images, source)[:IMAGES], data.test.labels[:IMAGES]


@functools.cache
def trained(rule, seed):
    source, data, _, _ = digits()
    model = ss.BACKBONES.build("smallcnn", width=4).build(10, channels=1, size=8, seed=seed)
    ss.convert(model, Sham() if rule == "sham" else rule, seed=seed)
    settings = ss.FineTune(epochs=6, lr=6e-3, head_lr=6e-3, batch_size=128)
    ss.fine_tune(model, data.train, source, ss.TASKS.build("classification"), settings, seed=seed)
    return model.eval()


@functools.cache
def audited(rule):
    """The verdict on a rule, and on a plain network or one that is wrapped, by the name of the wrapper."""
    _, _, images, labels = digits()
    twins = [trained("bp", seed) for seed in SEEDS]
    if rule in ("plain", "quantised", "saturated"):
        wrap = {"plain": nn.Sequential, "quantised": Quantised, "saturated": Saturated}[rule]
        plain = [ss.BACKBONES.build("smallcnn", width=4).build(10, channels=1, size=8, seed=seed) for seed in SEEDS]
        for network, twin in zip(plain, twins, strict=True):
            state = {name: value for name, value in twin.state_dict().items() if not name.endswith("_extra_state")}
            network.load_state_dict(state)
        models = [wrap(network) for network in plain]
    else:
        models = [trained(rule, seed) for seed in SEEDS]
    return ss.audit(models, images, labels, EPSILONS, twin=twins, steps=6)


def numbers(verdict):
    return {
        made.check.id: (made.finding.first, made.finding.second, made.finding.raised, made.epsilon)
        for made in verdict.made
    }


def raised(verdict):
    return {made.check.id for made in verdict.raised}


def test_backpropagation_is_sound_converted_and_plain():
    assert audited("bp").words == "sound"
    assert audited("plain").words == "sound"


def test_backpropagation_is_sound_beside_a_twin_that_is_another_network():
    _, _, images, labels = digits()
    verdict = ss.audit(trained("bp", 0), images, labels, [0.05, 0.1], twin=trained("bp", 1), steps=6)
    assert verdict.words == "sound"


@pytest.mark.parametrize(
    ("rule", "points", "flags"),
    [
        ("usf", 20, {"G1", "G2b", "G3"}),
        ("frsf", 30, {"G1", "G2", "G2b", "G3", "T1b"}),
        ("brsf", 30, {"G1", "G2", "G2b", "G3", "T1b"}),
        ("fa", 50, {"G1", "G2", "G2b", "G3", "T1b"}),
    ],
)
def test_a_rule_with_another_backward_pass_is_masked(rule, points, flags):
    verdict = audited(rule)
    assert verdict.kind == "masked gradient"
    assert verdict.epsilon == 0.1
    assert 100 * verdict.overstated > points
    assert flags <= raised(verdict)
    assert f"by {100 * verdict.overstated:.1f} points" in verdict.words


@pytest.mark.parametrize(("name", "flags"), [("quantised", {"G2", "G2b", "G4", "T1"}), ("saturated", {"G4", "T1"})])
def test_a_model_that_is_masked_on_purpose_is_masked(name, flags):
    verdict = audited(name)
    assert verdict.kind == "masked gradient"
    assert flags <= raised(verdict)
    assert verdict.epsilon == 0.1
    assert 100 * verdict.overstated > 30


def test_a_rule_whose_feedback_is_the_weights_equals_backpropagation_in_every_number():
    assert numbers(audited("sham")) == numbers(audited("bp"))
    assert audited("sham").words == "sound"


def test_without_a_twin_a_converted_model_is_undecided_and_says_so():
    _, _, images, labels = digits()
    verdict = ss.audit(trained("bp", 0), images[:60], labels[:60], EPSILONS, steps=3, queries=5)
    assert [check.id for check in verdict.missing] == ["T1", "T1b"]


@pytest.mark.parametrize(("wrap", "kind"), [(nn.Sequential, "sound"), (Quantised, "masked gradient"), (Faint, "sound")])
def test_a_network_of_ones_own_needs_no_twin(wrap, kind):
    _, _, images, labels = digits()
    model = wrap(ss.revert(copy.deepcopy(trained("bp", 0))))
    verdict = ss.audit(model, images[:150], labels[:150], EPSILONS, steps=20, queries=500)
    assert verdict.kind == kind
    assert ("B1" in raised(verdict)) == (kind != "sound")


def test_one_twin_for_each_model_or_none():
    _, _, images, labels = digits()
    models = [trained("bp", seed) for seed in SEEDS]
    with pytest.raises(ValueError, match="2 models, 1 twins"):
        ss.audit(models, images, labels, EPSILONS, twin=models[0])
