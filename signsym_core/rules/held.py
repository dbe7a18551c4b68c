"""The held tensors of a layer under a learned rule: where they are kept, the B that they give, and one lesson.

`rules.lessons` says when they are taught.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.rules.learned import LearnedRule, Lesson
from signsym_core.rules.snapshot import Snapshot, alike
from signsym_core.rules.state import FeedbackState, ZeroFeedbackError

#: Name of the held tensors' module in its layer.
PLACE = "feedback"


class UntaughtWarning(UserWarning):
    """A learned B that no optimiser's step teaches, since its weight is frozen."""


class Held(nn.Module):
    """The held tensors of one layer, or of layers that share a weight: its parameters, trained or not."""

    def __init__(self, tensors: Mapping[str, Tensor], trained: bool) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            # Contiguous: fused optimisers on a CPU go through parameter and gradient in memory order.
            self.register_parameter(name, nn.Parameter(tensor.detach().contiguous().clone(), requires_grad=trained))
        #: Sums over δ since the last lesson.
        self.sums: dict[str, Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        """By name, without gradient; writing into them writes the parameters."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        # Whether they may be missing is for the layer to say.
        local, strict, _, *rest = arguments
        super()._load_from_state_dict(state_dict, prefix, local, strict, [], *rest)


class LearnedState(FeedbackState):
    """The feedback of a layer under a learned rule; `draws` counts its lessons."""

    rule: LearnedRule
    held: Held

    def begin(self, weight: Tensor, shared: Held | None = None) -> None:
        """Make the held tensors, or take those of a layer with the same weight. Raises ZeroFeedbackError."""
        self._kept: list[Snapshot] = []
        #: Whether δ is observed: see `unobserved`.
        self.observing = self.rule.observes
        #: Since the last lesson: whether a frozen layer sent down B in training, and whether a step came that does not
        #: teach it.
        self.sent = self.untaught = False
        if shared is not None:
            self.held = shared
            return
        with torch.inference_mode(False), torch.no_grad():
            # On the CPU, the same on every machine.
            generator = seeds.generator(self.seed, "feedback", self.index, 1)
            tensors = self.rule.begin(weight.detach().cpu(), generator)
            self.held = Held({name: t.to(weight.device) for name, t in tensors.items()}, self.rule.follows_optimizer)
            if not self._assembled(weight.detach()).any():
                raise ZeroFeedbackError(
                    f"layer {self.name!r}: rule {self.rule.name!r} begins with a B of zeros, through which no gradient "
                    f"passes; initialise the layer first, choose a start or a scale that does not depend on the "
                    f"weights, or leave the layer to BP: bp_layers=({self.name!r},)"
                )

    def current(self, weight: Tensor, training: bool) -> Tensor:
        if self.stand_in is not None:
            return self.stand_in
        with torch.inference_mode(False), torch.no_grad():
            return self._assembled(weight.detach())

    def peek(self, weight: Tensor, training: bool) -> Tensor:
        return self.current(weight, training)

    def _assembled(self, weight: Tensor) -> Tensor:
        """B of the held tensors as they are now, of the shape, type, device and memory format of `weight`."""
        held = self.held.tensors()
        parameters = list(self.held.parameters())
        direct = held[self.rule.matrix] if self.rule.matrix else None
        if direct is not None and alike(direct, weight):
            # Nothing is copied: as with a weight, autograd refuses a backward pass after it was written. Marked, so
            # that fused optimisers are counted too.
            Snapshot(self.held.get_parameter(str(self.rule.matrix)))
            return direct
        matrix = self._matrix
        if matrix is not None and not alike(matrix, weight):
            matrix = None
        # On another device the host would wait for the comparison.
        kept = self._kept if matrix is not None and weight.device.type == "cpu" else []
        if kept and not any(k.written(p) or not k.holds(p.detach()) for k, p in zip(kept, parameters, strict=True)):
            assert matrix is not None
            return matrix
        if matrix is None or (self._use is not None and self._use() is not None):
            matrix = torch.empty_like(weight)
        if direct is not None:
            matrix.copy_(direct)
        else:
            self._assemble(held, matrix)
        buffers = [snapshot.values for snapshot in self._kept] or [None] * len(parameters)
        self._kept = [Snapshot(p).keep(p.detach(), b) for p, b in zip(parameters, buffers, strict=True)]
        self._matrix, self._use = matrix, None
        return matrix

    def _assemble(self, held: dict[str, Tensor], out: Tensor) -> None:
        kind = next(iter(held.values()))
        if out.is_contiguous() and (out.dtype, out.device) == (kind.dtype, kind.device):
            self.rule.assemble(held, out)
        else:
            assembled = torch.empty(out.shape, dtype=kind.dtype, device=kind.device)
            self.rule.assemble(held, assembled)
            out.copy_(assembled)

    def sends_frozen(self) -> None:
        """A frozen layer sends down B in training: warn where steps came by that did not teach it."""
        if self.rule.needs_gradient:
            return
        self.sent = True
        if self.untaught:
            self.sent = self.untaught = False
            warnings.warn(
                f"layer {self.name!r}: rule {self.rule.name!r} teaches B at the steps of the optimiser that has the "
                f"layer's weight, which is frozen, and no optimiser has it: B stays as it is. Give the optimiser all "
                f"parameters of the model, of which it leaves frozen ones as they are, or leave the layer to BP: "
                f"bp_layers=({self.name!r},)",
                UntaughtWarning,
                stacklevel=4,
            )

    @torch.no_grad()
    def observe(self, delta: Tensor) -> None:
        """Add up what the rule wants to know about δ [n, out]."""
        sums = self.rule.observe(self.held.tensors(), delta.to(next(self.held.parameters()).dtype))
        before = self.held.sums
        self.held.sums = {name: before[name] + value for name, value in sums.items()} if before else sums

    @torch.no_grad()
    def learn(self, weight: Tensor) -> None:
        """One lesson, from W and its gradient."""
        self.draws += 1
        self.sent = self.untaught = False
        sums, self.held.sums = self.held.sums, {}
        if self.rule.observes and not sums:
            raise ValueError(f"layer {self.name!r}: no δ was observed since the last step, which its rule learns from")
        gradient_of_weight = torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
        lesson = Lesson(weight.detach(), gradient_of_weight, sums, (self.seed, self.index, self.draws))
        gradients = self.rule.learn(self.held.tensors(), lesson)
        if not self.rule.follows_optimizer:
            torch.autograd.graph.increment_version(list(self.held.parameters()))
        for name, parameter in self.held.named_parameters():
            gradient = gradients.pop(name, None)
            if gradient is None:
                parameter.grad = None
                continue
            if gradient.shape != parameter.shape or not parameter.requires_grad:
                raise ValueError(
                    f"layer {self.name!r}: expected gradients of {list(parameter.shape)} for {name!r} from a rule that "
                    f"follows the optimizer, got {list(gradient.shape)} from {self.rule.name!r}"
                )
            # With the parameter's strides: see `Held`. A copy, because an optimiser may scale gradients in place.
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        if gradients:
            raise ValueError(
                f"layer {self.name!r}: {self.rule.name!r} holds no {sorted(gradients)} to give gradients to"
            )

    def moved(self, function: Callable[[Tensor], Tensor], weight: Tensor, owed: bool) -> None:
        super().moved(function, weight, owed)
        self._kept, self.held.sums = [], {}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_kept": []}


def held_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter, LearnedRule]]:
    """Name, tensor and rule of all held tensors of `model`, each once."""
    entries: dict[int, tuple[str, nn.Parameter, LearnedRule]] = {}
    for prefix, module in model.named_modules():
        state = module.__dict__.get("state")
        if isinstance(state, LearnedState):
            for name, parameter in state.held.named_parameters(prefix=f"{prefix}.{PLACE}" if prefix else PLACE):
                entries.setdefault(id(parameter), (name, parameter, state.rule))
    return list(entries.values())


def weights_of(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """`named_parameters` of the network itself, without held tensors."""
    held = {id(parameter) for _, parameter, _ in held_parameters(model)}
    return [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) not in held]


def parameter_groups(model: nn.Module, parameters: list[nn.Parameter], **options: Any) -> list[dict[str, Any]]:
    """Groups for an optimiser: `parameters` with `options`, and those that are held and do not decay without decay."""
    untrained, undecayed = set[int](), list[nn.Parameter]()
    chosen = {id(parameter) for parameter in parameters}
    for _, parameter, rule in held_parameters(model):
        if id(parameter) in chosen and not (parameter.requires_grad and rule.decays):
            untrained.add(id(parameter))
            undecayed += [parameter] if parameter.requires_grad else []
    groups = [{"params": [p for p in parameters if id(p) not in untrained], **options}]
    return groups + ([{"params": undecayed, **options, "weight_decay": 0.0}] if undecayed else [])
