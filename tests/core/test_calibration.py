"""Calibration: ten images counted by hand, a loop over images and bins, and what chance does to a calibrated model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from targets import right, small

import signsym_core as ss
from signsym_core.statistics.calibration import error_by_chance, expected_calibration_error


def test_ten_images_counted_by_hand():
    # In five bins: (0, .2], (.2, .4], (.4, .6], (.6, .8], (.8, 1].
    confidence = [0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
    is_right = [0, 1, 0, 1, 1, 0, 1, 1, 1, 0]
    # |1 - .3| + |0 - .3| + |2 - 1.1| + |1 - 1.5| + |2 - 2.85|, over ten.
    assert expected_calibration_error(confidence, is_right, bins=5) == pytest.approx(0.325)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0


def test_it_is_a_loop_over_bins_and_images():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.2, 1, 500)
    is_right = random.uniform(size=500) < confidence**2
    error = 0.0
    for number in range(15):
        inside = [i for i, c in enumerate(confidence) if number / 15 < c <= (number + 1) / 15]
        if inside:
            accuracy = sum(is_right[i] for i in inside) / len(inside)
            error += len(inside) / 500 * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    assert expected_calibration_error(confidence, is_right) == pytest.approx(error)
    assert error > 2 * error_by_chance(confidence)


def test_by_chance_is_what_a_calibrated_model_has_on_average():
    random = np.random.default_rng(1)
    confidence = random.uniform(0.3, 1, 600)
    drawn = random.uniform(size=(400, 600)) < confidence
    errors = [expected_calibration_error(confidence, is_right) for is_right in drawn]
    assert error_by_chance(confidence) == pytest.approx(np.mean(errors), rel=0.05)


def test_what_is_no_probability_is_refused():
    for wrong in ([], [1.5], [math.nan], [[0.5]]):
        with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
            expected_calibration_error(wrong, wrong)
    with pytest.raises(ValueError, match="as many confidences as outcomes"):
        expected_calibration_error([0.5], [1, 0])


def test_an_outcome_has_the_probability_of_the_class_that_the_model_sees():
    model = small()
    images, labels = right(model, 6)
    outcome = ss.attack("fgsm", model, images, labels, [0.0, 0.05], keep=6)
    for row in range(2):
        with torch.no_grad():
            logits = model(outcome.adversarial[row]).double()
        expected = (logits.exp() / logits.exp().sum(1, keepdim=True)).gather(1, outcome.predictions[row, :, None])
        assert torch.allclose(outcome.confidence[row], expected.flatten(), atol=1e-6)


def test_of_several_labels_the_softmax_is_a_share_and_no_probability_of_being_right():
    # Two labels of equal share: the loss is least at logits where each has probability 1/2, and the class is right.
    task, labels = ss.TASKS.build("classification"), torch.tensor([[1, 1, 0]])
    best = torch.tensor([[30.0, 30.0, 0.0]])
    assert task.objective(3, 0)(best, labels) == pytest.approx(np.log(2))
    assert task.score(best, labels, None).item() == 1
    assert best.softmax(dim=1).max().item() == pytest.approx(0.5)
    assert task.confidence(best, labels) is None
    assert task.confidence(best, torch.tensor([0])).item() == pytest.approx(0.5)
    model = small()
    images, labels = right(model, 4)
    several = torch.nn.functional.one_hot(labels, model(images).shape[1])
    outcome = ss.attack("none", model, images, several, [0.0])
    assert outcome.accuracy == [1.0]
    assert outcome.confidence.isnan().all()
