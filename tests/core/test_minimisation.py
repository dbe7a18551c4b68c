"""HopSkipJump and Boundary: Foolbox's numbers for a batch of one, the same in any batch, within a budget."""

from __future__ import annotations

import itertools
import math
from statistics import median

import foolbox
import pytest
import torch
from targets import right, small
from torch import nn

import signsym_core as ss
from signsym_core import seeds
from signsym_core.attacks.ball import sizes, within_ball
from signsym_core.attacks.streams import Counted
from signsym_core.evaluation import attack as evaluation

#: The first image of a block.
ONE = torch.zeros(1, dtype=torch.int64)
CASES = {
    "hopskipjump": ({"steps": 4}, foolbox.attacks.HopSkipJumpAttack(steps=4)),
    "hopskipjump-linf": (
        {"steps": 4, "constraint": "linf"},
        foolbox.attacks.HopSkipJumpAttack(steps=4, constraint="linf"),
    ),
    "boundary": ({"steps": 1100}, foolbox.attacks.BoundaryAttack(steps=1100)),
}


def run(case, model, images, labels, epsilons=(0.1,), **more):
    return ss.attack(case.split("-")[0], model, images, labels, list(epsilons), **CASES[case][0] | more)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_same_random_numbers_give_foolboxs_image_for_a_batch_of_one(case, monkeypatch):
    # Double precision: decisions so near to the border differ by rounding, and from there on the walks part.
    model = small("bp").double()
    count = 2 if case == "boundary" else 4
    images, labels = right(small("bp"), n=count)
    images = images.double()
    outcome = run(case, model, images, labels, [30.0 if case != "hopskipjump-linf" else 1.0])
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    norm = "linf" if "linf" in case else "l2"
    for number in range(count):
        torch.manual_seed(seeds.derive(0, "image", number))
        if case == "boundary":
            # Its directions are not torch's; its start is.
            stream, steps = Counted([seeds.derive(0, "image", number)], images), itertools.count()
            draw = lambda shape, stream=stream, steps=steps, **_: stream.normal(ONE, next(steps), shape[0]).view(shape)  # noqa: E731
            monkeypatch.setattr(torch, "randn", draw)
        found, _, _ = CASES[case][1](
            wrapped, images[number : number + 1], labels[number : number + 1], epsilons=[100.0]
        )
        theirs = float(sizes(found[0] - images[number], norm))
        ours = float(outcome.distances[number])
        # Drawn out by a part in 10,000, so that no rounding undoes it.
        assert ours == pytest.approx(theirs * 1.0001, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_image_depends_on_its_batch(case):
    model = small("bp").double()
    images, labels = right(small("bp"), n=9)
    images = images.double()
    given = {"steps": 150} if case == "boundary" else {}
    whole = run(case, model, images, labels, keep=9, **given)
    few = run(case, model, images[:2], labels[:2], keep=2, **given)
    pieces = run(case, model, images, labels, keep=9, micro_batch=2, **given)
    assert torch.allclose(whole.distances[:2], few.distances, rtol=1e-6)
    assert torch.equal(whole.queries[:, :2], few.queries)
    assert torch.allclose(whole.distances, pieces.distances, rtol=1e-6)
    assert torch.equal(whole.queries, pieces.queries)


@pytest.mark.slow
def test_a_batch_of_32_has_the_same_median_distance_as_batches_of_one(monkeypatch):
    model = small("frsf")
    images, labels = right(model, n=32)
    whole = run("hopskipjump", model, images, labels)
    # Each image alone, with the stream that it has in the batch.
    derive = seeds.derive
    alone = []
    for number in range(32):
        monkeypatch.setattr(seeds, "derive", lambda seed, kind, place, number=number: derive(seed, kind, number))
        one = run("hopskipjump", model, images[number : number + 1], labels[number : number + 1])
        alone.append(float(one.distances[0]))
    assert median(whole.distances.tolist()) == pytest.approx(median(alone), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_distance_decides_every_epsilon_of_one_run(case):
    model = small("bp")
    images, labels = right(model, n=16)
    labels[:2] = (labels[:2] + 1) % 5
    radii = [0.0, 0.02, 0.05, 0.1, 0.5, 1.0]
    given = {"steps": 200} if case == "boundary" else {}
    outcome = run(case, model, images, labels, radii, keep=16, **given)
    assert outcome.norm == ("linf" if "linf" in case else "l2")
    assert outcome.distances[:2].tolist() == [0, 0]
    for row, radius in enumerate(radii):
        near = outcome.distances <= radius
        assert not outcome.robust[row][near].any()
        assert (sizes(outcome.adversarial[row].double() - images.double(), outcome.norm) <= radius).all()
        # Shortened, an image is lost only by chance.
        assert outcome.robust[row][outcome.distances > radius * 1.5].all()
    one = run(case, model, images, labels, [0.5], **given)
    assert one.images_forward == outcome.images_forward - 16 * (len(radii) - 2)
    assert torch.equal(one.distances, outcome.distances)
    carried = run(case, model, images, labels, radii, carry=True, **given)
    assert torch.equal(carried.distances, outcome.distances)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [1, 2, 60, 137, 400])
def test_no_image_is_asked_about_more_often_than_its_budget(case, budget):
    model = small("bp")
    images, labels = right(model, n=8)
    outcome = run(case, model, images, labels, queries=budget)
    assert outcome.queries.max() <= budget
    # The images of the epsilon are judged once more.
    assert outcome.images_forward == int(outcome.queries.sum()) + 8
    assert outcome.backwards == 0
    if budget > 60:
        assert outcome.distances.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_larger_budget_finds_nearer_images(case):
    model = small("bp")
    images, labels = right(model, n=8)
    found = [run(case, model, images, labels, queries=budget).distances for budget in (80, 700)]
    assert (found[1] <= found[0] * 1.0001).all()
    assert found[1].median() < found[0].median()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_images_without_a_start_are_counted_and_cost_the_others_nothing(case):
    class Sure(nn.Module):
        """Class 1 only for what is very dark, which no random image is."""

        def forward(self, x):
            dark = (x.flatten(1).mean(1) < 0.1).float()
            return torch.stack([1 - dark, dark], dim=1)

    images = torch.cat([torch.full((2, 1, 6, 6), 0.5), torch.full((3, 1, 6, 6), 0.05)])
    labels = torch.tensor([0, 0, 1, 1, 0])
    given = {"steps": 20} if case == "boundary" else {"steps": 2}
    outcome = run(case, Sure(), images, labels, [0.9], **given)
    assert outcome.distances[:2].tolist() == [math.inf] * 2
    assert outcome.distances[2:4].isfinite().all()
    assert outcome.distances[4] == 0
    assert outcome.failed_starts == 2
    assert outcome.robust[0, :2].all()
    assert outcome.queries[0, :2].tolist() == [1001, 1001]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["hopskipjump", "hopskipjump-linf", "boundary"])
def test_a_linear_model_falls_near_its_smallest_perturbation(case):
    """For two classes it is |margin| / ||w|| in the dual norm, where no pixel meets the bounds of [0, 1]."""
    torch.manual_seed(0)
    linear = nn.Linear(48, 2).double()
    model = nn.Sequential(nn.Flatten(), linear)
    images = torch.rand(12, 3, 4, 4).double() * 0.2 + 0.4
    labels = model(images).argmax(1)
    apart = (linear.weight[0] - linear.weight[1]).detach()
    outputs = model(images).detach()
    margin = (outputs[:, 0] - outputs[:, 1]).abs()
    linf = "linf" in case
    smallest = margin / (apart.abs().sum() if linf else apart.norm())
    steps, factor = {"hopskipjump": (12, 1.05), "hopskipjump-linf": (12, 1.4), "boundary": (2500, 1.3)}[case]
    found = run(case, model, images, labels, steps=steps).distances
    assert (found >= smallest * 0.9999).all()
    assert (found <= smallest * factor).all(), (found / smallest).max()


@pytest.mark.slow
def test_memory_is_bounded_by_the_micro_batch():
    base, largest = small("bp"), []

    class Watched(nn.Module):
        def forward(self, x):
            largest.append(len(x))
            return base(x)

    images, labels = right(base, n=20)
    run("hopskipjump", Watched().eval(), images, labels, micro_batch=16)
    assert max(largest) <= 16


@pytest.mark.parametrize("radius", [0.01, 0.5, 2.0, 1e-9])
def test_a_change_is_shortened_to_an_l2_ball_and_keeps_its_direction(radius):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 5, 5, generator=generator) * 0.2 + 0.4
    proposed = (images + torch.randn(images.shape, generator=generator) * 0.1).clamp(0, 1)
    inside = within_ball(images, proposed, radius, "l2")
    lengths = sizes(proposed - images, "l2")
    assert (sizes(inside.double() - images.double(), "l2") <= radius).all()
    assert torch.equal(inside[lengths <= radius], proposed[lengths <= radius])
    if radius == 0.5:
        change, way = (inside - images).flatten(1), (proposed - images).flatten(1)
        assert torch.allclose(nn.functional.cosine_similarity(change, way), torch.ones(6), atol=1e-5)
        assert torch.allclose(change.norm(dim=1)[lengths > radius], torch.tensor(radius), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("hopskipjump", {"steps": 0}, "'steps'"),
        ("hopskipjump", {"queries": 0}, "'queries' expects at least 1, or null"),
        ("hopskipjump", {"constraint": "l1"}, "one of 'l2', 'linf'"),
        ("hopskipjump", {"first_evaluations": 0}, "'first_evaluations'"),
        ("boundary", {"adaptation": 1.0}, "'adaptation' expects a number above 1"),
        ("boundary", {"source_step": 0.0}, "'source_step' expects a number above 0"),
    ],
)
def test_values_out_of_range_are_refused(name, parameters, words):
    with pytest.raises(ValueError, match=words):
        ss.ATTACKS.build(name, **parameters)


@pytest.mark.parametrize("epsilon", [-0.1, math.inf, math.nan])
def test_an_l2_radius_is_a_finite_number(epsilon):
    model = small("bp")
    with pytest.raises(ValueError, match="an L2 radius, a finite number from 0"):
        ss.attack("boundary", model, *right(model, n=2), [epsilon], steps=1)


def test_images_of_a_later_block_have_streams_of_their_own(monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK", 3)
    model = small("bp")
    images, labels = right(model, n=3)
    twice = run("hopskipjump", model, images.repeat(2, 1, 1, 1), labels.repeat(2), steps=1)
    assert not torch.equal(twice.distances[:3], twice.distances[3:])
