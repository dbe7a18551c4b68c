"""One block of images under attack: the model as an attack may use it, with every pass counted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.attacks.finite import Tally, mended
from signsym_core.attacks.module import ProblemModule, Pullback
from signsym_core.attacks.passes import Passes, gradient_of
from signsym_core.attacks.streams import Streams
from signsym_core.outputs import outputs_of
from signsym_core.retrieval import Gallery
from signsym_core.tasks import Task

#: A loss to lower or raise: (outputs of some images, their places in the block) to a scalar, a sum over the images.
Loss = Callable[[Tensor, Tensor], Tensor]
#: The contexts that a model is differentiated in, each entered once; its gradient is the mean over them.
Views = Callable[[nn.Module], Sequence[AbstractContextManager[Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What an attack says of its last run on a problem beside the images, for each of them."""

    #: int64 [n]: how often the model was asked about the image.
    queries: Tensor
    #: float64 [n]: size of the smallest perturbation that was found, in the attack's norm; 0 for an image that is lost
    #: already, infinity where none was found. None for an attack that does not look for it.
    distances: Tensor | None = None


class Problem:
    """Images [n, channels, height, width] in [0, 1], their labels, and what the attack may ask of the model.

    `gallery` has, for a task that retrieves, the database and the codes that this model gives the training images.
    `views` is what the source of gradients differentiates; `twin` the same problem on a surrogate, for a source that
    has one. `tally` counts what is not finite, on this model and on the surrogate.

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
        seeds: Sequence[int],
        views: Views,
        passes: Passes,
        micro_batch: int,
        tally: Tally,
        gallery: Gallery | None = None,
        twin: Problem | None = None,
    ) -> None:
        self.model, self.task, self.views, self.gallery = model, task, views, gallery
        self.images, self.labels = images, labels
        #: U(0, 1) of the shape of the images: the same for every epsilon, so that no epsilon depends on the others.
        self.noise = noise
        #: A seed for each image: see `streams`.
        self.seeds = seeds
        #: A seed for a library that draws from global generators.
        self.seed = seeds[0] if seeds else 0
        self.passes, self.micro_batch, self.tally, self.twin = passes, micro_batch, tally, twin
        #: int64 [n]: which images of the block these are, for the tally.
        self.numbers = torch.arange(len(images), device=images.device)
        #: Images to go on from, for an attack that can; None: it begins as it does by itself.
        self.start: Tensor | None = None
        self.told: Told | None = None
        #: Whether images are scored on this model, and not on another one that they are only made for here.
        self.judges = True
        #: The type of the images that the model takes, where it has fewer bits than `images`.
        self.dtype = images.dtype
        self._results: dict[Hashable, tuple[tuple[Tensor, ...], Tensor]] = {}
        #: The gradient, the outputs, and how many entries of the gradient were not finite: careful or not.
        self._clean: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}
        self._clean_outputs: Tensor | None = None
        #: The problem that this one is a part of, and which of its images: they share the clean gradient.
        self._whole: tuple[Problem, Tensor] | None = None
        self._checked = False

    def outputs(self, images: Tensor) -> Tensor:
        """The model's outputs [n, outputs] for any number of images."""
        return torch.cat(self._in_pieces(self._forward, images))

    def scores(self, images: Tensor) -> Tensor:
        """float64 [n]: the task's score of `images`, which stand for the block's images one by one; 0 is lost."""
        return self.task.score(self.outputs(images), self.labels, self.gallery)

    @property
    def streams(self) -> Streams:
        """Every image's own stream of random numbers, from its beginning.

        An attack that draws from it gives an image the same result for any batch and beside any other epsilon.
        """
        return Streams(self.seeds, self.images)

    @property
    def streams_of_host(self) -> Streams:
        """`streams`, drawn by the processor and then brought to the device: the same numbers on every device."""
        return Streams(self.seeds, self.images, torch.device("cpu"))

    def once(self, key: Hashable, make: Callable[[Problem], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `make` returns, tensors with an entry for each image; it is called once for all epsilons and parts."""
        results, entries = self._once((self.tally.careful, key), make)
        self.tally.note(entries[self.numbers], self.numbers)
        return results

    def _once(self, key: Hashable, make: Callable[[Problem], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Tensor]:
        if self._whole is not None:
            whole, chosen = self._whole
            results, entries = whole._once(key, make)
            return tuple(tensor[chosen] for tensor in results), entries
        if key not in self._results:
            self._results[key] = self.tally.alone(lambda: make(self))
        return self._results[key]

    def gradient(self, images: Tensor) -> Tensor:
        """The gradient of the task's attack loss at `images`, which stand for the block's images one by one."""
        return self.gradient_of(self._attack_loss, images)

    def gradient_of(self, loss: Loss, images: Tensor) -> Tensor:
        """The gradient of a loss of the attack's own at `images`, which stand for the block's images one by one."""
        return self.gradient_and_outputs(loss, images)[0]

    def gradient_and_outputs(self, loss: Loss, images: Tensor) -> tuple[Tensor, Tensor]:
        """`gradient_of`, and the outputs [n, outputs] of the pass that it took."""
        run = functools.partial(self._backward, loss)
        pieces = self._in_pieces(run, images, torch.arange(len(images), device=images.device), self.numbers)
        return torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])

    @property
    def module(self) -> ProblemModule:
        """The model as any library's attack takes one, its backward pass the gradient that the source gives."""
        return ProblemModule(len(self.images), self.outputs, self._recorded)

    @property
    def clean_gradient(self) -> Tensor:
        """The gradient at the clean images; computed once, together with `clean_outputs`."""
        gradient, _, entries = self._clean_pass()
        self.tally.note(entries, self.numbers)
        return gradient

    def _clean_pass(self) -> tuple[Tensor, Tensor, Tensor]:
        careful = self.tally.careful
        if careful not in self._clean and self._whole is not None:
            whole, chosen = self._whole
            gradient, outputs, entries = whole._clean_pass()
            self._clean[careful] = (gradient[chosen], outputs[chosen], entries[chosen])
        elif careful not in self._clean:
            run = functools.partial(self.gradient_and_outputs, self._attack_loss, self.images)
            (gradient, outputs), entries = self.tally.alone(run)
            self._clean[careful] = (gradient, outputs, entries[self.numbers])
        return self._clean[careful]

    @property
    def zero_gradient(self) -> Tensor | None:
        """bool [n]: the loss has no gradient at all at the clean image; None where no attack asked for it."""
        clean = self._clean.get(True, self._clean.get(False))
        return None if clean is None else (clean[0].flatten(1) == 0).all(dim=1)

    @property
    def clean_outputs(self) -> Tensor:
        """The outputs for the clean images, computed once; from the pass of `clean_gradient` where there was one."""
        if self._clean:
            return next(iter(self._clean.values()))[1]
        if self._clean_outputs is None and self._whole is not None:
            whole, chosen = self._whole
            self._clean_outputs = whole.clean_outputs[chosen]
        elif self._clean_outputs is None:
            self._clean_outputs = self.outputs(self.images)
            self.task.check(self._clean_outputs, self.labels)
            self.tally.refuse()
        assert self._clean_outputs is not None
        return self._clean_outputs

    def lost(self, outputs: Tensor, places: Tensor | None = None) -> Tensor:
        """bool: which images, all or those at `places`, need no further work, now that the model gives these outputs.

        On a surrogate that is none: what counts happens on another model.
        """
        labels = self.labels if places is None else self.labels[places]
        return (self.task.score(outputs, labels, self.gallery) == 0) & self.judges

    @property
    def alive(self) -> Tensor:
        """bool [n]: the clean image is not lost yet."""
        return ~self.lost(self.clean_outputs)

    def only(self, chosen: Tensor) -> Problem:
        """The same problem for the images where the mask `chosen` [n] is True."""
        noise = None if self.noise is None else self.noise[chosen]
        images, labels = self.images[chosen], self.labels[chosen]
        seeds = [seed for seed, taken in zip(self.seeds, chosen.tolist(), strict=True) if taken]
        twin = None if self.twin is None else self.twin.only(chosen)
        shared = (self.views, self.passes, self.micro_batch, self.tally, self.gallery, twin)
        part = Problem(self.model, self.task, images, labels, noise, seeds, *shared)
        part.start = None if self.start is None else self.start[chosen]
        part.judges, part.dtype, part.numbers = self.judges, self.dtype, self.numbers[chosen]
        part.seed = self.seed
        part._whole = (self, chosen)
        return part

    def _attack_loss(self, outputs: Tensor, places: Tensor) -> Tensor:
        return self.task.attack_loss(outputs, self.labels[places])

    def _outputs(self, images: Tensor) -> Tensor:
        """One pass of the model: the only place where it is called."""
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
        mean: Tensor | None = None
        for view in views:
            self.passes.backwards += 1
            self.passes.images_backward += len(images)
            with torch.enable_grad(), view:
                variable = images.detach().clone().requires_grad_()
                outputs = self._outputs(variable)
                self._check(outputs)
                total = loss(outputs, places)
                if self.tally.careful:
                    mended(total)
                gradient = gradient_of(total, variable)
            gradient = self.tally.usable(gradient, numbers)
            mean = gradient if mean is None else mean + gradient
        assert mean is not None
        return (mean if len(views) == 1 else mean / len(views)), outputs.detach()

    def _check(self, outputs: Tensor) -> None:
        """Whether the labels fit: once for the block, since looking at them makes the host wait for the device."""
        if not self._checked:
            self.task.check(outputs[:1].expand(len(self.labels), -1), self.labels)
            self._checked = True

    def _recorded(self, images: Tensor) -> tuple[Tensor, Pullback]:
        """The outputs for any number of images, and what sends a gradient of the outputs back to the images."""
        views = self.views(self.model)
        if len(views) > 1 or len(images) > self.micro_batch:
            # More than is to be kept until a backward pass comes: the model runs again then.
            return self.outputs(images), functools.partial(self._along, images)
        variable = images.detach().clone().requires_grad_()
        try:
            with torch.enable_grad(), views[0]:
                outputs = self._outputs(variable)
        except torch.OutOfMemoryError:
            if self.micro_batch == 1:
                raise
            self.micro_batch = max(1, len(images) // 2)
            torch.cuda.empty_cache()
            return self._recorded(images)
        self._check(outputs)
        if self.tally.careful:
            mended(outputs)

        def pullback(slope: Tensor) -> Tensor:
            self.passes.backwards += 1
            self.passes.images_backward += len(images)
            return self.tally.usable(gradient_of(outputs, variable, slope), self._numbers_of(len(images)))

        return outputs.detach(), pullback

    def _along(self, images: Tensor, slope: Tensor) -> Tensor:
        """The gradient of `images` along the gradient `slope` [m, outputs] of their outputs."""

        def run(images: Tensor, slope: Tensor, numbers: Tensor) -> Tensor:
            return self._backward(lambda outputs, _: (outputs * slope).sum(), images, numbers, numbers)[0]

        return torch.cat(self._in_pieces(run, images, slope, self._numbers_of(len(images))))

    def _numbers_of(self, count: int) -> Tensor:
        """Which images of the block so many images are: [count], as copies of all of them in their order.

        Where it is another number nobody knows, so each may be any of them: [count, n].
        """
        n = len(self.images)
        return self.numbers.repeat(count // n) if count % n == 0 else self.numbers.expand(count, n)

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
