"""What a learning rule is: how the matrix B that replaces W in the backward pass is made from W.

A layer computes y = W x + b. With δ = ∂L/∂y every rule keeps ∂L/∂W = δ xᵀ and ∂L/∂b = Σ δ; it only changes what is
sent down, g_x = Bᵀ δ instead of Wᵀ δ. A rule therefore answers three questions: which random magnitudes it draws,
how B is built from them and W, and when they are drawn again. `signsym_core.rules.feedback` does the rest.

Legend: W, B [out, in] or [out, in / groups, k, k]; s the scale of the layer, a float; M the draw, of W's shape.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from signsym_core.microbatch import backward
from signsym_core.registry import Member, Registry
from signsym_core.tasks import Objective

#: The size s that B is given: see `Rule.size`.
Scale = Literal["rms", "rms_channel", "mean_abs", "xavier", "he_fanout", "unit"]
#: When the random magnitudes are drawn: once, after each parameter update, or at every forward pass.
Redraw = Literal["never", "update", "forward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(Member, ABC):
    """A learning rule. Its tags promise what the conformance suite checks: see `signsym_core.testing`."""

    #: True where B = W, so that the layer is left to ordinary autograd.
    exact: ClassVar[bool] = False
    #: True where B is made once, at conversion, and does not follow W (feedback alignment).
    frozen: ClassVar[bool] = False
    #: True where B needs random magnitudes.
    random: ClassVar[bool] = False
    #: Root mean square of the raw draw, so that the scale is the RMS of B whatever the distribution.
    draw_rms: ClassVar[float] = 1.0
    #: Largest value of the raw draw: scale "unit" brings it to 1.
    draw_max: ClassVar[float] = 1.0

    #: Names of the backbones that the rule trains; None: any.
    backbones: ClassVar[frozenset[str] | None] = None
    #: False for a rule that does not say by itself which B a layer has.
    by_layer: ClassVar[bool] = True

    #: Layers that stay BP: names as in `named_modules`, or prefixes of them; "first" and "head" name the two ends.
    bp_layers: tuple[str, ...] = ()

    @property
    def rounds(self) -> bool:
        """Whether `build` takes an `out`, a W and a draw of fewer bits than W has, and rounds once."""
        return False

    @property
    def redraws(self) -> Redraw:
        """When the magnitudes are drawn again."""
        return "never"

    def of_layers(self, names: Sequence[str]) -> list[Rule]:
        """The rule of each of the layers that this rule serves, by their names in the order of the network."""
        return [self] * len(names)

    def left_to_bp(self, name: str) -> bool:
        """Whether a module or parameter of this name that no rule can serve is BP's by this rule's own word."""
        return self.exact

    @property
    def trains_as_bp(self) -> bool:
        """Whether training is that of BP, so that a model's BP twin is the model itself."""
        return self.exact

    @property
    def sends_gradient(self) -> bool:
        """Whether the backward pass of a model is its gradient, so that feedback and exact gradient are one."""
        return self.exact

    def misfit(self, optimizer: str, weight_decay: float) -> str | None:
        """Why the rule is not itself under a fine-tune's optimizer and weight decay; None where it is."""
        return None

    def draw(self, out: Tensor, generator: torch.Generator) -> None:
        """Fill `out`, of the shape of the weight, with raw magnitudes. Only called where `random` is True."""
        raise NotImplementedError(f"{self.name} declares random magnitudes and does not draw them")

    def size(self, weight: Tensor) -> Tensor | float:
        """The factor between the raw draw and B: a number, or a tensor that broadcasts over the weight."""
        return 1.0

    def size_by_norm(self, weight: Tensor) -> float | None:
        """The factor f of a size that is f · ‖W‖₂ over all of W; None where it is not."""
        return None

    @abstractmethod
    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        """Write B into `out` from W, the draw and its size."""

    def step(
        self, model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, micro_batch: int | None
    ) -> Tensor:
        """Add a batch's gradients to the `.grad` of the parameters, the objective's too; the loss, detached.

        What a fine-tune calls once for each update, with gradients that are None before; by default the model's
        backward pass. `images` [n, channels, height, width] and `labels` are the whole batch; at most `micro_batch`
        images are to be in the network at once. A gradient that is computed by hand goes through
        `signsym_core.rules.whole.add_gradient`.
        """
        return backward(model, objective, images, labels, micro_batch)


#: Every learning rule, as the family lists them in its `__init__`: below its members, since a mixed rule names others.
RULES: Registry[Rule] = Registry("rule", [])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledRule(Rule):
    """A rule whose B has its own magnitudes, of a chosen scale.

    | scale | RMS of B |
    | --- | --- |
    | `rms` | the RMS of the layer's own weights, which keeps gradients near BP's size |
    | `rms_channel` | the same for each output channel |
    | `mean_abs` | the mean of the absolute weights |
    | `xavier` | √(2 / (fan_in + fan_out)), Glorot's standard deviation, as in BioTorch |
    | `he_fanout` | √(2 / fan_out), as in Xiao et al. 2018 |
    | `unit` | that of the raw draw, as in Liao et al. 2016: ±1, or ±U(0, 1) |

    fan_in = k² · weight.shape[1] and fan_out = k² · weight.shape[0], as `torch.nn.init` counts them: with groups,
    fan_in is that of one group and fan_out that of all.
    """

    scale: Scale = "rms"

    def size(self, weight: Tensor) -> Tensor | float:
        rms = self._rms(weight)
        return 1 / self.draw_max if rms is None else rms / self.draw_rms

    def size_by_norm(self, weight: Tensor) -> float | None:
        usual = (type(self).size, type(self)._rms) == (ScaledRule.size, ScaledRule._rms)
        return 1 / (math.sqrt(weight.numel()) * self.draw_rms) if usual and self.scale == "rms" else None

    def _rms(self, weight: Tensor) -> Tensor | float | None:
        """RMS that B is to have; None for that of the raw draw."""
        # The data-dependent sizes stay tensors on the weight's device: asking for them never waits for the device.
        outputs, fan_in = weight.shape[0], math.prod(weight.shape[1:])
        fan_out = outputs * math.prod(weight.shape[2:])
        if self.scale == "unit":
            return None
        if self.scale == "xavier":
            return math.sqrt(2 / (fan_in + fan_out))
        if self.scale == "he_fanout":
            return math.sqrt(2 / fan_out)
        if self.scale == "rms_channel":
            norms: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
            return norms / math.sqrt(fan_in)
        norm: Tensor = torch.linalg.vector_norm(weight, ord=1 if self.scale == "mean_abs" else 2)
        return norm / (weight.numel() if self.scale == "mean_abs" else math.sqrt(weight.numel()))


#: What `fill_levels` draws lies in (0, LEVELS).
LEVELS = 256


def fill_levels(out: Tensor, generator: torch.Generator) -> None:
    """Fill `out`, contiguous, with U(0, LEVELS), never 0, so that a magnitude never swallows a sign.

    On a CPU the numbers are the 128 odd levels 1, 3, .. 255, eight from each 64-bit draw of numpy's SFC64: a tenth of
    the time of `torch.rand`, which would dominate brSF's cost because torch draws there with one thread. Their
    variance is the continuous distribution's to 1 in 10,000.
    """
    if out.device.type != "cpu":
        out.uniform_(LEVELS * 2**-24, LEVELS, generator=generator)
        return
    seed = int(torch.randint(2**62, (), generator=generator))
    words = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-out.numel() // 8)).view(np.int64))
    odd = words.bitwise_or_(0x0101_0101_0101_0101).view(torch.uint8)
    out.view(-1).copy_(odd[: out.numel()])
