"""The promises of rules that put a matrix B in the place of W, layer by layer, which `check_rule` checks."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signsym_core.conformance.learned import assembled, check_learned
from signsym_core.conformance.network import assert_close, equal, small_images, small_network
from signsym_core.rules import LearnedRule, Rule, ScaledRule
from signsym_core.rules.base import Scale
from signsym_core.rules.convert import convert, feedback, revert
from signsym_core.rules.held import weights_of


def check_matrices(rule: Rule) -> None:
    """The promises of `rule` on a small network; AssertionError says what was expected and came."""
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = network(small_images())
    convert(network, rule, seed=3)
    for name, matrix in feedback(network).items():
        broken = int((~matrix.isfinite()).sum())
        assert not broken, f"{rule.name}: B has {broken} entries that are NaN or infinite in layer {name}"
    for name, tensor in before.items():
        assert torch.equal(network.state_dict()[name], tensor), f"{rule.name} changed {name} when it was converted"
    assert torch.equal(network(small_images()), plain), f"{rule.name} changed the forward pass"
    _check_gradients(rule, network)
    _check_freshness(rule, network)
    _check_updates(rule, network)
    _check_averages(rule)
    if isinstance(rule, LearnedRule):
        check_learned(rule, small_network)
    repeated = convert(small_network(), rule, seed=3)
    other = convert(small_network(), rule, seed=4)
    first = convert(small_network(), rule, seed=3)
    assert equal(feedback(repeated), feedback(first)), f"{rule.name}: the same seed must give the same B"
    if rule.random:
        assert not equal(feedback(repeated), feedback(other)), f"{rule.name}: another seed must give another B"
    if isinstance(rule, ScaledRule) and not isinstance(rule, LearnedRule):
        scales: tuple[Scale, Scale] = ("unit", "he_fanout")
        one, two = (feedback(convert(small_network(), dataclasses.replace(rule, scale=s), seed=3)) for s in scales)
        assert not equal(one, two), (
            f"{rule.name}: its parameter 'scale' changes nothing, so that cells of two scales would be one: build must "
            f"use `size`, or the rule derives from Rule, which has no scale"
        )
    revert(network)
    assert type(network[0]) is nn.Conv2d, f"{rule.name} must be undone by revert"
    assert network.state_dict().keys() == before.keys(), f"{rule.name}: revert must leave no trace"


def _check_gradients(rule: Rule, network: nn.Module) -> None:
    """Against a network written with ordinary autograd: y = f(x, W) in value, f(x, B) in what reaches x."""
    inputs = small_images().requires_grad_()
    network.zero_grad()
    outputs = network(inputs)
    # After the pass, so that a rule that draws at every pass tells the draw of this one.
    matrices = feedback(network)
    outputs.square().sum().backward()
    reference_inputs = small_images().requires_grad_()
    reference = {name: p.detach().clone().requires_grad_() for name, p in weights_of(network)}

    def conv(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, stride=2, padding=1)

    hidden = conv(reference_inputs.detach(), reference["0.weight"]) + conv(reference_inputs, matrices["0"])
    hidden = hidden - conv(reference_inputs, matrices["0"]).detach() + reference["0.bias"].view(1, -1, 1, 1)
    flat = hidden.relu().flatten(1)
    out = F.linear(flat.detach(), reference["3.weight"], reference["3.bias"])
    out = out + F.linear(flat, matrices["3"]) - F.linear(flat, matrices["3"]).detach()
    out.square().sum().backward()
    actual = {"the input": inputs.grad} | {name: parameter.grad for name, parameter in weights_of(network)}
    expected = {"the input": reference_inputs.grad} | {name: tensor.grad for name, tensor in reference.items()}
    assert_close(_known(actual), _known(expected), f"{rule.name}: gradient")


def _known(gradients: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    known = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    assert known.keys() == gradients.keys(), f"expected a gradient of each, got none of {gradients.keys() - known}"
    return known


def _check_freshness(rule: Rule, network: nn.Module) -> None:
    """B is that of the weights of its pass where nothing counts that they were written, and so for copies."""
    network.eval()
    random = torch.Generator().manual_seed(5)
    for _ in range(3):
        before = feedback(network)
        for parameter in network.parameters():
            parameter.data.mul_(torch.rand(parameter.shape, generator=random) * 3 - 1)
        if rule.redraws != "forward":
            fresh = feedback(convert(small_network(network), rule, seed=3).eval())
            learned = isinstance(rule, LearnedRule)
            expected = assembled(network) if learned else before if rule.frozen else fresh
            assert equal(feedback(network), expected), f"{rule.name}: B must be that of the weights as they are"
            assert equal(feedback(copy.deepcopy(network)), expected), f"{rule.name}: a copy must have the same B"
        # Twice, so that a matrix that was kept is met as well.
        for _ in range(2):
            _check_gradients(rule, network)


def _check_averages(rule: Rule) -> None:
    """Code that averages the tensors of state dicts averages the weights, and the rule still holds."""
    one, other, model = (convert(small_network(), rule, seed=3) for _ in range(3))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    states = one.state_dict(), other.state_dict()
    torch._foreach_lerp_(list(one.state_dict().values()), list(states[1].values()), 0.5)
    model.load_state_dict({name: 0.5 * states[0][name] + 0.5 * states[1][name] for name in states[0]})
    for average, scale in ((one, 1.5), (model, 1.75)):
        for (_, parameter), plain in zip(weights_of(average), small_network().parameters(), strict=True):
            assert torch.allclose(parameter, scale * plain), f"{rule.name}: averaging must average the weights"
        _check_gradients(rule, average)


def _check_updates(rule: Rule, network: nn.Module) -> None:
    """What the tags promise, over one update of the weights."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    before = feedback(network)
    optimizer.zero_grad()
    network(small_images()).square().sum().backward()
    optimizer.step()
    after = feedback(network)
    weights = {name: network.get_submodule(name).weight for name in after}
    if "sign-symmetric" in rule.tags:
        for name, matrix in after.items():
            weight = weights[name]
            assert isinstance(weight, Tensor)
            assert torch.equal(matrix.sign(), weight.sign()), f"{rule.name}: B must have the signs of W in {name}"
    if rule.frozen or "fixed-after-init" in rule.tags:
        assert equal(before, after), f"{rule.name}: a B that is fixed after initialisation must not change with W"
    if "fixed-draw" in rule.tags:
        assert rule.redraws == "never", f"{rule.name}: a draw that is fixed must not be drawn again"
    if "follows-weights" in rule.tags:
        assert not equal(before, after), f"{rule.name}: B must follow W"
    network.eval()
    settled = feedback(network)
    network(small_images())
    if rule.redraws != "forward":
        assert equal(feedback(network), settled), f"{rule.name}: B must not change in evaluation"
