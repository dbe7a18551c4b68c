"""The passes that a plan expects of an attack, against those that the attack makes on a small model."""

from __future__ import annotations

import pytest
import torch
from targets import QUICK, right, small
from torch import nn

import signsym_core as ss
from orchestrator.plan import cost
from signsym_core.attacks import ATTACKS, GRADIENTS
from signsym_core.attacks.base import NormedAttack

CLASSIFYING = [cls.name for cls in ATTACKS if "classification" in cls.tasks]
RETRIEVING = [cls.name for cls in ATTACKS if "hashing" in cls.tasks and "classification" not in cls.tasks]
NORMED = [cls.name for cls in ATTACKS if issubclass(cls, NormedAttack) and "classification" in cls.tasks]
#: Attacks that leave out images that are lost: at most so many passes.
LEAVING = {"apgd", "autoattack", "fab", "square", "boundary", "hopskipjump"}


def passes(outcome, images):
    """Forward passes beside the gradients', and gradients, for each image."""
    return (outcome.images_forward - outcome.images_backward) / images, outcome.images_backward / images


class Sure(nn.Module):
    """Class 0 whatever comes, as far as any step within reach can tell."""

    def forward(self, images):
        first = torch.tensor([1e3, 0, 0, 0, 0])
        return first + images.mean((1, 2, 3))[:, None] * torch.arange(5)


@pytest.mark.slow
@pytest.mark.parametrize("epsilons", [[0.0], [0.001], [0.0, 0.001, 0.002]])
@pytest.mark.parametrize("name", [*CLASSIFYING, *(f"{name} l2" for name in NORMED)])
def test_an_attack_that_no_image_is_lost_to_makes_the_passes_that_are_expected(name, epsilons):
    name, _, norm = name.partition(" ")
    given = QUICK.get(name, {}) | ({"norm": norm} if norm else {})
    attack, images = ATTACKS.build(name, **given), torch.rand(3, 3, 10, 10)
    outcome = ss.attack(attack, Sure(), images, torch.zeros(3, dtype=torch.long), epsilons)
    expected = cost.passes(attack, "feedback", sum(e > 0 for e in epsilons), 0 in epsilons)
    forwards, gradients = passes(outcome, 3)
    if name in ("boundary", "hopskipjump"):
        # Without a start a thousand random images are tried, as many as the budget allows.
        assert forwards <= expected.forwards + QUICK[name]["queries"]
    else:
        assert (forwards, gradients) == tuple(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFYING)
def test_an_attack_on_a_weak_model_makes_no_more_passes(name):
    attack = ATTACKS.build(name, **QUICK.get(name, {}))
    model = small()
    outcome = ss.attack(attack, model, *right(model, 20), [0.0, 0.02, 0.3])
    expected = cost.passes(attack, "feedback", 2, True)
    forwards, gradients = passes(outcome, 20)
    assert forwards <= expected.forwards
    assert gradients <= expected.gradients
    if name not in LEAVING:
        assert (forwards, gradients) == tuple(expected)


@pytest.mark.parametrize("gradient", list(GRADIENTS))
@pytest.mark.parametrize("name", ["fgsm", "pgd", "geometry"])
def test_sources_of_gradients_make_the_passes_that_are_expected(name, gradient):
    model, attack = small("brsf"), ATTACKS.build(name, **({"steps": 2} if name == "pgd" else {}))
    surrogate = small("bp", seed=1) if GRADIENTS[gradient].twin else None
    outcome = ss.attack(attack, model, *right(model, 5), [0.0, 0.001], gradient=gradient, surrogate=surrogate)
    expected = cost.passes(attack, gradient, 1, True)
    forwards, gradients = passes(outcome, 5)
    assert forwards == expected.forwards
    assert gradients <= expected.gradients
    if gradient != "hybrid":
        assert gradients == expected.gradients


@pytest.mark.parametrize("epsilons", [[0.0], [0.001], [0.0, 0.001, 0.002]])
@pytest.mark.parametrize("gradient", ["transfer", "hybrid"])
@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "apgd", "fab", "square"])
def test_a_surrogate_has_passes_of_its_own_and_a_run_from_its_examples_too(name, gradient, epsilons):
    attack, images = ATTACKS.build(name, **QUICK.get(name, {})), torch.rand(3, 3, 10, 10)
    model, surrogate = Sure(), Sure()
    labels = torch.zeros(3, dtype=torch.long)
    outcome = ss.attack(attack, model, images, labels, epsilons, gradient=gradient, surrogate=surrogate)
    expected = cost.passes(attack, gradient, sum(e > 0 for e in epsilons), 0 in epsilons)
    assert passes(outcome, 3) == tuple(expected)


@pytest.mark.parametrize("name", RETRIEVING)
def test_attacks_on_retrieval_make_the_passes_that_are_expected(name):
    attack, model = ATTACKS.build(name), small()
    labels = torch.eye(5, dtype=torch.uint8)[torch.arange(6) % 5]
    images = torch.rand(6, 3, 10, 10)
    codes = ss.Codes(signs=torch.ones(6, 5), labels=labels)
    task, gallery = ss.TASKS.build("hashing", bits=5, zeta=0.0), ss.Gallery(database=codes, train=codes)
    outcome = ss.attack(attack, model, images, labels, [0.0, 0.01], task=task, gallery=gallery)
    assert passes(outcome, 6) == tuple(cost.passes(attack, "feedback", 1, True))
