"""mAP@k against a written-out loop, scikit-learn, every order of the ties, and cases counted by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import signsym_core as ss
from signsym_core import retrieval
from signsym_core.models.outputs import NonFiniteOutputError
from signsym_core.retrieval.codes import Codes, pack, signs, unpack
from signsym_core.retrieval.ranking import average_precision, chance, nearest


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
        for module in (retrieval.ranking, retrieval.ties):
            monkeypatch.setattr(module, "CHUNK", int(rng.integers(1, 500)))
        items = int(rng.integers(1, 120))
        queries, database = made(
            rng, int(rng.integers(1, 9)), items, int(rng.choice([4, 8, 12, 32, 70, 300])), 4, several
        )
        k = int(rng.integers(1, items + 20))
        ours = average_precision(queries, database, k, "stable").numpy()
        np.testing.assert_allclose(ours, usual_loop(queries, database, k), rtol=0, atol=1e-12, err_msg=str(case))


@pytest.mark.slow
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
    from sklearn.metrics import average_precision_score

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


def test_codes_may_be_bool_or_exact_signs_of_any_type_and_zero_is_plus_one():
    rng = np.random.default_rng(3)
    queries, database = made(rng, 5, 40, 12, 3)
    kinds = [torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
    forms = [(queries.signs.to(one), database.signs.to(other)) for one, other in itertools.product(kinds, kinds)]
    forms.append((queries.signs > 0, database.signs > 0))
    scores = {ss.mean_average_precision(q, queries.labels, d, database.labels, 10) for q, d in forms}
    assert scores == {float(average_precision(queries, database, 10).mean())}
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


def ids(*values):
    return torch.tensor(values, dtype=torch.int64)


def with_a(value, dtype=torch.float32):
    codes = torch.ones(6, 4, dtype=dtype)
    codes[3, 2] = value
    return codes


@pytest.mark.parametrize("side", ["query", "database"])
@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (torch.tensor([[0, 1], [1, 0]]).repeat(3, 2), "int64 with 0 in it"),
        (with_a(0, torch.int8), r"int8 with 0 in it; .* codes\.bool\(\)"),
        (with_a(255, torch.uint8), "uint8 with 255"),
        (with_a(0.99), "float32 with 0.99"),
        (with_a(math.nan), "with nan"),
        (with_a(-math.inf), "with -inf"),
        (with_a(-0.0), r"with -0\.0"),
        (torch.ones(6, 4, dtype=torch.complex64), "complex64"),
        (torch.ones(6), r"float32\[6\]"),
        (torch.ones(6, 4, 1), r"float32\[6, 4, 1\]"),
        (torch.ones(0, 4), "at least 1"),
        (torch.ones(6, 0), "bits at least 1"),
        (np.ones((6, 4)), r"torch tensor, got ndarray float64\[6, 4\]"),
        ([[1, -1]] * 6, "torch tensor, got .* \\(list\\)"),
        (torch.ones(6, 4, dtype=torch.bool), "both be bool or both -1 and"),
    ],
)
def test_codes_that_are_not_binary_are_refused(side, codes, words):
    given = {name: torch.ones(6, 4) for name in ("query_codes", "database_codes")} | {f"{side}_codes": codes}
    given |= {name: torch.zeros(6, dtype=torch.int64) for name in ("query_labels", "database_labels")}
    with pytest.raises(ValueError, match=words) as caught:
        ss.mean_average_precision(**given)
    if "both" not in words:
        assert f"{side}_codes must be" in str(caught.value)


@pytest.mark.parametrize("side", ["query", "database"])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (ids(0, 1), r"int64\[2\]"),
        (torch.zeros(6), r"float32\[6\]"),
        (torch.zeros(6, dtype=torch.int32), "int32"),
        (torch.ones(6, dtype=torch.bool), "bool"),
        (ids(0, 1, 2, -1, 0, 0), "with -1 in it"),
        (torch.full((6, 3), 0.5), "with 0.5 in it"),
        (torch.full((6, 3), math.nan), "with nan"),
        (torch.full((6, 3), 2), "with 2"),
        (torch.zeros(6, 2, 2), r"\[6, 2, 2\]"),
        (torch.tensor(3), r"int64\[\]"),
        (torch.zeros(6, dtype=torch.int64, device="meta"), "on the device of the codes, cpu, got meta"),
        (torch.zeros(6, 2), "of one kind"),
        ([0, 1, 2, 3, 4, 5], "torch tensor"),
    ],
)
def test_labels_that_are_none_are_refused(side, labels, words):
    given = {name: torch.ones(6, 4) for name in ("query_codes", "database_codes")}
    given |= {name: torch.zeros(6, dtype=torch.int64) for name in ("query_labels", "database_labels")}
    with pytest.raises(ValueError, match=words) as caught:
        ss.mean_average_precision(**(given | {f"{side}_labels": labels}))
    if words != "of one kind":
        assert f"{side}_labels must be" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *[({"k": k}, "k must be a whole number, at least 1, got") for k in (0, -3, True, False, 2.5, 2.0, "all", "5")],
        *[({"ties": ties}, "'expected' or 'stable'") for ties in ("random", None, True, 1, ["stable"])],
        ({"query_codes": torch.ones(3, 5)}, "5 bits and the database 4"),
        ({"query_labels": torch.zeros(3, 2)}, "one kind"),
        ({"query_labels": torch.zeros(3, 2), "database_labels": torch.zeros(6, 3)}, "one kind"),
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


def test_codes_are_checked_when_they_are_made_and_on_one_device():
    for codes in (torch.zeros(3, 4, dtype=torch.int8), torch.ones(3), torch.rand(3, 4)):
        with pytest.raises(ValueError, match="exactly -1 and"):
            Codes(signs=codes, labels=ids(0, 1, 2))
    assert Codes(signs=torch.tensor([[True, False]]), labels=ids(0)).signs.tolist() == [[1, -1]]
    with pytest.raises(ValueError, match=r"queries must be Codes\(signs=..., labels=...\), got Tensor"):
        average_precision(torch.ones(3, 4), Codes(signs=torch.ones(3, 4), labels=ids(0, 1, 2)))


def test_k_may_be_a_whole_number_of_any_type():
    queries, database = made(np.random.default_rng(5), 4, 30, 8, 3)
    assert torch.equal(average_precision(queries, database, np.int64(7)), average_precision(queries, database, 7))


def test_zero_and_one_as_bool_score_as_the_written_out_loop_says():
    """What was read as a code of nothing but +1: 0/1 numbers are refused, and their bools are right."""
    rng = np.random.default_rng(6)
    queries, database = made(rng, 9, 50, 12, 3)
    bits = [(codes.signs > 0).to(torch.int64) for codes in (queries, database)]
    with pytest.raises(ValueError, match="query_codes"):
        ss.mean_average_precision(bits[0], queries.labels, bits[1], database.labels)
    ours = ss.mean_average_precision(bits[0].bool(), queries.labels, bits[1].bool(), database.labels, 20, "stable")
    assert ours == pytest.approx(float(usual_loop(queries, database, 20).mean()), abs=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_have_no_code(value):
    class Broken(torch.nn.Module):
        def forward(self, images):
            outputs = images.flatten(1)[:, :6].clone()
            outputs[-1, 2] = value
            return outputs

    source = ss.DATASETS.build("digits", size=8, train_images=40, test_images=30)
    with pytest.raises(NonFiniteOutputError, match="for 2 of 30 images of digits"):
        ss.encode(Broken(), source.load(None).test, source, batch=15)


def written_out(query, database, relevant, k):
    """AP@k of one query: items by Hamming distance, then squared distance of the outputs at length 1, then place."""

    def unit(row):
        length = math.sqrt(sum(value * value for value in row))
        return [value / length if length else 0.0 for value in row]

    keys = []
    for place, item in enumerate(database):
        hamming = sum((a >= 0) != (b >= 0) for a, b in zip(query, item, strict=True))
        apart = sum((a - b) ** 2 for a, b in zip(unit(query), unit(item), strict=True))
        keys.append((hamming, apart, place))
    hits, total = 0, 0.0
    for rank, (_, _, place) in enumerate(sorted(keys)[:k], start=1):
        if relevant[place]:
            hits += 1
            total += hits / rank
    return total / hits if hits else 0.0


@pytest.mark.parametrize("k", [1, 7, 60, None])
def test_ties_by_features_are_those_of_a_written_out_loop(k):
    random = torch.Generator().manual_seed(3)
    asked, items = (torch.randn(n, 5, generator=random, dtype=torch.float64) for n in (9, 60))
    one, other = torch.randint(3, (9,), generator=random), torch.randint(3, (60,), generator=random)
    expected = [
        written_out(query, items.tolist(), (other == label).tolist(), k or 60)
        for query, label in zip(asked.tolist(), one, strict=True)
    ]
    queries, database = (Codes(signs=f >= 0, labels=y, features=f) for f, y in ((asked, one), (items, other)))
    got = average_precision(queries, database, k, "features")
    assert got.tolist() == pytest.approx(expected, abs=1e-9)
    mean = ss.mean_average_precision(asked >= 0, one, items >= 0, other, k, "features", asked, items)
    assert mean == pytest.approx(sum(expected) / 9, abs=1e-9)
    if k == 60:
        # The check can fail: another order within the ties gives other scores.
        assert average_precision(queries, database, k, "stable").tolist() != pytest.approx(expected, abs=1e-3)


def test_ties_by_features_need_features_that_fit():
    signs, labels = torch.ones(4, 3, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    codes = Codes(signs=signs, labels=labels)
    with pytest.raises(ValueError, match="queries and database: without"):
        average_precision(codes, codes, None, "features")
    with pytest.raises(ValueError, match=r"features must be finite floats \[4, 3\]"):
        Codes(signs=signs, labels=labels, features=torch.ones(4, 2))
