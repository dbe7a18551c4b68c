"""Checks of whether robustness is real: each a pure function from outcomes to a finding.

Legend: outcomes [seeds, images], each in [0, 1] (robust or not, or an average precision). Two outcomes of one check
hold the same seeds and images in the same order. A check that needs an interval takes the 95 % one of
`signsym_core.statistics.intervals`, paired where two outcomes are compared, so that chance alone rarely raises it. The
interval is over images, of the mean over seeds: a finding is about these models, not about other seeds.

Sources: Carlini et al. 2019 (1902.06705), section 3; Athalye, Carlini, Wagner 2018 (1802.00420), section 3.1; Croce and
Hein 2020 (2003.01690) and the flags of its reference implementation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from signsym_core.auditing.finding import Finding, finding
from signsym_core.statistics.intervals import gap, gaps, interval

#: Tolerated difference of two scores that should be equal: one point; two points where they estimate a gradient's
#: strength or a constant prediction.
POINT, TWO_POINTS = 0.01, 0.02
#: Below these a result is a demonstration, not evidence.
FEW_IMAGES, FEW_SEEDS = 1000, 3
#: With fewer differing images, chance alone may put all on one side: two-sided sign test, 2 · 2⁻⁵ > 5 % > 2 · 2⁻⁶.
FEW_DIFFER = 6
#: From this radius on (L∞, [0, 1] pixels) every image can be made the same grey one.
GREY = 0.5
#: Share of ε that an attack must move the images that survive it.
BORDER = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two outcomes are compared: raised where the first keeps over `slack` more, with a paired interval above 0.

    With `together` the interval is above `slack`.
    """

    slack: float
    #: What the two numbers are.
    names: tuple[str, str]
    #: Whether an image counts as kept in the second only where both outcomes keep it, so that the difference is what
    #: only the second breaks.
    together: bool = False


#: The checks that compare the outcomes of two runs.
COMPARISONS = {
    "exact_gradient_breaks": Comparison(slack=TWO_POINTS, names=("own feedback", "exact gradient")),
    "one_step_stronger": Comparison(slack=POINT, names=("iterated", "one step")),
    "more_steps_help": Comparison(slack=POINT, names=("fewer steps", "more steps")),
    "black_box_stronger": Comparison(
        slack=POINT, names=("best white-box", "white-box and black-box together"), together=True
    ),
    "transfer_stronger": Comparison(slack=POINT, names=("white-box", "white-box and transfer together"), together=True),
    "black_box_wins": Comparison(slack=POINT, names=("best white-box", "black-box")),
    "transfer_wins": Comparison(slack=POINT, names=("best white-box", "transfer")),
    "eot_wins": Comparison(slack=POINT, names=("best white-box", "gradient averaged over draws")),
    "noise_breaks": Comparison(slack=POINT, names=("attack", "attack and noise together"), together=True),
    "not_monotone": Comparison(slack=POINT, names=("at the larger ε", "at the smaller ε")),
}


def compared(flag: str, claimed: NDArray[Any], stronger: NDArray[Any]) -> list[Finding]:
    """The check `flag` of COMPARISONS on many pairs of one shape at once, [pairs, seeds, images] each."""
    how = COMPARISONS[flag]
    if how.together:
        stronger = np.minimum(claimed, stronger)
    _, seeds, n = claimed.shape
    claimed_means, stronger_means = claimed.mean(axis=1, dtype=np.float64), stronger.mean(axis=1, dtype=np.float64)
    # The interval can only decide where the difference is large enough, and where enough images differ.
    raised = ((claimed_means - stronger_means).mean(axis=1) > how.slack) & (
        np.count_nonzero(claimed_means != stronger_means, axis=1) >= FEW_DIFFER
    )
    chosen = np.flatnonzero(raised)
    if len(chosen):
        intervals = gaps(claimed_means[chosen, None], stronger_means[chosen, None])
        # A count of images that only the second breaks is never below 0, so it is compared with the slack instead.
        raised[chosen] = [difference.lo > (how.slack if how.together else 0) for difference in intervals]
    numbers = zip(
        raised.tolist(), claimed_means.mean(axis=1).tolist(), stronger_means.mean(axis=1).tolist(), strict=True
    )
    return [finding(flag, is_raised, (a, b), how.names, (seeds, n)) for is_raised, a, b in numbers]


def grey_limit(outcomes: ArrayLike, chance: float) -> Finding:
    """At ε ≥ 0.5 more is kept than a constant prediction keeps: score > chance + 0.02, its interval above chance."""
    score = interval(_over_seeds(outcomes))
    raised = score.value > chance + TWO_POINTS and score.lo > chance
    names = ("score at ε ≥ 0.5", "best constant prediction")
    return finding("grey_limit", raised, (score.value, chance), names, np.shape(outcomes))


def noise_as_strong(attack: Sequence[ArrayLike], noise: Sequence[ArrayLike]) -> Finding:
    """At no ε does the attack break more than uniform noise of the same ε does (interval of the gap above 0).

    Both are outcomes at the same epsilons, ascending. The numbers shown are those at the ε of the largest gap.
    """
    gaps = [gap(_over_seeds(n), _over_seeds(a)) for a, n in zip(attack, noise, strict=True)]
    widest = max(range(len(gaps)), key=lambda i: gaps[i].value)
    numbers = (_mean(attack[widest]), _mean(noise[widest]))
    raised = all(difference.lo <= 0 for difference in gaps)
    return finding("noise_as_strong", raised, numbers, ("attack", "noise"), np.shape(attack[widest]))


def zero_gradient(zero: ArrayLike) -> Finding:
    """The loss has no gradient at some clean image. `zero` [seeds, images] holds whether it was exactly 0."""
    share = _mean(zero)
    names = ("share of images without a gradient", "allowed")
    return finding("zero_gradient", share > 0, (share, 0.0), names, np.shape(zero))


def nonfinite_gradient(share: float, n: int, seeds: int) -> Finding:
    """Entries of the gradient were NaN or infinite at some image and counted as 0: `share` of n images of each seed."""
    names = ("share of images with such entries", "allowed")
    words = f"entries of the gradient that are NaN or infinite, and counted as 0, at {100 * share:.1f} % of the images"
    return finding("nonfinite_gradient", share > 0, (share, 0.0), names, (seeds, n), words)


def random_forward(first: ArrayLike, second: ArrayLike) -> Finding:
    """Two passes over the same clean images differ in more than 0.01 of them: what rounding does not do."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    numbers = (float(np.mean(a)), float(np.mean(b)))
    raised = float((a != b).mean()) > POINT
    return finding("random_forward", raised, numbers, ("one pass", "another pass"), np.shape(first))


def short_reach(steps: int, step_size: float, epsilon: float) -> Finding:
    """The attack's steps together are shorter than ε: it cannot use the radius that it is named by."""
    reach = steps * step_size
    raised = steps > 0 and epsilon > 0 and reach < epsilon * (1 - 1e-9)
    words = f"steps times step size {reach:.4g}, ε {epsilon:.4g}"
    names = ("steps × step size", "ε")
    return Finding(
        flag="short_reach", raised=raised, first=reach, second=epsilon, names=names, n=0, seeds=0, words=words
    )


def short_of_border(robust: ArrayLike, moved: ArrayLike, epsilon: float) -> Finding:
    """The images that survive were moved by less than 0.9 ε on average: the attack did not use its radius on them.

    `moved` [seeds] is the mean over each seed's survivors of the largest change of a pixel. Nothing survived: not
    raised.
    """
    survivors = np.count_nonzero(np.atleast_2d(np.asarray(robust)) > 0, axis=1)
    change = np.where(survivors > 0, np.asarray(moved, dtype=float), 0.0)
    reach = float((change * survivors).sum() / survivors.sum()) / epsilon if survivors.any() else 1.0
    names = ("change of the survivors over ε", "asked for")
    return finding("short_of_border", reach < BORDER, (reach, BORDER), names, np.shape(robust))


def unbounded_survives(outcomes: ArrayLike) -> Finding:
    """At ε = 1, where every image may become any other, more than 0.01 is kept. That none is kept proves nothing."""
    score = _mean(outcomes)
    names = ("score at ε = 1", "of a working attack")
    return finding("unbounded_survives", score > POINT, (score, 0.0), names, np.shape(outcomes))


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
