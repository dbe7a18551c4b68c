"""Attacks whose epsilons are radii in L2: against Foolbox, against written-out loops, and against closed forms."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from targets import QUICK, apgd_written_out, right, small
from torch import nn

import signsym_core as ss
from signsym_core import seeds
from signsym_core.attacks import GRADIENTS
from signsym_core.attacks.autoattack import AutoAttack
from signsym_core.attacks.ball import sizes
from signsym_core.attacks.base import NormedAttack
from signsym_core.attacks.fab import onto_plane
from signsym_core.attacks.pgd import PGD
from signsym_core.attacks.square import Square
from signsym_core.attacks.squares import bump
from signsym_core.attacks.streams import Counted

NORMED = [cls.name for cls in ss.ATTACKS if issubclass(cls, NormedAttack) and "classification" in cls.tasks]
QUICKLY = {name: {**QUICK.get(name, {}), "norm": "l2"} for name in NORMED}


def first_change(images, number, run=0):
    """The start of an image, uniform in the ball of radius 1."""
    stream = Counted([seeds.derive(0, "image", number)], images)
    return stream.in_ball(torch.tensor([0]), run, images.shape[1:])


def linear(pixels, classes=2):
    """A linear model and images, of which no change that is needed meets the bounds of [0, 1]."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).double()
    images = torch.rand(12, 3, 4, pixels // 12).double() * 0.2 + 0.4
    outputs = model(images).detach()
    labels = outputs.argmax(1)
    apart = (model[1].weight[labels][:, None] - model[1].weight[None]).norm(dim=2).detach()
    margins = outputs.gather(1, labels[:, None]) - outputs
    smallest = torch.where(apart > 0, margins / apart.clamp(min=1e-12), torch.inf).amin(1)
    return model, images, labels, smallest


def test_the_attacks_that_have_both_norms_are_these():
    assert NORMED == ["noise", "fgsm", "bim", "mim", "pgd", "apgd", "fab", "autoattack", "square"]
    for name in NORMED:
        assert ss.ATTACKS.build(name).norm == "linf"
        assert "norm" not in ss.ATTACKS.build(name).changed()
        assert ss.ATTACKS.build(name, norm="l2").norm == "l2"
    with pytest.raises(ValueError, match="'norm' expects one of 'linf', 'l2', got 'l1'"):
        ss.ATTACKS.build("pgd", norm="l1")


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["feedback", "exact"])
@pytest.mark.parametrize(
    ("name", "theirs", "parameters"),
    [
        ("fgsm", ("L2FastGradientAttack", {}), {}),
        ("bim", ("L2BasicIterativeAttack", {}), {}),
        ("pgd", ("L2PGD", {"steps": 5, "rel_stepsize": 0.5}), {}),
        ("pgd", ("L2PGD", {"steps": 6, "abs_stepsize": 0.6}), {"steps": 6, "step_size": 0.6}),
    ],
    ids=["fgsm", "bim", "pgd", "pgd-absolute"],
)
def test_outcomes_are_foolboxs_image_by_image(name, theirs, parameters, gradient, monkeypatch):
    import foolbox

    model = small("frsf")
    images, labels = right(model, 15)
    # Foolbox draws the start from the global generator; here it is ours.
    start = torch.cat([first_change(images, number) for number in range(15)])
    attack = getattr(foolbox.attacks, theirs[0])(**theirs[1])
    monkeypatch.setattr(
        type(attack), "get_random_start", lambda _, x0, epsilon: x0 + epsilon * type(x0)(start), raising=True
    )
    wrapped, epsilons = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), [0.05, 0.3, 1.0, 3.0]
    given = {"gradient": gradient, "norm": "l2", "keep": 15, **parameters}
    ours = ss.attack(name, model, images, labels, epsilons, **given)
    plain = ss.convert(small("bp"), "bp") if gradient == "exact" else model
    if gradient == "exact":
        wrapped = foolbox.PyTorchModel(plain, bounds=(0, 1), device="cpu")
    for row, epsilon in enumerate(epsilons):
        _, clipped, lost = attack(wrapped, images, labels, epsilons=[epsilon])
        assert torch.equal(ours.robust[row], ~lost[0])
        assert torch.allclose(ours.adversarial[row], clipped[0], atol=1e-5)
    assert 0 < ours.robust.sum() < ours.robust.numel()


def test_momentum_is_the_papers_written_out():
    model = small("bp").double()
    images, labels = right(small("bp"), 6)
    images = images.double()
    ours = ss.attack("mim", model, images, labels, [0.4], norm="l2", steps=4, momentum=0.8, keep=6)
    for number, image in enumerate(images):
        x, current, total = image[None], image[None], 0.0
        for _ in range(4):
            variable = current.clone().requires_grad_()
            nn.functional.cross_entropy(model(variable), labels[number : number + 1]).backward()
            total = 0.8 * total + variable.grad / variable.grad.abs().sum()
            change = current + 0.1 * total / total.square().sum().sqrt() - x
            current = (x + change * min(1.0, 0.4 / float(change.square().sum().sqrt()))).clamp(0, 1)
        assert torch.allclose(ours.adversarial[0, number], current[0], atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NORMED if name not in ("square", "noise")])
def test_a_linear_model_falls_at_its_smallest_perturbation(name):
    """It is |margin| / |w| in L2, over the classes."""
    model, images, labels, smallest = linear(108)
    given = {"fgsm": {}, "pgd": {"steps": 10, "relative_step": 1.0}, "bim": {}, "mim": {}}.get(name, {"steps": 15})
    given |= {"queries": 5} if name == "autoattack" else {}
    for image, label, radius in zip(images[:4], labels, smallest.tolist(), strict=False):
        radii = [radius * 0.999, radius * 1.001]
        outcome = ss.attack(name, model, image[None], label[None], radii, norm="l2", **given)
        assert outcome.robust.flatten().tolist() == [True, False]


def test_fab_finds_the_nearest_of_several_classes():
    model, images, labels, smallest = linear(48, classes=4)
    outcome = ss.attack("fab", model, images, labels, [50.0], norm="l2", steps=30, targets=3, keep=12)
    found = sizes(outcome.adversarial[0] - images, "l2")
    assert not outcome.robust.any()
    assert (found >= smallest * 0.9999).all()
    assert (found <= smallest * 1.01).all()


def test_square_comes_near_the_smallest_perturbation_of_a_linear_model():
    model, images, labels, smallest = linear(108)
    for image, label, radius in zip(images[:2], labels, smallest.tolist(), strict=False):
        radii = [radius * 0.999, radius * 2.5]
        outcome = ss.attack("square", model, image[None], label[None], radii, norm="l2", queries=200)
        assert outcome.robust.flatten().tolist() == [True, False]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Negative(NormedAttack):
    """x' = 1 - x, far outside any small ball."""

    name, label, citation = "negative", "negative", "none"

    def run(self, problem, epsilon):
        return 1 - problem.images


@dataclasses.dataclass(frozen=True, kw_only=True)
class NegativeFirst(AutoAttack):
    """`Negative`, then PGD."""

    def members(self, classes):
        yield Negative(norm=self.norm)
        yield PGD(norm=self.norm)


def test_a_proposal_outside_the_ball_does_not_keep_an_image_from_the_next_member():
    model = small("bp")
    images, labels = right(model, 12)
    alone = ss.attack("pgd", model, images, labels, [0.3], norm="l2")
    both = ss.attack(NegativeFirst(norm="l2"), model, images, labels, [0.3])
    assert not alone.robust.all()
    assert not (both.robust & ~alone.robust).any()


def written_out_apgd(model, image, label, number, steps, epsilon):
    """Algorithm 1 in L2 for one image: the iterate of the highest loss, a lost one first."""
    x, y = image[None], label[None]

    def project(z):
        change = z - x
        length = float(change.square().sum().sqrt())
        return (x + change * (epsilon / length if length > epsilon else 1.0)).clamp(0, 1)

    def look(z):
        variable = z.clone().requires_grad_()
        outputs = model(variable)
        loss = nn.functional.cross_entropy(outputs, y)
        (gradient,) = torch.autograd.grad(loss, variable)
        return loss.item(), gradient, bool(outputs.argmax(1) != y)

    start = project(x + epsilon * first_change(x, number)).clamp(0, 1)
    return apgd_written_out(start, look, project, lambda g: g / g.square().sum().sqrt(), epsilon, steps)


@pytest.mark.slow
def test_apgd_is_the_papers_algorithm_image_by_image():
    model = small("bp").double()
    images, labels = right(small("bp"), n=6)
    images = images.double()
    outcome = ss.attack("apgd", model, images, labels, [0.15], norm="l2", steps=100, keep=6)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        expected = written_out_apgd(model, image, label, number, 100, 0.15)
        assert torch.allclose(outcome.adversarial[0, number], expected, atol=1e-7), number
    assert 0 < outcome.robust.sum() < 6


def test_the_projection_onto_a_plane_is_the_nearest_point_of_the_box():
    """Least |δ| with w · δ = c and 0 ≤ x + δ ≤ 1: δ = clip(t w) for the t that a bisection finds."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=generator).double()
    slope = torch.randn(40, 6, generator=generator).double()
    slope[::5, 2] = 0
    missing = torch.randn(40, generator=generator).double() * 1.5
    ours = onto_plane(x, slope, missing, "l2")
    possible = 0
    for row in range(40):
        lowest, highest = -x[row], 1 - x[row]
        low, high = -1e6, 1e6
        for _ in range(200):
            t = (low + high) / 2
            change = torch.minimum(torch.maximum(t * slope[row], lowest), highest)
            low, high = (t, high) if float(slope[row] @ change) < float(missing[row]) else (low, t)
        assert torch.allclose(ours[row], change, atol=1e-9), row
        possible += abs(float(slope[row] @ change) - float(missing[row])) < 1e-6
    assert 10 < possible < 40
    for factor in (1e-25, 1e25):
        single = onto_plane(x.float(), slope.float() * factor, missing.float() * factor, "l2")
        assert torch.allclose(single, ours.float(), atol=1e-5)
    assert not onto_plane(x, slope * 0, missing, "l2").any()


def written_out_bump(height, width):
    """Equation 2, entry by entry, of length 1."""
    n = max(height, width) // 2
    values = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            reach = n - max(abs(row - height // 2), abs(column - width // 2))
            values[row, column] = sum(1 / (n + 1 - k) ** 2 for k in range(reach + 1))
    return values / values.norm()


def written_out_eta(side, turned):
    halves = torch.cat([written_out_bump(side // 2, side), -written_out_bump(side - side // 2, side)])
    eta = halves / halves.norm()
    return eta.t() if turned else eta


def written_out_square(model, image, label, number, queries, epsilon):
    """Algorithm 3 for one image, with patches cut out of it and the random numbers of its stream."""
    stream = torch.Generator().manual_seed(seeds.derive(0, "image", number))
    channels, height, width = image.shape

    def judged(x):
        logits = model(x[None])[0]
        others = torch.cat([logits[:label], logits[label + 1 :]])
        return float(logits[label] - others.max()), int(logits.argmax()) != label

    def sign(value):
        return -1.0 if value < 0.5 else 1.0

    tile = max(min(height, width) // 5, 1)
    down, across = height // tile, width // tile
    drawn = torch.rand(down, across, channels + 1, generator=stream)
    change = torch.zeros_like(image)
    top, left = (height - down * tile) // 2, (width - across * tile) // 2
    for i in range(down):
        for j in range(across):
            eta = written_out_eta(tile, float(drawn[i, j, -1]) < 0.5)
            for channel in range(channels):
                rows = slice(top + i * tile, top + (i + 1) * tile)
                columns = slice(left + j * tile, left + (j + 1) * tile)
                change[channel, rows, columns] = sign(float(drawn[i, j, channel])) * eta
    best = (image + epsilon * change / change.norm()).clamp(0, 1)
    least, lost = judged(best)
    asked, square = 2, Square(queries=queries, norm="l2")
    for move in range(queries - 2):
        if lost:
            break
        side = square.side(move, height, width)
        draws = torch.rand(channels + 5, generator=stream).tolist()
        corners = [int(d * (s - side + 1)) for d, s in zip(draws[-4:], (height, width) * 2, strict=True)]
        first, second = ((slice(top, top + side), slice(left, left + side)) for top, left in (corners[:2], corners[2:]))
        eta = written_out_eta(side, draws[-5] < 0.5)
        before, after = best - image, (best - image).clone()
        union = torch.zeros(height, width)
        union[first], union[second] = 1, 1
        unused = max(epsilon**2 - float(before.square().sum()), 0)
        for channel in range(channels):
            old = before[channel][first]
            new = sign(draws[channel]) * eta + old / (old.norm() + 1e-12)
            available = math.sqrt(float((before[channel].square() * union).sum()) + unused / channels)
            after[channel][second] = 0
            after[channel][first] = new / new.norm() * available
        moved = (image + epsilon * after / after.norm()).clamp(0, 1)
        found, lost = judged(moved)
        asked += 1
        if found < least or lost:
            best, least = moved, found
    return best, asked


@pytest.mark.slow
def test_square_is_the_papers_algorithm_image_by_image():
    model = small("bp")
    images, labels = right(model, n=8)
    outcome = ss.attack("square", model, images, labels, [0.3], norm="l2", queries=60, keep=8)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        best, asked = written_out_square(model, image, label, number, 60, 0.3)
        assert torch.allclose(outcome.adversarial[0, number], best, atol=1e-5), number
        assert int(outcome.queries[0, number]) == asked
    assert 0 < outcome.robust.sum() < 8


def test_squares_of_every_shape_are_within_the_image_and_spend_the_whole_radius():
    assert [Square(norm="l2").side(0, *shape) for shape in ((32, 32), (10, 4), (2, 9), (1, 1))] == [29, 4, 2, 1]
    assert Square(norm="l2", queries=100).side(99, 32, 32) == 3
    for height, width in ((3, 7), (6, 3), (5, 5)):
        assert torch.allclose(bump(height, width, torch.zeros(1)), written_out_bump(height, width))
    for shape in ((1, 1, 1), (1, 2, 9), (3, 14, 11)):
        images = 0.5 + torch.zeros(2, *shape)
        model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 2))
        labels = model(images).argmax(1)
        outcome = ss.attack("square", model, images, labels, [0.01], norm="l2", queries=30)
        assert outcome.sizes[0].tolist() == pytest.approx([0.01, 0.01], rel=1e-3)


def test_the_start_is_uniform_in_the_ball_and_an_images_own():
    """The share of the ball within the radius r is r^d, and no direction is preferred."""
    images = torch.zeros(4000, 1, 1, 3)
    counted = Counted(list(range(4000)), images)
    drawn = counted.in_ball(torch.arange(4000), 0, images.shape[1:])
    assert drawn.shape == images.shape
    volume = drawn.flatten(1).norm(dim=1).sort().values ** 3
    # Kolmogorov and Smirnov's distance, far above its 0.1 % quantile.
    assert (volume - (torch.arange(4000) + 0.5) / 4000).abs().max() < 2.0 / math.sqrt(4000)
    assert drawn.mean(0).abs().max() < 0.03
    assert torch.equal(counted.in_ball(torch.tensor([7]), 0, images.shape[1:]), drawn[7:8])
    assert not torch.equal(counted.in_ball(torch.tensor([7]), 1, images.shape[1:]), drawn[7:8])


@pytest.mark.parametrize("name", NORMED)
def test_an_image_gets_the_same_result_in_any_batch_and_with_any_epsilons(name):
    model = small("usf").double()
    images, labels = right(small("usf"), 7)
    images, labels = images.double(), labels.clone()
    labels[1] = (labels[1] + 1) % 5
    whole = ss.attack(name, model, images, labels, [0.1, 0.4, 2.0], keep=7, **QUICKLY[name])
    part = ss.attack(name, model, images[:3], labels[:3], [0.4], keep=3, micro_batch=2, **QUICKLY[name])
    assert whole.norm == "l2"
    assert torch.allclose(whole.adversarial[1, :3], part.adversarial[0], atol=1e-9)
    assert torch.equal(whole.robust[1, :3], part.robust[0])
    assert (whole.sizes.amax(1) <= torch.tensor([0.1, 0.4, 2.0])).all()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd"])
def test_every_source_of_gradients_stays_in_the_ball(name, gradient):
    model, other = small("brsf"), small("bp", seed=4)
    images, labels = right(model, 5)
    surrogate = {"surrogate": other} if GRADIENTS[gradient].twin else {}
    given = {**QUICKLY[name], "gradient": gradient, "keep": 5, **surrogate}
    if name == "apgd":
        given["steps"] = 3
    outcome = ss.attack(name, model, images, labels, [0.5], **given)
    change = sizes(outcome.adversarial[0].double() - images.double(), "l2")
    assert (change <= 0.5).all()
    assert (change > 0.3).any()


@pytest.mark.parametrize("name", NORMED)
def test_no_gradient_no_step_and_a_gradient_that_is_not_finite_counts_as_0(name):
    class Broken(nn.Module):
        def forward(self, x):
            # The root has no derivative at 0, where the first image is.
            total = x.flatten(1).sum(1)
            return torch.stack([total.sqrt(), total * 0 + 0.1, total * 0, total * 0 - 1], dim=1)

    images = torch.cat([torch.zeros(1, 1, 4, 4), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))])
    labels = torch.tensor([1, 0, 0])
    outcome = ss.attack(name, Broken(), images, labels, [0.1], keep=3, **QUICKLY[name])
    assert outcome.adversarial.isfinite().all()

    class Flat(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1) * 0
            return torch.stack([total + 9, total, total, total], dim=1)

    flat = ss.attack(name, Flat(), images, labels * 0, [0.1], keep=3, **QUICKLY[name])
    assert flat.robust.all()
    assert flat.adversarial.isfinite().all()
    if name in ("fgsm", "bim", "mim", "fab"):
        assert torch.equal(flat.adversarial[0], images)


def test_the_size_of_a_gradient_moves_no_step():
    base = small("bp")
    images, labels = right(base, 8)

    def scaled(factor):
        class Scaled(nn.Module):
            def forward(self, x):
                # The outputs are those of `base`; the gradient has another size.
                return base(x.detach() + (x - x.detach()) * factor)

        return ss.attack("pgd", Scaled(), images, labels, [0.3], norm="l2", keep=8).adversarial

    for factor in (1e-30, 1e30):
        assert torch.allclose(scaled(factor), scaled(1.0), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_in_16_bits_stay_in_their_ball(dtype):
    model = small("bp").to(dtype)
    images, labels = right(small("bp"), 6)
    images = images.to(dtype)
    for name in ("fgsm", "pgd", "square"):
        outcome = ss.attack(name, model, images, labels, [0.5], keep=6, **QUICKLY[name])
        assert outcome.adversarial.dtype == dtype
        assert (sizes(outcome.adversarial[0].double() - images.double(), "l2") <= 0.5).all()
