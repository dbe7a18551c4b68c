"""Leaky integrate-and-fire units with a surrogate derivative."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.registry import require


class _Spike(torch.autograd.Function):
    """H(u), which is 1 from 0 on; backward, 1 / (1 + k |u|)² takes the place of its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, slope: float) -> Tensor:
        return (u >= 0).to(u.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        u, ctx.slope = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (u,) = ctx.saved_tensors
        return gradients[0] / (1 + ctx.slope * u.abs()).square(), None


class LIF(nn.Module):
    """v_t = β v_{t-1} + i_t, s_t = H(v_t - 1), then v_t is lowered by s_t, which counts as constant (soft reset).

    A call is a time step: it takes the currents i_t and gives the spikes s_t, 0 or 1. The units rest (v = 0) after
    `rest`. Backward, ds/dv = 1 / (1 + k |v - 1|)², k the slope: the gradient of a spiking network is a surrogate's.
    """

    #: Rules at points have one at every activation.
    is_activation = True

    def __init__(self, beta: float, slope: float) -> None:
        super().__init__()
        self.beta, self.slope = beta, slope
        self._potential: Tensor | None = None

    def rest(self) -> None:
        """Begin another sequence of time steps."""
        self._potential = None

    def forward(self, current: Tensor) -> Tensor:
        potential = current if self._potential is None else self.beta * self._potential + current
        spikes: Tensor = _Spike.apply(potential - 1, self.slope)
        self._potential = potential - spikes.detach()
        return spikes

    def extra_repr(self) -> str:
        return f"beta={self.beta}, slope={self.slope}"

    def __getstate__(self) -> dict[str, Any]:
        # The potential of a pass cannot be copied with its graph, and means nothing after it.
        return self.__dict__ | {"_potential": None}


def refuse_slope_without_spikes(model: nn.Module, slope: float | None, who: str = "model") -> None:
    """Raise ParameterError for a slope of the surrogate where nothing in `model` spikes; errors call it `who`."""
    spikes = any(isinstance(module, LIF) for module in model.modules())
    require(
        slope is None or (slope > 0 and spikes), "spike_slope", f"null, or a number above 0 for a {who} with LIF", slope
    )


@contextlib.contextmanager
def surrogate_slope(models: Iterable[nn.Module], slope: float | None) -> Iterator[None]:
    """Inside the block the spikes of `models` have a surrogate of this slope; None: each unit keeps its slope."""
    spiking = (module for model in models for module in model.modules() if isinstance(module, LIF))
    units = [] if slope is None else list(dict.fromkeys(spiking))
    before = [unit.slope for unit in units]
    try:
        for unit in units:
            assert slope is not None
            unit.slope = slope
        yield
    finally:
        for unit, trained in zip(units, before, strict=True):
            unit.slope = trained
