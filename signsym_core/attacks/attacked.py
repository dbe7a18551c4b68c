"""The model under attack: every pass is counted, split to fit the device, and differentiated as the source asks."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.attacks.finite import Tally, mended
from signsym_core.attacks.module import Pullback
from signsym_core.models.outputs import outputs_of
from signsym_core.rules.convert import exact_gradient
from signsym_core.rules.points import readouts, summed

#: A loss to lower or raise: (outputs of some images, their positions in the block) to a scalar, a sum over images.
Loss = Callable[[Tensor, Tensor], Tensor]
#: The contexts that a model is differentiated in, each entered once; its gradient is the mean over them.
Views = Callable[[nn.Module], Sequence[AbstractContextManager[Any]]]
#: The gradients of all views of some images to one.
Join = Callable[[Sequence[Tensor]], Tensor]


class AttackedModel:
    """A model in evaluation mode, shared by all problems that are made of one block of images.

    `views` are the contexts in which the source of gradients differentiates, and `join` makes one gradient of those of
    all views; None: their mean. `dtype` is the type of the model's input, which may have fewer bits than the images.
    `judges` is False for a surrogate, on which no image is scored. `tally` counts non-finite values.

    `micro_batch` bounds the images of one pass. It is halved when the device runs out of memory: no result depends on
    it beyond rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        views: Views,
        join: Join | None,
        dtype: torch.dtype,
        passes: Passes,
        micro_batch: int,
        tally: Tally,
        judges: bool = True,
    ) -> None:
        self.model, self.views, self.join, self.dtype = model, views, join, dtype
        self.passes, self.micro_batch, self.tally, self.judges = passes, micro_batch, tally, judges

    @property
    def exact(self) -> AttackedModel:
        """The same model with the exact gradient of its weights, whatever the source."""
        other = copy.copy(self)
        other.views, other.join = lambda model: [exact_gradient(model)], None
        return other

    def outputs(self, images: Tensor) -> Tensor:
        """The model's outputs [n, outputs] for any number of images."""
        return torch.cat(self._in_pieces(self._forward, images))

    def gradient_and_outputs(self, loss: Loss, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of `loss` at `images`, which have these numbers in the block, and the outputs of that pass."""
        places = torch.arange(len(images), device=images.device)
        pieces = self._in_pieces(functools.partial(self._backward, loss), images, places, numbers)
        return torch.cat([gradient for gradient, _ in pieces]), torch.cat([outputs for _, outputs in pieces])

    def recorded(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Pullback]:
        """The outputs for any number of images, and the pullback of a gradient of the outputs to the images.

        `numbers` are those of the images in the block, or candidates for them: see `Tally.note`.
        """
        views = self.views(self.model)
        if len(views) > 1 or len(images) > self.micro_batch:
            # Too much to keep until a backward pass: the model then runs again.
            return self.outputs(images), functools.partial(self._along, images, numbers)
        variable = images.detach().clone().requires_grad_()
        try:
            with torch.enable_grad(), views[0], readouts(self.model) as read:
                outputs = self._outputs(variable)
                # The loss is the library's own, so the readouts of a cut model get its gradient on the outputs.
                followed = summed(outputs, lambda outputs: outputs, read)
        except torch.OutOfMemoryError:
            self._halve(len(images))
            return self.recorded(images, numbers)
        if self.tally.careful:
            mended(followed)

        def pullback(slope: Tensor) -> Tensor:
            self.passes.backwards += 1
            self.passes.images_backward += len(images)
            return self.tally.usable(gradient_of(followed, variable, slope), numbers)

        return outputs.detach(), pullback

    def _along(self, images: Tensor, numbers: Tensor, slope: Tensor) -> Tensor:
        """The gradient of `images` along the gradient `slope` [m, outputs] of their outputs."""

        def run(images: Tensor, slope: Tensor, numbers: Tensor) -> Tensor:
            return self._backward(lambda outputs, _: (outputs * slope).sum(), images, numbers, numbers)[0]

        return torch.cat(self._in_pieces(run, images, slope, numbers))

    def _outputs(self, images: Tensor) -> Tensor:
        """One forward pass; the model is called nowhere else."""
        who = "the model" if self.judges else "the surrogate"
        self.passes.forwards += 1
        self.passes.images_forward += len(images)
        outputs = outputs_of(self.model, images.to(self.dtype), who)
        self.tally.saw(outputs, who)
        return outputs

    def _forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self._outputs(images)

    def _backward(self, loss: Loss, images: Tensor, places: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        views = self.views(self.model)
        gradients: list[Tensor] = []
        for view in views:
            self.passes.backwards += 1
            self.passes.images_backward += len(images)
            with torch.enable_grad(), view, readouts(self.model) as read:
                variable = images.detach().clone().requires_grad_()
                outputs = self._outputs(variable)
                total = summed(loss(outputs, places), lambda outputs: loss(outputs, places), read)
                if self.tally.careful:
                    mended(total)
                gradient = gradient_of(total, variable)
            gradient = self.tally.usable(gradient, numbers)
            # A mean needs only the sum so far: there may be many views.
            gradients = [*gradients, gradient] if self.join or not gradients else [gradients[0] + gradient]
        if self.join is not None:
            return self.join(gradients), outputs.detach()
        return (gradients[0] if len(views) == 1 else gradients[0] / len(views)), outputs.detach()

    def _in_pieces(self, run: Callable[..., Any], *tensors: Tensor) -> list[Any]:
        results: list[Any] = []
        done = 0
        while done < len(tensors[0]):
            piece = [tensor[done : done + self.micro_batch] for tensor in tensors]
            try:
                results.append(run(*piece))
            except torch.OutOfMemoryError:
                self._halve(self.micro_batch)
                continue
            done += len(piece[0])
        return results

    def _halve(self, images: int) -> None:
        """Take half of `images` at once from now on, in the handler of the error that they were too many."""
        if self.micro_batch == 1:
            raise
        self.micro_batch = max(1, images // 2)
        torch.cuda.empty_cache()


class NoGradientWarning(UserWarning):
    """Autograd knows no path from the pixels to the outputs: the gradient counts as 0."""


class Passes:
    """How often the model was run, forward and backward, in calls and in images."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0
        self.images_forward = self.images_backward = 0


def gradient_of(total: Tensor, variable: Tensor, slope: Tensor | None = None) -> Tensor:
    """The gradient of `total`, along `slope` where `total` is no scalar; 0, with a warning, where there is no path.

    With a slope the graph is kept, so that the same pass can be differentiated again. Whether gradient attacks are a
    meaningful test of a model without a gradient is for the audit to decide.
    """
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, variable, slope, retain_graph=slope is not None, allow_unused=True)
    if gradient is None:
        warnings.warn(
            "the model gives no gradient: its outputs do not depend on the pixels by any path that autograd knows (a "
            "detach, an argmax, numpy?). Attacks that follow a gradient are no test of it; ask signsym_core.audit, or "
            "attack it by transfer or without a gradient",
            NoGradientWarning,
            stacklevel=2,
        )
        return torch.zeros_like(variable)
    return gradient
