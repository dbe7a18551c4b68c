"""What is not finite: outputs are refused, entries of a gradient count as 0, in every attack."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from targets import QUICK, right, small
from torch import nn

import signsym_core as ss
from signsym_core.attacks.finite import Tally
from signsym_core.evaluation import attack as evaluation
from signsym_core.models.outputs import NonFiniteOutputError
from signsym_core.retrieval.codes import signs

#: Each attack with a task that it fits.
PAIRS = [(cls.name, task) for cls in ss.ATTACKS for task in sorted(cls.tasks)]


class Broken(nn.Module):
    """`network`, whose first output is `value` where `where` is True of an image."""

    def __init__(self, network, where, value=math.nan):
        super().__init__()
        self.network, self.where, self.value = network, where, value

    def forward(self, images):
        outputs = self.network(images)
        chosen = self.where(images).unsqueeze(1) & (torch.arange(outputs.shape[1]) == 0)
        return outputs.masked_fill(chosen, self.value)


def always(images):
    return torch.ones(len(images), dtype=torch.bool)


def fitting(task, model):
    """What a task needs beyond images and labels."""
    if task == "classification":
        return {}
    images, _ = right(model, n=60)
    outputs = model(images)
    codes = ss.Codes(signs=signs(outputs), labels=outputs.argmax(1))
    return {"task": ss.TASKS.build("hashing", bits=5, zeta=0.0), "gallery": ss.Gallery(database=codes, train=codes)}


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_no_attack_scores_outputs_that_are_not_finite(name, task, value):
    network = small()
    images, labels = right(network, n=12)
    model = Broken(network, lambda x: x.flatten(1)[:, 0] == images[3, 0, 0, 0], value)
    with pytest.raises(NonFiniteOutputError, match=r"outputs of the model .* for 1 of 12 clean images \(numbers 3\)"):
        ss.attack(name, model, images, labels, [0.0, 0.04], **fitting(task, network), **QUICK.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [pair for pair in PAIRS if pair[0] != "none"])
def test_nor_outputs_for_the_images_that_it_made(name, task):
    network = small()
    images, labels = right(network, n=12)
    images = images * 0.5 + 0.25

    def moved(x):
        return (x.flatten(1)[:, None] - images.flatten(1)).abs().amax(dim=2).amin(dim=1) > 1e-6

    model = Broken(network, moved)
    labels = network(images).argmax(1)
    with pytest.raises(NonFiniteOutputError, match=r"outputs of the model .* that the attack showed it"):
        ss.attack(name, model, images, labels, [0.04], **fitting(task, network), **QUICK.get(name, {}))


@pytest.mark.parametrize("gradient", ["transfer", "hybrid"])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "fab"])
def test_nor_gradients_of_a_surrogate_whose_outputs_are_not_finite(name, gradient):
    model = small()
    images, labels = right(model, n=12)
    surrogate = Broken(small(seed=1), always)
    with pytest.raises(NonFiniteOutputError, match=r"the surrogate .* for 12 of 12 clean images"):
        ss.attack(name, model, images, labels, [0.1], gradient=gradient, surrogate=surrogate, **QUICK.get(name, {}))


def test_the_images_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK", 8)
    network = small()
    images, labels = right(network, n=30)
    chosen = images[[5, 17, 29], 0, 0, 0]
    model = Broken(network, lambda x: torch.isin(x[:, 0, 0, 0], chosen))
    with pytest.raises(NonFiniteOutputError, match=r"3 of 30 clean images \(numbers 5, 17, 29\)"):
        ss.attack("none", model, images, labels, [0.0])


class Edges(nn.Module):
    """Sobel's edges before a network; `safe`: the root has the derivative 0 at 0, else none."""

    def __init__(self, safe):
        super().__init__()
        self.safe = safe
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
        slope = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
        self.register_buffer("kernels", torch.stack([slope, slope.T])[:, None])

    def forward(self, images):
        squares = F.conv2d(images, self.kernels, padding=1).square().sum(1, keepdim=True)
        if self.safe:
            roots = torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).sqrt(), 0.0)
        else:
            roots = squares.sqrt()
        return self.network(torch.cat([images, roots], dim=1))


def flat_images(n=24):
    """Images with large areas of one value, where there is no edge."""
    images = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    images[:, :, :, 4:] = 0
    # None in the last: no area without an edge.
    images[-1] = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    return images


WHITE = [cls.name for cls in ss.ATTACKS if "white-box" in cls.tags and "classification" in cls.tasks]


@pytest.mark.slow
@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("name", WHITE)
def test_a_root_without_a_derivative_costs_an_attack_nothing(name, carry):
    """The same function written without NaN is attacked alike."""
    safe, broken = ss.convert(Edges(True), "bp"), ss.convert(Edges(False), "bp")
    images = flat_images()
    labels = safe(images).argmax(1)
    settings = {"keep": len(images), "carry": carry, **QUICK.get(name, {})}
    ours, theirs = (ss.attack(name, model, images, labels, [0.05, 0.2], **settings) for model in (broken, safe))
    assert 0 < theirs.scores.mean() < 1
    for field in ("scores", "predictions", "linf", "adversarial"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
    assert not theirs.nonfinite_gradient.any()
    assert ours.nonfinite_gradient.any()


def test_entries_are_counted_image_by_image():
    model, images = Edges(False), flat_images()
    labels = model(images).argmax(1)
    variable = images.clone().requires_grad_()
    F.cross_entropy(model(variable), labels, reduction="sum").backward()
    entries = (~variable.grad.isfinite()).flatten(1).sum(1)
    assert entries[-1] == 0 < entries[0]
    outcome = ss.attack("fgsm", model, images, labels, [0.0, 0.1, 0.2])
    assert outcome.nonfinite_gradient.tolist() == [[0] * len(images), entries.tolist(), entries.tolist()]
    alone = ss.attack("fgsm", model, images, labels, [0.2])
    assert torch.equal(alone.nonfinite_gradient[0], outcome.nonfinite_gradient[2])


class Lame(nn.Module):
    """A linear model whose backward pass gives `value` at the first pixel, and the truth elsewhere."""

    def __init__(self, value):
        super().__init__()
        weights = torch.tensor([1.0, 2, -3, 4, -5, 6, -7, 8])

        class Product(torch.autograd.Function):
            @staticmethod
            def forward(ctx, images):
                total = images.flatten(1) @ weights
                return torch.stack([total, -total, total * 0, total * 0 - 1], dim=1)

            @staticmethod
            def backward(ctx, gradient):
                slope = (gradient[:, :1] - gradient[:, 1:2]) * weights
                slope[:, 0] = value
                return slope.view(-1, 2, 2, 2)

        self.product = Product

    def forward(self, images):
        return self.product.apply(images)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["feedback", "exact", "eot", "transfer", "hybrid"])
@pytest.mark.parametrize("name", WHITE)
def test_an_entry_that_is_not_finite_is_an_entry_of_zero(name, gradient):
    """Where the backward pass itself gives NaN for a pixel, that pixel has no gradient and the others keep theirs."""
    images = torch.rand(8, 2, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    labels = Lame(0.0)(images).argmax(1)
    outcomes = []
    for value in (0.0, math.nan, math.inf, -math.inf):
        model = Lame(value)
        more = {"surrogate": model} if ss.GRADIENTS[gradient].twin else {}
        settings = {"gradient": gradient, "keep": 8, **more, **QUICK.get(name, {})}
        outcomes.append(ss.attack(name, model, images, labels, [0.01, 0.1], **settings))
    assert outcomes[0].scores.mean() < 1
    for outcome in outcomes[1:]:
        assert torch.equal(outcome.adversarial, outcomes[0].adversarial)
        assert torch.equal(outcome.scores, outcomes[0].scores)
        assert set(outcome.nonfinite_gradient.flatten().tolist()) <= {0, 1}
        assert outcome.nonfinite_gradient.any()
    assert not outcomes[0].nonfinite_gradient.any()


@pytest.mark.parametrize("name", ["hag", "sdha", "hag-saat", "sdha-saat"])
def test_so_it_is_in_retrieval(name):
    class Head(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.lame = Lame(value)

        def forward(self, images):
            return self.lame(images) @ torch.tensor([[1.0, -1, 1], [0, 1, 1], [1, 1, 0], [-1, 1, 1]])

    images = torch.rand(8, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    outputs = Head(0.0)(images)
    codes = ss.Codes(signs=signs(outputs), labels=outputs.argmax(1))
    settings = {"task": ss.TASKS.build("hashing", bits=3, zeta=0.0), "keep": 8}
    settings["gallery"] = ss.Gallery(database=codes, train=codes)
    zero, nan = (ss.attack(name, Head(v), images, outputs.argmax(1), [0.04], **settings) for v in (0.0, math.nan))
    assert torch.equal(zero.adversarial, nan.adversarial)
    assert nan.nonfinite_gradient.any()
    assert not zero.nonfinite_gradient.any()


def test_attacks_without_a_gradient_count_none():
    model = small()
    images, labels = right(model, n=6)
    for name in ("none", "noise", "square", "hopskipjump", "boundary"):
        assert ss.attack(name, model, images, labels, [0.1], **QUICK.get(name, {})).nonfinite_gradient is None


def test_what_an_attack_proposes_and_is_no_number_is_counted():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wild(ss.attacks.Attack):
        name, label, citation = "wild", "wild", "a test"

        def run(self, problem, epsilon):
            proposed = problem.images.clone()
            proposed[1, 0, 2:4] = math.nan
            return proposed

    model = small()
    images, labels = right(model, n=3)
    assert ss.attack(Wild(), model, images, labels, [0.1]).nonfinite_gradient.tolist() == [[0, 20, 0]]


def test_the_tally_can_tell_one_from_the_other():
    """The check itself: what is finite is left as it is, bit by bit."""
    tally = Tally(3, torch.device("cpu"))
    tiny = 2.0**-149
    gradient = torch.tensor([[[[-0.0, tiny]]], [[[math.inf, 2.0]]], [[[math.nan, -math.inf]]]])
    usable = tally.usable(gradient, torch.arange(3))
    assert usable.flatten().tolist() == [-0.0, tiny, 0.0, 2.0, 0.0, 0.0]
    assert usable.flatten()[0].signbit()
    assert tally.entries.tolist() == [0, 1, 2]
    tally.saw(torch.tensor([[1.0, 3e38]]), "the model")
    tally.refuse()
    tally.saw(torch.tensor([[1.0, 3e38], [math.nan, 0]]), "the model")
    with pytest.raises(NonFiniteOutputError, match="for 1 of 3 images"):
        tally.refuse()
