"""The module that a library's attack gets: its outputs, its gradients from every source, and its counts."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from targets import right, small

import signsym_core as ss
from signsym_core.attacks.base import Attack
from signsym_core.testing import check_attack


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking(Attack):
    """Hands a problem to the test instead of attacking it."""

    name, label, citation = "asking", "asking", "a test"
    tags = frozenset({"white-box", "linf"})
    ask: object = None

    def run(self, problem, epsilon):
        self.ask(problem)
        return problem.images


def asked(ask, model, images, labels, **settings):
    attack = Asking()
    object.__setattr__(attack, "ask", ask)
    return ss.attack(attack, model, images, labels, [0.1], **settings)


def loss_of(module, images, labels):
    variable = images.clone().requires_grad_()
    F.cross_entropy(module(variable), labels, reduction="sum").backward()
    return variable.grad


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [256, 3])
@pytest.mark.parametrize("rule", ["bp", "usf", "fa", "brsf"])
@pytest.mark.parametrize("gradient", ["feedback", "exact", "mixed", "transfer", "eot", "hybrid"])
def test_its_gradient_is_that_of_the_source(gradient, rule, micro_batch):
    model, twin = small(rule), small("bp", seed=1)
    images, labels = right(model, 8)
    seen = []

    def ask(problem):
        seen.append(torch.allclose(loss_of(problem.module, images, labels), problem.gradient(images), atol=1e-6))
        seen.append(torch.allclose(problem.module(images), problem.outputs(images), atol=1e-5))

    surrogate = {"surrogate": twin} if gradient in ("transfer", "hybrid") else {}
    asked(ask, model, images, labels, gradient=gradient, micro_batch=micro_batch, **surrogate)
    assert seen
    assert all(seen)


def test_exact_is_autograd_on_the_plain_network_and_feedback_is_not():
    model, plain = small("fa"), ss.revert(small("fa"))
    images, labels = right(model, 8)
    expected = loss_of(plain, images, labels)
    gradients = {}
    for gradient in ("exact", "feedback"):
        asked(
            lambda problem, name=gradient: gradients.update({name: loss_of(problem.module, images, labels)}),
            *(model, images, labels),
            gradient=gradient,
        )
    assert torch.equal(gradients["exact"], expected)
    assert F.cosine_similarity(gradients["feedback"].flatten(), expected.flatten(), dim=0) < 0.5


def test_its_passes_are_counted_and_a_pass_can_be_followed_twice():
    model = small()
    images, labels = right(model, 8)

    def ask(problem):
        module = problem.module
        variable = images.clone().requires_grad_()
        outputs = module(variable)
        for column in range(2):
            torch.autograd.grad(outputs[:, column].sum(), variable, retain_graph=True)
        module(images.repeat(3, 1, 1, 1))
        copy.deepcopy(module)(images[:2])
        assert module.queries == 1 + 3 + 1

    outcome = asked(ask, model, images, labels)
    # One pass more says what became of the images.
    assert (outcome.forwards, outcome.backwards) == (3 + 1, 2)
    assert (outcome.images_forward, outcome.images_backward) == (8 + 24 + 2 + 8, 16)


def test_it_has_no_weights_and_no_second_derivative():
    model = small()
    images, labels = right(model, 4)

    def ask(problem):
        assert list(problem.module.parameters()) == []
        variable = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(problem.module(variable).square().sum(), variable, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope.sum().backward()

    asked(ask, model, images, labels)


def test_what_is_not_finite_is_counted_for_the_image_that_it_belongs_to():
    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small()

        def forward(self, images):
            return self.body(images) + (images[:, :1, :1, :1] - 0.5).abs().sqrt().flatten(1)

    model = Root()
    images, labels = right(model.body, 6)
    images[:, 0, 0, 0] = 1
    # The root has no derivative at 0.
    images[4, 0, 0, 0] = 0.5

    def ask(problem):
        assert loss_of(problem.module, images, labels).isfinite().all()
        loss_of(problem.module, images.repeat(2, 1, 1, 1), labels.repeat(2))

    outcome = asked(ask, model, images, labels)
    assert (outcome.nonfinite_gradient[0] > 0).tolist() == [place == 4 for place in range(6)]


def test_the_suite_fails_an_attack_that_goes_around_its_problem():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Around(Attack):
        """FGSM on whatever gradient the model has."""

        name, label, citation = "around", "around", "a test"
        tags = frozenset({"white-box", "linf"})

        def run(self, problem, epsilon):
            variable = problem.images.clone().requires_grad_()
            F.cross_entropy(problem.model(variable), problem.labels, reduction="sum").backward()
            problem.gradient(problem.images)
            return problem.images + epsilon * variable.grad.sign()

    with pytest.raises(AssertionError, match=r"of which \[\d+, \d+\] were counted"):
        check_attack(Around())


def test_the_suite_fails_an_attack_whose_gradient_is_another_one(monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Fixed(Attack):
        """Asks for the gradient, and follows that of a loss that no rule changes."""

        name, label, citation = "fixed", "fixed", "a test"
        tags = frozenset({"white-box", "linf"})

        def run(self, problem, epsilon):
            problem.gradient(problem.images)
            return problem.images + epsilon * (problem.images - 0.5).sign()

    with pytest.raises(AssertionError, match="with 'feedback' its images are the exact's"):
        check_attack(Fixed())
