"""Sources of gradients: each against what it is defined as, written out."""

from __future__ import annotations

import pytest
import torch
from targets import right, slope, small
from torch import nn

import signsym_core as ss
from signsym_core.attacks import Attack
from signsym_core.attacks.ball import within_ball
from signsym_core.attacks.gradients import mean_direction
from signsym_core.rules.convert import redrawn
from signsym_core.rules.state import FeedbackState

SOURCES = ["feedback", "exact", "mixed", "transfer", "eot", "hybrid"]


def test_the_sources_are_these():
    assert list(ss.GRADIENTS) == SOURCES
    assert [name for name, source in ss.GRADIENTS.items() if source.twin] == ["transfer", "hybrid"]


def test_eot_follows_the_mean_of_the_gradients_over_redraws():
    model = small("brsf")
    images, labels = right(model)
    draws = ss.GRADIENTS["eot"].DRAWS
    total = 0
    for number in range(draws):
        with redrawn(model, number):
            total = total + slope(model, images, labels)
    made = ss.attack("fgsm", model, images, labels, [0.1], gradient="eot", keep=40)
    assert torch.equal(made.adversarial[0], within_ball(images, images + 0.1 * (total / draws).sign(), 0.1))
    assert made.images_backward == draws * 40
    assert made.backwards == draws


@pytest.mark.parametrize("rule", ["fa", "usf", "bp"])
def test_mixed_follows_the_mean_of_the_two_directions_of_each_image(rule):
    model = small(rule)
    images, labels = right(model)
    followed = slope(model, images, labels)
    with ss.exact_gradient(model):
        exact = slope(model, images, labels)
    units = [torch.stack([one / one.norm() for one in gradient]) for gradient in (followed, exact)]
    expected = torch.stack([(a + b) / 2 * g.norm() for a, b, g in zip(*units, exact, strict=True)])
    assert torch.allclose(mean_direction([followed, exact]), expected, rtol=1e-4, atol=1e-9)
    made = ss.attack("fgsm", model, images, labels, [0.1], gradient="mixed", keep=40)
    moved = within_ball(images, images + 0.1 * mean_direction([followed, exact]).sign(), 0.1)
    assert torch.equal(made.adversarial[0], moved)
    assert (made.forwards, made.backwards) == (3, 2)
    assert (made.images_forward, made.images_backward) == (120, 80)


def test_the_size_of_either_gradient_changes_no_direction_and_nothing_is_nan():
    a, b = torch.randn(2, 5, 1, 3, 3, generator=torch.Generator().manual_seed(0)).unbind()
    for factor in (1e-30, 1e30):
        direction, same = mean_direction([factor * a, b]), mean_direction([a, b])
        assert torch.allclose(direction, same, rtol=1e-5)
    nothing = torch.zeros_like(a)
    assert torch.allclose(mean_direction([nothing, b]), b / 2)
    assert torch.allclose(mean_direction([a, nothing]), a / 2)
    assert torch.equal(mean_direction([nothing, nothing]), nothing)


def test_redraws_are_other_draws_of_the_same_rule_and_leave_the_model_as_it_was():
    model = small("brsf")
    own, states = ss.feedback(model), [layer.state.draws for layer in model if hasattr(layer, "state")]
    with redrawn(model, 0):
        first = ss.feedback(model)
    with redrawn(model, 1):
        second = ss.feedback(model)
    with redrawn(model, 0):
        again = ss.feedback(model)
    for name, matrix in own.items():
        weight = model.get_submodule(name).weight
        assert torch.equal(first[name].sign(), weight.sign())
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], second[name])
        assert not torch.equal(first[name], matrix)
        assert torch.allclose(first[name].norm(), matrix.norm(), rtol=0.2)
    assert all(torch.equal(ss.feedback(model)[name], matrix) for name, matrix in own.items())
    assert [layer.state.draws for layer in model if hasattr(layer, "state")] == states


def test_a_block_that_fails_gives_the_model_its_own_feedback_back(monkeypatch):
    model = small("brsf")
    own, draw, calls = ss.feedback(model), FeedbackState.redrawn, []

    def failing(state, weight, number):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return draw(state, weight, number)

    monkeypatch.setattr(FeedbackState, "redrawn", failing)
    with pytest.raises(torch.OutOfMemoryError), redrawn(model, 0):
        slope(model, *right(model))
    assert all(torch.equal(ss.feedback(model)[name], matrix) for name, matrix in own.items())


@pytest.mark.parametrize("rule", ["bp", "fa", "usf", "frsf"])
def test_where_nothing_is_redrawn_eot_is_the_feedback(rule):
    model = small(rule)
    images, labels = right(model)
    one, other = (ss.attack("pgd", model, images, labels, [0.1], gradient=g, keep=40) for g in ("eot", "feedback"))
    assert torch.equal(one.adversarial, other.adversarial)
    assert one.backwards == other.backwards


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fgsm", "pgd", "mim"])
@pytest.mark.parametrize("carry", [False, True])
def test_hybrid_loses_every_image_that_feedback_or_transfer_loses(name, carry):
    model, twin = small("fa"), small("bp", seed=1)
    images, labels = right(model)
    epsilons = [0.0, 0.02, 0.05, 0.1]
    same = {"carry": carry, "seed": 5}
    own = ss.attack(name, model, images, labels, epsilons, gradient="feedback", **same)
    moved = ss.attack(name, model, images, labels, epsilons, gradient="transfer", surrogate=twin, **same)
    best = ss.attack(name, model, images, labels, epsilons, gradient="hybrid", surrogate=twin, keep=40, **same)
    assert not (best.robust & ~(own.robust & moved.robust)).any()
    for row, epsilon in enumerate(epsilons):
        change = (best.adversarial[row].double() - images.double()).abs().max()
        assert change <= epsilon


class Recording(Attack):
    """Proposes the brightest image on the twin, a grey one where it starts by itself, black where it goes on."""

    name, label, citation, goes_on = "recording", "recording", "a test", True

    def run(self, problem, epsilon):
        if problem.twin is None:
            return torch.ones_like(problem.images)
        self.starts.append(problem.start)
        return torch.full_like(problem.images, 0.5) if problem.start is None else torch.zeros_like(problem.images)


class Sees(nn.Module):
    """Class 1 for images whose mean lies in some range, else class 0."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        inside = ((mean > self.low) & (mean < self.high)).float()
        return torch.stack([1 - inside, inside], dim=1)


@pytest.mark.parametrize(
    ("low", "high", "asked", "kept"),
    [(0.9, 2, 0, 1.0), (0.45, 0.55, 1, 0.5), (-1, 0.1, 2, 0.0), (3, 4, 2, 1.0)],
    ids=["the twin's", "the feedback's", "the refined", "none is lost"],
)
def test_hybrid_keeps_the_first_example_that_is_lost_and_asks_no_further(monkeypatch, low, high, asked, kept):
    attack, starts = Recording(), []
    monkeypatch.setattr(Recording, "starts", starts, raising=False)
    images, labels = torch.full((6, 1, 4, 4), 0.3), torch.zeros(6, dtype=torch.int64)
    given = {"gradient": "hybrid", "surrogate": nn.Identity(), "keep": 6}
    made = ss.attack(attack, Sees(low, high), images, labels, [1.0], **given)
    assert len(starts) == asked
    assert all(start is None for start in starts[:1])
    assert all(torch.equal(start, torch.ones_like(images)) for start in starts[1:])
    assert torch.equal(made.adversarial[0], torch.full_like(images, kept))
    assert made.robust.any() == (low == 3)


@pytest.mark.parametrize("name", ["transfer", "hybrid"])
def test_a_source_with_a_twin_needs_a_surrogate_and_no_other_one_takes_it(name):
    model = small()
    with pytest.raises(ValueError, match="gradient 'transfer' or 'hybrid', and no other one, needs a surrogate"):
        ss.attack("pgd", model, *right(model), [0.1], gradient=name)
    with pytest.raises(ValueError, match="got gradient 'eot' with one"):
        ss.attack("pgd", model, *right(model), [0.1], gradient="eot", surrogate=model)


@pytest.mark.parametrize(
    ("rule", "parameters", "same"),
    [
        ("bp", {}, ["exact", "exact", "exact", "exact", "exact", "hybrid"]),
        ("frsf", {}, ["feedback", "exact", "mixed", "transfer", "feedback", "hybrid"]),
        ("brsf", {}, ["feedback", "exact", "mixed", "transfer", "eot", "hybrid"]),
        ("brsf", {"redraw": "forward"}, ["feedback", "exact", "mixed", "transfer", "eot", "hybrid"]),
    ],
)
def test_what_gives_the_same_numbers_under_a_rule_is_computed_once(rule, parameters, same):
    built = ss.RULES.build(rule, **parameters)
    assert [source.computed(built) for source in ss.GRADIENTS.values()] == same
