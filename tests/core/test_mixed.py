"""Rules per layer: each layer has its rule, and the same rule everywhere is that rule."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import signsym_core as ss
from signsym_core.datasets import Split
from signsym_core.registry import ParameterError, UnknownNameError
from signsym_core.rules import Layers
from signsym_core.rules.convert import converted
from signsym_core.testing import check_rule

SAME = ["bp", "fa", "usf", "frsf", "brsf", {"name": "brsf", "redraw": "forward", "scale": "xavier"}]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def names(model):
    return {name: layer.state.rule.name for name, layer in converted(model)}


def trained(rule, **parameters):
    """The weights of a small model after two epochs, and its B."""
    images = torch.randint(256, (48, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train = Split(images=images, labels=torch.arange(48) % 3, indices=torch.arange(48))
    model = ss.BACKBONES.build("smallcnn", width=2).build(3, channels=1, size=8)
    ss.convert(model, rule, seed=3, **parameters)
    settings = ss.FineTune(epochs=2, batch_size=16, lr=1e-2, head_lr=1e-2)
    ss.fine_tune(model, train, ss.DATASETS.build("digits"), ss.TASKS.build("classification"), settings, seed=0)
    return model.state_dict(), ss.feedback(model)


@pytest.mark.slow
@pytest.mark.parametrize("rule", SAME, ids=["bp", "fa", "usf", "frsf", "brsf", "brsf-forward"])
def test_one_rule_in_all_layers_is_that_rule_bit_for_bit(rule):
    plain = {"name": rule} if isinstance(rule, str) else rule
    alone = trained(plain["name"], **{name: value for name, value in plain.items() if name != "name"})
    mixed = trained("mixed", layers={"conv1_1": rule, "conv*": rule, "head": rule})
    for one, other in zip(alone, mixed, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_layer_has_the_b_of_its_rule():
    rules = {"0": "usf", "2": {"name": "frsf", "scale": "xavier"}, "5": "fa", "*": "bp"}
    mixed = ss.feedback(ss.convert(network(), "mixed", seed=5, layers=rules))
    alone = {
        "0": ss.feedback(ss.convert(network(), "usf", seed=5)),
        "2": ss.feedback(ss.convert(network(), "frsf", seed=5, scale="xavier")),
        "5": ss.feedback(ss.convert(network(), "fa", seed=5)),
        "7": ss.feedback(ss.convert(network(), "bp")),
    }
    assert list(mixed) == list(alone)
    assert all(torch.equal(mixed[name], of_rule[name]) for name, of_rule in alone.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"*": "bp", "layer1": "usf", "layer1.0.conv1": "fa"}, {"layer1.0.conv1": "fa", "layer1.0.conv2": "usf"}),
        ({"layer1.0.conv1": "fa", "layer1": "usf", "*": "bp"}, {"layer1.0.conv1": "fa", "layer1.1.conv1": "usf"}),
        ({"network.layer1": "usf", "*": "bp"}, {"layer1.1.conv2": "usf", "layer2.0.conv1": "bp"}),
        ({"first": "fa", "head": "usf", "*": "bp"}, {"conv1": "fa", "fc": "usf", "layer4.1.conv2": "bp"}),
        ({"layer?.0": "usf", "*.downsample.0": "fa", "*": "bp"}, {"layer2.0.downsample.0": "fa", "layer1.0.conv1": "usf"}),  # noqa: E501
    ],
)  # fmt: skip
def test_the_pattern_that_names_a_layer_closest_decides_whatever_the_order(layers, expected):
    model = ss.convert(ss.BACKBONES.build("resnet18").build(3), "mixed", layers=layers)
    assert names(model) | {f"network.{name}": rule for name, rule in expected.items()} == names(model)


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ({"8": "usf", "*": "bp"}, UnknownNameError, r"layer or pattern in layers: '8'.*known: first, head, 0, 2, 5, 7"),
        ({"conv*": "usf", "*": "bp"}, UnknownNameError, r"'conv\*'.*known: first, head, 0, 2, 5, 7"),
        ({"0": "usf"}, ParameterError, "a rule for every layer, got none for '2'"),
        ({"0": "uf", "*": "bp"}, UnknownNameError, "'0': unknown rule: 'uf', did you mean 'usf'"),
        ({"0": {"name": "frsf", "scael": "rms"}}, UnknownNameError, "'0': unknown parameter of rule 'frsf': 'scael'"),
        ({"*": {"name": "frsf", "bp_layers": ["0"]}}, ParameterError, "no bp_layers here"),
        ({"*": "mixed"}, ParameterError, "serves a layer by itself, got 'mixed'"),
        ({"*": 3}, ParameterError, "expects the name of a rule"),
        ({}, ParameterError, "a mapping of layer names or patterns to rules"),
        ("usf", ParameterError, "a mapping of layer names or patterns to rules"),
    ],
)
def test_layers_that_do_not_fit_are_refused_in_words(layers, error, words):
    plain = network()
    with pytest.raises(error, match=words):
        ss.convert(plain, "mixed", layers=layers)
    assert not converted(plain)


def test_two_patterns_as_close_as_each_other_are_refused_unless_they_agree():
    model = ss.BACKBONES.build("resnet18").build(3)
    with pytest.raises(ParameterError, match=r"'layer1' and '\*\.0\.con\*' for 'layer1\.0\.conv1', of equal"):
        ss.convert(model, "mixed", layers={"layer1": "usf", "*.0.con*": "fa", "*": "bp"})
    ss.convert(model, "mixed", layers={"layer1": "usf", "*.0.con*": "usf", "*": "bp"})


def test_equal_rules_are_written_equally():
    one = Layers.from_plain({"a": "usf", "b": "bp"})
    other = Layers.from_plain({"b": {"name": "bp"}, "a": {"name": "usf", "scale": "rms"}})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Layers.from_plain({"a": {"name": "usf", "scale": "xavier"}, "b": "bp"})


def test_a_matrix_that_no_rule_serves_may_be_left_to_bp_by_a_pattern():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.up = nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 3)

        def forward(self, x):
            return self.up(self.one(x))

    assert names(ss.convert(Odd(), "mixed", layers={"one": "usf", "*": "bp"})) == {"one": "usf"}
    with pytest.raises(TypeError, match="'up'"):
        ss.convert(Odd(), "mixed", layers={"one": "bp", "*": "usf"})


def test_a_mixed_model_is_copied_saved_and_loaded_and_conforms():
    rules = {"0": "brsf", "2": "frsf", "*": "usf"}
    model = ss.convert(network(), "mixed", seed=1, layers=rules)
    fresh = ss.convert(network(), "mixed", seed=2, layers=rules)
    fresh.load_state_dict(model.state_dict())
    for other in (fresh, copy.deepcopy(model)):
        assert all(torch.equal(B, ss.feedback(other)[name]) for name, B in ss.feedback(model).items())
    with pytest.raises(ValueError, match="layer '2': the checkpoint's feedback"):
        ss.convert(network(), "mixed", layers={"0": "brsf", "*": "usf"}).load_state_dict(model.state_dict())
    check_rule(ss.RULES.build("mixed", layers={"0": {"name": "brsf", "scale": "xavier"}, "3": "usf"}))
