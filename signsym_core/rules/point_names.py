"""Which modules of a network are points: by name, or every residual block and every activation outside of one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from signsym_core.registry import ParameterError, UnknownNameError, unknown

#: The entry of `points` for the usual ones.
USUAL = "blocks"
#: Residual blocks, by the names of their classes: a point in a branch would add to the one behind it.
_BLOCKS = frozenset({"BasicBlock", "Bottleneck", "CNBlock", "EncoderBlock", "InvertedResidual", "MBConv"})
#: Modules of torch.nn.modules.activation that are no activation of a layer.
_NO_ACTIVATION = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin)


def point_names(network: nn.Module, points: Sequence[str]) -> list[str]:
    """The names of these points in `network`, in its order. Raises UnknownNameError and ParameterError."""
    names = [name for name, _ in network.named_modules() if name]
    # A grid's names are those of the backbone; a model holds it under "network".
    prefix = "network." if hasattr(network, "network") else ""
    chosen: list[str] = []
    for entry in points:
        if entry == USUAL:
            chosen += _usual(network)
        elif entry in names or prefix + entry in names:
            chosen.append(entry if entry in names else prefix + entry)
        else:
            known = [USUAL, *(name.removeprefix(prefix) for name in names)]
            raise UnknownNameError(unknown("module in points", entry, known))
    if not chosen:
        raise ParameterError(
            f"parameter 'points' expects modules to name, since {type(network).__name__} has no residual block and no "
            f"activation that is a module; got {points}"
        )
    return sorted(set(chosen), key=names.index)


def _usual(network: nn.Module) -> list[str]:
    chosen: list[str] = []
    inside: tuple[str, ...] = ()
    for name, module in network.named_modules():
        if inside and name.startswith(inside):
            continue
        if type(module).__name__ in _BLOCKS:
            inside += (name + ".",)
            chosen.append(name)
        elif name and _is_activation(module):
            chosen.append(name)
    return chosen


def _is_activation(module: nn.Module) -> bool:
    """An activation of torch, or a module that says so of itself, as a spiking neuron's does."""
    if getattr(module, "is_activation", False):
        return True
    kind = type(module)
    return kind.__module__ == "torch.nn.modules.activation" and not isinstance(module, _NO_ACTIVATION)


def residual_blocks(network: nn.Module) -> list[str]:
    """The names of the residual blocks of `network`."""
    return [name for name, module in network.named_modules() if type(module).__name__ in _BLOCKS]
