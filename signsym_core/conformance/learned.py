"""Conformance of learned rules: when held tensors change, what keeps them, and what B tends to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.conformance.network import assert_close, small_images
from signsym_core.rules.convert import convert, converted, feedback
from signsym_core.rules.held import LearnedState, held_parameters, parameter_groups, weights_of
from signsym_core.rules.learned import LearnedRule

#: Steps, rate and decay of the training that is to bring B to W: what KP forgets leaves (1 - 0.05)^60 = 5 %.
STEPS, RATE, DECAY = 60, 0.02, 2.5


def check_learned(rule: LearnedRule, network: Callable[[], nn.Sequential]) -> None:
    """The promises of a learned rule, on fresh networks of one seed that take images [n, 3, 8, 8]."""

    def model() -> nn.Module:
        return convert(network(), rule, seed=3).train()

    assert held_parameters(model()), f"{rule.name} has the tag learned and holds nothing"
    _check_lessons(rule, model)
    _check_continuation(rule, model)
    _check_kernels(rule, model)
    _check_plain_checkpoint(rule, model(), network())
    if rule.aligns:
        _check_alignment(rule, model())


def assembled(model: nn.Module) -> dict[str, Tensor]:
    """B of each layer, made from the held tensors here and now."""
    matrices = {}
    for name, layer in converted(model):
        state = layer.state
        assert isinstance(state, LearnedState)
        rule, held = state.rule, state.held.tensors()
        matrix = torch.empty(layer.weight.shape, dtype=layer.weight.dtype)
        if rule.matrix is None:
            rule.assemble(held, matrix)
        else:
            matrix.copy_(held[rule.matrix])
        matrices[name] = matrix
    return matrices


def _optimizer(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """As the fine-tune's."""
    settings = {"lr": RATE, "weight_decay": DECAY, **options}
    return torch.optim.AdamW(parameter_groups(model, list(model.parameters())), **settings)


def _step(rule: LearnedRule, model: nn.Module, optimizer: torch.optim.Optimizer, number: int, pieces: int = 1) -> None:
    optimizer.zero_grad()
    for images in small_images(number).chunk(pieces):
        model(images).square().sum().backward()
    try:
        optimizer.step()
    except ValueError as error:
        raise AssertionError(f"{rule.name} refuses the groups that it asks for by `decays`: {error}") from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _check_lessons(rule: LearnedRule, model: Callable[[], nn.Module]) -> None:
    """Nothing but a step of the optimiser teaches, and one step teaches once."""
    undivided, divided = model(), model()
    before = _tensors(undivided)
    for mode in (True, False):
        images = small_images(1).requires_grad_()
        undivided.train(mode)(images).square().sum().backward()
    assert_close(before, _tensors(undivided), f"{rule.name}: a pass without a step must change nothing", 0)
    undivided = model()
    # Plain steps, so that rounding is not blown up by moments.
    for network, pieces in ((undivided, 1), (divided, 2)):
        groups = parameter_groups(network, list(network.parameters()))
        _step(rule, network, torch.optim.SGD(groups, lr=1e-3, weight_decay=0.1), 1, pieces)
    assert_close(_tensors(undivided), _tensors(divided), f"{rule.name}: pieces of a batch must be one lesson", 1e-5)


def _check_continuation(rule: LearnedRule, model: Callable[[], nn.Module]) -> None:
    """A copy and a checkpoint go on with the numbers of the training that was not interrupted."""
    network = model()
    optimizer = _optimizer(network)
    for number in range(3):
        _step(rule, network, optimizer, number)
    twin, loaded = copy.deepcopy(network), model()
    loaded.load_state_dict(_tensors(network))
    successors = [("a copy", twin, _optimizer(twin)), ("a checkpoint", loaded, _optimizer(loaded))]
    moments = copy.deepcopy(optimizer.state_dict())
    for number in range(3, 6):
        _step(rule, network, optimizer, number)
    for what, other, its_optimizer in successors:
        its_optimizer.load_state_dict(copy.deepcopy(moments))
        for number in range(3, 6):
            _step(rule, other, its_optimizer, number)
        assert_close(_tensors(network), _tensors(other), f"{rule.name}: {what} must go on as the original", 0)


def _check_kernels(rule: LearnedRule, model: Callable[[], nn.Module]) -> None:
    """Fused kernels, which go by memory and not by indices, give the numbers of a loop over parameters."""
    fused, looped = model(), model()
    for network, options in ((fused, {"fused": True}), (looped, {"foreach": False})):
        _step(rule, network, _optimizer(network, **options), 1)
    assert_close(
        _tensors(fused), _tensors(looped), f"{rule.name}: fused and other kernels of the optimiser must agree", 1e-3
    )


def _check_plain_checkpoint(rule: LearnedRule, model: nn.Module, plain: nn.Module) -> None:
    """Weights of the plain network fit, and leave the held tensors alone."""
    held = {name: parameter.detach().clone() for name, parameter, _ in held_parameters(model)}
    model.load_state_dict(plain.state_dict())
    assert_close(
        held, _tensors(model), f"{rule.name}: a checkpoint of the plain network must leave the held tensors alone", 0
    )


def _check_alignment(rule: LearnedRule, model: nn.Module) -> None:
    weights = dict(weights_of(model))

    def distances() -> dict[str, Tensor]:
        return {name: (b - weights[f"{name}.weight"].detach()).norm() for name, b in feedback(model).items()}

    # A B that begins near W may stay as near as the noise of its lessons lets it.
    before = {n: distance.maximum(weights[f"{n}.weight"].detach().norm()) for n, distance in distances().items()}
    optimizer = _optimizer(model)
    for number in range(STEPS):
        _step(rule, model, optimizer, number)
    for name, distance in distances().items():
        share = float(distance / before[name])
        assert share < 0.3, (
            f"{rule.name}: B does not come near W in layer {name!r}: |B - W| is {share:.0%} of what it was after "
            f"{STEPS} steps of AdamW with a decay of {RATE * DECAY:g} per step, expected below 30 %. Does B forget "
            f"what it began with, by W's decay or by being drawn to W? A rule that is not to align says: aligns False"
        )
