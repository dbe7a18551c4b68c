"""The end of a training step on a GPU: the gradients' norms, Adam, and the weights rounded to bfloat16, in one pass.

Adam reads a weight, its gradient and two moments and writes three of them. Norms, the conversion of gradients that
were computed in bfloat16 and the rounding of weights for the next pass would move half as many bytes again: they take
from memory what Adam has at hand. Where the kernels cannot be used torch's operations do the same, one after another.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.rules.signed import NoKernelWarning
from signsym_core.training.health import Health
from signsym_core.training.shadows import Shadows


class Update:
    """Updates of the parameters of `optimizer`, torch's Adam or AdamW, from their gradients.

    Parameters that have a copy in `shadows` are updated from the gradient of that, and the copy with them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, health: Health, shadows: Shadows | None) -> None:
        self.optimizer, self.health, self.shadows = optimizer, health, shadows
        self._pass: OnePass | None = None
        if shadows is not None:
            shadows.refresh()
        watched = [parameter for _, parameter in health.parameters]
        learned = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        parameters = list(dict.fromkeys([*watched, *learned]))
        if all(map(_fits, parameters)) and len(parameters) == len(learned):
            try:
                self._pass = OnePass(optimizer, parameters, shadows)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # Triton has no class of its own for what it misses, a compiler for one.
                warnings.warn(f"weights are updated operation by operation: {error}", NoKernelWarning, stacklevel=2)

    def __call__(self) -> Tensor:
        """Update the parameters; the norm of each watched gradient as it was, [parameters of `health`]."""
        if self._pass is not None:
            return self._pass()[: len(self.health.parameters)]
        rounded = {} if self.shadows is None else self.shadows.bring_back()
        norms = self.health.norms(rounded)
        self.optimizer.step()
        if self.shadows is not None:
            self.shadows.refresh()
        return norms

    def weight_norm(self, weight: Tensor) -> Tensor | None:
        """‖W‖₂ of a weight as it is now, float32 []: a view that every update writes; None where nothing measures."""
        return None if self._pass is None else self._pass.weight_norm(weight)

    def rounded(self, weight: Tensor) -> Tensor | None:
        """The weight in bfloat16, as every update writes it; None where it has no copy."""
        copy = None if self.shadows is None else self.shadows.of(weight)
        return None if copy is None else copy.detach()


class OnePass:
    """Adam's update of `parameters` by one kernel, with the state of `optimizer` in its usual place."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], shadows: Shadows | None
    ) -> None:
        from signsym_core.training import update_kernel

        self._kernel, self._parameters, self._shadows = update_kernel, parameters, shadows
        device = parameters[0].device
        group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
        first = group_of[parameters[0]]
        self._decoupled = isinstance(optimizer, torch.optim.AdamW)
        beta1, beta2 = first["betas"]
        settings = {"beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2, "eps": first["eps"]}
        self._settings: dict[str, float] = settings
        states = [_state(optimizer, parameter) for parameter in parameters]
        copies = [None if shadows is None else shadows.of(parameter) for parameter in parameters]
        chunks = [math.ceil(parameter.numel() / update_kernel.BLOCK) for parameter in parameters]

        def table(rows: list[Any], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor(rows, dtype=dtype, device=device)

        places = [
            [
                p.data_ptr(),
                state["exp_avg"].data_ptr(),
                state["exp_avg_sq"].data_ptr(),
                0,
                0 if c is None else c.data_ptr(),
            ]
            for p, state, c in zip(parameters, states, copies, strict=True)
        ]
        rates = [[group_of[p]["lr"], group_of[p]["weight_decay"]] for p in parameters]
        owners = [number for number, count in enumerate(chunks) for _ in range(count)]
        firsts = [place * update_kernel.BLOCK for count in chunks for place in range(count)]
        steps = torch.stack([state["step"] for state in states]).to(device=device, dtype=torch.float32)
        for state, step in zip(states, steps, strict=True):
            state["step"] = step
        self._tables = update_kernel.Tables(
            addresses=table(places),
            counts=table([p.numel() for p in parameters]),
            rates=table(rates, torch.float32),
            betas=table([beta1, beta2], torch.float64),
            steps=steps,
            corrections=torch.zeros(len(parameters), 2, device=device),
            owners=table(owners),
            firsts=table(firsts),
            starts=table([0, *itertools.accumulate(chunks)]),
            most=max(chunks),
            squares=torch.zeros(2, len(owners), device=device),
        )
        self._weight_norms = torch.zeros(len(parameters), device=device)
        self._number: dict[Tensor, int] = {parameter: number for number, parameter in enumerate(parameters)}
        self._measure()

    def __call__(self) -> Tensor:
        gradients = [self._gradient(parameter) for parameter in self._parameters]
        norms = self._launch(self._tables, [0 if g is None else g.data_ptr() for g in gradients])
        # What a kernel writes, torch does not count.
        moved = [p for p, g in zip(self._parameters, gradients, strict=True) if g is not None]
        torch.autograd.graph.increment_version(moved)
        return norms

    def weight_norm(self, weight: Tensor) -> Tensor | None:
        """See `Update.weight_norm`."""
        number = self._number.get(weight)
        return None if number is None else self._weight_norms[number]

    def _gradient(self, parameter: nn.Parameter) -> Tensor | None:
        copy = None if self._shadows is None else self._shadows.of(parameter)
        source = parameter if copy is None else copy
        gradient = source.grad
        if gradient is not None and (gradient.stride() != parameter.stride() or gradient.data_ptr() % 16):
            # Kernels go through parameter and gradient in the order of memory.
            gradient = source.grad = torch.empty_like(source, requires_grad=False).copy_(gradient)
        return gradient

    def _measure(self) -> None:
        """Write the norms and the copies of the weights that training begins with.

        By an update that moves nothing, since any other code might add up in another order: a training that goes on
        from a checkpoint then has the bits of one that was not interrupted.
        """
        nothing = torch.zeros(
            max(parameter.numel() for parameter in self._parameters), device=self._weight_norms.device
        )
        addresses, place = self._tables.addresses.clone(), nothing.data_ptr()
        addresses[:, 1:4] = place
        rates, steps = torch.zeros_like(self._tables.rates), self._tables.steps.clone()
        still = dataclasses.replace(self._tables, addresses=addresses, rates=rates, steps=steps)
        self._launch(still, [place] * len(self._parameters))

    def _launch(self, tables: Any, gradients: list[int]) -> Tensor:
        with torch.cuda.device(tables.counts.device):
            norms: Tensor = self._kernel.launch(tables, gradients, self._settings, self._decoupled)
            self._kernel.norms(tables, 1, self._weight_norms)
        return norms


def _fits(parameter: nn.Parameter) -> bool:
    """Whether the kernel can go through the parameter's numbers in the order of memory, 16 bytes at once."""
    dense = parameter.is_contiguous() or parameter.is_contiguous(memory_format=torch.channels_last)
    aligned = parameter.data_ptr() % 16 == 0 and parameter.numel() > 0
    return parameter.is_cuda and parameter.dtype == torch.float32 and dense and aligned


def _state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The optimiser's state of a parameter, as torch begins it where there is none yet."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        for moment in ("exp_avg", "exp_avg_sq"):
            state[moment] = torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
    return state
