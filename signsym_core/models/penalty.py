"""What a network adds to the training loss by itself, such as a memory that is to keep what is written into it."""

from __future__ import annotations

from torch import Tensor, nn


def penalised(model: nn.Module, loss: Tensor) -> Tensor:
    """`loss` plus the `penalty` that modules of `model` have set in the forward pass, each used once.

    A module with a penalty has an attribute `penalty`: None, or a scalar tensor that its forward pass sets in training.
    """
    for module in model.modules():
        penalty = getattr(module, "penalty", None)
        if isinstance(penalty, Tensor):
            loss = loss + penalty
            module.penalty = None  # type: ignore[assignment]
    return loss


def has_penalty(model: nn.Module) -> bool:
    """Whether a module of `model` adds to the loss."""
    return any(hasattr(module, "penalty") for module in model.modules())
