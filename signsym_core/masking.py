"""Checks of whether robustness is real: each a pure function from outcomes to a finding.

Legend: outcomes [seeds, images], each in [0, 1] (robust or not, or an average precision). Two outcomes of one check
hold the same seeds and images in the same order. A check that needs an interval takes the 95 % one of
`signsym_core.stats`, paired where two outcomes are compared, so that chance alone raises it rarely. It is one over
images, of the mean over seeds: a finding is about these models, whatever other seeds would give.

Sources: Carlini et al. 2019 (1902.06705), section 3; Athalye, Carlini, Wagner 2018 (1802.00420), section 3.1; Croce and
Hein 2020 (2003.01690) and the flags of its reference implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from signsym_core.finding import Finding as Finding
from signsym_core.stats import gap, interval

#: By how much two scores that ought to be equal may differ: a point; and two points where both are estimates of a
#: gradient's strength or of a constant prediction.
POINT, TWO_POINTS = 0.01, 0.02
#: Below these a result is no evidence.
FEW_IMAGES, FEW_SEEDS = 1000, 3
#: From this radius on (L∞, [0, 1] pixels) every image can be made the same grey one.
GREY = 0.5
#: Share of ε that an attack must move the images that survive it.
BORDER = 0.9


def grey_limit(outcomes: ArrayLike, chance: float) -> Finding:
    """At ε ≥ 0.5 more is kept than a constant prediction keeps: score > chance + 0.02, its interval above chance."""
    score = interval(_over_seeds(outcomes))
    raised = score.value > chance + TWO_POINTS and score.lo > chance
    names = ("score at ε ≥ 0.5", "best constant prediction")
    return _finding("grey_limit", raised, (score.value, chance), names, outcomes)


def exact_gradient_breaks(feedback: ArrayLike, exact: ArrayLike) -> Finding:
    """The exact gradient of the same weights breaks more than the model's own feedback does: by more than 0.02."""
    return _lower("exact_gradient_breaks", feedback, exact, TWO_POINTS, ("own feedback", "exact gradient"))


def one_step_stronger(one_step: ArrayLike, iterated: ArrayLike) -> Finding:
    """One step breaks more than the iterated attack at the same ε does: by more than 0.01."""
    return _lower("one_step_stronger", iterated, one_step, POINT, ("iterated", "one step"))


def more_steps_help(fewer: ArrayLike, more: ArrayLike) -> Finding:
    """The same attack with more steps breaks more: by more than 0.01, so fewer steps were too few."""
    return _lower("more_steps_help", fewer, more, POINT, ("fewer steps", "more steps"))


def black_box_stronger(white_box: ArrayLike, black_box: ArrayLike) -> Finding:
    """A black-box attack of the same norm and ε breaks images that no white-box attack breaks: over 0.01 of all.

    `white_box` is the lowest outcome of each image over the white-box attacks.
    """
    return _only("black_box_stronger", white_box, black_box, ("best white-box", "white-box and black-box together"))


def transfer_stronger(white_box: ArrayLike, transfer: ArrayLike) -> Finding:
    """Examples made on the BP twin break images that the white-box attack does not break: over 0.01 of all."""
    return _only("transfer_stronger", white_box, transfer, ("white-box", "white-box and transfer together"))


def black_box_wins(white_box: ArrayLike, black_box: ArrayLike) -> Finding:
    """A black-box attack of the same norm and ε keeps less than the white-box attacks together: by more than 0.01."""
    return _lower("black_box_wins", white_box, black_box, POINT, ("best white-box", "black-box"))


def transfer_wins(white_box: ArrayLike, transfer: ArrayLike) -> Finding:
    """Examples made on the BP twin keep less than the white-box attacks together: by more than 0.01."""
    return _lower("transfer_wins", white_box, transfer, POINT, ("best white-box", "transfer"))


def noise_as_strong(attack: Sequence[ArrayLike], noise: Sequence[ArrayLike]) -> Finding:
    """At no ε does the attack break more than uniform noise of the same ε does (interval of the gap above 0).

    Both are outcomes at the same epsilons, ascending. The numbers shown are those at the ε of the largest gap.
    """
    gaps = [gap(_over_seeds(n), _over_seeds(a)) for a, n in zip(attack, noise, strict=True)]
    at = max(range(len(gaps)), key=lambda i: gaps[i].value)
    numbers = (_mean(attack[at]), _mean(noise[at]))
    raised = all(found.lo <= 0 for found in gaps)
    return _finding("noise_as_strong", raised, numbers, ("attack", "noise"), attack[at])


def zero_gradient(zero: ArrayLike) -> Finding:
    """The loss has no gradient at some clean image. `zero` [seeds, images] holds whether it was exactly 0."""
    share = _mean(zero)
    names = ("share of images without a gradient", "allowed")
    return _finding("zero_gradient", share > 0, (share, 0.0), names, zero)


def not_monotone(by_epsilon: Sequence[ArrayLike]) -> Finding:
    """The score rises from one ε to the next by more than 0.01, and the paired interval excludes no rise.

    `by_epsilon` holds the outcomes at ascending epsilons. The numbers shown are those of the steepest rise.
    """
    means = [_over_seeds(outcomes) for outcomes in by_epsilon]
    rises = [(_above(later, earlier, POINT), float((later - earlier).mean())) for earlier, later in pairwise(means)]
    at = max(range(len(rises)), key=lambda i: rises[i])
    numbers = (float(means[at + 1].mean()), float(means[at].mean()))
    return _finding("not_monotone", rises[at][0], numbers, ("at the larger ε", "at the smaller ε"), by_epsilon[at])


def random_forward(first: ArrayLike, second: ArrayLike) -> Finding:
    """Two passes over the same clean images differ in any image."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    numbers = (float(np.mean(a)), float(np.mean(b)))
    return _finding("random_forward", bool((a != b).any()), numbers, ("one pass", "another pass"), first)


def short_reach(steps: int, step_size: float, epsilon: float) -> Finding:
    """The attack's steps together are shorter than ε: it cannot use the radius that it is named by."""
    reach = steps * step_size
    raised = steps > 0 and epsilon > 0 and reach < epsilon * (1 - 1e-9)
    words = f"steps times step size {reach:.4g}, ε {epsilon:.4g}"
    names = ("steps × step size", "ε")
    return Finding(
        flag="short_reach", raised=raised, first=reach, second=epsilon, names=names, n=0, seeds=0, words=words
    )


def short_of_border(robust: ArrayLike, linf: ArrayLike, epsilon: float) -> Finding:
    """The images that survive were moved by less than 0.9 ε on average: the attack did not use its radius on them.

    `linf` [seeds, images] holds the largest change of a pixel. Nothing survived: not raised.
    """
    survivors = np.asarray(robust, dtype=float) > 0
    moved = np.asarray(linf, dtype=float)[survivors]
    reach = float(moved.mean()) / epsilon if moved.size else 1.0
    names = ("change of the survivors over ε", "asked for")
    return _finding("short_of_border", reach < BORDER, (reach, BORDER), names, robust)


def unbounded_survives(outcomes: ArrayLike) -> Finding:
    """At ε = 1, where every image may become any other, more than 0.01 is kept. That none is kept proves nothing."""
    score = _mean(outcomes)
    return _finding(
        "unbounded_survives", score > POINT, (score, 0.0), ("score at ε = 1", "of a working attack"), outcomes
    )


def noise_breaks(attack: ArrayLike, noise: ArrayLike) -> Finding:
    """Uniform noise breaks more than 0.01 of all that the attack of the same ε does not break, image by image."""
    return _only("noise_breaks", attack, noise, ("attack", "attack and noise together"))


def small_n(n: int, seeds: int) -> Finding:
    """Fewer than 1,000 images or fewer than 3 seeds: a demonstration, not evidence."""
    raised = n < FEW_IMAGES or seeds < FEW_SEEDS
    words = f"{n:,} images and {seeds} seed{'s' * (seeds != 1)}, where 1,000 and 3 are asked for"
    names = ("images", "seeds")
    return Finding(flag="small_n", raised=raised, first=n, second=seeds, names=names, n=n, seeds=seeds, words=words)


def _over_seeds(outcomes: ArrayLike) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.atleast_2d(np.asarray(outcomes, dtype=np.float64)).mean(axis=0)
    return means


def _mean(outcomes: ArrayLike) -> float:
    return float(np.asarray(outcomes, dtype=np.float64).mean())


def _lower(flag: str, claimed: ArrayLike, stronger: ArrayLike, slack: float, names: tuple[str, str]) -> Finding:
    """Raised where `stronger` keeps less than `claimed` by more than `slack`, and the paired interval excludes 0."""
    ours, theirs = _over_seeds(claimed), _over_seeds(stronger)
    raised = _above(ours, theirs, slack)
    return _finding(flag, raised, (float(ours.mean()), float(theirs.mean())), names, claimed)


def _only(flag: str, white_box: ArrayLike, other: ArrayLike, names: tuple[str, str]) -> Finding:
    """Raised where over 0.01 is lost to the other attack alone, image by image, and the paired interval excludes 0."""
    white = np.asarray(white_box)
    ours, together = _over_seeds(white), _over_seeds(np.minimum(white, np.asarray(other)))
    raised = _above(ours, together, POINT)
    return _finding(flag, raised, (float(ours.mean()), float(together.mean())), names, white)


def _above(ours: NDArray[np.float64], theirs: NDArray[np.float64], slack: float) -> bool:
    """Whether ours is higher by more than `slack`, and the paired interval over images excludes 0."""
    return float((ours - theirs).mean()) > slack and gap(ours, theirs).lo > 0


def _finding(
    flag: str, raised: bool, numbers: tuple[float, float], names: tuple[str, str], outcomes: ArrayLike
) -> Finding:
    seeds, n = np.atleast_2d(np.asarray(outcomes)).shape
    words = f"{names[0]} {100 * numbers[0]:.1f} %, {names[1]} {100 * numbers[1]:.1f} %"
    words += f" ({seeds} seed{'s' * (seeds > 1)} × {n:,} images)"
    return Finding(
        flag=flag, raised=raised, first=numbers[0], second=numbers[1], names=names, n=n, seeds=seeds, words=words
    )
