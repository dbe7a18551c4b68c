"""Which epoch is kept and when training stops: hand-counted curves, written-out scores, interrupted runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import signsym_core as ss
from signsym_core.datasets import inputs
from signsym_core.training.checkpoint import Checkpoint
from signsym_core.training.selection import kept_epoch, stops, validation_score

SOURCE = ss.DATASETS.build("digits", train_images=32, validation_images=30, test_images=10, classes=[0, 1, 2])
DATA = SOURCE.load(Path())
CLASSIFICATION = ss.TASKS.build("classification")
HASHING = ss.TASKS.build("hashing", bits=12, beta=0.01, tanh=True)


def model(rule="usf", outputs=3, **parameters):
    network = ss.BACKBONES.build("smallcnn", width=2).build(outputs, channels=1, size=8, seed=0)
    return ss.convert(network, rule, seed=5, **parameters)


def train(network, task=CLASSIFICATION, seed=1, settings=(), **more):
    chosen = {"epochs": 5, "batch_size": 16, "lr": 3e-3, "head_lr": 1e-2, **dict(settings)}
    more = {"validation": DATA.validation, "classes": 3} | more
    return ss.fine_tune(network, DATA.train, SOURCE, task, ss.FineTune(**chosen), seed=seed, **more)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def scored(monkeypatch, curve):
    """From now on each epoch has its score in the curve."""
    monkeypatch.setattr("signsym_core.training.finetune.validation_score", lambda *_, epoch, **__: curve[epoch])


#: Scores, patience, least difference, and the epoch after which training stops; null: it does not.
CURVES = [
    ([0.5, 0.5, 0.5, 0.5], 2, 0.0, 3),
    ([0.5, 0.25, 0.75, 0.5, 0.75], 2, 0.0, 5),
    ([0.5, 0.25, 0.75, 0.5, 0.875], 2, 0.0, None),
    # 0.625 is a quarter of a half better than 0.5, less than is asked, and so never a new reference.
    ([0.5, 0.625, 0.75, 0.875], 2, 0.25, 3),
    ([0.5, 0.625, 0.875, 0.875], 2, 0.25, None),
    # Exactly as much better as is asked is not better.
    ([0.25, 0.5, 0.75], 1, 0.25, 2),
    ([0.0, 0.0], 1, 0.0, 2),
    ([0.25, 0.5, 0.375, 0.375], None, 0.0, None),
    ([0.1] * 11, 10, 0.05, 11),
    ([], 1, 0.0, None),
]


@pytest.mark.parametrize(("scores", "patience", "least", "expected"), CURVES)
def test_a_training_stops_where_it_was_counted_by_hand(scores, patience, least, expected):
    stopped = [epoch for epoch in range(len(scores) + 1) if stops(scores[:epoch], patience, least)]
    assert (stopped[0] if stopped else None) == expected
    # Once stopped, a row of the same scores stays stopped.
    assert expected is None or stopped == list(range(expected, len(scores) + 1))


def test_the_first_of_the_best_epochs_is_kept():
    def history(*scores):
        return [
            row for n, s in enumerate(scores, 1) for row in ({"layer": "a"}, {"epoch": n, "loss": 1, "validation": s})
        ]

    assert [kept_epoch(history(*s), "best") for s in ([0.1, 0.7, 0.3, 0.7], [0.5], [0.1, 0.2])] == [2, 1, 2]
    assert kept_epoch(history(0.1, 0.7, 0.3), "last") == 3
    assert kept_epoch([], "best") == kept_epoch([], "last") == 0


#: Rules with draws after every update and in every pass, and with held tensors.
RULES = [("brsf", {}), ("brsf", {"redraw": "forward"}), ("wm", {})]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "parameters"), RULES)
def test_the_kept_model_is_that_of_a_training_of_so_many_epochs(rule, parameters, monkeypatch):
    scored(monkeypatch, [0.25, 0.75, 0.5, 0.75, 0.5])
    kept, last, whole = (model(rule, **parameters) for _ in range(3))
    history = train(kept, settings={"keep": "best"})
    train(last, settings={"epochs": 2})
    train(whole)
    assert same(kept, last)
    assert not same(kept, whole)
    assert (len(history), kept_epoch(history, "best")) == (5, 2)
    assert [row["validation"] for row in history] == [0.25, 0.75, 0.5, 0.75, 0.5]


def test_it_stops_early_with_either_model(monkeypatch):
    scored(monkeypatch, [0.25, 0.75, 0.5, 0.5, 1.0])
    patient = {"patience": 2}
    best, last, two, four = (model() for _ in range(4))
    assert len(train(best, settings={"keep": "best", **patient})) == 4
    assert len(train(last, settings=patient)) == 4
    train(two, settings={"epochs": 2})
    train(four, settings={"epochs": 4})
    assert same(best, two)
    assert same(last, four)


@pytest.mark.parametrize(("rule", "parameters"), RULES)
def test_validation_changes_no_number_of_the_training(rule, parameters):
    watched, plain = model(rule, **parameters), model(rule, **parameters)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    history = train(watched, settings={"patience": 5, "epochs": 3})
    assert torch.equal(torch.rand(2), expected)
    losses = [row["loss"] for row in train(plain, settings={"epochs": 3})]
    assert [row["loss"] for row in history] == losses
    assert same(watched, plain)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "parameters"), RULES)
def test_going_on_from_any_epoch_keeps_the_same_epoch_and_stops_at_the_same(rule, parameters, tmp_path, monkeypatch):
    scored(monkeypatch, [0.25, 0.75, 0.5, 0.625, 1.0])
    settings = {"keep": "best", "patience": 2}
    undisturbed, checkpoints = model(rule, **parameters), []
    history = train(undisturbed, settings=settings, on_epoch=checkpoints.append)
    assert len(checkpoints) == len(history) == 4
    # What is kept beside the model is the model of an earlier epoch alone.
    held = [any(name.startswith("best/") for name in checkpoint.tensors) for checkpoint in checkpoints]
    assert held == [False, False, True, True]
    for checkpoint in checkpoints:
        save_file(checkpoint.tensors, tmp_path / "c.safetensors")
        tensors = load_file(tmp_path / "c.safetensors")
        resumed = model(rule, **parameters)
        resume = Checkpoint(epoch=checkpoint.epoch, tensors=tensors, history=checkpoint.history)
        again = train(resumed, settings=settings, resume=resume)
        assert [(row["loss"], row["validation"]) for row in again] == [(r["loss"], r["validation"]) for r in history]
        assert same(resumed, undisturbed)


def test_a_divided_batch_keeps_the_same_epoch():
    whole, divided = model("bp"), model("bp")
    settings = {"keep": "best", "epochs": 4}
    one, other = train(whole, settings=settings), train(divided, settings=settings, micro_batch=5)
    assert [row["validation"] for row in one] == pytest.approx([row["validation"] for row in other])
    assert kept_epoch(one, "best") == kept_epoch(other, "best")
    for (name, a), b in zip(whole.named_parameters(), divided.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name


def test_the_score_of_a_classification_is_the_share_of_right_images():
    network = model().train()
    with torch.no_grad():
        top = network.eval()(inputs(DATA.validation.images, SOURCE)).argmax(dim=1)
    network.train()
    right = sum(int(a == b) for a, b in zip(top, DATA.validation.labels, strict=True))
    score = validation_score(network, CLASSIFICATION, DATA.validation, SOURCE, seed=0, epoch=0, batch=7)
    assert score == pytest.approx(right / 30)
    assert network.training


def ap(query, items):
    """AP over all items by Hamming distance, then by squared distance of the outputs at length 1, item by item."""
    outputs, label = query
    unit = [v / math.hypot(*outputs) for v in outputs]

    def rank(item):
        values, _ = item
        apart = sum((a - b / math.hypot(*values)) ** 2 for a, b in zip(unit, values, strict=True))
        return sum((a >= 0) != (b >= 0) for a, b in zip(outputs, values, strict=True)), apart

    hits, total = 0, 0.0
    for place, (_, item_label) in enumerate(sorted(items, key=rank), start=1):
        if item_label == label:
            hits += 1
            total += hits / place
    return total / hits if hits else 0.0


def test_the_score_of_hashing_is_the_mean_of_five_draws_of_queries_and_items():
    generator = torch.Generator().manual_seed(4)
    outputs, labels = torch.randn(60, 12, generator=generator), torch.randint(3, (60,), generator=generator)
    expected, chances = [], torch.Generator().manual_seed(9)
    for _ in range(5):
        chosen = torch.randperm(60, generator=chances).tolist()
        asks = (torch.rand(60, generator=chances, dtype=torch.float64) <= 0.1).tolist()
        rows = [(outputs[at].tolist(), int(labels[at])) for at in chosen]
        items = [row for row, is_query in zip(rows, asks, strict=True) if not is_query]
        assert 0 < len(items) < 60
        aps = [ap(row, items) for row, is_query in zip(rows, asks, strict=True) if is_query]
        expected.append(sum(aps) / len(aps))
    score = HASHING.validate(outputs, labels, torch.Generator().manual_seed(9))
    assert score == pytest.approx(sum(expected) / 5, abs=1e-9)
    # Neither k nor ties, which fine-tunes share, play a part.
    other = ss.TASKS.build("hashing", bits=12, k=3, ties="stable")
    assert other.validate(outputs, labels, torch.Generator().manual_seed(9)) == score


def test_a_small_validation_split_has_a_query_and_an_item_in_each_draw():
    outputs, labels = torch.tensor([[1.0] * 12, [2.0] * 12]), torch.tensor([1, 1])
    assert HASHING.validate(outputs, labels, torch.Generator().manual_seed(0)) == 1.0
    with pytest.raises(ValueError, match="at least two validation images"):
        HASHING.validate(outputs[:1], labels[:1], torch.Generator())


def test_hashing_trains_with_its_best_epoch_and_draws_anew_each_epoch():
    network = model(outputs=12)
    history = train(network, HASHING, settings={"keep": "best", "patience": 10, "min_delta": 0.05})
    assert all(0 < row["validation"] <= 1 for row in history)
    frozen = train(model(outputs=12), HASHING, settings={"keep": "best", "lr": 0, "head_lr": 0, "weight_decay": 0})
    assert len({row["validation"] for row in frozen}) > 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expect validation images, got validation=None"):
        train(model(), settings={"keep": "best"}, validation=None)
    for settings, words in (
        ({"keep": "best", "steps": 3}, "'steps' expects null where epochs are validated"),
        ({"min_delta": 0.1}, r"'patience' expects a whole number beside min_delta 0\.1, got null"),
        ({"patience": 0}, "'patience' expects null or a whole number, at least 1"),
        ({"patience": 1, "min_delta": -1.0}, "'min_delta' expects a number, at least 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ss.FineTune(**settings)
    plain = ss.DATASETS.build("digits")
    assert "data set 'digits' has none" in ss.FineTune(keep="best").misfit(plain)
    assert ss.FineTune(keep="best").misfit(SOURCE) is None
    assert ss.FineTune().misfit(plain) is None
    cifar = ss.DATASETS.build("cifar10", split="authors-2024")
    assert ss.FineTune(keep="best").misfit(cifar) is None
