"""The values of a grid's keys: nodes of the file in, members of the registries and settings out.

Every function raises GridError with the place of the node at fault and what was expected there.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

from orchestrator.gridfile.callbacks import KNOWN, VARIABLES, CallbackChoice, secrets
from orchestrator.gridfile.cells import NO_GRADIENT, AttackChoice, Epsilon, Head, Pretrain, Weights
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.jobs.job import STAGES, Resources
from signsym_core.attacks import ATTACKS, GRADIENTS
from signsym_core.attacks.ball import Norm
from signsym_core.backbones import BACKBONES
from signsym_core.datasets import DATASETS
from signsym_core.finetune import FineTune
from signsym_core.registry import Member, ParameterError, Registry, UnknownNameError, build, unknown
from signsym_core.rules import RULES
from signsym_core.tasks import TASKS
from signsym_core.validation import fraction

T = TypeVar("T")
M = TypeVar("M", bound=Member)

#: The axes of a model that name members, in the order of the product; the seed comes last.
NAMED_AXES: Mapping[str, Registry[Any]] = {"task": TASKS, "dataset": DATASETS, "backbone": BACKBONES, "rule": RULES}
MODEL_AXES = [*NAMED_AXES, "seed"]
ATTACK_AXES = ["attack", "gradient", "epsilon"]

#: Resources that one place states: by the stage, None for all stages, and the key.
Amounts = dict[tuple[str | None, str], Any]

#: The keys of a pre-training beside the settings of a fine-tune.
PRETRAIN_KEYS = ("dataset", "seed", "rule", "head", "weights")
#: Settings of a fine-tune that decide whether it fits a rule, or a data set.
OPTIMIZER_KEYS = ("optimizer", "weight_decay")
VALIDATION_KEYS = ("keep", "patience")
_FINETUNE_KEYS = [field.name for field in dataclasses.fields(FineTune)]


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
    return distinct(node.entries(), lambda entry: _member(entry, registry)[0])


def _member(node: Node, registry: Registry[M]) -> tuple[M, list[str]]:
    """A member, and the names of the parameters that the node states."""
    parameters: dict[str, Node] = {}
    name = node
    if isinstance(node.value, dict):
        parameters = dict(node.value)
        name = required(parameters, "name", node)
        del parameters["name"]
    cls = registered(name, registry)
    return built(cls, f"{registry.family} {cls.name!r}", parameters, node), list(parameters)


def registered(node: Node, registry: Registry[M]) -> type[M]:
    name = node.text(_name_of(registry.family))
    try:
        return registry[name]
    except UnknownNameError as error:
        raise node.error(str(error)) from None


def seeds(node: Node) -> dict[int, Node]:
    """The seeds of a list. A single number is refused: it could mean one seed, or so many seeds."""
    if isinstance(node.value, str):
        raise node.error(f"expected a list of seeds, got {node.shown}: {_meant(node.value) or '[0, 1, 2]'}?")
    if not isinstance(node.value, list):
        only = _seed(node)
        several = f"[0, 1, ..., {only - 1}]" if only > 5 else str(list(range(max(only, 1))))
        raise node.error(f"expected a list of seeds, got {only}: {several}? The one seed {only} is [{only}]")
    return distinct(node.entries(), _seed)


def _meant(text: str) -> str | None:
    """The list of seeds that a text such as "0-2" or "0, 1, 2" may mean; None for another text."""
    if span := re.fullmatch(r"([0-9]{1,3}) *(?:-|:|\.{2,3}|to) *([0-9]{1,3})", text):
        numbers = [*range(int(span[1]), int(span[2]) + 1)]
    elif re.fullmatch(r"[0-9]{1,9}([ ,;]+[0-9]{1,9})*", text):
        numbers = [int(number) for number in re.split(r"[ ,;]+", text)]
    else:
        return None
    return str(numbers) if len(numbers) <= 6 else f"[{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}]"


def _seed(node: Node) -> int:
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
    number = node.number(expected)
    if not 0 <= number <= largest or math.isinf(number):
        raise node.expected(expected)
    # The sum turns -0.0 into 0.0.
    value = float(number) + 0.0
    return Epsilon(label=f"{Decimal(repr(value)).normalize():f}", value=value)


def one_of(node: Node, kind: str, known: list[str]) -> str:
    name = node.text(_name_of(kind))
    if name not in known:
        raise node.error(unknown(kind, name, known))
    return name


def _name_of(kind: str) -> str:
    return f"the name of {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def weights(node: Node) -> Weights | Pretrain | None:
    if node.value is None or node.value == "none":
        return None
    if isinstance(node.value, str):
        return Weights(source=node.text("weights: a name, a path, or null"), where=f"{node.where}: {node.path}")
    inner = required(node.mapping("weights: a name, a path, null or {pretrain: ...}", ["pretrain"]), "pretrain", node)
    settings = dict(inner.mapping("pretrain", [*PRETRAIN_KEYS, *_FINETUNE_KEYS]))
    required(settings, "dataset", inner)
    before = {key: settings.pop(key) for key in PRETRAIN_KEYS if key in settings}
    problems = Problems()
    values: dict[str, Any] = {}
    with problems.kept():
        values["dataset"] = _member(before["dataset"], DATASETS)[0]
    with problems.kept():
        values["head"] = one_of(before["head"], "head", [*typing.get_args(Head)]) if "head" in before else "fresh"
    with problems.kept():
        if "rule" in before:
            values["rule"] = _member(before["rule"], RULES)[0]
    with problems.kept():
        if "weights" in before:
            values["weights"] = weights(before["weights"])
    with problems.kept():
        # A training that goes on usually does so seed by seed, as its row in the results does.
        values["seed"] = _seed(before["seed"]) if "seed" in before else None if values.get("head") == "keep" else 0
    with problems.kept():
        values["settings"] = built(FineTune, "pretrain", settings, inner)
    problems.check()
    pretrain = Pretrain(**values)
    reason = pretrain.rule.misfit(pretrain.settings.optimizer, pretrain.settings.weight_decay)
    if reason is not None:
        place = first_of(settings, OPTIMIZER_KEYS, before.get("rule", node))
        raise place.error(f"pretrain does not fit rule {pretrain.rule.name!r}: {reason}")
    if (problem := pretrain.settings.misfit(pretrain.dataset)) is not None:
        raise first_of(settings, VALIDATION_KEYS, node).error(f"pretrain: {problem}")
    return pretrain


def first_of(nodes: Mapping[str, Node], keys: Sequence[str], otherwise: Node) -> Node:
    """The node of the first of `keys` that `nodes` states, which an error about these keys names."""
    return next((nodes[key] for key in keys if key in nodes), otherwise)


def finetune(node: Node) -> dict[str, Node]:
    """The settings that one place states, each checked by itself, in case that another place replaces it.

    They are checked together with those that the place inherits.
    """
    settings = node.mapping("finetune", _FINETUNE_KEYS)
    problems = Problems()
    for key, place in settings.items():
        with problems.kept():
            try:
                build(FineTune, "finetune", {key: place.plain})
            except ParameterError as error:
                # What another setting has to be beside this one may be stated elsewhere.
                if f"parameter {key!r}" in str(error):
                    raise place.error(str(error)) from None
    problems.check()
    return settings


def resources(node: Node) -> Amounts:
    """The amounts that one place states: for all stages, and under a stage's name for that stage."""
    names = [field.name for field in dataclasses.fields(Resources)]
    amounts: Amounts = {}
    problems = Problems()
    for key, place in node.mapping("resources", [*names, *STAGES]).items():
        inner = {key: place} if key in names else place.mapping(f"resources of {key}", names)
        for name, amount in inner.items():
            with problems.kept():
                amounts[None if key in names else key, name] = _amount(name, amount)
    problems.check()
    return amounts


def _amount(key: str, node: Node) -> float | str | None:
    if key == "accelerator_type":
        return None if node.value is None else node.text("Ray's name of a kind of GPU, such as H200")
    if key == "gpu":
        if node.value == "auto":
            return "auto"
        what = "a whole number of GPUs, a fraction below 1, or auto"
        number = node.number(what)
        if number < 0 or (number > 1 and number != int(number)):
            raise node.expected(what)
        return float(number)
    what = "a number of CPUs above 0" if key == "cpu" else "a number of minutes above 0"
    number = node.number(what)
    if number <= 0:
        raise node.expected(what)
    return float(number)


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


def condition(node: Node, axes: Sequence[str]) -> Condition:
    """A condition on some of `axes`, from a mapping of axes to values or lists of them."""
    mapping = node.mapping(f"a condition on {', '.join(axes)}", axes)
    if not mapping:
        raise node.expected(f"a condition on one or more of {', '.join(axes)}")
    problems = Problems()
    tests: dict[str, list[Callable[[Any], bool]]] = {}
    for axis, place in mapping.items():
        for entry in place.entries():
            with problems.kept():
                tests.setdefault(axis, []).append(_test(axis, entry))
    problems.check()
    return Condition(node=node, tests=tests)


def _test(axis: str, node: Node) -> Callable[[Any], bool]:
    if axis in ("seed", "gradient", "epsilon"):
        expected: object
        if axis == "seed":
            expected = _seed(node)
        elif axis == "epsilon":
            # The matching cells may have any norm; L2 allows the largest radii.
            expected = epsilon(node, "l2")
        else:
            expected = one_of(node, "gradient", [*GRADIENTS, NO_GRADIENT])
        return lambda value: bool(value == expected)
    # A name matches the member with any parameters, a mapping only members with its parameters.
    member, parameters = _member(node, ATTACKS if axis == "attack" else NAMED_AXES[axis])
    return lambda value: (
        type(value) is type(member) and all(getattr(value, key) == getattr(member, key) for key in parameters)
    )
