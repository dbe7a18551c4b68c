"""Intervals: against tables, a library, a written-out loop, and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.coverage import coverage, satterthwaite
from signsym_core.statistics.correlation import rank_correlation
from signsym_core.statistics.intervals import gap, gaps, interval, intervals, wilson


@pytest.mark.parametrize(
    ("successes", "n", "lo", "hi"),
    [(29, 32, 0.758, 0.968), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilson_by_hand(successes, n, lo, hi):
    assert wilson(successes, n) == pytest.approx((lo, hi), abs=5e-4)


@given(n=st.integers(1, 5000), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n, share, confidence):
    k = round(share * n)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_two_way_is_a_written_out_analysis_of_variance():
    generator = np.random.default_rng(0)
    x = (generator.random((3, 40)) < generator.random((3, 1)) * 0.5 + 0.25).astype(float)
    seeds, images = x.shape
    mean = sum(x[s, i] for s in range(seeds) for i in range(images)) / x.size
    rows = [sum(x[s]) / images for s in range(seeds)]
    columns = [sum(x[:, i]) / seeds for i in range(images)]
    ms_seed = images * sum((r - mean) ** 2 for r in rows) / (seeds - 1)
    ms_image = seeds * sum((c - mean) ** 2 for c in columns) / (images - 1)
    residuals = [(x[s, i] - rows[s] - columns[i] + mean) ** 2 for s in range(seeds) for i in range(images)]
    ms_residual = sum(residuals) / ((seeds - 1) * (images - 1))
    total = ms_seed + ms_image - ms_residual
    # Student's quantiles of both parts, squared, weighted by them.
    by_seeds, by_images = scipy.stats.t.ppf(0.975, seeds - 1), scipy.stats.t.ppf(0.975, images - 1)
    squared = (by_seeds**2 * ms_seed + by_images**2 * (ms_image - ms_residual)) / total
    half = math.sqrt(squared * total / (seeds * images))
    ours = interval(x)
    assert min(ms_seed, ms_image) > ms_residual, "the case must exercise the formula itself"
    assert (ours.value, ours.lo, ours.hi) == pytest.approx((mean, max(0, mean - half), min(1, mean + half)), rel=1e-6)
    assert (ours.n, ours.seeds, ours.method) == (40, 3, "two-way")


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize(("seeds", "images"), [(1, 1), (1, 30), (2, 1), (2, 30), (5, 7)])
def test_many_at_once_are_each_by_itself(seeds, images, kind):
    generator = np.random.default_rng(seeds * images)
    ours, theirs = (generator.random((2, 40, seeds, images)) < [[[[0.3]]], [[[0.6]]]]).astype(np.uint8)
    theirs[:5] = ours[:5]
    ours[5], theirs[5] = 1, 0
    if kind == "floats":
        ours, theirs = ours * generator.random(ours.shape), theirs * generator.random(theirs.shape)
    assert intervals(ours) == [interval(x) for x in ours]
    assert gaps(ours, theirs) == [gap(a, b) for a, b in zip(ours, theirs, strict=True)]


@given(st.integers(1, 5), st.integers(2, 40), st.integers(0, 10_000))
def test_the_probability_of_a_gap_agrees_with_its_interval(seeds, images, draw):
    generator = np.random.default_rng(draw)
    ours, theirs = (generator.random((2, seeds, images)) < [[[0.4]], [[0.6]]]).astype(float)
    at_95 = gap(ours, theirs)
    if 0 < at_95.p < 1:
        # The interval at the confidence 1 - p just touches zero.
        wider, narrower = (gap(ours, theirs, 1 - at_95.p * factor) for factor in (0.99, 1.01))
        assert wider.lo <= 0 <= wider.hi
        assert not narrower.lo <= 0 <= narrower.hi or abs(at_95.value) == 1
    assert (not at_95.lo <= 0 <= at_95.hi) == (at_95.p < 0.05)


def simulated_coverage(seeds, spread, covers, runs=250, images=400):
    """Share of simulated experiments whose interval covers the mean over all seeds and images."""
    generator = np.random.default_rng(1)
    latent = generator.normal(0, 1, (20_000, 1)) * 1.5 + generator.normal(0, 1, (1, 2_000)) * spread
    truth = (1 / (1 + np.exp(-latent))).mean()
    hits = 0
    for _ in range(runs):
        logit = generator.normal(0, 1.5, (1, images)) + generator.normal(0, spread, (seeds, 1))
        outcomes = (generator.random((seeds, images)) < 1 / (1 + np.exp(-logit))).astype(float)
        lo, hi = covers(outcomes)
        hits += lo <= truth <= hi
    return hits / runs


def two_way(outcomes):
    found = interval(outcomes)
    return found.lo, found.hi


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.05, 0.6])
def test_the_two_way_interval_covers_what_it_promises(seeds, spread):
    assert 0.90 <= simulated_coverage(seeds, spread, two_way) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("spread", [0.0, 0.2, 0.5, 1.0])
def test_the_interval_of_a_gap_covers_what_it_promises_from_two_seeds_on(seeds, spread):
    # 0.93 less two standard errors of 1,500 simulated experiments. benchmarks/coverage.py simulates more.
    assert coverage(seeds, 1000, spread, 1500).covers > 0.917


def test_the_interval_that_was_there_before_fails_the_same_check():
    assert coverage(2, 1000, 0.2, 1500, satterthwaite).covers < 0.9


@pytest.mark.slow
def test_pooling_the_seeds_fails_the_same_check():
    pooled = simulated_coverage(3, 0.6, lambda x: wilson(x.sum(), x.size))
    assert pooled < 0.6


def test_one_seed_is_wilson_over_images_and_all_or_nothing_falls_back_to_it():
    one = interval([[1, 1, 0, 1]])
    assert (one.method, one.lo, one.hi) == ("wilson", *wilson(3, 4))
    every = interval(np.ones((3, 20)))
    assert (every.method, every.lo, every.hi) == ("wilson", *wilson(20, 20))


matrices = st.integers(1, 4).flatmap(
    lambda s: st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n), min_size=s, max_size=s)
    )
)


@given(matrices)
def test_a_value_lies_in_its_interval_and_the_interval_in_the_unit_range(x):
    found = interval(x)
    assert 0 <= found.lo <= found.value + 1e-12
    assert found.value - 1e-12 <= found.hi <= 1


@given(matrices)
def test_gaps_are_antisymmetric_and_identical_outcomes_have_a_gap_of_0(x):
    same = gap(x, x)
    assert (same.value, same.p) == (0, 1)
    # No image differs: of all images at most the upper end of the exact interval of 0 out of N does.
    images = len(x[0])
    most = scipy.stats.binomtest(0, images).proportion_ci(0.95, "exact").high
    assert (same.lo, same.hi) == pytest.approx((-most, most))
    other = (1 - np.array(x)).tolist()
    there, back = gap(x, other), gap(other, x)
    assert (there.value, there.lo, there.hi) == pytest.approx((-back.value, -back.hi, -back.lo))


@pytest.mark.parametrize(("seeds", "images"), [(1, 2), (2, 1), (2, 5), (3, 6), (1, 30)])
def test_differences_that_are_all_the_same_are_not_certain(seeds, images):
    """Every image kept by one and lost by the other: the interval and the probability are those of a sign test."""
    every = np.ones((seeds, images))
    found, back = gap(every, 0 * every), gap(0 * every, every)
    exact = scipy.stats.binomtest(images, images)
    least = exact.proportion_ci(0.95, "exact").low
    assert (found.value, found.hi, found.p) == (1, 1, pytest.approx(exact.pvalue))
    assert found.lo == pytest.approx(2 * least - 1)
    assert (back.lo, back.hi) == (-1, pytest.approx(-found.lo))
    assert (found.lo > 0) == (images > 5)


def test_two_models_that_agree_on_few_images_may_still_differ():
    """Of 2,000 experiments on 30 images, with one seed: rules that keep 98 % and 95 %, image by image on their own."""
    kept = np.random.default_rng(0).random((2, 2000, 1, 30)) < np.array([0.98, 0.95])[:, None, None, None]
    first, second = kept.astype(np.uint8)
    holds = [found.lo <= 0.03 <= found.hi for found in gaps(first, second)]
    assert np.mean(holds) > 0.94


def test_a_paired_gap_sees_what_two_intervals_hide():
    generator = np.random.default_rng(0)
    theirs = (generator.random((2, 400)) < 0.5).astype(float)
    ours = theirs.copy()
    ours[:, :20] = 1
    assert gap(ours, theirs).lo > 0
    assert interval(ours).lo < interval(theirs).hi


@pytest.mark.parametrize(
    ("bad", "words"),
    [([[]], "at least one"), ([[0, math.nan]], "finite"), ([[0, 2]], r"\[0, 1\]"), (np.zeros((1, 2, 3)), "shape")],
)
def test_bad_outcomes_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        interval(bad)


def test_a_gap_of_different_shapes_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        gap([[1, 0]], [[1, 0, 1]])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_a_rank_correlation_is_that_of_scipy_ties_included(pairs):
    x, y = zip(*pairs, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(rank_correlation(x, y))
    else:
        assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_rank_correlation_of_a_monotone_relation_is_one_and_different_lengths_are_refused():
    assert rank_correlation([0, 30, 85], [0.1, 0.2, 0.9]) == 1
    assert rank_correlation([0, 30, 85], [3, 2, 1]) == -1
    assert math.isnan(rank_correlation([1], [2]))
    with pytest.raises(ValueError, match="same length"):
        rank_correlation([1, 2], [1])
