"""A rule for each layer: which of the other rules serves it is said by the layer's name."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from signsym_core.registry import ParameterError, UnknownNameError, identity, shown, unknown
from signsym_core.rules.base import RULES, Rule


class Layers(dict[str, Any]):
    """Rules by patterns of layer names, as a grid writes them: names, or mappings with `name` and every parameter.

    Equal rules are written equally, whatever defaults were left out, and the order of the patterns means nothing.
    """

    #: What an error says was expected.
    words: ClassVar[str] = "a mapping of layer names or patterns to rules"

    @classmethod
    def from_plain(cls, value: object) -> Layers:
        """The rules that `value` maps patterns to, resolved. Raises TypeError for anything else than a mapping.

        Raises UnknownNameError and ParameterError, with the pattern, for what is no rule of a layer.
        """
        if not isinstance(value, Mapping) or not value or not all(isinstance(pattern, str) for pattern in value):
            raise TypeError(cls.words)
        return cls({pattern: _written(_rule(pattern, plain)) for pattern, plain in value.items()})

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))

    def rules(self) -> dict[str, Rule]:
        """The rule of each pattern."""
        return {pattern: _rule(pattern, plain) for pattern, plain in self.items()}


def _rule(pattern: str, plain: object) -> Rule:
    parameters = dict(plain) if isinstance(plain, Mapping) else {"name": plain}
    name = parameters.pop("name", None)
    try:
        if not isinstance(name, str):
            raise ParameterError(
                f"expects the name of a rule, or a mapping with 'name' and parameters, got {shown(plain)}"
            )
        rule = RULES.build(name, **parameters)
        if not rule.by_layer:
            raise ParameterError(f"expects a rule that serves a layer by itself, got {name!r}")
        if rule.bp_layers:
            raise ParameterError(f"rule {name!r} expects no bp_layers here: a pattern of its own names layers for 'bp'")
    except (ParameterError, UnknownNameError) as error:
        raise type(error)(f"parameter 'layers', {pattern!r}: {error}") from None
    return rule


def _written(rule: Rule) -> Any:
    values = {name: value for name, value in identity(rule).items() if name != "bp_layers"}
    return {"name": rule.name, **values} if values else rule.name


_USF_EVERYWHERE = Layers({"*": {"name": "usf", "scale": "rms"}})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(Rule):
    """In each layer the rule that `layers` says: B of layer l is that which its rule would have had in all layers.

    A pattern is a layer's name, a prefix of names ("layer1"), a name with `*` and `?`, or "first" and "head" for the
    two ends; "*" is every layer. Names are those of the network, with or without "network." before them. Where several
    patterns match a layer, the one with the most letters decides, whatever their order. Every layer needs a rule.
    """

    name = "mixed"
    label = "mixed"
    citation = "arXiv 2507.13485, which claims robustness for rules that differ between layers"
    by_layer = False
    no_default = ("layers",)

    #: The rule of each layer, by name or pattern: {layer1: usf, layer2: {name: frsf, scale: xavier}, "*": bp}.
    layers: Layers = _USF_EVERYWHERE

    @property
    def redraws(self) -> Any:
        kinds = {rule.redraws for rule in self.layers.rules().values()}
        return next((kind for kind in ("forward", "update") if kind in kinds), "never")

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        raise NotImplementedError("a mixed rule has no B of its own: each layer has that of its rule")

    def of_layers(self, names: Sequence[str]) -> list[Rule]:
        rules = self.layers.rules()
        matched = set[str]()
        chosen: list[Rule] = []
        for name in names:
            ends = {"first": names[0], "head": names[-1]}
            patterns = [pattern for pattern in rules if _matches(pattern, name, ends)]
            matched.update(patterns)
            chosen.append(self._chosen(name, patterns, rules))
        for pattern in rules:
            if pattern not in matched:
                known = ["first", "head", *(_short(name) for name in names)]
                raise UnknownNameError(unknown("layer or pattern in layers", pattern, known))
        return chosen

    def misfit(self, optimizer: str, weight_decay: float) -> str | None:
        misfits = (rule.misfit(optimizer, weight_decay) for rule in self.layers.rules().values())
        return next((misfit for misfit in misfits if misfit is not None), None)

    def left_to_bp(self, name: str) -> bool:
        rules = self.layers.rules()
        patterns = [pattern for pattern in rules if _matches(pattern, name, {})]
        return bool(patterns) and self._chosen(name, patterns, rules).exact

    def _chosen(self, name: str, patterns: list[str], rules: Mapping[str, Rule]) -> Rule:
        if not patterns:
            raise ParameterError(
                f"parameter 'layers' expects a rule for every layer, got none for {_short(name)!r}: add it, or "
                f"'*' for all layers that are not named, to {', '.join(map(repr, rules))}"
            )
        most = max(map(_letters, patterns))
        best = [pattern for pattern in patterns if _letters(pattern) == most]
        if any(rules[pattern] != rules[best[0]] for pattern in best):
            raise ParameterError(
                f"parameter 'layers' expects one rule for each layer, got {' and '.join(map(repr, best))} for "
                f"{_short(name)!r}, of equal length and with different rules: name the layer itself"
            )
        return rules[best[0]]


def _short(name: str) -> str:
    return name.removeprefix("network.")


def _matches(pattern: str, name: str, ends: Mapping[str, str]) -> bool:
    if pattern in ends:
        return ends[pattern] == name
    names = {name, _short(name)}
    return any(fnmatch.fnmatchcase(name, form) for name in names for form in (pattern, f"{pattern}.*"))


def _letters(pattern: str) -> float:
    """How closely a pattern names a layer."""
    if pattern in ("first", "head"):
        return float("inf")
    return len(_short(pattern)) - sum(map(pattern.count, "*?"))
