"""The attacks of an experiment: items of the grid file in, attack choices with their epsilons out."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping

from orchestrator.gridfile.cells import NO_GRADIENT, AttackChoice, Epsilon, Surrogate
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.values import built, distinct, epsilon, members, one_of, product, registered, required
from orchestrator.jobs.surrogates import TRANSFER
from signsym_core.attacks import ATTACKS, GRADIENTS, Attack
from signsym_core.attacks.none import NoAttack
from signsym_core.registry import unknown
from signsym_core.rules import RULES
from signsym_core.rules.bp import BP

#: The clean performance of a model: over all images, at the one epsilon 0.
CLEAN = AttackChoice(attack=NoAttack(), gradient=NO_GRADIENT, images=None)
CLEAN_EPSILON = Epsilon(label="0", value=0.0)

#: The paper's number of attacked images, and its source of gradients.
_IMAGES = 5000
_GRADIENT = "feedback"
ATTACK_KEYS = ["name", "gradient", "surrogate", "epsilon", "images"]
#: Seeds of a surrogate beside that of the attacked model.
SURROGATE_SEEDS = ["same", "other"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attacks:
    """The attacks that an experiment runs on each of its models."""

    #: The node that requests each cell; None for the clean cell that is added automatically.
    cells: dict[AttackChoice, dict[Epsilon, Node | None]]
    #: The node that names each attack.
    named: dict[AttackChoice, Node]


#: An experiment that names no attack.
CLEAN_ONLY = Attacks(cells={CLEAN: {CLEAN_EPSILON: None}}, named={})


def attacks(node: Node) -> Attacks:
    """The attacks of an experiment, with the clean cell first, named or not."""
    cells: dict[AttackChoice, dict[Epsilon, Node | None]] = {CLEAN: {CLEAN_EPSILON: None}}
    named: dict[AttackChoice, Node] = {}
    problems = Problems()
    for item in node.entries():
        with problems.kept():
            for choice, name, epsilons in _attack_item(item):
                named.setdefault(choice, name)
                places = cells.setdefault(choice, {})
                for value, place in epsilons.items():
                    refuse_twice(choice, value, place, places.get(value))
                    places[value] = place
    problems.check()
    return Attacks(cells=cells, named=named)


def refuse_twice(choice: AttackChoice, radius: Epsilon, place: Node | None, first: Node | None) -> None:
    """Raise GridError if two places request one cell; the clean cell that is added automatically has no place."""
    if place is not None and first is not None:
        cell = f"attack {choice.attack.name!r}, gradient {choice.source!r}, epsilon {radius.label}"
        raise place.error(f"expected each cell once, got {cell} again: {first.path} has it ({first.where})")


def _attack_item(item: Node) -> list[tuple[AttackChoice, Node, dict[Epsilon, Node]]]:
    mapping = item.mapping("an attack: a mapping with a name") if not isinstance(item.value, str) else {"name": item}
    names = distinct(required(mapping, "name", item).entries(), lambda node: registered(node, ATTACKS))
    if NoAttack in names:
        for key, node in mapping.items():
            if key != "name":
                raise node.error(f"expected the attack 'none', the clean cell, without other keys, got {key!r}")
    problems = Problems()
    results: list[tuple[AttackChoice, Node, dict[Epsilon, Node]]] = []
    for cls, name in names.items():
        with problems.kept():
            if cls is NoAttack:
                results.append((CLEAN, name, {CLEAN_EPSILON: name}))
                continue
            if "epsilon" not in mapping and isinstance(item.value, str):
                raise item.error(f"expected an epsilon beside the name: {{name: {item.value}, epsilon: 8/255}}")
            for attack in _attacks(cls, mapping, item):
                radius = functools.partial(epsilon, norm=attack.norm)
                epsilons = distinct(required(mapping, "epsilon", item).entries(), radius)
                images = _images(mapping["images"]) if "images" in mapping else _IMAGES
                gradients = _gradients(attack, mapping)
                for gradient, surrogate in itertools.product(gradients, _surrogates(mapping, gradients)):
                    choice = AttackChoice(attack=attack, gradient=gradient, images=images, surrogate=surrogate)
                    results.append((choice, name, epsilons))
    problems.check()
    return results


def _attacks(cls: type[Attack], mapping: Mapping[str, Node], item: Node) -> list[Attack]:
    """The attacks of one class: of each parameter a list is an axis."""
    parameters = {key: node for key, node in mapping.items() if key not in ATTACK_KEYS}
    known = [field.name for field in dataclasses.fields(cls)]
    for key, node in parameters.items():
        if key not in known:
            raise node.error(unknown(f"key of attack {cls.name!r}", key, [*ATTACK_KEYS, *known], cls.elsewhere))
    attacks = []
    for chosen in product(cls, parameters):
        attack = built(cls, f"attack {cls.name!r}", chosen, item)
        if attack.spike_slope is not None and attack.spike_slope <= 0:
            raise chosen["spike_slope"].expected("spike_slope: null, or a number above 0")
        attacks.append(attack)
    return attacks


def _gradients(attack: Attack, mapping: Mapping[str, Node]) -> list[str]:
    if "white-box" not in attack.tags:
        if "gradient" in mapping:
            raise mapping["gradient"].error(f"expected no gradient for attack {attack.name!r}, which asks for none")
        return [NO_GRADIENT]
    if "gradient" not in mapping:
        return [_GRADIENT]
    return list(distinct(mapping["gradient"].entries(), lambda node: one_of(node, "gradient", list(GRADIENTS))))


def _surrogates(mapping: Mapping[str, Node], gradients: list[str]) -> list[Surrogate | None]:
    """The surrogates of an attack: rules outermost, then seeds; BP of the same seed is the usual one, None."""
    if "surrogate" not in mapping:
        return [None]
    node = mapping["surrogate"]
    if gradients != [TRANSFER]:
        raise node.error(f"expected a surrogate with gradient: transfer alone, got gradient: {', '.join(gradients)}")
    inner = node.mapping("a surrogate: a mapping with a rule, and a seed: same or other", ["rule", "seed"])
    rules = members(required(inner, "rule", node), RULES)
    others = distinct(inner["seed"].entries(), _other_seed) if "seed" in inner else [False]
    return [
        None if rule == BP() and not other else Surrogate(rule=rule, other_seed=other)
        for rule, other in itertools.product(rules, others)
    ]


def _other_seed(node: Node) -> bool:
    if node.value not in SURROGATE_SEEDS:
        raise node.expected(f"a surrogate's seed: {' or '.join(SURROGATE_SEEDS)}")
    return bool(node.value == "other")


def _images(node: Node) -> int | None:
    return None if node.value is None else node.integer(1)
