"""The values of a grid's keys: nodes of the file in, members of the registries and settings out.

Every function raises GridError with the place of the node at fault and what was expected there.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

from orchestrator.gridfile.callbacks import KNOWN, VARIABLES, CallbackChoice, secrets
from orchestrator.gridfile.cells import Epsilon
from orchestrator.gridfile.nodes import Node, Problems
from signsym_core.attacks import Attack
from signsym_core.attacks.ball import Norm
from signsym_core.attacks.radii import fraction
from signsym_core.backbones import BACKBONES
from signsym_core.datasets import DATASETS
from signsym_core.registry import Member, Registry, UnknownNameError, build, shown, takes_lists, unknown
from signsym_core.rules import RULES
from signsym_core.tasks import TASKS

T = TypeVar("T")
M = TypeVar("M", bound=Member)

#: The axes of a model that name members, in the order of the product; the seed comes last.
NAMED_AXES: Mapping[str, Registry[Any]] = {"task": TASKS, "dataset": DATASETS, "backbone": BACKBONES, "rule": RULES}
MODEL_AXES = [*NAMED_AXES, "seed"]
ATTACK_AXES = ["attack", "gradient", "epsilon"]


def distinct(nodes: Sequence[Node], read: Callable[[Node], T]) -> dict[T, Node]:
    """The value that `read` returns for each node, in their order; a repeated value is an error."""
    values: dict[T, Node] = {}
    problems = Problems()
    for node in nodes:
        with problems.kept():
            value = read(node)
            if value in values:
                first = values[value]
                raise node.error(f"expected each value once, got {node.shown}, which {first.path} is ({first.where})")
            values[value] = node
    problems.check()
    return values


def required(mapping: Mapping[str, Node], key: str, owner: Node) -> Node:
    if key not in mapping:
        raise owner.error(f"expected the key {key!r}, got {', '.join(mapping) or 'no key'}")
    return mapping[key]


def built(cls: type[T], what: str, nodes: Mapping[str, Node], owner: Node) -> T:
    """An instance of `cls` from nodes; an error names the place of the wrong key, or of `owner` for a combination."""
    values = {key: node.plain for key, node in nodes.items()}
    try:
        return build(cls, what, values)
    except ValueError as error:
        for key, node in nodes.items():
            try:
                build(cls, what, {key: values[key]})
            except ValueError as error_of_key:
                # A wrong key fails with the same error without the other keys.
                if str(error_of_key) == str(error):
                    raise node.error(str(error)) from None
        named = [node.where for key, node in nodes.items() if f"parameter {key!r}" in str(error)]
        raise dataclasses.replace(owner, where=named[0] if named else owner.where).error(str(error)) from None


def members(node: Node, registry: Registry[M]) -> dict[M, Node]:
    """The members that an axis lists, each once and with its node: names, or mappings with a name and parameters."""
    entries = [one for entry in node.entries() for one in each(entry, registry)]
    return distinct(entries, lambda entry: used(entry, registry)[0])


def each(node: Node, registry: Registry[Any]) -> list[Node]:
    """A node for each member that one stands for: of a parameter of `axes_of` a list is an axis."""
    name = node.value["name"].value if isinstance(node.value, dict) and "name" in node.value else None
    if not isinstance(node.value, dict) or not isinstance(name, str) or name not in registry:
        return [node]
    return [dataclasses.replace(node, value=chosen) for chosen in product(registry[name], node.value)]


def axes_of(cls: type[Member]) -> Mapping[str, Sequence[Any]]:
    """The parameters of a member whose lists are axes, with what "all" stands for, if for anything.

    Those of a data set that only choose test images, and all of an attack, unless a list is one of its values.
    """
    if issubclass(cls, Attack):
        return {field.name: () for field in dataclasses.fields(cls) if not takes_lists(cls, field.name)}
    usual: Mapping[str, Sequence[Any]] = getattr(cls, "testing", {})
    return usual


def product(cls: type[Member], nodes: Mapping[str, Node]) -> list[dict[str, Node]]:
    """The nodes of a member's parameters, with each choice of a value from the lists that are axes, the last fastest.

    Other keys are kept.
    """
    choices = {key: _choices(nodes[key], usual) for key, usual in axes_of(cls).items() if key in nodes}
    chosen = (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))
    return [{**nodes, **values} for values in chosen]


def _choices(node: Node, usual: Sequence[Any]) -> list[Node]:
    if usual and node.value == "all":
        return [dataclasses.replace(node, value=value) for value in usual]
    return list(distinct(node.entries(), lambda entry: shown(entry.plain)).values())


def used(node: Node, registry: Registry[M]) -> tuple[M, list[str]]:
    """Like `member`, for one that something is done with: it states the parameters of `Member.no_default`."""
    made, stated = member(node, registry)
    for key in made.no_default:
        if key not in stated:
            raise node.error(
                f"expected the parameter {key!r} of {registry.family} {made.name!r}, of which no value is the usual "
                f"one: {{name: {made.name}, {key}: ...}}"
            )
    return made, stated


def member(node: Node, registry: Registry[M]) -> tuple[M, list[str]]:
    """A member, and the names of the parameters that the node states; in a condition those that count."""
    parameters: dict[str, Node] = {}
    name = node
    if isinstance(node.value, dict):
        parameters = dict(node.value)
        if "name" not in parameters and (named := [key for key in parameters if key in registry]):
            raise node.error(
                f"expected the key 'name', got {', '.join(parameters)}: {{name: {named[0]}, ...}}, and several in a "
                f"list: [{{name: {named[0]}, ...}}, ...]?"
            )
        name = required(parameters, "name", node)
        del parameters["name"]
    cls = registered(name, registry)
    return built(cls, f"{registry.family} {cls.name!r}", parameters, node), list(parameters)


def registered(node: Node, registry: Registry[M]) -> type[M]:
    name = node.text(_name_of(registry.family))
    try:
        return registry[name]
    except UnknownNameError as error:
        if len(listed := re.split(r"[\s,]+", name)) > 1 and all(one in registry for one in listed):
            raise node.error(
                f"expected {_name_of(registry.family)}, got {node.shown}: [{', '.join(listed)}]?"
            ) from None
        raise node.error(str(error)) from None


def seeds(node: Node) -> dict[int, Node]:
    """The seeds of a list. A single number is refused: it could mean one seed, or so many seeds."""
    if isinstance(node.value, str):
        raise node.error(f"expected a list of seeds, got {node.shown}: {_meant(node.value) or '[0, 1, 2]'}?")
    if not isinstance(node.value, list):
        only = seed(node)
        several = f"[0, 1, ..., {only - 1}]" if only > 5 else str(list(range(max(only, 1))))
        raise node.error(f"expected a list of seeds, got {only}: {several}? The one seed {only} is [{only}]")
    return distinct(node.entries(), seed)


def _meant(text: str) -> str | None:
    """The list of seeds that a text such as "0-2" or "0, 1, 2" may mean; None for another text."""
    if span := re.fullmatch(r"([0-9]{1,3}) *(?:-|:|\.{2,3}|to) *([0-9]{1,3})", text):
        numbers = [*range(int(span[1]), int(span[2]) + 1)]
    elif re.fullmatch(r"[0-9]{1,9}([ ,;]+[0-9]{1,9})*", text):
        numbers = [int(number) for number in re.split(r"[ ,;]+", text)]
    else:
        return None
    return str(numbers) if len(numbers) <= 6 else f"[{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}]"


def seed(node: Node) -> int:
    """One seed."""
    if isinstance(node.value, str) and (meant := _meant(node.value)) is not None:
        raise node.error(f"expected a whole number, at least 0, got {node.shown}: {meant}?")
    return node.integer(0)


def epsilon(node: Node, norm: Norm = "linf") -> Epsilon:
    """An epsilon from a number or a fraction "a/b": in [0, 1] in L∞, from 0 on in L2."""
    largest = 1.0 if norm == "linf" else math.inf
    within = "in [0, 1]" if norm == "linf" else "from 0 on, a radius in L2"
    expected = f'an epsilon: a number {within}, or a fraction such as "8/255"'
    if isinstance(node.value, str) and (share := fraction(node.value)) is not None:
        if not share <= largest:
            raise node.expected(expected)
        return Epsilon(label=node.value, value=share)
    number = node.value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= largest:
        raise node.error(f"expected {expected}, got {node.shown}{_meant_epsilon(number)}")
    if math.isinf(number):
        raise node.expected(expected)
    # The sum turns -0.0 into 0.0.
    value = float(number) + 0.0
    return Epsilon(label=f"{Decimal(repr(value)).normalize():f}", value=value)


def _meant_epsilon(value: object) -> str:
    """The epsilon that a step of 8 bits, a fraction with blanks or a list without brackets may mean, for an error."""
    if isinstance(value, int) and 1 < value <= 255:
        return f": {value}/255?"
    if not isinstance(value, str):
        return ""
    without_blanks = value.replace(" /", "/").replace("/ ", "/")
    if fraction(without_blanks) is not None:
        return f": {without_blanks}?"
    return f": [{value}]?" if "," in value else ""


def one_of(node: Node, kind: str, known: list[str]) -> str:
    name = node.text(_name_of(kind))
    if name not in known:
        raise node.error(unknown(kind, name, known))
    return name


def _name_of(kind: str) -> str:
    return f"the name of {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def callbacks(node: Node) -> tuple[CallbackChoice, ...]:
    """Tune's callbacks, each once: names, or mappings with a name and the callback's own keywords."""
    entries = distinct(node.entries(), lambda entry: _callback(entry).name).values()
    return tuple(_callback(entry) for entry in entries)


def _callback(node: Node) -> CallbackChoice:
    mapping = {"name": node} if isinstance(node.value, str) else dict(node.mapping("a callback: a name or a mapping"))
    name = one_of(required(mapping, "name", node), "callback", list(KNOWN))
    options = {key: place.plain for key, place in mapping.items() if key != "name"}
    variables = f", by {VARIABLES[name]}" if name in VARIABLES else ""
    problems = Problems()
    for key, value in options.items():
        with problems.kept():
            for secret in secrets(key, value):
                raise mapping[key].error(
                    f"{secret} may be a secret, and a grid is kept in the store as it is: expected it from the "
                    f"environment instead{variables}"
                )
    problems.check()
    return CallbackChoice(name=name, options=options)
