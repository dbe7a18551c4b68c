"""The promises of attacks, which `check_attack` checks."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.attacks import Attack
from signsym_core.attacks.ball import sizes
from signsym_core.conformance.network import small_network
from signsym_core.evaluation.attack import WeakAttackWarning
from signsym_core.evaluation.attack import attack as run_attack
from signsym_core.retrieval.codes import Codes, Gallery, signs
from signsym_core.rules.convert import convert
from signsym_core.tasks import TASKS


def check_tasks(attack: Attack) -> None:
    """The promises of `attack` on each task that it fits; AssertionError says what was expected and came."""
    with warnings.catch_warnings():
        # A recipe kept for comparison may be weak by its own definition.
        warnings.simplefilter("ignore", WeakAttackWarning)
        for name in sorted(attack.tasks):
            _check_attack_on(attack, name)
            _check_passes(attack, name)
            if "white-box" in attack.tags:
                _check_chosen_gradient(attack, name)


def _check_attack_on(attack: Attack, name: str) -> None:
    network = small_network().eval()
    images, labels, setting = _images_for(name, network)
    epsilons = [0.0, 0.01, 8 / 255, 0.5, 1.0]
    outcome = run_attack(attack, network, images, labels, epsilons, seed=1, keep=9, **setting)
    clean = setting["task"].score(network(images), labels, setting.get("gallery"))
    assert torch.equal(outcome.scores[0], clean), f"{attack.name}: epsilon 0 must be the clean images"
    for row, epsilon in enumerate(epsilons):
        change = sizes(outcome.adversarial[row].double() - images.double(), attack.norm).max()
        assert change <= epsilon, f"{attack.name} left the ball of {epsilon}: {float(change)}"
        low, high = outcome.adversarial[row].min(), outcome.adversarial[row].max()
        assert low >= 0, f"{attack.name} left [0, 1]: {float(low)}"
        assert high <= 1, f"{attack.name} left [0, 1]: {float(high)}"
        single = run_attack(attack, network, images, labels, [epsilon], seed=1, **setting)
        assert torch.equal(single.scores[0], outcome.scores[row]), (
            f"{attack.name}: epsilon {epsilon} depends on others, or on random numbers that the problem did not give"
        )
    broken = 0 if outcome.nonfinite_gradient is None else int(outcome.nonfinite_gradient.sum())
    assert not broken, f"{attack.name}: {broken} pixels of its images, or of the gradients that it follows, are NaN"
    known = [bool(values[-1].isfinite().any()) for values in outcome.measured.values()]
    assert all(known), f"{attack.name} must measure what its measures name: {attack.measures}"
    assert known or not attack.measuring, f"{attack.name} is run for its measures alone, and has none"
    repeated = run_attack(attack, network, images, labels, epsilons, seed=1, keep=9, **setting)
    assert torch.equal(repeated.adversarial, outcome.adversarial), f"{attack.name}: one seed must give one result"
    if "white-box" in attack.tags:
        assert outcome.backwards > 0, f"{attack.name} promises to ask for gradients"
    else:
        assert outcome.backwards == 0, f"{attack.name} asks for gradients without the tag white-box"


def _check_passes(attack: Attack, name: str) -> None:
    """Who calls the model past its problem has neither the chosen gradient nor honest counts."""
    network = small_network().eval()
    images, labels, setting = _images_for(name, network)
    seen = [0, 0]

    def look(_: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> None:
        seen[0] += len(inputs[0])
        if outputs.requires_grad:
            outputs.register_hook(look_back)

    def look_back(gradient: Tensor) -> None:
        seen[1] += len(gradient)

    handle = network.register_forward_hook(look)
    try:
        outcome = run_attack(attack, network, images, labels, [0.1], gradient="exact", seed=1, **setting)
    finally:
        handle.remove()
    counted = [outcome.images_forward, outcome.images_backward]
    assert counted == seen, (
        f"{attack.name} has shown the model {seen} images, forward and backward, of which {counted} were counted: it "
        f"must reach the model through problem.module, outputs and gradient alone"
    )


def _check_chosen_gradient(attack: Attack, name: str) -> None:
    """The exact gradient is that of the plain network whatever the rule, the feedback is not, nor is a surrogate's."""
    plain, other = small_network().eval(), convert(small_network(), "fa", seed=3).eval()
    images, labels, setting = _images_for(name, plain)
    twin = {"surrogate_gallery": setting["gallery"]} if "gallery" in setting else {}

    def adversarial(gradient: str, surrogate: nn.Module | None = None) -> Tensor:
        with_twin = twin | {"surrogate": surrogate} if surrogate is not None else {}
        settings: dict[str, Any] = {"gradient": gradient, "seed": 1, "keep": len(images), **setting, **with_twin}
        return run_attack(attack, other, images, labels, [0.1], **settings).adversarial

    expected = run_attack(
        attack, plain, images, labels, [0.1], gradient="exact", seed=1, keep=len(images), **setting
    ).adversarial
    exact, feedback = adversarial("exact"), adversarial("feedback")
    went_around = f"{attack.name} does not follow the chosen gradient"
    assert torch.equal(exact, expected), f"{went_around}: with gradient 'exact' a rule must not change its images"
    moved = not torch.equal(expected[0], images)
    assert not moved or not torch.equal(feedback, exact), f"{went_around}: with 'feedback' its images are the exact's"
    by_plain, by_other = adversarial("transfer", plain), adversarial("transfer", other)
    assert torch.equal(by_plain, by_other), f"{went_around}: with 'transfer' it must follow the surrogate's exact one"


def _images_for(name: str, network: nn.Module) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Images, the labels that `network` gives them, and the task `name` with what it needs."""
    random = torch.Generator().manual_seed(2)
    images, gallery_images = torch.rand(9, 3, 8, 8, generator=random), torch.rand(30, 3, 8, 8, generator=random)
    return images, network(images).argmax(1), _setting(name, network, gallery_images)


def _setting(name: str, network: nn.Module, gallery_images: Tensor) -> dict[str, Any]:
    """The task `name` for the network's five outputs, with what it needs to score."""
    if name != "hashing":
        return {"task": TASKS.build(name)}
    with torch.no_grad():
        outputs = network(gallery_images)
    codes = Codes(signs=signs(outputs), labels=outputs.argmax(dim=1))
    return {"task": TASKS.build(name, bits=5, zeta=0.0), "gallery": Gallery(database=codes, train=codes)}
