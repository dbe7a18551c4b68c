"""Local representation alignment of a recurrent network: targets for each time step, and losses of one step each.

Legend: n sequences, T steps, d units; x_t [n, S] inputs, h_t [n, d] sums, z_t = tanh h_t; δ [n, ...] the gradient of a
loss by the sums above, W the weight between them and h, so that δ W ⊙ tanh'(h) is the gradient by h.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from signsym_core.models.recurrence import Recurrence, rows_of
from signsym_core.registry import Count, NonNegative, Positive
from signsym_core.rules.lra_code import code_step
from signsym_core.rules.whole import StepRule, add_gradient
from signsym_core.tasks import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class LRA(StepRule):
    """Local representation alignment for the backbone `rnn`, without backpropagation through time.

    With N(g) = g · min(1, clip / |g|), |g| over the batch: `inner_steps` times h_T is moved by -gamma N(∂E/∂h_T), E the
    task's loss; its tanh is the target of z_T. Then for t = T .. 2, with e_t = mean log(1 + (z_t - target)²), or the
    mean square: W_hh, W_xh and b_h get the gradient of e_t with z_{t-1} held; and `inner_steps` times h_{t-1} is moved
    by -gamma N(∂e_t/∂h_{t-1}), whose tanh is the target of z_{t-1}. Each step's gradients of weights are limited by N,
    and their sum is what the optimiser gets. `alpha` weighs a regulariser that keeps gradients at their size through
    time, Ω = (|δ W ⊙ tanh'(h)| / |δ| - 1)², added to what moves a state and to what moves a weight.

    `variant: code` repeats the official code where it leaves these formulas: of tanh'(h), as a matrix [n, d], the
    diagonal is taken, one factor for each sequence, which needs at most d sequences; while a state is moved, the loss
    compares with the original z_t, not with its target, and that loss goes on to the step before; the gradient of W_hh
    has no Ω; and local losses are differentiated through all earlier steps, and through the targets too.

    Other networks are refused, and batches are not divided.
    """

    name = "lra"
    label = "LRA"
    backbones = frozenset({"rnn"})
    citation = "Manchev, Garcia-Peraza-Herrera 2025, arXiv 2504.13531, after code of nmanchev/lra-rnn"

    #: Size of the moves of a state, and their number for each target.
    gamma: Positive = 1.0
    inner_steps: Count = 10
    #: Largest norm of a gradient; 0: none.
    clip: NonNegative = 1.0
    #: Weight of the regulariser.
    alpha: NonNegative = 1.0
    #: "log" for log(1 + u²), "mse" for u².
    local_loss: Literal["log", "mse"] = "log"
    variant: Literal["text", "code"] = "text"

    def step(
        self, model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, micro_batch: int | None
    ) -> Tensor:
        network = getattr(model, "network", model)
        if not isinstance(network, Recurrence):
            raise ValueError(f"rule {self.name!r} trains the backbone 'rnn' alone, got {type(network).__name__}")
        if micro_batch is not None and micro_batch < len(images):
            raise ValueError(
                f"rule {self.name!r} expects a batch of at most {micro_batch} images, got {len(images)}: the norms of "
                f"its gradients are those of whole batches. Take a smaller batch_size, or more memory"
            )
        mean, std = (getattr(model, name, default) for name, default in (("mean", 0.0), ("std", 1.0)))
        rows = rows_of((images - mean) / std)
        if self.variant == "code":
            return code_step(self, network, objective, rows, labels)
        with torch.no_grad():
            return self._text_step(network, objective, rows, labels)

    def _text_step(self, network: Recurrence, objective: Objective, rows: Tensor, labels: Tensor) -> Tensor:
        w_hh, w_hy = network.recurrent.weight, network.head.weight
        currents = network.inputs(rows)
        states, sums = [torch.zeros_like(currents[0])], []
        for current in currents:
            sums.append(torch.addmm(current, states[-1], w_hh.t()))
            states.append(torch.tanh(sums[-1]))
        loss, delta = _loss_and_delta(objective, network.head(states[-1]), labels, learn=True)
        add_gradient(w_hy, self.normalised(delta.t() @ states[-1] + self._omega_by_weight(delta, w_hy, states[-1])))
        add_gradient(network.head.bias, delta.sum(dim=0))

        moved, target = sums[-1], states[-1]
        for _ in range(self.inner_steps):
            _, delta = _loss_and_delta(objective, network.head(target), labels, learn=False)
            moved = moved - self.gamma * self.normalised(self._by_sums(delta, w_hy, target))
            target = torch.tanh(moved)

        above: Tensor | None = None
        for t in reversed(range(1, len(sums))):
            z, before = states[t + 1], states[t]
            delta = self.slope(z - target) * (1 - z.square())
            by_w_hh, by_sums = delta.t() @ before, delta
            if above is not None:
                by_z = self._by_sums(above, w_hh, z) - above @ w_hh * (1 - z.square())
                by_w_hh = by_w_hh + self._omega_by_weight(above, w_hh, z) + by_z.t() @ before
                by_sums = by_sums + by_z
            add_gradient(w_hh, self.normalised(by_w_hh))
            add_gradient(network.inputs.weight, self.normalised(by_sums.t() @ rows[t]))
            add_gradient(network.inputs.bias, delta.sum(dim=0))
            above, moved, target_below = delta, sums[t - 1], before
            for _ in range(self.inner_steps):
                reached = torch.tanh(torch.addmm(currents[t], target_below, w_hh.t()))
                delta = self.slope(reached - target) * (1 - reached.square())
                moved = moved - self.gamma * self.normalised(self._by_sums(delta, w_hh, target_below))
                target_below = torch.tanh(moved)
            target = target_below
        return loss

    def normalised(self, gradient: Tensor) -> Tensor:
        """N: the gradient, of norm `clip` where it is larger."""
        return gradient * (self.clip / gradient.norm()).clamp(max=1) if self.clip else gradient

    def slope(self, difference: Tensor) -> Tensor:
        """The derivative of the local loss by z_t, for z_t minus its target."""
        slope = 2 * difference / difference.numel()
        return slope / (1 + difference.square()) if self.local_loss == "log" else slope

    def loss_of(self, difference: Tensor) -> Tensor:
        """The local loss."""
        squares = difference.square()
        return torch.log1p(squares).mean() if self.local_loss == "log" else squares.mean()

    def _by_sums(self, delta: Tensor, weight: Tensor, z: Tensor) -> Tensor:
        """The gradient of a loss and of alpha Ω by h, z = tanh h; δ is the loss's by the sums above, constant in Ω."""
        down = delta @ weight * (1 - z.square())
        if not self.alpha:
            return down
        # ∂Ω/∂h is 2 (r - 1) / (|δ| |D|) D ⊙ ∂D/∂h, with D = δ W ⊙ tanh'(h), r = |D| / |δ| and tanh'' = -2 tanh tanh'.
        return down - 2 * self._weight_of_omega(delta, down) * z * down.square()

    def _omega_by_weight(self, delta: Tensor, weight: Tensor, z: Tensor) -> Tensor:
        """The gradient of alpha Ω by W, with h held."""
        if not self.alpha:
            return torch.zeros_like(weight)
        slope = 1 - z.square()
        down = delta @ weight * slope
        return delta.t() @ (self._weight_of_omega(delta, down) * down * slope)

    def _weight_of_omega(self, delta: Tensor, down: Tensor) -> Tensor:
        """alpha 2 (|D| / |δ| - 1) / (|δ| |D|); 0 without a gradient, which has no size to keep."""
        size, before = down.norm(), delta.norm()
        return torch.nan_to_num(2 * self.alpha * (1 / before.square() - 1 / (before * size)), 0.0, 0.0, 0.0)


def _loss_and_delta(objective: Objective, outputs: Tensor, labels: Tensor, *, learn: bool) -> tuple[Tensor, Tensor]:
    """The task's loss and its gradient by the outputs; with `learn` the objective's parameters get theirs."""
    with torch.enable_grad():
        variable = outputs.detach().requires_grad_()
        loss = objective(variable, labels)
        learned = [p for p in objective.parameters() if learn and p.requires_grad]
        delta, *gradients = torch.autograd.grad(loss, [variable, *learned])
    for parameter, gradient in zip(learned, gradients, strict=True):
        add_gradient(parameter, gradient)
    return loss.detach(), delta
