"""One block of images under attack: the model as an attack may use it, with every pass counted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.retrieval import Gallery
from signsym_core.tasks import Task

#: A loss to lower or raise: (outputs of some images, their places in the block) to a scalar, a sum over the images.
Loss = Callable[[Tensor, Tensor], Tensor]


class Passes:
    """How often the model was run, forward and backward, in calls and in images."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0
        self.images_forward = self.images_backward = 0


class Problem:
    """Images [n, channels, height, width] in [0, 1], their labels, and what the attack may ask of the model.

    The model is the one whose gradient the attack uses: the attacked one, or a surrogate where examples are
    transferred. `gallery` has, for a task that retrieves, the database and the codes that this model gives the
    training images.

    `micro_batch` bounds the images of one pass. It is halved when the device runs out of memory: no result depends
    on it beyond rounding, because an attack's model is in evaluation mode.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        images: Tensor,
        labels: Tensor,
        noise: Tensor | None,
        source: Callable[[nn.Module], AbstractContextManager[Any]],
        passes: Passes,
        micro_batch: int,
        gallery: Gallery | None = None,
    ) -> None:
        self.model, self.task, self.source, self.gallery = model, task, source, gallery
        self.images, self.labels = images, labels
        #: U(0, 1) of the shape of the images: the same for every epsilon, so that no epsilon depends on the others.
        self.noise = noise
        self.passes, self.micro_batch = passes, micro_batch
        self._clean: tuple[Tensor, Tensor] | None = None
        self._clean_outputs: Tensor | None = None
        #: The problem that this one is a part of, and which of its images: they share the clean gradient.
        self._whole: tuple[Problem, Tensor] | None = None
        self._checked = False

    def outputs(self, images: Tensor) -> Tensor:
        """The model's outputs [n, outputs] for any number of images."""
        return torch.cat(self._in_pieces(self._forward, images))

    def gradient(self, images: Tensor) -> Tensor:
        """The gradient of the task's attack loss at `images`, which stand for the block's images one by one."""
        return self.gradient_of(self._attack_loss, images)

    def gradient_of(self, loss: Loss, images: Tensor) -> Tensor:
        """The gradient of a loss of the attack's own at `images`, which stand for the block's images one by one."""
        run = functools.partial(self._backward, loss)
        return torch.cat([gradient for gradient, _ in self._in_pieces(run, images, self._places)])

    @property
    def clean_gradient(self) -> Tensor:
        """The gradient at the clean images; computed once, together with `clean_outputs`."""
        if self._clean is None and self._whole is not None:
            whole, chosen = self._whole
            self._clean = (whole.clean_gradient[chosen], whole.clean_outputs[chosen])
        elif self._clean is None:
            run = functools.partial(self._backward, self._attack_loss)
            pieces = self._in_pieces(run, self.images, self._places)
            self._clean = (torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces]))
        assert self._clean is not None
        return self._clean[0]

    @property
    def has_clean_gradient(self) -> bool:
        """Whether the attack asked for `clean_gradient`."""
        return self._clean is not None

    @property
    def clean_outputs(self) -> Tensor:
        """The outputs for the clean images, computed once; from the pass of `clean_gradient` where there was one."""
        if self._clean is not None:
            return self._clean[1]
        if self._clean_outputs is None:
            self._clean_outputs = self.outputs(self.images)
        return self._clean_outputs

    def only(self, chosen: Tensor) -> Problem:
        """The same problem for the images where the mask `chosen` [n] is True."""
        noise = None if self.noise is None else self.noise[chosen]
        images, labels = self.images[chosen], self.labels[chosen]
        shared = (self.source, self.passes, self.micro_batch, self.gallery)
        part = Problem(self.model, self.task, images, labels, noise, *shared)
        part._whole = (self, chosen)
        return part

    @property
    def _places(self) -> Tensor:
        return torch.arange(len(self.images), device=self.images.device)

    def _attack_loss(self, outputs: Tensor, places: Tensor) -> Tensor:
        return self.task.attack_loss(outputs, self.labels[places])

    def _forward(self, images: Tensor) -> Tensor:
        self.passes.forwards += 1
        self.passes.images_forward += len(images)
        with torch.no_grad():
            outputs = self.model(images)
        assert isinstance(outputs, Tensor)
        return outputs

    def _backward(self, loss: Loss, images: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        self.passes.forwards += 1
        self.passes.backwards += 1
        self.passes.images_forward += len(images)
        self.passes.images_backward += len(images)
        with torch.enable_grad(), self.source(self.model):
            variable = images.detach().clone().requires_grad_()
            outputs = self.model(variable)
            if not self._checked:
                # Once for the whole block, since looking at labels makes the host wait for the device.
                self.task.check(outputs, self.labels[places])
                self.task.check(outputs[:1].expand(len(self.labels), -1), self.labels)
                self._checked = True
            (gradient,) = torch.autograd.grad(loss(outputs, places), variable)
        return gradient, outputs.detach()

    def _in_pieces(self, run: Callable[..., Any], *tensors: Tensor) -> list[Any]:
        results: list[Any] = []
        done = 0
        while done < len(tensors[0]):
            piece = [tensor[done : done + self.micro_batch] for tensor in tensors]
            try:
                results.append(run(*piece))
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
                self.micro_batch = max(1, self.micro_batch // 2)
                torch.cuda.empty_cache()
                continue
            done += len(piece[0])
        return results
