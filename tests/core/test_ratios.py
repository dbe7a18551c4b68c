"""Ratios over seeds, beside a loop, a hand count and scipy's interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from signsym_core.statistics.ratios import ratio


def test_a_ratio_counted_by_hand():
    # Two kinds, two seeds: (1/2 + 3/4) / 2 and (2/2 + 3/6) / 2.
    found = ratio([[1, 2], [3, 3]], [[2, 2], [4, 6]])
    assert found.value == pytest.approx((0.625 + 0.75) / 2)
    assert found.seeds == 2


def test_the_interval_is_students_over_seeds():
    a, b = np.random.default_rng(0).random((2, 3, 5)) + 0.5
    found = ratio(a, b)
    by_seed = [np.mean([a[kind][seed] / b[kind][seed] for kind in range(3)]) for seed in range(5)]
    assert (found.lo, found.hi) == pytest.approx(stats.t.interval(0.95, 4, np.mean(by_seed), stats.sem(by_seed)))
    assert found.value == pytest.approx(np.mean(by_seed))


def test_one_seed_says_nothing_about_others():
    found = ratio([[1]], [[4]])
    assert (found.value, found.lo, found.hi) == (0.25, -math.inf, math.inf)


@pytest.mark.parametrize("below", [0.0, -0.1])
def test_nothing_to_divide_by_gives_no_ratio(below):
    assert ratio([[1, 1]], [[1, below]]) is None


def test_values_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match=r"of one shape, got \[1, 2\] and \[1, 1\]"):
        ratio([[1, 2]], [[1]])
