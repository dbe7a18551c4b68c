"""Converting a network to a rule, reverting it, and suspending the rule for a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from signsym_core.rules import RULES
from signsym_core.rules.attention import close_attentions, open_attentions
from signsym_core.rules.base import Rule
from signsym_core.rules.draws import Draws
from signsym_core.rules.feedback import FeedbackLayer, served_class
from signsym_core.rules.held import PLACE, Held, LearnedState
from signsym_core.rules.layers import UnservedLayerError as UnservedLayerError
from signsym_core.rules.layers import layers_to_convert
from signsym_core.rules.learned import LearnedRule
from signsym_core.rules.lessons import dismiss
from signsym_core.rules.point_rule import PointRule
from signsym_core.rules.points import Points, points_of
from signsym_core.rules.state import FeedbackState
from signsym_core.rules.whole import WholeRule


def convert(network: nn.Module, rule: str | Rule = "frsf", seed: int = 0, **parameters: Any) -> nn.Module:
    """Put `rule` under every Conv2d, Linear and MultiheadAttention of `network`, in place, and return the network.

    Weights, buffers and the forward pass stay as they are; a layer of a class derived from Conv2d or Linear keeps its
    methods. B is always that of the weights of the pass, whoever wrote them. A network that is converted already gets
    the new rule instead of its old one. An attention is served by its projections, layers called `in_proj` (or
    `q_proj`, `k_proj`, `v_proj`) and `out_proj` below its name. Parameters are those of the rule, such as `scale` and
    `bp_layers` (layers, or single parameters, to leave to BP).

    Every parameter with two or more dimensions is accounted for: converted, named in `bp_layers`, that of a
    normalisation or an embedding, or refused. Raises UnknownNameError or ParameterError for the rule,
    UnservedLayerError, naming the layer or parameter, for one that the rule cannot serve and that `bp_layers` does not
    name, and ZeroFeedbackError where a B that never changes would be 0.

    >>> import torch, signsym_core as ss
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> model = ss.convert(network, rule="frsf", seed=0)
    >>> {name: tuple(matrix.shape) for name, matrix in ss.feedback(model).items()}
    {'0': (8, 4), '2': (2, 8)}
    >>> torch.equal(ss.feedback(model)["0"].sign(), model[0].weight.sign())
    True
    >>> type(ss.revert(model)[0]).__name__
    'Linear'
    """
    chosen = rule if isinstance(rule, Rule) else RULES.build(rule, **parameters)
    if isinstance(rule, Rule) and parameters:
        raise TypeError(f"the rule is given as an object, so its parameters are set: got also {sorted(parameters)}")
    revert(network)
    try:
        open_attentions(network)
        layers = layers_to_convert(network, chosen)
        if isinstance(chosen, WholeRule):
            chosen.check_network(network)
        for (_, layer), state in zip(layers, _states(layers, chosen, seed), strict=True):
            original = type(layer)
            layer.__class__ = served_class(original)  # type: ignore[assignment]
            cast(FeedbackLayer, layer).adopt(state, original)
        if isinstance(chosen, PointRule):
            network.signal_points = Points(network, chosen, state)  # type: ignore[assignment]
    finally:
        close_attentions(network)
    return network


def _states(layers: list[tuple[str, nn.Linear | nn.Conv2d]], rule: Rule, seed: int) -> list[FeedbackState]:
    indices: dict[int, int] = {}
    held: dict[tuple[int, Rule], Held] = {}
    states: list[FeedbackState] = []
    rules = rule.of_layers([name for name, _ in layers])
    shared = {rule: Draws(rule, seed, sizes) for rule, sizes in _redrawn_sizes(layers, rules).items()}
    for (name, layer), layer_rule in zip(layers, rules, strict=True):
        # Layers that share one weight share its feedback.
        index = indices.setdefault(id(layer.weight), len(indices))
        if isinstance(layer_rule, LearnedRule):
            state = LearnedState(layer_rule, seed, index, name)
            state.begin(layer.weight, held.get((index, layer_rule)))
            held[index, layer_rule] = state.held
            states.append(state)
            continue
        states.append(FeedbackState(layer_rule, seed, index, name))
        states[-1].shared = shared.get(layer_rule)
        states[-1].begin(layer.weight)
    return states


def _redrawn_sizes(layers: list[tuple[str, nn.Linear | nn.Conv2d]], rules: list[Rule]) -> dict[Rule, list[torch.Size]]:
    """For each rule that draws after every update the shapes of all weights, empty ones for those it does not serve."""
    every = {id(layer.weight): torch.Size([0]) for _, layer in layers}
    sizes: dict[Rule, dict[int, torch.Size]] = {}
    for (_, layer), rule in zip(layers, rules, strict=True):
        if rule.redraws == "update":
            sizes.setdefault(rule, dict(every))[id(layer.weight)] = layer.weight.shape
    return {rule: list(of_weights.values()) for rule, of_weights in sizes.items()}


def layer_rules(network: nn.Module, rule: Rule) -> dict[str, Rule]:
    """The rule of each layer that `convert` would serve, by the layer's name; its errors, and the network unchanged."""
    try:
        open_attentions(network)
        names = [name for name, _ in layers_to_convert(network, rule)]
        if isinstance(rule, WholeRule):
            rule.check_network(network)
    finally:
        close_attentions(network)
    return dict(zip(names, rule.of_layers(names), strict=True))


def revert(model: nn.Module) -> nn.Module:
    """Turn every converted layer back into its original class, in place; weights are untouched. Returns the model."""
    for module in model.modules():
        points = module.__dict__.pop("signal_points", None)
        if points is not None:
            points.remove()
    for _, layer in converted(model):
        dismiss(layer)
        layer._modules.pop(PLACE, None)
        layer.__class__ = layer.original  # type: ignore[assignment]
        for attribute in ("state", "original", "plain", "handle"):
            del layer.__dict__[attribute]
    close_attentions(model)
    return model


def feedback(model: nn.Module) -> dict[str, Tensor]:
    """{layer name: B}, each of its weight's shape, as the next backward pass uses it (copies, without gradient).

    With a redraw at every forward pass (`redraw="forward"`) the next B is not drawn yet: the last one is given.
    """
    matrices = {}
    for name, layer in converted(model):
        matrices[name] = layer.state.peek(layer.weight, layer.training).clone()
    return matrices


@contextlib.contextmanager
def exact_gradient(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the block, forward passes are recorded by ordinary autograd on the same weights, as if never converted."""
    layers, points = [layer for _, layer in converted(model)], points_of(model)
    before, were_on = [layer.plain for layer in layers], [point.on for point in points]
    try:
        for layer in layers:
            layer.plain = True
        for point in points:
            point.on = False
        yield model
    finally:
        for layer, plain in zip(layers, before, strict=True):
            layer.plain = plain
        for point, was_on in zip(points, were_on, strict=True):
            point.on = was_on


def stepping_rule(model: nn.Module) -> Rule | None:
    """The rule of `model` that has a `step` of its own; None where the model's backward pass is what trains it."""
    rules = dict.fromkeys(layer.state.rule for _, layer in converted(model))
    return next((rule for rule in rules if type(rule).step is not Rule.step), None)


def redraws(model: nn.Module) -> bool:
    """Whether a layer of `model` redraws its magnitudes, so that its B is one draw of many."""
    return any(layer.state.rule.redraws != "never" for _, layer in converted(model))


@contextlib.contextmanager
def redrawn(model: nn.Module, number: int) -> Iterator[nn.Module]:
    """Inside the block, layers that redraw their magnitudes use the draw of B with this number.

    The same number gives the same draw. Afterwards the model continues with its previous B and sequence of draws.
    """
    layers = [layer for _, layer in converted(model) if layer.state.rule.redraws != "never"]
    try:
        for layer in layers:
            layer.state.number = number
        yield model
    finally:
        for layer in layers:
            layer.state.number = None


@contextlib.contextmanager
def draws_kept(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the block, draws at forward passes are no part of the sequence of draws, which goes on after it."""
    before = [(layer.state, layer.state.draws) for _, layer in converted(model)]
    try:
        yield model
    finally:
        for state, number in before:
            state.draws = number


def converted(model: nn.Module) -> list[tuple[str, FeedbackLayer]]:
    """The converted layers of `model` with their names, in the order of the network."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, FeedbackLayer)]
