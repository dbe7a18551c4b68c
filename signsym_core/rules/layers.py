"""Which layers of a network a rule serves, and that no other weight of it stays BP in silence."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from signsym_core.registry import UnknownNameError, unknown
from signsym_core.rules.attention import OpenAttention
from signsym_core.rules.base import Rule
from signsym_core.rules.in_projection import InProjection

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

#: Modules whose weights scale or shift each entry, or are looked up: no matrix stands between their input and output.
_NO_MATRIX: tuple[type, ...] = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.PReLU,
    nn.Embedding,
    nn.EmbeddingBag,
)
#: The same for parameters that modules hold themselves, most of them torchvision's: (class of the module, name in it).
_NO_MATRIX_NAMES = frozenset(
    {
        ("CNBlock", "layer_scale"),
        ("RelativePositionalMultiHeadAttention", "relative_position_bias_table"),
        ("OpenAttention", "bias_k"),
        ("OpenAttention", "bias_v"),
        ("VisionTransformer", "class_token"),
        ("Encoder", "pos_embedding"),
        # Written anew at every step: what multiplies by it is an activation.
        ("InitialMemory", "memory"),
    }
)


class UnservedLayerError(TypeError):
    """A layer that a rule cannot serve. Leaving it out in silence would make it a BP layer."""


def layers_to_convert(network: nn.Module, rule: Rule) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    """The layers that `rule` serves, by name. Raises UnservedLayerError and UnknownNameError: see `convert`."""
    modules = list(network.named_modules())
    matrices = [(name, module) for name, module in modules if isinstance(module, (nn.Linear, nn.Conv2d))]
    if not matrices:
        raise UnservedLayerError(f"{type(network).__name__} has no Conv2d and no Linear layer: nothing to convert")
    left = {"first": matrices[0][0], "head": matrices[-1][0]}
    names = [*(name for name, _ in modules), *(name for name, p in network.named_parameters() if p.ndim > 1)]
    for entry in rule.bp_layers:
        if entry not in left and entry not in names:
            raise UnknownNameError(unknown("layer in bp_layers", entry, [*left, *names[1:]]))
    prefixes = [left.get(entry, entry) for entry in rule.bp_layers]

    def stays(name: str) -> bool:
        return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)

    for name, module in modules:
        if not stays(name) and not rule.left_to_bp(name):
            _refuse_unserved(name, module, rule)
    served = [(name, module) for name, module in matrices if not stays(name) and not stays(_weight_of(name, module))]
    if not rule.exact:
        weights = {_weight_of(name, module) for name, module in matrices}
        for name, module in modules:
            for of_module, parameter in module.named_parameters(name, recurse=False):
                if parameter.ndim <= 1 or of_module in weights or stays(of_module):
                    continue
                if not rule.left_to_bp(of_module):
                    _refuse_unless_no_matrix(of_module, list(parameter.shape), module, rule)
    return served


def _weight_of(name: str, module: nn.Module) -> str:
    """The name of the weight that the module called `name` multiplies by."""
    weight = "weight"
    if isinstance(module, InProjection):
        name, weight = name.rpartition(".")[0], module.weight_name
    return f"{name}.{weight}" if name else weight


def _refuse_unserved(name: str, module: nn.Module, rule: Rule) -> None:
    reason = _refusal(module)
    if reason:
        raise UnservedLayerError(
            f"layer {name!r} ({type(module).__name__}): {reason}; rule {rule.name!r} serves Conv2d, Linear and "
            f"MultiheadAttention. To leave it to BP, say so: bp_layers=({name!r},)"
        )


def _refuse_unless_no_matrix(name: str, shape: list[int], module: nn.Module, rule: Rule) -> None:
    if isinstance(module, _NO_MATRIX) or (type(module).__name__, name.rpartition(".")[2]) in _NO_MATRIX_NAMES:
        return
    raise UnservedLayerError(
        f"parameter {name!r} {shape} of {type(module).__name__}: expected the weight of a Conv2d or Linear, a "
        f"normalisation or an embedding, since whatever else multiplies by it would send down BP's gradient; rule "
        f"{rule.name!r} serves Conv2d and Linear. Where it is only added, or is to stay BP, say so: "
        f"bp_layers=({name!r},)"
    )


def _refusal(module: nn.Module) -> str | None:
    """Why `module` cannot be served, or None."""
    if isinstance(module, (OpenAttention, InProjection)):
        return None
    if isinstance(module, _UNSERVED) or type(module).__name__ in _UNSERVED_NAMES:
        return "it multiplies by a weight outside a Conv2d's or Linear's own forward pass"
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        if parametrize.is_parametrized(module) or "weight" not in module._parameters or not module.weight.is_leaf:
            return "its weight is computed from other parameters (a parametrisation)"
        base = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
        kind = type(module)
        if kind.forward is not base.forward or kind.__call__ is not base.__call__ or "forward" in vars(module):
            return "it has a forward pass of its own"
        if isinstance(module, nn.Conv2d) and type(module)._conv_forward is not nn.Conv2d._conv_forward:
            return "it has a convolution of its own"
        if kind.get_extra_state is not base.get_extra_state:
            return "it has an extra state of its own, where the feedback's record is kept"
    return None
