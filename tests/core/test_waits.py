"""No attack makes the host wait in its steps: the waits of a GPU, counted on a CPU, do not grow with the steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from targets import right, small
from waits import Waits

import signsym_core as ss
from signsym_core.attacks import ATTACKS, problem
from signsym_core.attacks.ball import within_ball
from signsym_core.attacks.pgd import PGD

#: Of each attack that makes steps: their parameter, with a small and a larger number, and what else it is given.
STEPS = {
    "bim": ("steps", 2, 5, {}),
    "pgd-l2": ("steps", 2, 5, {"norm": "l2"}),
    "apgd-l2": ("steps", 4, 9, {"norm": "l2"}),
    "fab-l2": ("steps", 2, 4, {"norm": "l2", "targets": 3}),
    "square-l2": ("queries", 4, 30, {"norm": "l2"}),
    "mim": ("steps", 2, 5, {}),
    "pgd": ("steps", 2, 5, {}),
    "apgd": ("steps", 4, 9, {}),
    "apgd-dlr": ("steps", 4, 9, {"loss": "dlr"}),
    "apgd-targets": ("steps", 4, 9, {"loss": "targeted-dlr", "targets": 2}),
    "fab": ("steps", 2, 4, {"targets": 3}),
    "fab-targets": ("targets", 1, 4, {"steps": 2}),
    "autoattack": ("steps", 3, 5, {"targets": 1, "queries": 4}),
    "square": ("queries", 4, 30, {}),
    "noise": ("draws", 3, 6, {}),
    "boundary": ("steps", 2, 25, {}),
    "smoothing": ("samples", 3, 30, {"selection": 2, "micro_batch": 6}),
}


def waits(attack, images=6, epsilons=(0.001,), **more):
    """Waits of an attack on images that no step of it loses, so that it goes to its end."""
    model = small("bp")
    pixels, labels = right(model, images)
    for epsilon in epsilons:
        # The bound of a ball is computed on the host, once.
        within_ball(pixels, pixels, epsilon)
    with Waits() as counted, pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem.Problem, "looks_every", 1000)
        ss.attack(attack, model, pixels, labels, list(epsilons), **more)
    return counted.total


def test_every_attack_that_makes_steps_is_counted():
    attacks = {cls.name for cls in ATTACKS if "classification" in cls.tasks}
    # FGSM, geometry and none make no steps; HopSkipJump's estimates are counted below.
    assert {name.split("-")[0] for name in STEPS} | {"fgsm", "geometry", "none", "hopskipjump"} == attacks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
@pytest.mark.parametrize("case", STEPS)
def test_more_steps_are_no_more_waits(case):
    parameter, few, many, more = STEPS[case]
    name = case.split("-")[0]
    assert waits(name, **{parameter: few}, **more) == waits(name, **{parameter: many}, **more) > 0


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("pgd", {}),
        ("pgd", {"norm": "l2"}),
        ("geometry", {}),
        ("apgd", {"steps": 4}),
        ("apgd", {"steps": 4, "norm": "l2"}),
        ("square", {"queries": 4}),
        ("square", {"queries": 4, "norm": "l2"}),
    ],
)
def test_more_images_are_no_more_waits(name, more):
    assert waits(name, images=2, **more) == waits(name, images=9, **more)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_an_epsilon_waits_twice(name):
    # Whether a gradient was not finite, and whether an output was not.
    one, four = waits(name, epsilons=[0.001]), waits(name, epsilons=[0.001, 0.002, 0.003, 0.004])
    assert four - one == 2 * 3


def test_an_estimate_of_hopskipjump_waits_once_however_many_decisions_it_takes():
    model = small("bp")
    pixels, labels = right(model, 5)
    attack, counts = ATTACKS.build("hopskipjump"), []
    ask = attack.__class__._normal

    def counting(self, *arguments):
        with Waits() as counted:
            normal = ask(self, *arguments)
        counts.append(counted.total)
        return normal

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem.Problem, "looks_every", 1000)
        patch.setattr(attack.__class__, "_normal", counting)
        for evaluations in (4, 40):
            more = {"steps": 1, "first_evaluations": evaluations, "micro_batch": 16}
            ss.attack("hopskipjump", model, pixels, labels, [0.1], **more)
    assert counts == [1, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking(PGD):
    """PGD that asks in each step whether there is a gradient."""

    how: str

    def direction(self, problem, current):
        gradient = problem.gradient(current)
        if self.how == "any":
            assert gradient.any()
        elif self.how == "mask":
            gradient[gradient == 0] = gradient[gradient == 0]
        elif self.how == "tolist":
            assert gradient.flatten(1).sum(dim=1).tolist()
        return gradient


@pytest.mark.parametrize("how", ["any", "mask", "tolist"])
def test_a_step_that_waits_is_seen(how):
    few, many = (waits(Asking(steps=steps, how=how)) for steps in (2, 5))
    assert many >= few + 3
    assert waits(Asking(steps=2, how="no")) == waits(Asking(steps=5, how="no"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("square", {"queries": 60}),
        ("noise", {"draws": 15}),
        ("boundary", {"steps": 45}),
        ("boundary", {"steps": 100, "queries": 90}),
        ("hopskipjump", {"steps": 2, "first_evaluations": 20}),
        ("hopskipjump", {"steps": 2, "first_evaluations": 20, "queries": 70}),
    ],
)
def test_an_outcome_does_not_depend_on_how_often_is_looked_which_images_are_left(monkeypatch, name, more):
    model = small("bp").double()
    pixels, labels = right(small("bp"), 12)
    pixels, outcomes = pixels.double(), []
    labels[1] = (labels[1] + 1) % 5
    for every in (1, 7):
        monkeypatch.setattr(problem.Problem, "looks_every", every)
        outcomes.append(ss.attack(name, model, pixels, labels, [0.02, 0.3], keep=12, micro_batch=5, **more))
    often, seldom = outcomes
    assert torch.equal(often.robust, seldom.robust)
    assert torch.allclose(often.adversarial, seldom.adversarial, atol=1e-9)
    for field in ("queries", "distances"):
        one, other = getattr(often, field), getattr(seldom, field)
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one.double(), other.double(), rtol=1e-9)
