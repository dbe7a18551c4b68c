"""Attacks of Foolbox, each a member named `foolbox:CLASS` with the parameters of Foolbox's signature.

Foolbox proposes images; the ball, the scores, the counts and the gradient are those of every other attack here. A class
becomes a member when it is first named, so that Foolbox is not imported before.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import warnings
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.attacks import foolboxclasses
from signsym_core.attacks.ball import Norm, sizes
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.foolboxclasses import BY_GRADIENT, DETERMINISTIC, PREFIX, STARTS, classes, library, minimises
from signsym_core.attacks.foolboxfields import fields_of, installed
from signsym_core.attacks.problem import Problem, Told
from signsym_core.registry import UnknownNameError, neutral, require, unknown

#: Parameters that count something.
_COUNTS = frozenset({"steps", "repeats", "directions", "binary_search_steps", "initial_gradient_eval_steps"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoolboxAttack(Attack):
    """An attack of Foolbox: see `member`."""

    #: The class in `foolbox.attacks`.
    foolbox: ClassVar[Any]
    #: The norm of its budget; None where a parameter chooses it.
    fixed_norm: ClassVar[Norm | None]

    #: Foolbox's version: another one may give other images.
    version: str = neutral("", default="")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.version == installed(), "version", f"that of the installed Foolbox, {installed()!r}", self.version)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("required"):
                require(value is not None, field.name, "a value, since Foolbox has no default for it", value)
            if field.name in _COUNTS and value is not None:
                require(value >= 1, field.name, "a whole number, at least 1", value)
        start = getattr(self, "init_attack", None)
        if start is not None:
            fits = start.startswith(PREFIX) and minimises(member(start).foolbox)
            require(fits, "init_attack", f"{PREFIX}CLASS, an attack of Foolbox that minimises", start)

    @property
    def norm(self) -> Norm:
        """The norm that epsilon is a radius of."""
        return self.fixed_norm or cast(Norm, self._value("constraint") or self._value("distance"))

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        if problem.labels.ndim != 1:
            raise ValueError(f"attack {self.name!r} needs one class for each image, got labels of several classes")
        if not minimises(self.foolbox):
            images, queries = self._proposed(problem, epsilon=epsilon)
            problem.told = Told(queries=queries)
            return images
        images, distances, queries = problem.once(self, self._minimised)
        # A distance on a surrogate is not one of the model.
        problem.told = Told(queries=queries, distances=distances if problem.judges else None)
        return images

    def _minimised(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        """Foolbox's images, the sizes of the changes float64 [n], and the queries int64 [n]."""
        images, queries = self._proposed(problem)
        images = torch.where(images.isfinite(), images, problem.images).clamp(0, 1)
        scores = problem.scores(images)
        distances = sizes(images - problem.images, self.norm).masked_fill(scores > 0, math.inf)
        clean_scores = problem.task.score(problem.clean_outputs, problem.labels, problem.gallery)
        return images, distances.masked_fill(clean_scores == 0, 0.0), queries + 1

    def _proposed(self, problem: Problem, **epsilon: float) -> tuple[Tensor, Tensor]:
        """The images of Foolbox's `run`, and the queries of each image of the block."""
        images = problem.images.clone()
        with seeds.libraries_seeded(problem.seed, images.device), warnings.catch_warnings():
            # An image without a start has an infinite distance; the message about compiling is not needed.
            warnings.filterwarnings("ignore", message=".*failed to draw sufficient random|At the first initialisation")
            attack = self._built()
            started, starting_points, looked = self._starts(attack, problem)
            queries = torch.full_like(problem.numbers, looked)
            subset = problem if started.all() else problem.only(started)
            if len(subset.images):
                module = subset.module
                images[started] = _run(attack, module, subset, **starting_points, **epsilon)
                queries[started] += module.queries
        return images, queries

    def _starts(self, attack: Any, problem: Problem) -> tuple[Tensor, dict[str, Tensor], int]:
        """Which images can be attacked (bool [n]), the attack's starting points, and the queries that these took.

        Where Foolbox finds no start for one image it attacks none; here only that image stays unchanged.
        """
        everything = torch.ones(len(problem.images), dtype=torch.bool, device=problem.images.device)
        usual = STARTS.get(self.foolbox.__name__)
        start = self._value("init_attack") and attack.init_attack
        if start is None:
            if usual is None:
                return everything, {}, 0
            start = classes()[usual[0]](**usual[1])
        module = problem.module
        images = _run(start, module, problem)
        started = module(images).argmax(dim=1) != problem.labels
        return started, {"starting_points": images[started]}, module.queries

    def _built(self) -> Any:
        """The attack as an object of Foolbox."""
        accepted = inspect.signature(self.foolbox).parameters
        settings = {name: value for name, value in self.parameters().items() if name in accepted}
        if "distance" in settings:
            settings["distance"] = getattr(library().distances, settings["distance"])
        if settings.get("init_attack") is not None:
            settings["init_attack"] = member(settings["init_attack"])()._built()
        return self.foolbox(**settings)

    def steps_taken(self) -> int:
        # Only steps of a known length count; a search for the nearest image moves as far as necessary.
        if self.foolbox.__name__.endswith("FastGradientAttack"):
            return 1
        return int(self._value("steps")) if "rel_stepsize" in self.parameters() else 0

    def step(self, epsilon: float) -> float:
        relative, absolute = self._value("rel_stepsize"), self._value("abs_stepsize")
        if absolute is not None:
            return float(absolute)
        return epsilon * (float(relative) if relative is not None else self.steps_taken())

    def cost(self, epsilons: int, clean: bool) -> Cost:
        rounds = self._value("steps") or self._value("repeats") or 1
        if self._value("initial_const"):
            rounds *= self._value("binary_search_steps")
        if self._value("initial_gradient_eval_steps"):
            # Step k takes √k times the queries of the first one.
            rounds = self._value("initial_gradient_eval_steps") * rounds**1.5 * 2 / 3
        if "candidates" in self.parameters():
            rounds *= max(1, (self._value("candidates") or 10) - 1)
        runs = min(epsilons, 1) if minimises(self.foolbox) else epsilons
        passes, follows = float(runs * rounds), "white-box" in self.tags
        forwards = (0 if follows else passes) + epsilons + clean
        return Cost(forwards=forwards, gradients=passes if follows else 0)

    def _value(self, name: str) -> Any:
        """The parameter `name`; None where the attack has none of that name."""
        return self.parameters().get(name)

    def __reduce__(self) -> Any:
        # Its class is created on demand, so pickle cannot import it by name.
        return _rebuilt, (self.name, self.parameters())


def _rebuilt(name: str, parameters: dict[str, Any]) -> FoolboxAttack:
    return member(name)(**parameters)


@functools.cache
def member(name: str) -> type[FoolboxAttack]:
    """The member with the name `foolbox:CLASS`, the same for all of Foolbox's names of a class.

    Raises UnknownNameError for a class that Foolbox does not have, or that cannot be run here, with the reason.
    """
    class_name = name.removeprefix(PREFIX)
    if class_name not in classes():
        served = [PREFIX + served_name for served_name, cls in classes().items() if foolboxclasses.refusal(cls) is None]
        raise UnknownNameError(unknown("attack", name, served))
    cls = classes()[class_name]
    reason = foolboxclasses.refusal(cls)
    if reason:
        raise UnknownNameError(f"attack {name!r} is one of Foolbox that cannot be run here: {reason}")
    if cls.__name__ != class_name:
        return member(PREFIX + cls.__name__)
    norm = foolboxclasses.norm_of(cls)
    tags = {"white-box": class_name in BY_GRADIENT, "random": class_name not in DETERMINISTIC, "linf": norm == "linf"}
    attributes = {
        "__module__": __name__,
        "__doc__": inspect.getdoc(cls),
        "name": name,
        "label": f"Foolbox {class_name}",
        "citation": f"Rauber, Zimmermann, Bethge, Brendel 2020, Foolbox Native, JOSS 5(53) 2607: {class_name}",
        "tags": frozenset(tag for tag, holds in tags.items() if holds),
        "foolbox": cls,
        "fixed_norm": norm,
    }
    options: dict[str, Any] = {"bases": (FoolboxAttack,), "frozen": True, "kw_only": True, "namespace": attributes}
    return cast(type[FoolboxAttack], dataclasses.make_dataclass(class_name, fields_of(cls), **options))


def _run(attack: Any, module: nn.Module, problem: Problem, **settings: Any) -> Any:
    """The images of an attack object of Foolbox, on the model as `module`."""
    model = library().PyTorchModel(module, bounds=(0, 1), device=problem.images.device)
    return attack.run(model, problem.images, library().criteria.Misclassification(problem.labels), **settings)
