"""Rules at points: modules whose output gets a signal from elsewhere, in place of the gradient that comes from above.

Inside the blocks between two points everything is ordinary autograd. A point rule either sends a signal down at each
point, made from the error of the same pass (direct feedback), or it cuts the network there and gives each block a loss
of its own, through a fixed random readout (local errors).

Legend: n images, k outputs of the network; e = ∂L/∂outputs [n, k], the error; δ the gradient that arrives at a point
from above, of the shape of its output: [n, c], [n, c, h, w] or [n, tokens, c]; B [k, features] the point's matrix.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from signsym_core import seeds
from signsym_core.models.outputs import logits_in
from signsym_core.rules.point_names import point_names
from signsym_core.rules.point_rule import PointRule
from signsym_core.rules.state import FeedbackState


class PointsError(RuntimeError):
    """A pass in which a point cannot get its signal."""


class UnreadWarning(UserWarning):
    """A pass in training whose local losses nobody asks for: only the last block would learn from it."""


class _Pass:
    """What one forward pass of the network and its backward pass share."""

    def __init__(self) -> None:
        self.error: Tensor | None = None
        #: For a rule that cuts: number of the point and its output, for every call of it.
        self.reached: list[tuple[int, Tensor]] = []

    def receive(self, error: Tensor) -> None:
        self.error = error


class Points:
    """The points of a converted network: hooks on its modules, which copies and pickles of it have too."""

    def __init__(self, network: nn.Module, rule: PointRule, state: FeedbackState) -> None:
        self.rule = rule
        #: The state of a layer: it has the seed, also after a checkpoint was loaded.
        self.state = state
        self.names = point_names(network, rule.points)
        self.on = True
        #: Where a rule that cuts puts the readouts of a pass: (share of its loss, outputs [n, k]).
        self.read: list[tuple[float, Tensor]] | None = None
        self._pass: _Pass | None = None
        self._matrices: dict[tuple[Any, ...], Tensor] = {}
        modules = [network.get_submodule(name) for name in self.names]
        # A signal or a readout may look at what went in, as may the layer before.
        self._in_place = [module for module in modules if getattr(module, "inplace", False)]
        for module in self._in_place:
            module.__dict__["inplace"] = False
        self._handles: list[RemovableHandle] = [
            network.register_forward_pre_hook(self._begin),
            *(
                module.register_forward_hook(functools.partial(self._reach, number))
                for number, module in enumerate(modules)
            ),
            network.register_forward_hook(self._end),
        ]

    def remove(self) -> None:
        """Take away the hooks, and let modules work in place again."""
        for handle in self._handles:
            handle.remove()
        for module in self._in_place:
            module.__dict__["inplace"] = True

    def _begin(self, network: nn.Module, _: Any) -> None:
        self._pass = _Pass() if self.on else None
        if self.read is not None:
            self.read.clear()
        elif self.on and self.rule.cuts and network.training and torch.is_grad_enabled():
            _warn_unread(self.rule)

    def _reach(self, number: int, _module: nn.Module, _inputs: Any, output: object) -> Tensor | None:
        if not self.on:
            return None
        name = self.names[number]
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
            raise TypeError(f"point {name!r} must give [n, c], [n, c, h, w] or [n, tokens, c], got {_shown(output)}")
        this = self._pass
        if this is None:
            if output.requires_grad:
                raise PointsError(
                    f"point {name!r} was called outside of a pass of the converted network, so that its error is "
                    f"unknown: call the network that was given to convert"
                )
            return None
        if self.rule.cuts:
            if self.read is not None:
                this.reached.append((number, output))
            return output.detach()
        if output.requires_grad:
            output.register_hook(functools.partial(self._signal, this, number))
        return None

    def _signal(self, this: _Pass, number: int, delta: Tensor) -> Tensor:
        name, error = self.names[number], this.error
        if error is None:
            raise PointsError(
                f"point {name!r} has a gradient before the network's outputs have one: differentiate a loss of the "
                f"outputs, and let no point be the network's own output"
            )
        if len(error) != len(delta):
            raise PointsError(f"point {name!r} has {len(delta)} rows for {len(error)} images: expected one for each")
        signal = self.rule.signal(error, delta, self.matrix(number, delta, error))
        if signal.shape != delta.shape:
            raise PointsError(f"the signal at point {name!r} must be {list(delta.shape)}, got {list(signal.shape)}")
        return signal.to(delta.dtype)

    def _end(self, _network: nn.Module, _inputs: Any, returned: object) -> None:
        this, self._pass = self._pass, None
        if this is None:
            return
        outputs = logits_in(returned)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise TypeError(f"rule {self.rule.name!r} needs a network that gives outputs [n, k], got {_shown(outputs)}")
        if not self.rule.cuts:
            if outputs.requires_grad:
                outputs.register_hook(this.receive)
        elif self.read is not None:
            calls = Counter(number for number, _ in this.reached)
            for number, output in this.reached:
                readout = self.rule.readout(output, self.matrix(number, output, outputs)).to(outputs.dtype)
                self.read.append((1 / calls[number], readout))

    def matrix(self, number: int, output: Tensor, outputs: Tensor) -> Tensor:
        """The fixed matrix of point `number` for an `output` of this shape, of the type of `outputs` [n, k]."""
        shape = (outputs.shape[1], self.rule.features(output.shape))
        key = (number, self.state.seed, *shape, outputs.dtype, outputs.device)
        if key not in self._matrices:
            # Drawn on the CPU in one type, the same on every machine.
            drawn = torch.empty(shape, dtype=torch.float32)
            self.rule.matrix(drawn, seeds.generator(self.state.seed, "point", number, *shape))
            self._matrices[key] = drawn.to(outputs.device, outputs.dtype)
        return self._matrices[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pass": None, "_matrices": {}, "read": None}


def points_of(model: nn.Module) -> list[Points]:
    """The points of `model` and of converted networks in it; empty where no rule has any."""
    held = (module.__dict__.get("signal_points") for module in model.modules())
    return [points for points in held if points is not None]


@contextlib.contextmanager
def readouts(model: nn.Module) -> Iterator[list[tuple[float, Tensor]]]:
    """Inside the block every pass of `model` leaves its local readouts in the list: (share, outputs [n, k]).

    The list is empty for a model that is not cut, and where its exact gradient is chosen.
    """
    read: list[tuple[float, Tensor]] = []
    cut = [points for points in points_of(model) if points.rule.cuts]
    try:
        for points in cut:
            points.read = read
        yield read
    finally:
        for points in cut:
            points.read = None


def summed(total: Tensor, loss: Callable[[Tensor], Tensor], read: list[tuple[float, Tensor]]) -> Tensor:
    """`total`, the loss of the outputs, plus that of every readout: the loss that a cut model's pass descends from."""
    for share, readout in read:
        total = total + share * loss(readout)
    return total


def _warn_unread(rule: PointRule) -> None:
    warnings.warn(
        f"a model of rule {rule.name!r} is cut into blocks, each with a loss of its own: a backward pass from its "
        f"outputs trains the last one alone. Train it with fine_tune, or with the rule's step",
        UnreadWarning,
        stacklevel=3,
    )


def _shown(output: object) -> str:
    return str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
