"""The state of a training between two epochs: taken, and put back."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.tasks import Objective
from signsym_core.training.selection import Keep, kept_epoch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a fine-tune between two epochs, from which it continues as if it had not been interrupted."""

    #: Completed epochs, all of them whole.
    epoch: int
    #: State of model, loss and optimiser: "model/...", "objective/...", "optimizer/<parameter>/<moment>"; "best/..." is
    #: the model of the best epoch, where that is kept and was an earlier one.
    tensors: dict[str, Tensor]
    #: One entry for each epoch and each alignment log, ready for JSON.
    history: list[dict[str, Any]]


def copies(model: nn.Module) -> dict[str, Tensor]:
    """The state of `model` on the CPU, in memory that no later step writes."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def best_in(checkpoint: Checkpoint, keep: Keep) -> dict[str, Tensor]:
    """The model of the best epoch until a checkpoint; none where the last one is kept."""
    if keep == "last":
        return {}
    prefix = "model/" if kept_epoch(checkpoint.history, keep) == checkpoint.epoch else "best/"
    return {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}


def tensors_of(model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of a training: `Checkpoint.tensors` without the best epoch's."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"objective/{name}": tensor for name, tensor in objective.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    # Copies: training goes on while they are written, and safetensors wants tensors that share no memory.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def restore(model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Put the state of `checkpoint` back."""
    for module, prefix in ((model, "model/"), (objective, "objective/")):
        state = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
        module.load_state_dict(state)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("optimizer/"):
            _, number, moment = name.split("/")
            moments.setdefault(int(number), {})[moment] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, state in optimizer.state.items():
        for name, moment in state.items():
            if moment.shape == parameter.shape:
                # A checkpoint's moments are contiguous; fused kernels need the memory format of the parameters.
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(moment)
