"""Faults found in earlier implementations of these rules, numbered as they were listed; each is a test that we pass."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

import signsym_core as ss
from signsym_core.registry import ParameterError, UnknownNameError
from signsym_core.rules import LearnedRule
from signsym_core.rules.convert import UnservedLayerError, converted

BIOLOGICAL = [rule.name for rule in ss.RULES if not rule.exact]


def mlp(**kw):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, **kw), nn.ReLU(), nn.Linear(8, 3, **kw))


def input_gradient(model, x):
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    return x.grad


def matrices_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(ss.feedback(one).values(), ss.feedback(other).values(), strict=True))


def test_1_brsf_is_not_redrawn_in_evaluation_or_without_grad():
    model = ss.convert(mlp(), "brsf").eval()
    x = torch.randn(4, 6)
    first = input_gradient(model, x)
    with torch.no_grad():
        model(x)
    assert torch.equal(input_gradient(model, x), first)


def test_1_brsf_is_redrawn_once_for_each_update():
    model = ss.convert(mlp(), "brsf").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    layer = converted(model)[0][1]
    x = torch.randn(4, 6)
    draws = []
    for _ in range(3):
        for _ in range(2):  # two micro-batches, one update
            model(x).square().sum().backward()
            draws.append(layer.state.draws)
        optimizer.step()
        model.eval()
        model(x)
        model.train()
    assert draws == [1, 1, 2, 2, 3, 3]


def test_1_redraw_at_every_forward_is_an_option():
    model = ss.convert(mlp(), "brsf", redraw="forward").eval()
    x = torch.randn(4, 6)
    assert not torch.equal(input_gradient(model, x), input_gradient(model, x))


@pytest.mark.parametrize("scale", ["rms", "unit", "he_fanout"])
def test_2_brsf_works_at_every_scale(scale):
    input_gradient(ss.convert(mlp(), "brsf", scale=scale), torch.randn(2, 6))


def test_3_an_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'scael'.*did you mean 'scale'.*bp_layers"):
        ss.convert(mlp(), "usf", scael="rms")
    with pytest.raises(ParameterError, match=r"'scale' expects one of 'rms'.*got 'big'"):
        ss.convert(mlp(), "usf", scale="big")


def test_4_rules_are_values_that_conversion_cannot_change():
    rule = ss.RULES.build("usf", scale="xavier")
    one, other = ss.convert(mlp(), rule), ss.convert(mlp(), "frsf")
    assert {layer.state.rule.name for _, layer in converted(one)} == {"usf"}
    assert {layer.state.rule.name for _, layer in converted(other)} == {"frsf"}
    with pytest.raises(AttributeError):
        rule.scale = "rms"


def test_5_alignment_uses_the_signed_matrix():
    model = ss.convert(mlp(), "frsf", scale="unit")
    weight, matrix = model[0].weight.flatten(), ss.feedback(model)["0"].flatten()
    assert torch.cosine_similarity(weight, matrix, dim=0) > 0.6


def test_6_weights_stay_the_parameters_that_the_optimiser_holds():
    model = mlp()
    parameters = list(model.parameters())
    ss.convert(model, "usf")
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    before = [p.detach().clone() for p in parameters]
    input_gradient(model, torch.randn(4, 6))
    optimizer.step()
    assert all(p is q for p, q in zip(parameters, model.parameters(), strict=True))
    assert all(not torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


def test_7_the_state_dict_carries_no_feedback_matrices():
    model = models.resnet18(num_classes=10)
    plain = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    ss.convert(model, "frsf")
    assert sum(t.numel() * t.element_size() for t in model.state_dict().values()) < plain * 1.001


def test_8_a_checkpoint_of_another_rule_is_refused_and_names_the_layer():
    checkpoint = ss.convert(mlp(), "usf").state_dict()
    with pytest.raises(ValueError, match=r"'0'.*usf.*frsf") as error:
        ss.convert(mlp(), "frsf").load_state_dict(checkpoint)
    assert "convert the network with the checkpoint's rule" in str(error.value)
    with pytest.raises(ValueError, match="xavier"):
        ss.convert(mlp(), "usf", scale="xavier").load_state_dict(checkpoint)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_9_padding_modes_are_those_of_the_plain_layer(mode):
    layer = nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode=mode)
    x = torch.randn(2, 3, 7, 8)
    assert torch.equal(ss.convert(copy.deepcopy(layer), "usf")(x), layer(x))
    assert input_gradient(ss.convert(layer, "usf"), x).shape == x.shape


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (2, 1), ((2, 5), (3, 1)), (1, 1)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_10_text_paddings(padding, kernel, dilation):
    layer = nn.Conv2d(3, 4, kernel, padding=padding, dilation=dilation)
    x = torch.randn(2, 3, 9, 9)
    expected = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ss.convert(layer, "usf")
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert input_gradient(layer, x).shape == x.shape


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("rule", BIOLOGICAL)
def test_11_linear_layers_take_inputs_of_any_dimension(rule, shape):
    layer = ss.convert(nn.Linear(6, 3), rule)
    x = torch.randn(shape)
    matrix = ss.feedback(layer)[""]
    expected = 2 * layer(x).detach() @ matrix
    assert torch.allclose(input_gradient(layer, x), expected, rtol=1e-5, atol=1e-6)
    flat = 2 * layer(x).detach().reshape(-1, 3)
    assert torch.allclose(layer.weight.grad, flat.t() @ x.reshape(-1, 6), rtol=1e-5, atol=1e-5)
    assert torch.allclose(layer.bias.grad, flat.sum(0), rtol=1e-5, atol=1e-5)


def test_12_attention_of_a_class_of_its_own_is_refused_by_name_and_may_be_left_to_bp_in_words():
    class Own(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    def block():
        return nn.Sequential(OrderedDict(attention=Own(8, 2, batch_first=True), mlp=nn.Linear(8, 8)))

    with pytest.raises(UnservedLayerError, match=r"'attention'.*bp_layers"):
        ss.convert(block(), "usf")
    model = ss.convert(block(), "usf", bp_layers=("attention",))
    assert list(ss.feedback(model)) == ["mlp"]
    assert input_gradient(model, torch.randn(2, 3, 8)).shape == (2, 3, 8)


@pytest.mark.parametrize("network", ["swin_t", "r3d_18"])
def test_12_torchvision_networks_that_go_around_their_layers_are_refused(network):
    module = models.video.r3d_18 if network == "r3d_18" else getattr(models, network)
    with torch.device("meta"):
        built = module()
    with pytest.raises(UnservedLayerError, match="bp_layers"):
        ss.convert(built, "usf")


def test_12_layers_with_a_computed_weight_or_their_own_forward_are_refused():
    with pytest.raises(UnservedLayerError, match="parametrisation"):
        ss.convert(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))), "usf")

    class Standardised(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight - self.weight.mean(), self.bias)

    with pytest.raises(UnservedLayerError, match=r"'0'.*forward pass of its own"):
        ss.convert(nn.Sequential(Standardised(3, 4, 3)), "usf")


@pytest.mark.parametrize("rule", BIOLOGICAL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_13_autocast(rule, dtype):
    if dtype is torch.float16:
        try:
            F.conv2d(torch.zeros(1, 1, 2, 2, dtype=dtype), torch.zeros(1, 1, 1, 1, dtype=dtype))
        except RuntimeError as error:
            pytest.skip(f"this CPU has no float16 convolution: {error}")
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(64, 5))
    ss.convert(model, rule)
    x = torch.randn(2, 3, 4, 4)
    full = input_gradient(model, x)
    variable = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        output = model(variable)
    output.float().square().sum().backward()
    assert output.dtype is dtype
    assert model[0].weight.grad.dtype is torch.float32
    assert torch.cosine_similarity(variable.grad.flatten(), full.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("rule", BIOLOGICAL)
def test_14_double_models(rule):
    model = ss.convert(mlp(), rule).double()
    assert input_gradient(model, torch.randn(2, 6).double()).dtype is torch.float64
    born_double = ss.convert(mlp().double(), rule)
    assert all(matrix.dtype is torch.float64 for matrix in ss.feedback(born_double).values())


def test_15_a_shared_module_has_one_matrix_and_shared_weights_have_equal_ones():
    shared = nn.Linear(4, 4)
    model = ss.convert(nn.Sequential(shared, nn.ReLU(), shared), "frsf")
    assert model[0] is model[2]
    assert len(ss.feedback(model)) == 1
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    matrices = ss.feedback(ss.convert(tied, "frsf"))
    assert torch.equal(matrices["0"], matrices["2"])
    assert input_gradient(tied, torch.randn(2, 4)).shape == (2, 4)


@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.Conv2d(3, 2, 1)])
def test_16_a_bare_layer_is_converted(layer):
    assert list(ss.feedback(ss.convert(layer, "usf"))) == [""]


#: Tens of millions of weights, and as many entries of B for each rule.
LARGE = ("alexnet", "vgg16", "resnet50", "convnext_tiny", "vit_b_16")
#: Learned rules hold B in every network alike: two of them are enough. So do rules that differ in the values of B
#: alone, of which large networks take one. A cut network's outputs have no gradient at the pixels, a forward-only rule
#: takes plain networks alone, and networks with a loop of their own have no points.
SERVED = [
    (backbone, rule.name)
    for backbone in ss.BACKBONES.names
    for rule in ss.RULES
    if rule.name not in ("local", "pepita")
    if backbone in ("smallcnn", "resnet18") or not issubclass(rule, LearnedRule)
    if backbone not in LARGE or rule.name not in ("fa", "usf", "frsf")
    if (backbone, rule.name) not in {("rnn", "dfa"), ("lstm", "dfa"), ("mnm", "dfa")}
]


@functools.lru_cache(maxsize=1)
def untrained(backbone):
    """The network with 3 classes: drawing its weights takes longer than a pass, so all rules get copies of one."""
    built = ss.BACKBONES.build(backbone)
    return built.build(3, channels=3, size=built.min_size, seed=0).eval()


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "rule"), SERVED, ids=["-".join(pair) for pair in SERVED])
def test_17_every_backbone_takes_every_rule_and_number_of_classes(backbone, rule):
    model, size = copy.deepcopy(untrained(backbone)), ss.BACKBONES.build(backbone).min_size
    ss.convert(model, rule)
    x = torch.rand(1, 3, size, size)
    assert input_gradient(model, x).isfinite().all()


def test_18_attacks_in_evaluation_depend_on_the_labels():
    model = ss.convert(mlp(), "fa").eval()
    x = torch.randn(3, 6)
    gradients = []
    for label in (0, 1):
        variable = x.clone().requires_grad_()
        F.cross_entropy(model(variable), torch.full((3,), label)).backward()
        gradients.append(variable.grad)
    assert not torch.equal(*gradients)


@pytest.mark.slow
def test_19_gradients_keep_their_size_down_a_resnet():
    torch.manual_seed(0)
    model = models.resnet18(num_classes=10).train()
    x, y = torch.randn(8, 3, 64, 64), torch.arange(8)

    def norms():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        return torch.stack([p.grad.norm() for p in model.parameters() if p.ndim > 1])

    exact = norms()
    for rule in ("usf", "frsf", "brsf"):
        ss.convert(model, rule)
        ratio = norms() / exact
        assert ratio.min() > 0.3, rule
        assert ratio.max() < 3, rule


def test_20_saving_and_loading_never_unpickles_code(tmp_path):
    model = ss.convert(mlp(), "frsf")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = ss.convert(mlp(), "frsf", seed=9)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert matrices_equal(model, other)


def test_22_grouped_convolutions_count_fans_as_torch_does():
    layer = nn.Conv2d(4, 8, 3, groups=2)
    matrix = ss.feedback(ss.convert(layer, "usf", scale="xavier"))[""]
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    assert matrix.abs().max() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5)
