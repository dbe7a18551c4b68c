"""One block of images under attack, and what an attack may ask of the model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from signsym_core.attacks.attacked import AttackedModel, Loss
from signsym_core.attacks.module import ProblemModule, Pullback
from signsym_core.attacks.streams import Counted, Streams
from signsym_core.retrieval.codes import Gallery
from signsym_core.tasks import Task

#: Steps between two looks at which images an attack has still to work on, on a GPU.
LOOK_EVERY = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What an attack reports of its last run on a problem, besides the images, for each of them."""

    #: int64 [n]: queries of the model; None for an attack that does not count them.
    queries: Tensor | None = None
    #: float64 [n]: size of the smallest perturbation, in the attack's norm; 0 for an image that is lost already,
    #: infinity where there is none. None for an attack that does not minimise it.
    distances: Tensor | None = None
    #: float64 [n, measures]: what the attack's `measures` name, NaN where it is not known. None where nothing is.
    measured: Tensor | None = None
    #: float64 [n]: what counts in the place of the images' scores; None: they do.
    scores: Tensor | None = None


class Problem:
    """Images [n, channels, height, width] in [0, 1], their labels, and the attack's access to the model.

    `gallery` holds, for a task that retrieves, the database and this model's codes of the training images. `twin` is
    the same problem on a surrogate, for a source that has one.
    """

    def __init__(
        self,
        attacked: AttackedModel,
        task: Task,
        images: Tensor,
        labels: Tensor,
        noise: Tensor | None,
        seeds: Sequence[int],
        gallery: Gallery | None = None,
        twin: Problem | None = None,
    ) -> None:
        self.attacked, self.task, self.gallery, self.twin = attacked, task, gallery, twin
        self.images, self.labels = images, labels
        self.model, self.tally = attacked.model, attacked.tally
        #: Whether images are scored on this model; False for a surrogate.
        self.judges = attacked.judges
        #: U(0, 1) of the shape of the images: the same for every epsilon, so that no epsilon depends on the others.
        self.noise = noise
        #: A seed for each image: see `streams`.
        self.seeds = seeds
        #: A seed for a library that draws from global generators.
        self.seed = seeds[0] if seeds else 0
        #: int64 [n]: which images of the block these are, for the tally.
        self.numbers = torch.arange(len(images), device=images.device)
        #: Images to start from, for an attack that can; None: the attack's default start.
        self.start: Tensor | None = None
        self.told: Told | None = None
        self._results: dict[Hashable, tuple[tuple[Tensor, ...], Tensor]] = {}
        #: The gradient, the outputs, and the number of non-finite gradient entries, by whether the tally was careful.
        self._clean: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}
        self._clean_outputs: Tensor | None = None
        #: The problem that this one is a subset of, and the mask of its images: they share the clean gradient.
        self._parent: tuple[Problem, Tensor] | None = None
        self._checked = False

    def outputs(self, images: Tensor) -> Tensor:
        """The model's outputs [n, outputs] for any number of images."""
        return self.attacked.outputs(images)

    def scores(self, images: Tensor) -> Tensor:
        """float64 [n]: the task's score of `images`, one for each image of the block; 0 is lost."""
        return self.task.score(self.outputs(images), self.labels, self.gallery)

    @property
    def micro_batch(self) -> int:
        """The most images of one pass."""
        return self.attacked.micro_batch

    @property
    def streams(self) -> Streams:
        """A separate stream of random numbers for each image, from its beginning.

        An attack that draws from it gives an image the same result in any batch and with any other epsilons.
        """
        return Streams(self.seeds, self.images)

    @property
    def streams_of_host(self) -> Streams:
        """`streams`, drawn on the CPU and then copied to the device: the same numbers on every device."""
        return Streams(self.seeds, self.images, torch.device("cpu"))

    @property
    def counted(self) -> Counted:
        """Normal numbers for all images at once, each image's from its seed and the number of the draw alone."""
        return Counted(self.seeds, self.images)

    @property
    def looks_every(self) -> int:
        """Steps from one look at which images are left to the next.

        A look makes the host wait for a GPU, where images that are done stay in the batch for some steps; their results
        are not used.
        """
        return LOOK_EVERY if self.images.is_cuda else 1

    def once(self, key: Hashable, make: Callable[[Problem], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The result of `make`, tensors with an entry for each image, computed once for all epsilons and subsets."""
        results, entries = self._computed_once((self.tally.careful, key), make)
        self.tally.note(entries[self.numbers], self.numbers)
        return results

    def _computed_once(
        self, key: Hashable, make: Callable[[Problem], tuple[Tensor, ...]]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        if self._parent is not None:
            parent, chosen = self._parent
            results, entries = parent._computed_once(key, make)
            return tuple(tensor[chosen] for tensor in results), entries
        if key not in self._results:
            self._results[key] = self.tally.separately(lambda: make(self))
        return self._results[key]

    def gradient(self, images: Tensor) -> Tensor:
        """The gradient of the task's attack loss at `images`, one for each image of the block.

        At the clean images themselves it is `clean_gradient`, which all epsilons share.
        """
        return self.clean_gradient if images is self.images else self.gradient_of(self._attack_loss, images)

    def gradient_of(self, loss: Loss, images: Tensor) -> Tensor:
        """The gradient of the attack's `loss` at `images`, one for each image of the block."""
        return self.gradient_and_outputs(loss, images)[0]

    def gradient_and_outputs(self, loss: Loss, images: Tensor, exact: bool = False) -> tuple[Tensor, Tensor]:
        """`gradient_of`, and the outputs [n, outputs] of the same pass; `exact`: by autograd whatever the source."""

        def checked(outputs: Tensor, places: Tensor) -> Tensor:
            self.check(outputs)
            return loss(outputs, places)

        attacked = self.attacked.exact if exact else self.attacked
        return attacked.gradient_and_outputs(checked, images, self.numbers)

    @property
    def module(self) -> ProblemModule:
        """The model as an nn.Module for any library's attack, whose backward pass is the source's gradient."""
        return ProblemModule(len(self.images), self.outputs, self._recorded)

    @property
    def clean_gradient(self) -> Tensor:
        """The gradient at the clean images; computed once, together with `clean_outputs`."""
        gradient, _, entries = self._clean_pass()
        self.tally.note(entries, self.numbers)
        return gradient

    def _clean_pass(self) -> tuple[Tensor, Tensor, Tensor]:
        careful = self.tally.careful
        if careful not in self._clean and self._parent is not None:
            parent, chosen = self._parent
            gradient, outputs, entries = parent._clean_pass()
            self._clean[careful] = (gradient[chosen], outputs[chosen], entries[chosen])
        elif careful not in self._clean:
            run = functools.partial(self.gradient_and_outputs, self._attack_loss, self.images)
            (gradient, outputs), entries = self.tally.separately(run)
            self._clean[careful] = (gradient, outputs, entries[self.numbers])
        return self._clean[careful]

    @property
    def zero_gradient(self) -> Tensor | None:
        """bool [n]: the loss has no gradient at all at the clean image, where one could matter; None where no attack
        computed it.
        """
        clean = self._clean.get(True, self._clean.get(False))
        return None if clean is None else (clean[0].flatten(1) == 0).all(dim=1) & ~self.task.decided(self.labels)

    @property
    def clean_outputs(self) -> Tensor:
        """The outputs for the clean images, computed once; from the pass of `clean_gradient` where there was one."""
        if self._clean:
            return next(iter(self._clean.values()))[1]
        if self._clean_outputs is None and self._parent is not None:
            parent, chosen = self._parent
            self._clean_outputs = parent.clean_outputs[chosen]
        elif self._clean_outputs is None:
            self._clean_outputs = self.outputs(self.images)
            self.check(self._clean_outputs)
            self.tally.refuse()
        assert self._clean_outputs is not None
        return self._clean_outputs

    def lost(self, outputs: Tensor, places: Tensor | None = None) -> Tensor:
        """bool: whether images, all or those at `places`, are lost with these outputs and need no further work.

        Always False on a surrogate, whose outputs do not count.
        """
        labels = self.labels if places is None else self.labels[places]
        return (self.task.score(outputs, labels, self.gallery) == 0) & self.judges

    @property
    def alive(self) -> Tensor:
        """bool [n]: the clean image is not lost."""
        return ~self.lost(self.clean_outputs)

    def only(self, chosen: Tensor) -> Problem:
        """The same problem for the images where the mask `chosen` [n] is True."""
        seeds = [seed for seed, selected in zip(self.seeds, chosen.tolist(), strict=True) if selected]
        subset = self._of(chosen, seeds)
        subset.twin = None if self.twin is None else self.twin.only(chosen)
        subset._parent = (self, chosen)
        return subset

    def copies(self, count: int) -> Problem:
        """The same problem with `count` copies of its images, one after the other, which an attack moves apart."""
        rows = torch.arange(len(self.images), device=self.images.device).repeat(count)
        return self._of(rows, list(self.seeds) * count)

    def _of(self, rows: Tensor, seeds: Sequence[int]) -> Problem:
        """The same problem for the images that the mask or positions `rows` choose, which have these seeds."""
        noise = None if self.noise is None else self.noise[rows]
        images, labels = self.images[rows], self.labels[rows]
        chosen = Problem(self.attacked, self.task, images, labels, noise, seeds, self.gallery)
        chosen.start = None if self.start is None else self.start[rows]
        chosen.numbers, chosen.seed, chosen._checked = self.numbers[rows], self.seed, self._checked
        return chosen

    def _attack_loss(self, outputs: Tensor, places: Tensor) -> Tensor:
        return self.task.attack_loss(outputs, self.labels[places])

    def check(self, outputs: Tensor) -> None:
        """Check once for the block that the labels fit, since reading them synchronises with the device."""
        if not self._checked:
            self.task.check(outputs[:1].expand(len(self.labels), -1), self.labels)
            self._checked = True

    def _recorded(self, images: Tensor) -> tuple[Tensor, Pullback]:
        outputs, pullback = self.attacked.recorded(images, self._numbers_of(len(images)))
        self.check(outputs)
        return outputs, pullback

    def _numbers_of(self, count: int) -> Tensor:
        """The numbers of `count` images in the block: [count], where they are whole copies of the problem's images.

        For any other count the images are unknown, so each has all numbers as candidates: [count, n].
        """
        n = len(self.images)
        return self.numbers.repeat(count // n) if count % n == 0 else self.numbers.expand(count, n)
