"""Checks that no gradient, weight or running statistic of a model is NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from signsym_core.models.outputs import outputs_of
from signsym_core.rules.held import Held

#: Steps between two checks of the gradients; a check synchronises with the device.
LOOK_EVERY = 20


class NonFiniteGradientError(FloatingPointError):
    """A gradient has NaN or infinity; Adam would silently freeze the layer."""


class NonFiniteLossError(FloatingPointError):
    """A loss that is NaN or infinite."""


class NonFiniteWeightsError(FloatingPointError):
    """A parameter, a buffer or a moment of the optimiser with NaN or infinity."""


def broken_layers(model: nn.Module) -> list[str]:
    """The parameters and running statistics of `model` that are not finite, in the network's order.

    Other buffers may hold infinity on purpose, as masks of attention do. Waits for the device once.
    """
    tensors = {name: tensor for name, tensor, kind in _tensors(model) if kind != "mask"}
    return _broken(tensors)


def refuse_broken(model: nn.Module, who: str = "the model") -> None:
    """Raise NonFiniteWeightsError where `broken_layers` of the model is not empty."""
    if broken := broken_layers(model):
        raise NonFiniteWeightsError(
            f"{who} holds NaN or infinity in {broken[0]!r} ({len(broken)} of its parameters and running statistics are "
            f"affected); its training has diverged, or its file is damaged"
        )


@torch.no_grad()
def refuse_broken_outputs(model: nn.Module, images: Tensor) -> None:
    """Raise NonFiniteWeightsError where finite weights give outputs for `images` that are not finite."""
    if outputs_of(model, images).isfinite().all():
        return
    broken: list[str] = []

    def look(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and not output.isfinite().all():
            broken.append(name)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name and all(isinstance(child, Held) for child in module.children())
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    layer = f"those of layer {broken[0]!r} are the first" if broken else "no layer by itself gives any"
    raise NonFiniteWeightsError(
        f"the outputs of the trained model are not finite for images that it was trained on; {layer}. Training has "
        f"diverged: the learning rate is too high"
    )


class Health:
    """Watches a training for the first value that is not finite, without a synchronisation at every step."""

    def __init__(self, model: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        #: Epoch, step, norms and loss of the steps since the last check.
        self.seen: list[tuple[int, int, Tensor, Tensor]] = []
        #: Steps whose flags (whether each number is finite) are being copied to the host, with the event that ends it.
        self.sent: list[tuple[list[tuple[int, int, Tensor, Tensor]], Tensor, torch.cuda.Event | None]] = []
        masks = {name: tensor for name, tensor, kind in _tensors(model) if kind == "mask"}
        #: Buffers that hold infinity from the beginning, that is, on purpose.
        self.masks = set(_broken(masks))
        self.refuse_broken("before the first step")

    def norms(self, rounded: Mapping[Tensor, Tensor] = MappingProxyType({})) -> Tensor:
        """The norm of each parameter's gradient as it is now, [parameters].

        `rounded` holds gradients in the type in which they were computed, half the bytes of the same numbers.
        """
        none = self.parameters[0][1].new_zeros(())
        wide = [none if p.grad is None else p.grad for _, p in self.parameters if p not in rounded]
        narrow = [rounded[p] for _, p in self.parameters if p in rounded]
        of_wide = iter(torch._foreach_norm(wide) if wide else ())
        of_narrow = iter(torch._foreach_norm(narrow, dtype=torch.float32) if narrow else ())
        return torch.stack([next(of_narrow if p in rounded else of_wide) for _, p in self.parameters])

    def watch(self, epoch: int, step: int, loss: Tensor, norms: Tensor) -> None:
        """Record a step's loss and `norms`, and check the recorded steps every `LOOK_EVERY` steps.

        On a GPU a check reads the flags that have arrived at the host and sends the next ones, so that no step waits
        and an error is raised some steps late.
        """
        self.seen.append((epoch, step, norms, loss))
        if step % LOOK_EVERY == 0:
            self._send()
            self._take(wait=False)

    def look(self) -> None:
        """Raise NonFiniteGradientError or NonFiniteLossError for the first step that had either."""
        self._send()
        self._take(wait=True)

    def _send(self) -> None:
        seen, self.seen = self.seen, []
        if not seen:
            return
        norms = torch.isfinite(torch.stack([norms for _, _, norms, _ in seen]))
        losses = torch.isfinite(torch.stack([loss for *_, loss in seen]))
        finite = torch.cat([norms, losses.unsqueeze(1)], dim=1)
        arrived = None
        if finite.is_cuda:
            finite = finite.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self.sent.append((seen, finite, arrived))

    def _take(self, wait: bool) -> None:
        while self.sent:
            seen, finite, arrived = self.sent[0]
            if arrived is not None and not arrived.query():
                if not wait:
                    return
                arrived.synchronize()
            self.sent.pop(0)
            if not finite.all():
                self._refuse(seen, finite)

    def _refuse(self, seen: list[tuple[int, int, Tensor, Tensor]], finite: Tensor) -> None:
        row = int((~finite).any(dim=1).nonzero()[0])
        # The backward pass runs from the head down: the last broken parameter is where it began.
        broken = [name for (name, _), good in zip(self.parameters, finite[row], strict=False) if not good]
        epoch, step, _, loss = seen[row]
        if not broken:
            raise NonFiniteLossError(f"the loss is {float(loss)} in epoch {epoch + 1}, step {step}")
        raise NonFiniteGradientError(
            f"the gradient of layer {broken[-1]!r} is not finite in epoch {epoch + 1}, step {step} "
            f"({len(broken)} of {len(self.parameters)} parameters are affected); the feedback's scale may be too "
            f"large for this network (scale 'rms' keeps it near BP's), or the learning rate too high"
        )

    def refuse_broken(self, when: str) -> None:
        """Raise NonFiniteWeightsError, naming the first layer, where anything that training left is not finite."""
        tensors = {name: tensor for name, tensor, _ in _tensors(self.model) if name not in self.masks}
        tensors |= {f"loss.{name}": tensor for name, tensor, _ in _tensors(self.objective)}
        moments = dict(self._moments())
        broken = _broken(tensors | moments)
        if broken:
            count = sum(name in tensors for name in broken)
            raise NonFiniteWeightsError(
                f"{broken[0]!r} is not finite {when} ({count} of {len(tensors)} parameters and buffers, "
                f"{len(broken) - count} of {len(moments)} moments of the optimiser); training has diverged: the "
                f"learning rate is too high, or the weights that it began with were broken"
            )

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """Adam with an infinite second moment leaves a finite weight where it is, in silence."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        names |= {parameter: f"loss.{name}" for name, parameter in self.objective.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for kind in ("exp_avg", "exp_avg_sq"):
                if kind in state:
                    yield f"{kind} of {names[parameter]}", state[kind]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """Name, tensor and kind (weight, statistic, mask) of all float tensors of a model, layer by layer."""
    shown: set[int] = set()
    for prefix, module in model.named_modules():
        weights = [(name, tensor, "weight") for name, tensor in module.named_parameters(recurse=False)]
        kind = "statistic" if isinstance(module, _NormBase) else "mask"
        buffers = [(name, tensor, kind) for name, tensor in module.named_buffers(recurse=False)]
        for name, tensor, sort in [*weights, *buffers]:
            if tensor.is_floating_point() and tensor.numel() and id(tensor) not in shown:
                shown.add(id(tensor))
                yield f"{prefix}.{name}" if prefix else name, tensor, sort


@torch.no_grad()
def _broken(tensors: Mapping[str, Tensor]) -> list[str]:
    if not tensors:
        return []
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    return [name for name, good in zip(tensors, finite, strict=True) if not good]
