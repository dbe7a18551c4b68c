"""The promises of rules of the whole network, at points or by steps, which `check_rule` checks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from signsym_core.conformance.network import Network, assert_close, equal
from signsym_core.microbatch import backward
from signsym_core.models.outputs import outputs_of
from signsym_core.rules.convert import convert, converted, exact_gradient, revert
from signsym_core.rules.point_rule import PointRule
from signsym_core.rules.points import readouts, summed
from signsym_core.rules.whole import WholeRule
from signsym_core.tasks.classification import CrossEntropy

#: Steps, and their size, in which a rule has to lower the loss.
STEPS, RATE = 40, 0.01


def check_whole(rule: WholeRule, network: Network, images: Tensor) -> None:
    """The promises of `rule` on what `network` makes, an equal one at each call, for float images [n, ...], n ≥ 6.

    Raises AssertionError, saying what was expected and what came.
    """
    plain, model = network(), network()
    labels = torch.arange(len(images)) % plain(images).shape[1]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = plain(images)
    convert(model, rule, seed=3)
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor), f"{rule.name} changed {name} when it was converted"
    with torch.no_grad():
        assert torch.equal(model(images), expected), f"{rule.name} changed the forward pass"
    _check_gradients(rule, network, images, labels)
    _check_same(rule, network, images, labels)
    _check_descent(rule, network, images, labels)
    if isinstance(rule, PointRule):
        _check_points(rule, network, images, labels)
    revert(model)
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    kinds = [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    in_place = [getattr(module, "inplace", None) for module in model.modules()]
    assert kinds, f"{rule.name} must be undone by revert: a layer has another class"
    assert not hooks, f"{rule.name} must be undone by revert: {hooks} hooks are left"
    assert in_place == [getattr(m, "inplace", None) for m in plain.modules()], f"{rule.name} must restore inplace"


def _check_gradients(rule: WholeRule, network: Network, images: Tensor, labels: Tensor) -> None:
    """What a step leaves: gradients of every layer in its memory order, the loss, and the weights as they were."""
    model = convert(network(), rule, seed=3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss = rule.step(model, CrossEntropy(), images, labels, None)
    expected = CrossEntropy()(outputs_of(network(), images), labels)
    assert not loss.requires_grad, f"{rule.name}: the loss that a step returns must be detached"
    assert torch.allclose(loss, expected), f"{rule.name}: a step must return the loss {float(expected)}, got {loss}"
    for name, layer in converted(model):
        gradient = layer.weight.grad
        assert gradient is not None, f"{rule.name}: a step must leave a gradient in {name}"
        shape, strides = gradient.shape == layer.weight.shape, gradient.stride() == layer.weight.stride()
        assert shape, f"{rule.name}: the gradient of {name} has another shape than its weight"
        assert strides, f"{rule.name}: the gradient of {name} lies in another memory order: use add_gradient"
    for parameter, kept in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept), f"{rule.name}: a step must leave the weights to the optimiser"
    try:
        pieces = _stepped(rule, convert(network(), rule, seed=3), images, labels, micro_batch=4)
    except ValueError:
        # A rule may refuse to divide a batch.
        return
    assert_close(pieces, _stepped(rule, model, images, labels), f"{rule.name}: a batch in pieces must be the same step")


def _check_same(rule: WholeRule, network: Network, images: Tensor, labels: Tensor) -> None:
    """One seed gives one step, also in copies and after a load; nothing of earlier batches stays, but the labels."""
    model = convert(network(), rule, seed=3)
    expected = _stepped(rule, model, images, labels)
    other_labels = labels.roll(1)
    by_other_labels = _stepped(rule, model, images[1:], other_labels[1:])
    assert not equal(by_other_labels, expected), f"{rule.name}: other labels must give other gradients"
    assert equal(_stepped(rule, model, images, labels), expected), f"{rule.name}: a step must not depend on earlier"
    assert equal(_stepped(rule, copy.deepcopy(model), images, labels), expected), f"{rule.name}: a copy differs"
    repeated = convert(network(), rule, seed=3)
    assert equal(_stepped(rule, repeated, images, labels), expected), f"{rule.name}: one seed must give one step"
    loaded = convert(network(), rule, seed=4)
    loaded.load_state_dict(model.state_dict())
    assert equal(_stepped(rule, loaded, images, labels), expected), f"{rule.name}: a loaded model differs"


def _check_descent(rule: WholeRule, network: Network, images: Tensor, labels: Tensor) -> None:
    model = convert(network(), rule, seed=3).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(rule.step(model, CrossEntropy(), images, labels, None)))
        optimizer.step()
    assert losses[-1] < losses[0], f"{rule.name}: {STEPS} steps must lower the loss, got {losses[0]} to {losses[-1]}"


def _check_points(rule: PointRule, network: Network, images: Tensor, labels: Tensor) -> None:
    """Where the gradients come from: below a point its signal or readout, above it and under `exact` autograd."""
    model, plain = convert(network(), rule, seed=3), network()
    actual, exact = _stepped(rule, model, images, labels), _backward(plain, images, labels)
    head = converted(model)[-1][0]
    weight = head + ".weight"
    assert torch.equal(actual[weight], exact[weight]), f"{rule.name}: above the points it must be exact"
    assert not equal(actual, exact), f"{rule.name}: no gradient differs from BP's"
    with exact_gradient(model):
        assert equal(_backward(model, images, labels), exact), f"{rule.name}: the exact gradient must be BP's"
    down = _at_images(model, images, labels)
    assert not torch.allclose(down, _at_images(model, images, labels.roll(1))), f"{rule.name}: labels must matter"
    _stepped(rule, model.train(), images[3:], labels.roll(1)[3:])
    pieces = torch.cat([_at_images(model, images[:2], labels[:2]), _at_images(model, images[2:], labels[2:])])
    error = float((pieces - down).norm() / down.norm())
    assert error < 1e-5, f"{rule.name}: the gradient of an image depends on other images or an earlier pass: {error}"
    if rule.cuts:
        with torch.no_grad():
            model.get_parameter(weight).mul_(-2)
        assert equal(_stepped(rule, model, images, labels), actual, skip=head), f"{rule.name}: a block follows later"
        assert torch.equal(_at_images(model, images, labels), down), f"{rule.name}: the pixels follow later weights"


def _stepped(
    rule: WholeRule, model: nn.Module, images: Tensor, labels: Tensor, micro_batch: int | None = None
) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    rule.step(model, CrossEntropy(), images, labels, micro_batch)
    return _gradients(model)


def _backward(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    backward(model, CrossEntropy(), images, labels, None)
    return _gradients(model)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _at_images(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """What an attack along the model's own backward pass follows, with the sum of the cross-entropies."""

    def loss(outputs: Tensor) -> Tensor:
        return CrossEntropy()(outputs, labels) * len(labels)

    variable = images.clone().requires_grad_()
    with readouts(model) as read:
        total = summed(loss(outputs_of(model, variable)), loss, read)
    return torch.autograd.grad(total, variable)[0]
