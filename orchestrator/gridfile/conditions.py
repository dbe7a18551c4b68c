"""Conditions of a grid file, of overrides and exclusions: which models or cells they match."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.gridfile.cells import NO_GRADIENT, AttackChoice, Epsilon
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.values import ATTACK_AXES, NAMED_AXES, each, epsilon, member, one_of, seed
from signsym_core.attacks import ATTACKS, GRADIENTS
from signsym_core.registry import Registry

#: The axes that name members, of a model and of its attacks.
_FAMILIES: Mapping[str, Registry[Any]] = {**NAMED_AXES, "attack": ATTACKS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """Matches points of a grid: on each axis that it names, any of the listed values; elsewhere every value."""

    node: Node
    tests: dict[str, list[Callable[[Any], bool]]]

    def admits(self, axis: str, value: object) -> bool:
        return axis not in self.tests or any(test(value) for test in self.tests[axis])

    def admits_cell(self, choice: AttackChoice, epsilon: Epsilon) -> bool:
        values = (choice.attack, choice.gradient, epsilon)
        return all(self.admits(axis, value) for axis, value in zip(ATTACK_AXES, values, strict=True))


def condition(node: Node, axes: Sequence[str]) -> Condition:
    """A condition on some of `axes`, from a mapping of axes to values or lists of them."""
    mapping = node.mapping(f"a condition on {', '.join(axes)}", axes)
    if not mapping:
        raise node.expected(f"a condition on one or more of {', '.join(axes)}")
    problems = Problems()
    tests: dict[str, list[Callable[[Any], bool]]] = {}
    for axis, place in mapping.items():
        entries = place.entries()
        if registry := _FAMILIES.get(axis):
            entries = [one for entry in entries for one in each(entry, registry)]
        for entry in entries:
            with problems.kept():
                tests.setdefault(axis, []).append(_test(axis, entry))
    problems.check()
    return Condition(node=node, tests=tests)


def _test(axis: str, node: Node) -> Callable[[Any], bool]:
    if axis in ("seed", "gradient", "epsilon"):
        expected: object
        if axis == "seed":
            expected = seed(node)
        elif axis == "epsilon":
            # The matching cells may have any norm; L2 allows the largest radii.
            expected = epsilon(node, "l2")
        else:
            expected = one_of(node, "gradient", [*GRADIENTS, NO_GRADIENT])
        return lambda value: bool(value == expected)
    # A name matches the member with any parameters, a mapping only members with its parameters.
    named, parameters = member(node, _FAMILIES[axis])
    return lambda value: (
        type(value) is type(named) and all(getattr(value, key) == getattr(named, key) for key in parameters)
    )
