"""The layers that send B down. `rules.convert` puts them into a network.

A converted layer keeps its class's forward pass, its weights and its place in the network; only its backward pass
sends B down instead of W. One backward pass costs what BP's costs: one `convolution_backward`, or two products.

Legend: x [n, in, h, w] or [..., in]; W, B as in `rules.base`; δ the gradient that arrives from above, of y's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from signsym_core.rules.held import PLACE, LearnedState
from signsym_core.rules.lessons import enrol
from signsym_core.rules.products import Conv2dFunction, multiplied
from signsym_core.rules.state import FeedbackState, Use
from signsym_core.rules.traced import feedback_while_traced, handle_of


class FeedbackLayer(nn.Module):
    """What both kinds of converted layer share. `convert` makes them, by changing the class of a layer in place."""

    weight: Tensor
    bias: Any
    state: FeedbackState
    #: Whether the next forward pass is recorded by ordinary autograd.
    plain: bool
    #: The class that the layer had before.
    original: type[nn.Module]
    handle: int

    def adopt(self, state: FeedbackState, original: type[nn.Module]) -> None:
        self.state, self.original = state, original
        self.plain = state.rule.exact
        if isinstance(state, LearnedState):
            self.add_module(PLACE, state.held)
        self._register_handle()

    def _register_handle(self) -> None:
        self.handle = handle_of(self)
        if isinstance(self.state, LearnedState):
            enrol(self)

    def matrix(self, weight: Tensor) -> tuple[Tensor, Use | None]:
        """B for the pass that multiplies by `weight`, and what keeps it as long as its backward pass may come."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return cast(Tensor, feedback_while_traced(weight.detach(), self.handle)), None
        matrix = self.state.current(weight, self.training)
        return matrix, self.state.use()

    def sends_down(self, *operands: Tensor | None) -> bool:
        """Whether a backward pass may come; the draw that a pass without one owes is counted here."""
        tensors = [tensor for tensor in operands if tensor is not None]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return True
        redraws = self.state.rule.redraws != "never"
        if torch.compiler.is_compiling():
            return redraws
        if redraws:
            self.state.advance(self.weight, self.training)
        # A derivative forward has no B: autograd refuses it, where plain operations would give W's in silence.
        return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)

    def observed(self, y: Tensor, rows: slice = slice(None)) -> Tensor:
        """`y` [.., out] or [n, out, h, w], rows of the layer's outputs; its δ is shown to a rule that learns from δ."""
        state = self.state
        if not isinstance(state, LearnedState) or not self.training or not y.requires_grad:
            return y
        if torch.compiler.is_compiling():
            return y
        if not self.weight.requires_grad:
            state.sends_frozen()
            return y
        if not state.observing:
            return y

        def look(delta: Tensor) -> None:
            flat = delta.movedim(1, -1) if isinstance(self, nn.Conv2d) else delta
            padded = flat.new_zeros(flat[..., 0].numel(), len(self.weight))
            padded[:, rows] = flat.reshape(len(padded), -1)
            state.observe(padded)

        y.register_hook(look)
        return y

    def operands(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """x, W and b in the type that autocast would give them; B follows the type of δ by itself."""
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
            return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return x, weight, bias

    def get_extra_state(self) -> Tensor:
        return self.state.record(self.weight)

    def set_extra_state(self, state: Tensor) -> None:
        self.state.restore(state, self.weight)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        # A checkpoint of the plain network fits too: it brings weights and leaves the feedback alone.
        missing: list[str] = arguments[2]
        if prefix + "_extra_state" in missing:
            missing.remove(prefix + "_extra_state")
        elif isinstance(self.state, LearnedState):
            names = [f"{prefix}{PLACE}.{name}" for name, _ in self.state.held.named_parameters()]
            missing += [name for name in names if name not in state_dict]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        owed = self.state.owes_draw(self.weight)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.state.moved(fn, self.weight, owed)
        return self

    def _replicate_for_data_parallel(self) -> FeedbackLayer:
        replica: FeedbackLayer = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.state = self.state.replica(self.weight, self.training)
        return replica

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._register_handle()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Classes of converted layers are made as they are needed: copies and pickles name the class of before.
        return _blank, (self.original,), self.__dict__

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rule={self.state.rule.name}"


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """A linear layer whose backward pass sends B down. Inputs [..., in], of any number of leading dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        self.state.service.ran = True
        weight = self.weight
        if self.plain:
            return F.linear(input, weight, self.bias)
        x, w, bias = self.operands(input, weight, self.bias)
        if not self.sends_down(x, w, bias):
            return F.linear(x, w, bias)
        matrix, use = self.matrix(weight)
        return self.observed(multiplied(x, w, bias, matrix, use))


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """A 2-D convolution whose backward pass sends B down; every stride, padding, dilation, group and padding mode."""

    #: nn.Conv2d has it, untyped: (left, right, top, bottom), for both string paddings and numbers.
    _reversed_padding_repeated_twice: list[int]

    def forward(self, input: Tensor) -> Tensor:
        self.state.service.ran = True
        weight = self.weight
        if self.plain:
            return cast(Tensor, self._conv_forward(input, weight, self.bias))
        single = input.ndim == 3
        padded, padding = self._padded(input.unsqueeze(0) if single else input)
        x, w, bias = self.operands(padded, weight, self.bias)
        geometry = (self.stride, padding, self.dilation, self.groups)
        if self.sends_down(x, w, bias):
            matrix, use = self.matrix(weight)
            y = self.observed(cast(Tensor, Conv2dFunction.apply(x, w, bias, matrix, use, *geometry)))
        else:
            y = F.conv2d(x, w, bias, *geometry)
        return y.squeeze(0) if single else y

    def _padded(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """The input, padded where the convolution itself cannot do it, and what is left for the convolution."""
        left, right, top, bottom = self._reversed_padding_repeated_twice
        if self.padding_mode == "zeros" and left == right and top == bottom:
            return x, [top, left]
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, [left, right, top, bottom], mode=mode), [0, 0]


_classes: dict[type[nn.Module], type[FeedbackLayer]] = {nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d}


def served_class(original: type[nn.Module]) -> type[FeedbackLayer]:
    """The class that a layer of class `original` gets: ours, or one that has all that `original` has beside it."""
    if original not in _classes:
        base = FeedbackLinear if issubclass(original, nn.Linear) else FeedbackConv2d
        _classes[original] = type(f"Feedback{original.__name__}", (base, original), {"__module__": __name__})
    return _classes[original]


def serve_with(original: type[nn.Module], served: type[FeedbackLayer]) -> None:
    """Say which class layers of class `original` get, where it is more than both together."""
    _classes[original] = served


def _blank(original: type[nn.Module]) -> FeedbackLayer:
    kind = served_class(original)
    return kind.__new__(kind)
