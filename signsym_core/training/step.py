"""One training step: forward and backward pass, the gradients' norms, the optimiser; on a GPU as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from signsym_core.arithmetic import Precision
from signsym_core.microbatch import backward
from signsym_core.models.outputs import outputs_of
from signsym_core.models.penalty import penalised
from signsym_core.rules.convert import stepping_rule
from signsym_core.rules.together import Together
from signsym_core.tasks import Objective
from signsym_core.training.health import Health
from signsym_core.training.replay import Replay
from signsym_core.training.shadows import Shadows
from signsym_core.training.update import Update


class Step:
    """Training steps of `model` on `objective`; the results do not depend on how a step is executed.

    On a GPU, B of all layers is computed before the backward pass, and a step whose batch is not divided is recorded
    and replayed (see `signsym_core.training.replay`). The step of a rule that has one of its own runs as it is: what
    it does on the host cannot be replayed.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        health: Health,
        precision: Precision,
        micro_batch: int | None,
        device: torch.device,
    ) -> None:
        self.model, self.objective, self.optimizer, self.health = model, objective, optimizer, health
        self.micro_batch = micro_batch
        rule = stepping_rule(model)
        self._backward = backward if rule is None else rule.step
        self._replay: Replay | None = None
        self._between: Callable[[], None] | None = None
        if device.type == "cuda" and micro_batch is None and rule is None:
            self._together = Together(model, torch.bfloat16 if precision == "bf16" else None)
            self._shadows = Shadows(model) if precision == "bf16" else None
            if self._together.serves:
                self._update = Update(optimizer, health, self._shadows)
                self._together.measured = self._update
                self._replay = Replay(self._full_batch, self._together)

    def __call__(
        self, images: Tensor, labels: Tensor, between: Callable[[], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of the batch and the norm of each gradient, both detached.

        `between` is called between the backward pass and the optimiser's step, which then runs kernel by kernel.
        """
        if self._replay is None:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._backward(self.model, self.objective, images, labels, self.micro_batch)
            norms = self.health.norms()
            if between is not None:
                between()
            self.optimizer.step()
            return loss, norms
        run = self._replay if between is None else self._replay.by_kernel
        self._between = between
        loss, norms = run(images, labels)
        return loss, norms

    def release(self) -> None:
        """Free the graphs and their memory."""
        self._replay = None

    def _full_batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        if self._shadows is not None:
            self._shadows.zero_grad()
        with self._together.ahead() as wait_for_feedback:
            with self._shadows.in_place() if self._shadows else contextlib.nullcontext():
                outputs = outputs_of(self.model, images)
            loss = penalised(self.model, self.objective(outputs, labels))
            wait_for_feedback()
            loss.backward()
            if self._between is not None:
                if self._shadows is not None:
                    self._shadows.bring_back()
                self._between()
            norms = self._update()
        return loss.detach(), norms
