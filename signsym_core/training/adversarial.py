"""Adversarial training: each batch is replaced by the examples that an attack makes of it against the current model.

Madry et al. 2018, arXiv 1706.06083, section 2.1: min_θ E max_{|δ| ≤ ε} L(θ, x + δ, y), with the attack in the place of
the maximum and one step of the rule on what it found in that of the minimum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.attacks import ATTACKS, GRADIENTS, Attack
from signsym_core.attacks.attacked import AttackedModel, Passes
from signsym_core.attacks.finite import Tally
from signsym_core.attacks.gradients import Source, crafted
from signsym_core.attacks.none import NoAttack
from signsym_core.attacks.problem import Problem
from signsym_core.attacks.radii import radius
from signsym_core.models.frozen import frozen
from signsym_core.registry import ParameterError, UnknownNameError, identity, shown, unknown
from signsym_core.rules.convert import draws_kept
from signsym_core.tasks import Task

#: Parameters of every attack that a training has a setting of its own for.
OF_TRAINING = ("precision", "deterministic", "spike_slope")
#: The source of gradients where none is named: Madry's.
DEFAULT_GRADIENT = "exact"


class Adversarial(dict[str, Any]):
    """The attack of an adversarial training, as a grid writes one: `name`, `epsilon`, `gradient` and its parameters.

    All parameters are there, resolved, so that equal trainings are written equally; `epsilon` is a number.
    """

    #: What an error says was expected.
    words: ClassVar[str] = "an attack as a mapping with name, epsilon, gradient and parameters"

    @classmethod
    def from_plain(cls, value: object) -> Adversarial:
        """The resolved settings of the mapping `value`. Raises TypeError for anything else than a mapping.

        Raises ParameterError for an attack, a gradient, an epsilon or a parameter that cannot be trained with.
        """
        if not isinstance(value, Mapping):
            raise TypeError(cls.words)
        try:
            return cls._resolved(dict(value))
        except ValueError as error:
            raise ParameterError(f"parameter 'adversarial': {error}") from None

    @classmethod
    def _resolved(cls, plain: dict[str, Any]) -> Adversarial:
        missing = [key for key in ("name", "epsilon") if key not in plain]
        if missing:
            raise ParameterError(f"expects the key {missing[0]!r}, got {', '.join(map(str, plain)) or 'no key'}")
        name, epsilon = plain.pop("name"), plain.pop("epsilon")
        stated = plain.pop("gradient", None)
        for key in OF_TRAINING:
            if key in plain:
                raise ParameterError(f"expects no {key} here: that of the training holds for its attack too")
        attack = ATTACKS.build(name, **plain)
        if isinstance(attack, NoAttack) or attack.certifying:
            problem = f"expects an attack that changes images, got {attack.name!r}; null trains on them as they are"
            raise ParameterError(problem)
        size = radius(epsilon, attack.norm)
        if not size:
            raise ParameterError(f"expects an epsilon above 0, got {shown(epsilon)}; null trains on images as they are")
        gradient = {}
        if "white-box" in attack.tags:
            gradient = {"gradient": _trainable(DEFAULT_GRADIENT if stated is None else stated)}
        elif stated is not None:
            raise ParameterError(f"expects no gradient for attack {attack.name!r}, which asks for none")
        return cls({"name": attack.name, **gradient, "epsilon": size, **identity(attack)})

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))

    @property
    def attack(self) -> Attack:
        """The attack."""
        parameters = {name: value for name, value in self.items() if name not in ("name", "gradient", "epsilon")}
        return ATTACKS.build(self["name"], **parameters)

    @property
    def source(self) -> Source:
        """Where its gradient comes from; any for an attack without one."""
        return GRADIENTS[self.get("gradient", DEFAULT_GRADIENT)]

    def misfit(self, task: Task) -> str | None:
        """Why a training on `task` cannot be adversarial with this attack; None where it can."""
        if task.retrieves:
            return (
                f"adversarial: expected null for task {task.name!r}, whose attacks need codes of all images by the "
                f"model as it is at every step, got attack {self['name']!r}"
            )
        fitting = self.attack.tasks
        if task.name in fitting:
            return None
        return f"adversarial: expected an attack for task {task.name!r}, got {self['name']!r}, for {sorted(fitting)}"


def _trainable(gradient: object) -> str:
    known = [name for name, source in GRADIENTS.items() if not source.twin]
    if gradient not in known:
        raise UnknownNameError(unknown("gradient of an adversarial training", gradient, known))
    return str(gradient)


class Adversary:
    """Makes the examples that a training of `model` sees in place of its images.

    The model is attacked in evaluation mode, as in Madry's later library (github.com/MadryLab/robustness): batch
    normalisation uses its running statistics and is not updated, nothing is dropped, and a rule that redraws B meets
    the attack with the B of the last step. Nothing of the training is changed but the images: neither statistics nor
    gradients, nor what a rule draws or learns. At most `micro_batch` images are in the network at once; None: all.
    """

    def __init__(self, settings: Adversarial, model: nn.Module, task: Task, seed: int, micro_batch: int | None) -> None:
        self.attack, self.source, self.epsilon = settings.attack, settings.source, float(settings["epsilon"])
        self.model, self.task, self.seed, self.micro_batch = model, task, seed, micro_batch

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> Tensor:
        """The examples for a batch of images [n, channels, height, width], of the same shape.

        What the attack draws depends on the seed of the training, the epoch, the step and the image's place alone.
        """
        names, count, noise = ("adversarial", epoch, step), len(images), None
        if "random" in self.attack.tags:
            generator = seeds.generator(self.seed, *names, device=images.device)
            noise = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device)
        image_seeds = [seeds.derive(self.seed, *names, place) for place in range(count)]
        most, tally = self.micro_batch or count, Tally(count, images.device)
        views, join = self.source.views, self.source.join
        with frozen(self.model), draws_kept(self.model):
            attacked = AttackedModel(self.model, views, join, images.dtype, Passes(), most, tally)
            problem = Problem(attacked, self.task, images, labels, noise, image_seeds)
            examples = crafted(self.attack, self.source, problem, self.epsilon)
        if attacked.micro_batch < most:
            # The device had no memory for more.
            self.micro_batch = attacked.micro_batch
        return examples
