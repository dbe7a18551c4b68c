"""Putting a rule under a network, taking it away, and stepping out of it for a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from signsym_core.registry import UnknownNameError, unknown
from signsym_core.rules import RULES
from signsym_core.rules.base import Rule
from signsym_core.rules.draws import Draws
from signsym_core.rules.feedback import FeedbackConv2d, FeedbackLayer, FeedbackLinear
from signsym_core.rules.state import FeedbackState

_LAYERS: dict[type[nn.Module], type[FeedbackLayer]] = {nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d}

#: Modules that multiply by a weight in a way that no rule here serves; attention modules by the name of their class,
#: since they hold Linear layers whose forward pass they go around.
_UNSERVED: tuple[type, ...] = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Bilinear,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.modules.lazy.LazyModuleMixin,
)
_UNSERVED_NAMES = frozenset({"ShiftedWindowAttention", "ShiftedWindowAttentionV2"})


class UnservedLayerError(TypeError):
    """A layer that a rule cannot serve. Leaving it out in silence would make it a BP layer."""


def convert(network: nn.Module, rule: str | Rule = "frsf", seed: int = 0, **parameters: Any) -> nn.Module:
    """Put `rule` under every Conv2d and Linear of `network`, in place, and return the network.

    Weights, buffers and the forward pass stay as they are. B follows the weights by itself. A network that is
    converted already gets the new rule instead of its old one. Parameters are those of the rule, such as `scale` and
    `bp_layers` (layers to leave to BP).

    Raises UnknownNameError or ParameterError for the rule, and UnservedLayerError, naming the layer, for one that
    the rule cannot serve and that `bp_layers` does not name.
    """
    chosen = rule if isinstance(rule, Rule) else RULES.build(rule, **parameters)
    if isinstance(rule, Rule) and parameters:
        raise TypeError(f"the rule is given as an object, so its parameters are set: got also {sorted(parameters)}")
    revert(network)
    layers = _layers_to_convert(network, chosen)
    indices: dict[int, int] = {}
    states = []
    weights = {id(layer.weight): layer.weight.shape for _, layer in layers}
    shared = Draws(chosen, seed, list(weights.values())) if chosen.redraws == "update" else None
    for name, layer in layers:
        # Layers that share one weight share its feedback.
        index = indices.setdefault(id(layer.weight), len(indices))
        states.append(FeedbackState(chosen, seed, index, name))
        states[-1].shared = shared
        states[-1].begin(layer.weight)
    for (_, layer), state in zip(layers, states, strict=True):
        original = type(layer)
        layer.__class__ = next(ours for theirs, ours in _LAYERS.items() if isinstance(layer, theirs))  # type: ignore[assignment]
        cast(FeedbackLayer, layer).adopt(state, original)
    return network


def revert(model: nn.Module) -> nn.Module:
    """Make every converted layer the plain layer that it was, in place; weights are untouched. Returns the model."""
    for _, layer in converted(model):
        layer.__class__ = layer.original  # type: ignore[assignment]
        for attribute in ("state", "original", "plain", "handle"):
            del layer.__dict__[attribute]
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
    layers = [layer for _, layer in converted(model)]
    before = [layer.plain for layer in layers]
    try:
        for layer in layers:
            layer.plain = True
        yield model
    finally:
        for layer, plain in zip(layers, before, strict=True):
            layer.plain = plain


def redraws(model: nn.Module) -> bool:
    """Whether a layer of `model` draws its magnitudes again and again, so that its B is one draw of many."""
    return any(layer.state.rule.redraws != "never" for _, layer in converted(model))


@contextlib.contextmanager
def redrawn(model: nn.Module, number: int) -> Iterator[nn.Module]:
    """Inside the block, layers that draw again and again have another draw of B: the one of this number.

    The same number is the same draw. Afterwards the model goes on with its own B and its own draws.
    """
    layers = [layer for _, layer in converted(model) if layer.state.rule.redraws != "never"]
    try:
        for layer in layers:
            layer.state.number = number
        yield model
    finally:
        for layer in layers:
            layer.state.number = None


def converted(model: nn.Module) -> list[tuple[str, FeedbackLayer]]:
    """The converted layers of `model` with their names, in the order of the network."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, FeedbackLayer)]


def unserved(model: nn.Module) -> list[str]:
    """Converted layers whose forward pass has not run since the conversion.

    After a forward pass of the model this names the layers that something goes around, by using their weight
    directly: their gradient is BP's.
    """
    return [name for name, layer in converted(model) if not layer.state.service.ran]


def _layers_to_convert(network: nn.Module, rule: Rule) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    modules = list(network.named_modules())
    matrices = [(name, module) for name, module in modules if isinstance(module, (nn.Linear, nn.Conv2d))]
    if not matrices:
        raise UnservedLayerError(f"{type(network).__name__} has no Conv2d and no Linear layer: nothing to convert")
    left = {"first": matrices[0][0], "head": matrices[-1][0]}
    names = [name for name, _ in modules]
    for given in rule.bp_layers:
        if given not in left and given not in names:
            raise UnknownNameError(unknown("layer in bp_layers", given, [*left, *names[1:]]))
    prefixes = [left.get(given, given) for given in rule.bp_layers]

    def stays(name: str) -> bool:
        return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)

    for name, module in modules:
        if not rule.exact and not stays(name):
            reason = _refusal(module)
            if reason:
                raise UnservedLayerError(
                    f"layer {name!r} ({type(module).__name__}): {reason}; rule {rule.name!r} serves Conv2d and Linear. "
                    f"To leave it to BP, say so: bp_layers=({name!r},)"
                )
    return [(name, module) for name, module in matrices if not stays(name)]


def _refusal(module: nn.Module) -> str | None:
    """Why `module` cannot be served, or None."""
    if isinstance(module, _UNSERVED) or type(module).__name__ in _UNSERVED_NAMES:
        return "it multiplies by a weight outside a Conv2d's or Linear's own forward pass"
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        if parametrize.is_parametrized(module) or not module.weight.is_leaf:
            return "its weight is computed from other parameters (a parametrisation)"
        base = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
        if type(module).forward is not base.forward:
            return "it has a forward pass of its own"
        if isinstance(module, nn.Conv2d) and type(module)._conv_forward is not nn.Conv2d._conv_forward:
            return "it has a convolution of its own"
    return None
