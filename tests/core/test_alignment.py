"""The alignment of an epoch: angles and ratios against closed forms, and a training that does not notice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import signsym_core as ss
from signsym_core.tasks import Objective
from signsym_core.training.alignment import _row, epoch_alignment, layer_alignment
from signsym_core.training.angles import beside_weights

SOURCE = ss.DATASETS.build("digits", train_images=40, test_images=10, classes=[0, 1, 2], size=8)
DATA = SOURCE.load(Path())
TASK = ss.TASKS.build("classification")


def trained(rule, resume=None, **more):
    model = ss.convert(ss.BACKBONES.build("smallcnn", width=2).build(3, channels=1, size=8), rule[0], seed=1, **rule[1])
    settings = ss.FineTune(epochs=3, batch_size=16, lr=1e-2, head_lr=1e-2)
    history = ss.fine_tune(model, DATA.train, SOURCE, TASK, settings, seed=0, resume=resume, **more)
    return model, [row["loss"] for row in history]


RULES = [("bp", {}), ("usf", {}), ("brsf", {}), ("brsf", {"redraw": "forward"})]


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=["bp", "usf", "brsf", "brsf-forward"])
def test_no_number_of_a_training_depends_on_it_and_every_epoch_and_layer_has_a_row(rule):
    rows = []
    (plain, losses), (logged, same) = trained(rule), trained(rule, alignment=rows)
    assert losses == same
    states = plain.state_dict(), logged.state_dict()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    layers = [name.removesuffix(".weight") for name, p in plain.named_parameters() if p.ndim > 1]
    # 40 images in batches of 16: the last step but one is the second.
    assert [(row["epoch"], row["step"], row["layer"]) for row in rows] == [(e, 2, n) for e in (1, 2, 3) for n in layers]
    for row in rows:
        if rule[0] == "bp":
            assert (row["angle"], row["feedback_ratio"]) == (0.0, 1.0)
            assert row["cosine"] == pytest.approx(1)
        else:
            assert 0 < row["angle"] < 90
            assert row["cosine"] is None or abs(row["cosine"]) <= 1 + 1e-9


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_rows_of_an_undisturbed_one():
    rows, checkpoints, kept = [], [], []
    save = lambda checkpoint: (checkpoints.append(checkpoint), kept.append(list(rows)))  # noqa: E731
    trained(RULES[2], alignment=rows, on_epoch=save)
    again = kept[0]
    trained(RULES[2], resume=checkpoints[0], alignment=again)
    assert again == rows


class Sum(Objective):
    def forward(self, outputs, labels):
        return outputs.square().sum()


def test_angles_and_ratios_are_those_of_closed_forms():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False))
    ss.convert(model, "frsf", seed=2)
    images = torch.rand(10, 6)
    few = epoch_alignment(model, Sum(), images, torch.zeros(10), images_of_epoch=7000)
    weights, matrices = [layer.weight.detach().double() for layer in model], list(ss.feedback(model).values())
    for row, weight, matrix in zip(few, weights, matrices, strict=True):
        cosine = float((weight * matrix).sum() / (weight.norm() * matrix.double().norm()))
        assert row["angle"] == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-5)
        assert row["feedback_ratio"] == pytest.approx(float(matrix.double().norm() / weight.norm()))
    # The gradients of the first seven images: W1 under the rule is (2 y B2)ᵀ x, under BP (2 y W2)ᵀ x.
    x, y = images[:7].double(), images[:7].double() @ weights[0].T @ weights[1].T
    own, true = ((2 * y @ m.double()).T @ x for m in (matrices[1], weights[1]))
    assert few[0]["cosine"] == pytest.approx(float((own * true).sum() / own.norm() / true.norm()), rel=1e-4)
    assert few[0]["ratio"] == pytest.approx(float(own.norm() / true.norm()), rel=1e-4)
    assert few[1]["cosine"] == pytest.approx(1)


def test_layers_that_a_rule_leaves_to_bp_have_the_angle_that_a_mixed_rule_gives_them():
    left = ss.RULES.build("fa", bp_layers=("network.conv1_1", "head"))
    rules = (left, ss.RULES.build("mixed", layers={"network.conv1_1": "bp", "head": "bp", "*": "fa"}))
    one, other = (beside_weights(ss.convert(ss.BACKBONES.build("smallcnn", width=4).build(3), r)) for r in rules)
    assert one.keys() == other.keys()
    assert all(found[name] == (0, 1) for found in (one, other) for name in ("network.conv1_1", "network.fc"))


@pytest.mark.parametrize("rule", ["usf", "kp", "lowrank"])
def test_both_gradients_are_those_of_passes_of_their_own(rule):
    model = ss.convert(ss.BACKBONES.build("smallcnn", width=2).build(3, channels=1, size=8), rule, seed=1)
    objective, labels = TASK.objective(3, 0), torch.tensor([0, 1, 2, 0])
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = [p for n, p in model.named_parameters() if p.ndim > 1 and n.endswith(".weight") and "held" not in n]
    rows = layer_alignment(model, objective, images, labels)
    own = torch.autograd.grad(objective(model(images), labels), weights)
    with ss.exact_gradient(model):
        exact = torch.autograd.grad(objective(model(images), labels), weights)
    for row, g, g_bp in zip(rows, own, exact, strict=True):
        assert (row.norm, row.norm_bp) == (pytest.approx(float(g.norm())), pytest.approx(float(g_bp.norm())))
        assert row.cosine == pytest.approx(float((g * g_bp).sum() / (g.norm() * g_bp.norm())), abs=1e-5)


def test_a_number_that_is_not_finite_is_no_cosine():
    row = _row("layer", torch.tensor([1.0, math.inf]), torch.tensor([1.0, 2.0]))
    assert math.isnan(row.cosine)
