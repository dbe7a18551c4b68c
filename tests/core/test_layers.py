"""No weight of a network stays BP in silence: converted, named, of no matrix, or refused by its name."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from targets import right, small
from torch import nn
from torchvision import models

import signsym_core as ss
from signsym_core.rules.bypassed import BypassedLayerError, refuse_bypassed, unserved
from signsym_core.rules.convert import UnservedLayerError, converted


class Conv1D(nn.Module):
    """GPT-2's: a linear layer with a weight of its own, [in, out]."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Bare(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return x @ self.matrix


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrices = nn.ParameterList([torch.randn(4, 4)])

    def forward(self, x):
        return x @ self.matrices[0]


def spectral(layer):
    return nn.utils.spectral_norm(layer)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (lambda: Conv1D(4, 4), r"'1\.weight' \[4, 4\] of Conv1D"),
        (lambda: nn.Sequential(nn.Tanh(), Bare((4, 4))), r"'1\.1\.matrix' \[4, 4\] of Bare"),
        (lambda: Bare((4, 1)), r"'1\.matrix' \[4, 1\]"),
        (lambda: Bare((1, 4, 4)), r"'1\.matrix' \[1, 4, 4\]"),
        (Listed, r"'1\.matrices\.0' \[4, 4\] of ParameterList"),
        (lambda: nn.Bilinear(4, 4, 4), "'1' .Bilinear"),
        (lambda: nn.LSTM(4, 4), "'1' .LSTM"),
        (lambda: nn.Conv1d(4, 4, 1), "'1' .Conv1d"),
        (lambda: spectral(nn.Linear(4, 4)), "'1' .Linear.*computed from other"),
    ],
)
def test_a_weight_that_no_rule_serves_is_refused_by_name_and_may_be_named(module, name):
    network = nn.Sequential(nn.Linear(4, 4), module(), nn.Linear(4, 2))
    with pytest.raises(UnservedLayerError, match=rf"{name}.*bp_layers=\('1"):
        ss.convert(network, "usf")
    assert type(network[0]) is nn.Linear, "nothing is converted by half"
    assert list(ss.feedback(ss.convert(network, "usf", bp_layers=("1",)))) == ["0", "2"]
    ss.convert(network, "bp")


def test_a_single_parameter_may_be_named():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Parameter(torch.randn(1, 5, 4))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x + self.positions)

    with pytest.raises(UnservedLayerError, match=r"bp_layers=\('positions',\)"):
        ss.convert(Positions(), "usf")
    model = ss.convert(Positions(), "usf", bp_layers=("positions",))
    x = torch.rand(2, 5, 4, requires_grad=True)
    model(x).sum().backward()
    assert torch.allclose(x.grad, ss.feedback(model)["head"].sum(0).expand(2, 5, 4))


def test_normalisations_and_embeddings_hold_no_matrix():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.norm = nn.Embedding(9, 4), nn.LayerNorm((3, 4))
            self.group, self.head = nn.GroupNorm(1, 3), nn.Linear(4, 9)
            self.head.weight = self.words.weight

        def forward(self, x):
            return self.head(self.group(self.norm(self.words(x))))

    model = ss.convert(Words(), "usf")
    assert list(ss.feedback(model)) == ["head"]
    assert model(torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 3, 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "maxvit_t",
        "efficientnet_b0",
        "mobilenet_v3_small",
        "densenet121",
        "googlenet",
        "shufflenet_v2_x0_5",
        "squeezenet1_0",
        "mnasnet0_5",
        "inception_v3",
        "resnet50",
        "vgg11_bn",
        "vit_b_16",
    ],
)
def test_torchvision_networks_are_converted_whole(name):
    with torch.device("meta"):
        network = getattr(models, name)(**({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))
    matrices = {n for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    attentions = {n for n, m in network.named_modules() if isinstance(m, nn.MultiheadAttention)}
    ss.convert(network, "usf")
    assert {n for n, _ in converted(network)} == matrices | {f"{n}.in_proj" for n in attentions}


class Named(nn.Linear):
    """A class of a user's own, with methods and state beside the weight."""

    scale = 2.0

    def __init__(self, *arguments, label):
        super().__init__(*arguments)
        self.label = label

    def penalty(self):
        return self.scale * self.weight.square().sum()


class Deeper(Named):
    def extra_repr(self):
        return f"label={self.label}, " + super().extra_repr()


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", [Named, Deeper])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, lambda model: model])
def test_layers_of_a_derived_class_keep_what_is_their_own(kind, copied):
    torch.manual_seed(0)
    network = nn.Sequential(kind(4, 3, label="x"), nn.ReLU(), nn.Linear(3, 2))
    expected = network[0].penalty().item()
    model = copied(ss.convert(network, "usf"))
    layer = model[0]
    assert isinstance(layer, kind)
    assert (layer.penalty().item(), layer.label, layer.scale) == (expected, "x", 2.0)
    assert "rule=usf" in repr(layer)
    x = torch.rand(2, 4, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, ss.feedback(model)["0"].sum(0).expand(2, 4))
    assert type(ss.revert(model)[0]) is kind


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Called(nn.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Remembering(nn.Linear):
    def get_extra_state(self):
        return {}

    def set_extra_state(self, state):
        pass


def patched(*arguments):
    layer = nn.Linear(*arguments)
    layer.forward = lambda x: 2 * F.linear(x, layer.weight)
    return layer


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Doubled, "forward pass"), (Called, "forward pass"), (patched, "forward pass"), (Remembering, "extra state")],
)
def test_a_derived_class_with_a_pass_of_its_own_is_refused_by_name(kind, words):
    network = nn.Sequential(kind(4, 3), nn.Linear(3, 2))
    with pytest.raises(UnservedLayerError, match=rf"'0'.*{words} of its own.*bp_layers"):
        ss.convert(network, "usf")
    assert list(ss.feedback(ss.convert(network, "usf", bp_layers=("0",)))) == ["1"]


class Around(nn.Module):
    """Goes around its second layer, and never uses its third."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.spare = nn.Conv2d(3, 4, 3), nn.Linear(256, 5), nn.Linear(256, 5)

    def forward(self, x):
        return F.linear(self.first(x).relu().flatten(1), self.second.weight, self.second.bias)


@pytest.mark.parametrize("gradient", ["feedback", "mixed", "eot", "hybrid"])
def test_an_attack_that_follows_a_feedback_is_refused_where_a_layer_is_gone_around(gradient):
    torch.manual_seed(0)
    model, (images, labels) = ss.convert(Around(), "usf"), right(small("bp"))
    given = {"gradient": gradient} | ({"surrogate": small("bp")} if gradient == "hybrid" else {})
    with pytest.raises(BypassedLayerError, match=r"\['second'\].*bp_layers"):
        ss.attack("fgsm", model, images, labels, [0.1], **given)
    assert not any(p.grad is not None or not p.requires_grad for p in model.parameters())
    assert unserved(model) == ["second", "spare"]
    ss.attack("fgsm", ss.convert(model, "usf", bp_layers=("second",)), images, labels, [0.1], **given)
    ss.attack("fgsm", ss.convert(model, "bp"), images, labels, [0.1], **given)


def test_the_exact_gradient_of_such_a_network_is_right_and_an_audit_is_refused():
    torch.manual_seed(0)
    model, (images, labels) = ss.convert(Around(), "usf"), right(small("bp"))
    exact = ss.attack("fgsm", model, images, labels, [0.1], gradient="exact", keep=40)
    plain = ss.attack("fgsm", ss.revert(copy.deepcopy(model)), images, labels, [0.1], keep=40)
    assert torch.equal(exact.adversarial, plain.adversarial)
    with pytest.raises(BypassedLayerError, match="second"):
        ss.audit(model, images, labels, [0.1])


def test_layers_that_take_no_part_are_not_gone_around():
    class Spare(Around):
        def forward(self, x):
            return self.second(self.first(x).relu().flatten(1))

    model, (images, labels) = ss.convert(Spare(), "usf"), right(small("bp"))
    ss.attack("fgsm", model, images, labels, [0.1])
    refuse_bypassed(model, images[:1])
    assert unserved(model) == ["spare"]
