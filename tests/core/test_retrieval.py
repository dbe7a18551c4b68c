"""mAP@k against a written-out loop, scikit-learn, every order of the ties, and cases counted by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import signsym_core as ss
from signsym_core import retrieval
from signsym_core.retrieval import Codes, average_precision, chance, nearest, pack, signs, unpack


def made(rng, queries, items, bits, classes, several=False):
    def codes(count):
        chosen = torch.tensor(rng.choice([-1, 1], (count, bits)), dtype=torch.int8)
        if several:
            return Codes(signs=chosen, labels=torch.tensor(rng.random((count, classes)) < 0.3, dtype=torch.uint8))
        return Codes(signs=chosen, labels=torch.tensor(rng.integers(0, classes, count)))

    return codes(queries), codes(items)


def usual_loop(queries, database, k):
    """The field's loop: sort each query's distances, keep the first k, average the precision at the hits."""
    results = []
    several = queries.labels.ndim == 2
    for code, label in zip(queries.signs.numpy().astype(int), queries.labels.numpy(), strict=True):
        shared = (database.labels.numpy() @ label.astype(int)) > 0 if several else database.labels.numpy() == label
        distances = 0.5 * (len(code) - database.signs.numpy().astype(int) @ code)
        found = shared[np.argsort(distances, kind="stable")][:k]
        places = np.flatnonzero(found) + 1
        results.append(np.mean(np.arange(1, len(places) + 1) / places) if len(places) else 0.0)
    return np.array(results)


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
def test_stable_is_the_usual_loop(several, monkeypatch):
    rng = np.random.default_rng(0)
    for case in range(100):
        # Chunks of every size, so that their seams are met.
        monkeypatch.setattr(retrieval, "CHUNK", int(rng.integers(1, 500)))
        items = int(rng.integers(1, 120))
        queries, database = made(
            rng, int(rng.integers(1, 9)), items, int(rng.choice([4, 8, 12, 32, 70, 300])), 4, several
        )
        k = int(rng.integers(1, items + 20))
        ours = average_precision(queries, database, k, "stable").numpy()
        np.testing.assert_allclose(ours, usual_loop(queries, database, k), rtol=0, atol=1e-12, err_msg=str(case))


def test_expected_is_the_mean_over_every_order_of_the_ties():
    rng = np.random.default_rng(1)
    for _ in range(60):
        items = int(rng.integers(1, 7))
        queries, database = made(rng, 1, items, int(rng.integers(1, 4)), 2)
        k = int(rng.integers(1, items + 2))
        scores = []
        for order in itertools.permutations(range(items)):
            shuffled = Codes(signs=database.signs[list(order)], labels=database.labels[list(order)])
            scores.append(usual_loop(queries, shuffled, k)[0])
        ours = float(average_precision(queries, database, k, "expected"))
        assert ours == pytest.approx(np.mean(scores), abs=1e-12)


def test_expected_does_not_depend_on_the_order_and_is_the_mean_of_stable():
    rng = np.random.default_rng(2)
    queries, database = made(rng, 20, 3000, 16, 5)
    wanted = average_precision(queries, database, 700, "expected")
    means = []
    for _ in range(100):
        order = torch.tensor(rng.permutation(len(database)))
        shuffled = Codes(signs=database.signs[order], labels=database.labels[order])
        assert torch.equal(average_precision(queries, shuffled, 700, "expected"), wanted)
        means.append(float(average_precision(queries, shuffled, 700, "stable").mean()))
    error = np.std(means, ddof=1) / math.sqrt(len(means))
    assert abs(np.mean(means) - float(wanted.mean())) < 4 * error
    assert np.std(means) > 0


def test_without_ties_both_are_scikit_learns():
    # Item i agrees with the query in its first i bits: every distance is another.
    bits = 60
    database = torch.ones(bits, bits, dtype=torch.int8).tril().mul(2).sub(1)
    labels = torch.randint(0, 2, (bits,), generator=torch.Generator().manual_seed(0))
    queries = Codes(signs=torch.ones(1, bits, dtype=torch.int8), labels=torch.tensor([1]))
    wanted = average_precision_score(labels.numpy(), np.arange(bits))
    for ties in ("expected", "stable"):
        ours = float(average_precision(queries, Codes(signs=database, labels=labels), None, ties))
        assert ours == pytest.approx(wanted, abs=1e-12)


def score(relevant, distances, k, ties="expected"):
    """AP of one query whose database items are relevant or not at the given distances."""
    bits = 8
    database = torch.ones(len(distances), bits, dtype=torch.int8)
    for row, distance in enumerate(distances):
        database[row, :distance] = -1
    return ss.mean_average_precision(
        torch.ones(1, bits), torch.tensor([1]), database, torch.tensor(relevant, dtype=torch.int64), k, ties
    )


@pytest.mark.parametrize(
    ("relevant", "distances", "k", "wanted"),
    [
        ([1, 0, 1], [0, 1, 2], None, (1 + 2 / 3) / 2),
        # Divided by the hits within k, not by all relevant items: fewer hits can score more.
        ([1, 0, 0, 1], [0, 1, 2, 3], 3, 1.0),
        ([0, 0, 1], [0, 1, 2], 2, 0.0),
        ([0, 0, 0], [0, 1, 2], None, 0.0),
        # One of two tied items is relevant: first or second with equal chance.
        ([1, 0], [3, 3], None, 3 / 4),
        # k cuts the tie: the relevant one is above the cut or it is not.
        ([1, 0], [3, 3], 1, 1 / 2),
        # Two of three tied, two places: both (1/3), the first alone (1/3), the second alone (1/3).
        ([1, 1, 0], [3, 3, 3], 2, (1 + 1 + 1 / 2) / 3),
        # A hit before a cut tie: h is 1 or 2, and AP is divided by it.
        ([1, 1, 0], [0, 3, 3], 2, 1.0),
        ([0, 1, 0], [0, 3, 3], 2, 1 / 2 * 1 / 2),
        ([1, 0, 1], [0, 1, 1], 99, (1 + (1 + 2 / 3) / 2) / 2),
    ],
)
def test_cases_counted_by_hand(relevant, distances, k, wanted):
    assert score(relevant, distances, k) == pytest.approx(wanted, abs=1e-12)


def test_stable_takes_the_databases_order_in_a_tie():
    assert score([1, 0], [3, 3], None, "stable") == 1
    assert score([0, 1], [3, 3], None, "stable") == 0.5


def test_a_query_without_a_relevant_item_counts_in_the_mean():
    database = torch.ones(3, 4)
    labels = torch.tensor([0, 0, 0])
    assert ss.mean_average_precision(torch.ones(2, 4), torch.tensor([0, 1]), database, labels) == 0.5


def test_codes_may_be_bool_real_or_signs_and_zero_is_plus_one():
    rng = np.random.default_rng(3)
    queries, database = made(rng, 5, 40, 12, 3)
    real = database.signs * torch.rand(40, 12)
    forms = [(queries.signs, database.signs), (queries.signs > 0, database.signs > 0), (queries.signs.float(), real)]
    scores = {ss.mean_average_precision(q, queries.labels, d, database.labels, 10) for q, d in forms}
    assert len(scores) == 1
    assert signs(torch.tensor([-0.0, 0.0, -1e-30, 2.0])).tolist() == [1, 1, -1, 1]


@pytest.mark.parametrize("bits", [1, 7, 8, 32, 45])
def test_packed_codes_come_back(bits):
    codes = signs(torch.randn(13, bits))
    packed = pack(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (13, math.ceil(bits / 8))
    assert torch.equal(unpack(packed, bits), codes)


def test_a_random_ranking_is_what_chance_says():
    rng = np.random.default_rng(4)
    queries, database = made(rng, 300, 2000, 32, 4)
    at_random = float(average_precision(queries, database, 100).mean())
    assert chance(queries, database, 100) == pytest.approx(at_random, abs=0.01)


def test_the_nearest_item_is_the_first_of_the_least_distance():
    database = Codes(signs=signs(torch.tensor([[-1.0, -1], [1, 1], [1, 1]])), labels=torch.tensor([0, 1, 2]))
    assert nearest(signs(torch.tensor([[1.0, 1], [-1, -1]])), database).tolist() == [1, 0]


def test_encode_gives_the_signs_of_the_model_in_evaluation_mode():
    source = ss.DATASETS.build("digits", size=8, train_images=40, test_images=30)
    split = source.load(None).test
    model = ss.BACKBONES.build("smallcnn", width=4).build(12, channels=1, size=8, seed=0).train()
    codes = ss.encode(model, split, source, batch=7)
    assert model.training
    with torch.no_grad():
        assert torch.equal(codes.signs, signs(model.eval()(split.images.float() / 255)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 0}, "at least 1"),
        ({"ties": "random"}, "'expected' or 'stable'"),
        ({"query_codes": torch.ones(3, 5)}, "5 bits"),
        ({"query_labels": torch.zeros(2, dtype=torch.int64)}, "query labels"),
        ({"query_labels": torch.zeros(3, 2)}, "one kind"),
        ({"database_codes": torch.ones(0, 4)}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    given = {
        "query_codes": torch.ones(3, 4),
        "query_labels": torch.zeros(3, dtype=torch.int64),
        "database_codes": torch.ones(6, 4),
        "database_labels": torch.zeros(6, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=words):
        ss.mean_average_precision(**(given | change))
