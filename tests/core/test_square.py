"""Square: against the paper's algorithm written out for one image, and its promises about queries and batches."""

from __future__ import annotations

import math

import pytest
import torch
from targets import right, small
from torch import nn

import signsym_core as ss
from signsym_core import seeds
from signsym_core.attacks.margins import margin
from signsym_core.attacks.square import Square

EPSILON = 0.02


def written_out(model, image, label, number, queries, epsilon=EPSILON, first_share=0.8, seed=0):
    """Algorithms 1 and 2 for one image, with the random numbers of its stream; also how often the model was asked."""
    stream = torch.Generator().manual_seed(seeds.derive(seed, "image", number))
    channels, height, width = image.shape

    def judged(x):
        logits = model(x[None])[0]
        others = torch.cat([logits[:label], logits[label + 1 :]])
        return float(logits[label] - others.max()), int(logits.argmax()) != label

    if judged(image)[1]:
        return image, 1
    stripes = torch.rand(channels, 1, width, generator=stream)
    best = (image + epsilon * torch.where(stripes < 0.5, -1.0, 1.0)).clamp(0, 1)
    least, lost = judged(best)
    asked = 2
    for move in range(queries - 2):
        if lost:
            break
        at = int(move / queries * 10_000)
        share = first_share
        for after in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000):
            share = share / 2 if at > after else share
        side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
        draws = torch.rand(channels + 2, generator=stream).tolist()
        top, left = int(draws[-2] * (height - side + 1)), int(draws[-1] * (width - side + 1))
        moved = best.clone()
        for channel in range(channels):
            part = image[channel, top : top + side, left : left + side]
            sign = -1 if draws[channel] < 0.5 else 1
            moved[channel, top : top + side, left : left + side] = (part + sign * epsilon).clamp(0, 1)
        found, lost = judged(moved)
        asked += 1
        if found < least or lost:
            best, least = moved, found
    return best, asked


@pytest.mark.slow
def test_it_is_the_papers_algorithm_image_by_image():
    model = small("bp")
    images, labels = right(model, n=25)
    labels[3] = (labels[3] + 1) % 5
    outcome = ss.attack("square", model, images, labels, [EPSILON], queries=300, keep=25)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        best, asked = written_out(model, image, label, number, 300)
        assert torch.allclose(outcome.adversarial[0, number], best, atol=1e-6)
        assert int(outcome.queries[0, number]) == asked
    assert 0 < outcome.robust.sum() < 24, "some must be lost and some not"


def test_images_that_are_lost_are_not_asked_about_again():
    model = small("bp")
    images, labels = right(model)
    outcome = ss.attack("square", model, images, labels, [EPSILON], queries=200)
    lost = ~outcome.robust[0]
    assert (outcome.queries[0][~lost] == 200).all()
    assert (outcome.queries[0][lost] < 200).any()
    # The image that is scored is asked about once more.
    assert outcome.images_forward == int(outcome.queries.sum()) + len(images)
    assert outcome.backwards == 0


def test_an_image_gets_the_same_result_in_any_batch():
    model = small("bp").double()
    images, labels = right(small("bp"), n=20)
    images = images.double()
    whole = ss.attack("square", model, images, labels, [EPSILON], queries=100, keep=20)
    first = ss.attack("square", model, images[:7], labels[:7], [EPSILON], queries=100, keep=20)
    assert torch.equal(whole.adversarial[:, :7], first.adversarial)
    assert torch.equal(whole.queries[:, :7], first.queries)


@pytest.mark.parametrize("rescaled", [True, False])
def test_the_squares_shrink_by_the_published_schedule(rescaled):
    square = Square(queries=5000, rescaled=rescaled)
    for move in (0, 5, 6, 25, 26, 51, 500, 501, 2001, 4999):
        at = move * 2 if rescaled else move
        share = 0.8
        bounds = [(10, 2), (50, 4), (200, 8), (500, 16), (1000, 32), (2000, 64), (4000, 128), (6000, 256), (8000, 512)]
        for after, divisor in bounds:
            share = 0.8 / divisor if at > after else share
        assert square.side(move, 32, 32) == max(round(math.sqrt(share) * 32), 1)
    assert square.side(0, 10, 4) == 4


@pytest.mark.slow
def test_a_linear_model_falls_within_a_tenth_of_its_smallest_perturbation():
    torch.manual_seed(0)
    weights = torch.randn(108).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weights, -weights]))
        model[1].bias.zero_()
    images = torch.rand(30, 3, 6, 6).double() * 0.2 + 0.4
    # Moved so that all have one margin, of either sign, and fall at 0.05 exactly.
    goal = torch.where(torch.arange(30) % 2 == 0, 0.05, -0.05) * weights.abs().sum()
    lengths = (goal - images.flatten(1) @ weights) / weights.abs().sum()
    images = images + lengths.view(-1, 1, 1, 1) * weights.sign().view(3, 6, 6)
    labels = model(images).argmax(1)
    outcome = ss.attack("square", model, images, labels, [0.0499, 0.055], queries=1500)
    assert outcome.robust[0].all()
    assert not outcome.robust[1].any()


def test_the_best_of_several_labels_counts():
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0]]).repeat(3, 1)
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    found = margin(logits, labels)
    assert found[0] == -2
    assert found[1] < -1e8
    assert found[2] > 1e8
    assert torch.equal(margin(logits, torch.tensor([0, 1, 3])), torch.tensor([-4.0, 1.0, -1.0]))


def test_images_with_several_labels_are_attacked_until_no_label_is_on_top():
    model = small("bp")
    images, labels = right(model)
    several = nn.functional.one_hot(labels, 5)
    several[:, 2] = 1
    outcome = ss.attack("square", model, images, several, [0.0, 0.3], queries=100, keep=40)
    top = model(outcome.adversarial[1]).argmax(1)
    assert torch.equal(outcome.robust[1], several[torch.arange(40), top] == 1)
    assert outcome.robust[0].all()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"queries": 1}, "'queries' expects a whole number, at least 2"),
        ({"first_share": 0.0}, r"'first_share' expects a number in \(0, 1\]"),
        ({"first_share": 1.1}, "'first_share'"),
    ],
)
def test_values_out_of_range_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        ss.ATTACKS.build("square", **parameters)
