"""The evidence about one model: the outcomes of the attacks on it, and the measurements of its probes.

A model here is one setting under one rule, fine-tuned with one or several seeds. Legend: outcomes [seeds, images].
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # Probes need torch; the evidence of a store's outcomes is judged without it.
    from signsym_core.auditing.probes import Probe

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One attack at one ε."""

    attack: str
    #: Text that identifies the attack's parameters, such as the JSON of those that are not the default.
    parameters: str
    #: "feedback", "exact", "transfer", ...; "none" for an attack that uses no gradient.
    gradient: str
    epsilon: float
    #: The norm that ε is a radius of; runs of different norms are never compared.
    norm: str = "linf"
    #: Gradient steps, and the length of one; 0 where there are none.
    steps: int = 0
    step_size: float = 0.0
    seeds: tuple[int, ...]
    #: Numbers of the images in their data set.
    images: NDArray[np.integer[Any]]
    #: Bytes 0 and 1, or numbers in [0, 1].
    outcomes: NDArray[Any]
    #: For each seed the mean over the images that survive of the largest change of a pixel, [seeds]; NaN for a seed
    #: whose images are all lost. None where it is not known.
    moved: Array | None = None
    #: Whether the loss had no gradient at each clean image, [seeds, images]; None where it is not known.
    no_gradient: NDArray[np.bool_] | None = None
    #: Share of the images at which entries of the gradient were NaN or infinite and counted as 0; None: not known.
    nonfinite: float | None = None
    #: Whether findings on it are made; others are compared with it in any case.
    checked: bool = True

    @functools.cached_property
    def score(self) -> float:
        """The mean outcome."""
        if self.outcomes.dtype == np.uint8:
            # Of zeros and ones; a fifth of the time, and pages need thousands of them.
            return float(np.count_nonzero(self.outcomes) / self.outcomes.size)
        return float(self.outcomes.mean(dtype=np.float64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """All runs on one model."""

    runs: tuple[Run, ...]
    #: Score of the best constant prediction.
    chance: float
    #: One probe for each seed; none where the model itself was not available.
    probes: tuple[Probe, ...] = ()
    #: Whether the model's backward pass may differ from its gradient, so that "exact" is a separate choice.
    converted: bool = True
    #: Whether the model's backward pass is autograd's by construction, so that no probe is needed.
    autograd: bool = False

    def of(self, *, gradient: str | None = None, below: float = 2.0) -> list[Run]:
        """The L∞ attacks at ε in (0, `below`), of one source of gradient or of any, except the null attacks."""
        return [run for run in self._attacks if run.epsilon < below and gradient in (None, run.gradient)]

    def runs_at(self, gradient: str, epsilon: float) -> list[Run]:
        """The L∞ attacks of one source of gradient at one ε, except the null attacks."""
        return self._places.get((gradient, epsilon), [])

    @property
    def result(self) -> str:
        """The source of gradient whose numbers count: "exact", or the model's own where there is no other."""
        return "exact" if self.converted else "feedback"

    @functools.cached_property
    def clean(self) -> Run | None:
        """The run without an attack on the most images."""
        runs = [run for run in self.runs if run.attack == "none" or run.epsilon == 0]
        return max(runs, key=lambda run: (run.outcomes.size, run.attack == "none"), default=None)

    def strongest(self, gradient: str, epsilon: float) -> Run | None:
        """The run of that gradient and ε with the lowest score, on the seeds and images that all of them have.

        Where they have none in common, that with the lowest score on its own.
        """
        runs = self.runs_at(gradient, epsilon)
        shared = paired(*runs) if runs else None
        if shared is None or shared[0] is runs[0].outcomes:
            return min(runs, key=lambda run: run.score, default=None)
        return runs[int(np.argmin([x.mean(dtype=np.float64) for x in shared]))]

    @functools.cached_property
    def _attacks(self) -> list[Run]:
        return [run for run in self.runs if run.epsilon > 0 and run.norm == "linf" and run.attack not in NULL]

    @functools.cached_property
    def _places(self) -> dict[tuple[str, float], list[Run]]:
        places: dict[tuple[str, float], list[Run]] = {}
        for run in self._attacks:
            places.setdefault((run.gradient, run.epsilon), []).append(run)
        return places


#: Attacks that do not use the model.
NULL = frozenset({"none", "noise"})


def paired(*runs: Run) -> list[NDArray[Any]] | None:
    """The outcomes of the runs for their common seeds and images, in one order; None where there are none."""
    first = runs[0]
    if all(
        run.seeds == first.seeds and (run.images is first.images or np.array_equal(run.images, first.images))
        for run in runs[1:]
    ):
        return [run.outcomes for run in runs]
    seeds = sorted(set.intersection(*(set(run.seeds) for run in runs)))
    images = first.images
    for run in runs[1:]:
        images = np.intersect1d(images, run.images)
    if not seeds or not len(images):
        return None
    return [_chosen(run, seeds, np.sort(images)) for run in runs]


def _chosen(run: Run, seeds: Sequence[int], images: NDArray[np.integer[Any]]) -> NDArray[Any]:
    rows = np.array([run.seeds.index(seed) for seed in seeds])
    order = np.argsort(run.images)
    columns = order[np.searchsorted(run.images, images, sorter=order)]
    chosen: NDArray[Any] = run.outcomes[np.ix_(rows, columns)]
    return chosen
