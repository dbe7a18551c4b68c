"""bfloat16 copies of the float32 weights: one launch rounds those of all layers, one converts all gradients back.

Autocast rounds each layer's weight in its forward pass and converts each gradient in its backward pass: two small
kernels per layer, which take as long as the convolution itself for a small batch. The numbers are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: The layers whose parameters autocast rounds.
_LOWERED = (nn.Conv2d, nn.Linear)


class Shadows:
    """Copies in bfloat16 of the parameters of `model`'s convolutions and linear layers that are trained."""

    def __init__(self, model: nn.Module) -> None:
        self._of: dict[Tensor, nn.Parameter] = {}
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        for module in model.modules():
            if isinstance(module, _LOWERED):
                for name, parameter in module.named_parameters(recurse=False):
                    if parameter.requires_grad and parameter.dtype == torch.float32:
                        self._places.append((module, name, parameter))
                        if parameter not in self._of:
                            self._of[parameter] = nn.Parameter(torch.empty_like(parameter, dtype=torch.bfloat16))

    def of(self, parameter: Tensor) -> nn.Parameter | None:
        """The copy of a parameter; None where it has none."""
        return self._of.get(parameter)

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the parameters as they are now; who updates them does so after every update."""
        if self._of:
            torch._foreach_copy_(list(self._of.values()), list(self._of))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block a forward pass uses the copies."""
        try:
            for module, name, parameter in self._places:
                module._parameters[name] = self._of[parameter]
            yield
        finally:
            for module, name, parameter in self._places:
                module._parameters[name] = parameter

    def bring_back(self) -> dict[Tensor, Tensor]:
        """Set the gradients of the parameters to those of their copies, in float32; the latter as they are."""
        rounded = {parameter: copy.grad for parameter, copy in self._of.items() if copy.grad is not None}
        gradients: list[Tensor] = [torch.empty_like(parameter) for parameter in rounded]
        if rounded:
            torch._foreach_copy_(gradients, list(rounded.values()))
        for parameter, gradient in zip(rounded, gradients, strict=True):
            parameter.grad = gradient
        return rounded

    def zero_grad(self) -> None:
        """Forget the gradients of the copies."""
        for copy in self._of.values():
            copy.grad = None
