"""The feedback of a converted model: against a written-out reference, through saving, moving, compiling, copying."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import signsym_core as ss
from signsym_core.rules.base import LEVELS, fill_levels
from signsym_core.rules.bypassed import unserved
from signsym_core.rules.convert import converted
from signsym_core.rules.whole import WholeRule
from signsym_core.testing import check_rule

#: The rules that are a matrix B in each layer.
RULES = [rule.name for rule in ss.RULES if not issubclass(rule, WholeRule)]


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    groups=st.sampled_from([1, 2]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(st.just("valid"), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_convolution_gradients_are_those_of_a_written_out_reference(
    rule, groups, kernel, stride, dilation, padding, bias, seed
):
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups, bias).double()
    ss.convert(layer, rule, seed=seed)
    x = torch.randn(2, 4, 9, 8).double().requires_grad_()
    y = layer(x)
    delta = torch.randn_like(y)
    y.backward(delta)
    top, left = (0, 0) if padding == "valid" else padding
    padded = F.pad(x.detach(), (left, left, top, top))
    down, by_weight = torch.zeros_like(padded), torch.zeros_like(layer.weight)
    matrix = ss.feedback(layer)[""]
    out_each, in_each = 6 // groups, 4 // groups
    for o in range(6):
        first = o // out_each * in_each
        for i in range(in_each):
            for a in range(kernel[0]):
                for b in range(kernel[1]):
                    rows = slice(a * dilation[0], a * dilation[0] + (y.shape[2] - 1) * stride[0] + 1, stride[0])
                    columns = slice(b * dilation[1], b * dilation[1] + (y.shape[3] - 1) * stride[1] + 1, stride[1])
                    down[:, first + i, rows, columns] += matrix[o, i, a, b] * delta[:, o]
                    by_weight[o, i, a, b] = (padded[:, first + i, rows, columns] * delta[:, o]).sum()
    down = down[:, :, top : top + 9, left : left + 8]
    assert torch.allclose(x.grad, down, rtol=1e-9, atol=1e-12)
    assert torch.allclose(layer.weight.grad, by_weight, rtol=1e-9, atol=1e-12)
    if bias:
        assert torch.allclose(layer.bias.grad, delta.sum((0, 2, 3)), rtol=1e-9)


def test_the_sham_rule_is_bp_in_every_number():
    """B = W through the same code as every rule: the control that must equal BP."""
    import dataclasses

    from signsym_core.rules import Rule

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Sham(Rule):
        """B = W."""

        name, label, citation = "sham", "sham", "a control"
        tags = frozenset({"sign-symmetric", "follows-weights"})

        def build(self, weight, draw, size, out):
            out.copy_(weight)

    check_rule(Sham())
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    sham = ss.convert(copy.deepcopy(plain), Sham())
    x, y = torch.rand(16, 3, 8, 8), torch.randint(5, (16,))
    for model in (plain, sham):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    for ours, theirs in zip(sham.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


OPTIMIZERS = [
    pytest.param(lambda p: torch.optim.SGD(p, lr=0.5), id="sgd"),
    pytest.param(lambda p: torch.optim.Adam(p, lr=0.5, foreach=True), id="adam-foreach"),
    pytest.param(lambda p: torch.optim.Adam(p, lr=0.5, fused=True), id="adam-fused"),
    pytest.param(lambda p: torch.optim.SGD(p, lr=0.5, fused=True), id="sgd-fused"),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_feedback_follows_every_optimiser(optimizer):
    model = ss.convert(nn.Linear(8, 8), "usf", scale="unit")
    stepper = optimizer(model.parameters())
    model(torch.randn(4, 8)).square().sum().backward()
    before = ss.feedback(model)[""]
    stepper.step()
    after = ss.feedback(model)[""]
    assert not torch.equal(before, after)
    assert torch.equal(after, model.weight.sign())


def test_feedback_follows_loads_and_edits():
    model = ss.convert(nn.Linear(5, 5), "usf", scale="unit")
    plain = nn.Linear(5, 5)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(ss.feedback(model)[""], plain.weight.sign())
    model.load_state_dict({name: -t for name, t in plain.state_dict().items()}, assign=True)
    assert torch.equal(ss.feedback(model)[""], -plain.weight.sign())
    with torch.no_grad():
        model.weight.neg_()
    assert torch.equal(ss.feedback(model)[""], plain.weight.sign())


@pytest.mark.parametrize("rule", RULES)
def test_state_is_saved_and_restored(rule, tmp_path):
    from safetensors.torch import load_file, save_file

    def trained(steps, model, optimizer):
        for step in range(steps):
            generator = torch.Generator().manual_seed(step)
            model(torch.randn(4, 6, generator=generator)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model = ss.convert(copy.deepcopy(network), rule, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trained(3, model, optimizer)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = ss.convert(copy.deepcopy(network), rule, seed=2)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert all(torch.equal(ss.feedback(model)[n], ss.feedback(other)[n]) for n in ss.feedback(model))
    # And training goes on with the same numbers.
    trained(3, model, optimizer)
    trained(3, other, torch.optim.SGD(other.parameters(), lr=0.1))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rule", RULES)
def test_copies_keep_the_feedback_and_go_their_own_way(rule):
    model = ss.convert(nn.Linear(6, 6), rule).train()
    twin = copy.deepcopy(model)
    assert torch.equal(ss.feedback(model)[""], ss.feedback(twin)[""])
    with torch.no_grad():
        twin.weight.neg_()
    assert torch.equal(ss.feedback(model)[""], ss.feedback(copy.deepcopy(model))[""])


@pytest.mark.parametrize("rule", RULES)
def test_exact_gradient_is_ordinary_autograd_on_the_same_weights(rule):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    model = ss.convert(copy.deepcopy(plain), rule)
    x = torch.rand(2, 3, 8, 8)

    def gradient(network):
        variable = x.clone().requires_grad_()
        network(variable).square().sum().backward()
        return variable.grad

    with ss.exact_gradient(model):
        assert torch.equal(gradient(model), gradient(plain))
        with ss.exact_gradient(model):
            pass
        assert torch.equal(gradient(model), gradient(plain)), "an inner block must not end the outer one"
    assert torch.equal(gradient(model), gradient(plain)) == ss.RULES[rule].exact


@pytest.mark.parametrize("rule", RULES)
def test_revert_gives_the_plain_network_back(rule):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attributes = [set(vars(module)) for module in network]
    ss.revert(ss.convert(network, rule))
    assert [type(module) for module in network] == [nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.Linear]
    assert [set(vars(module)) for module in network] == attributes
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


def test_converting_again_changes_the_rule():
    model = ss.convert(ss.convert(nn.Linear(4, 4), "usf"), "frsf")
    assert converted(model)[0][1].state.rule.name == "frsf"


def test_layers_named_by_bp_layers_stay_plain():
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 2))
    assert list(ss.feedback(ss.convert(network, "usf", bp_layers=("first", "head")))) == ["1.0", "1.1"]
    assert list(ss.feedback(ss.convert(network, "usf", bp_layers=("1",)))) == ["0", "2"]
    with pytest.raises(ValueError, match=r"layer in bp_layers: '7'"):
        ss.convert(network, "usf", bp_layers=("7",))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_compiled_models_give_the_same_gradients_and_follow_updates(rule):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    ss.convert(model, rule, seed=1)
    reference = copy.deepcopy(model)
    # torch keeps a few compilations of one function, and every rule needs one.
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.rand(2, 3, 8, 8)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, fused=True) for m in (model, reference)]
    for _ in range(3):
        gradients = []
        for network, optimizer in zip((compiled, reference), optimizers, strict=True):
            variable = x.clone().requires_grad_()
            optimizer.zero_grad()
            network(variable).square().sum().backward()
            gradients.append(variable.grad)
            optimizer.step()
        assert torch.allclose(*gradients, rtol=1e-5, atol=1e-7)
    with ss.exact_gradient(model):
        variable = x.clone().requires_grad_()
        compiled(variable).square().sum().backward()
        plain = x.clone().requires_grad_()
        reference_plain = ss.revert(copy.deepcopy(reference))
        reference_plain(plain).square().sum().backward()
        assert torch.allclose(variable.grad, plain.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf"])
@pytest.mark.parametrize("scale", ["rms", "xavier", "he_fanout", "mean_abs", "rms_channel"])
def test_the_scale_is_the_rms_of_b(rule, scale):
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, 3)
    matrix, weight = ss.feedback(ss.convert(layer, rule, scale=scale))[""], layer.weight.detach()
    expected = {
        "rms": weight.square().mean().sqrt(),
        "rms_channel": weight.square().mean().sqrt(),
        "mean_abs": weight.abs().mean(),
        "xavier": (2 / (32 * 9 + 64 * 9)) ** 0.5,
        "he_fanout": (2 / (64 * 9)) ** 0.5,
    }[scale]
    assert matrix.square().mean().sqrt() == pytest.approx(float(expected), rel=0.02)


@pytest.mark.slow
def test_uniform_numbers_are_uniform_and_never_zero():
    from scipy.stats import kstest

    numbers = torch.empty(3, 70_001)
    fill_levels(numbers, torch.Generator().manual_seed(0))
    assert numbers.min() > 0
    assert numbers.max() < LEVELS
    # The levels are discrete: a whole step may separate their distribution from the continuous one.
    assert kstest(numbers.flatten().numpy() / LEVELS, "uniform").statistic < 1 / LEVELS + 1.63 / numbers.numel() ** 0.5
    assert numbers.double().mean() / LEVELS == pytest.approx(1 / 2, abs=0.003)
    assert numbers.double().var() / LEVELS**2 == pytest.approx(1 / 12, rel=0.01)
    assert abs(float(torch.corrcoef(torch.stack([numbers[0, 1:], numbers[0, :-1]]))[0, 1])) < 0.02


def test_channels_last_and_unbatched_inputs():
    layer = ss.convert(nn.Conv2d(3, 4, 3, padding=1), "frsf")
    x = torch.rand(2, 3, 6, 6)
    expected = ss.feedback(layer)[""]
    layer.to(memory_format=torch.channels_last)
    assert torch.allclose(ss.feedback(layer)[""], expected)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    layer(x).sum().backward()
    single = x.detach()[0].clone().requires_grad_()
    layer(single).sum().backward()
    assert torch.allclose(single.grad, x.grad[0], atol=1e-6)


def test_unserved_names_layers_whose_forward_never_ran():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            return F.linear(x, self.inner.weight)

    model = ss.convert(Around(), "usf")
    model(torch.zeros(1, 3))
    assert unserved(model) == ["inner"]


def test_double_backward_through_the_input_gradient():
    model = ss.convert(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), "usf")
    x = torch.randn(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad is not None
