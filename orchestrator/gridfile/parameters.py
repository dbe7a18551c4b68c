"""The parameters of a member or of settings as JSON Schema: types, ranges, defaults and descriptions.

Types and defaults are those of the dataclass. A range is tested: the class is built with values around 0 and 1, where
bounds of parameters usually are, and a bound is written where the class begins or ends to refuse them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from signsym_core.registry import ParameterError, build
from signsym_core.rules import Layers
from signsym_core.training.adversarial import Adversarial

Schema = dict[str, Any]

_TYPES: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
#: Whole numbers that are tried one after the other to find the first that a parameter accepts.
_TRIED = range(-1, 65)
_NEAR = 1e-9


def parameters(cls: type[Any]) -> dict[str, Schema]:
    """The schema of each parameter of the dataclass `cls`, in the order of their definition."""
    hints, comments = typing.get_type_hints(cls), _comments(cls)
    schemas: dict[str, Schema] = {}
    for field in dataclasses.fields(cls):
        bounds, words = _range(cls, field.name, hints[field.name])
        schema = annotation(hints[field.name]) | bounds
        sentences = [sentence for sentence in (comments.get(field.name), words) if sentence]
        if sentences:
            schema["description"] = " ".join(sentences)
        if field.default is not dataclasses.MISSING:
            schema["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        schemas[field.name] = schema
    return schemas


def annotation(hint: Any) -> Schema:
    """A type of a dataclass's field, as `signsym_core.registry.coerce` accepts values for it."""
    if hint is Layers:
        return {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/a-rule"}}
    if hint is Adversarial:
        return {"$ref": "#/$defs/adversarial"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": annotation(arguments[0])}
    if origin not in (typing.Union, types.UnionType):
        return {"type": _TYPES[hint]} if hint in _TYPES else {}
    options = [annotation(argument) for argument in arguments]
    if all("type" in option for option in options):
        return {key: value for option in options for key, value in option.items()} | {
            "type": [option["type"] for option in options]
        }
    if all("enum" in option or option == {"type": "null"} for option in options):
        return {"enum": [value for option in options for value in option.get("enum", [None])]}
    return {"anyOf": options}


def _range(cls: type[Any], name: str, hint: Any) -> tuple[Schema, str]:
    """The bounds of a number, and the class's own words for them; empty where the class cannot be built to test it."""
    kinds = typing.get_args(hint) or (hint,)
    expected: list[str] = []

    def accepts(value: float) -> bool:
        try:
            build(cls, "", {name: value})
        except ParameterError as error:
            # What another parameter expects of this one depends on that other's value.
            if match := re.search(rf"parameter '{name}' expects (.*), got", str(error)):
                expected.append(match[1])
            return not match
        return True

    try:
        bounds = _integer_bounds(accepts) if int in kinds else _float_bounds(accepts) if float in kinds else {}
    except TypeError:
        # A parameter without a default keeps the class from being built with this one alone.
        return {}, ""
    return bounds, f"Expects {expected[0]}." if bounds else ""


def _integer_bounds(accepts: Callable[[float], bool]) -> Schema:
    first = next((value for value in _TRIED if accepts(value)), _TRIED[0])
    return {"minimum": first} if first > _TRIED[0] else {}


def _float_bounds(accepts: Callable[[float], bool]) -> Schema:
    bounds: Schema = {}
    for bound in (0, 1):
        below, above = accepts(bound - _NEAR), accepts(bound + _NEAR)
        if above and not below:
            bounds["minimum" if accepts(float(bound)) else "exclusiveMinimum"] = bound
        if below and not above:
            bounds["maximum" if accepts(float(bound)) else "exclusiveMaximum"] = bound
    return bounds


def _comments(cls: type[Any]) -> dict[str, str]:
    """The comments "#: ..." before the fields of a class and of its bases, by the field."""
    bases = [base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)]
    return {name: words for base in bases for name, words in _class_comments(base).items()}


@functools.cache
def _class_comments(cls: type[Any]) -> dict[str, str]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        # A class that was defined at run time has no source.
        return {}
    comments: dict[str, str] = {}
    lines: list[str] = []
    for line in source.splitlines():
        if comment := re.match(r"\s+#: (.*)", line):
            lines.append(comment[1])
        else:
            if lines and (field := re.match(r"\s+(\w+): ", line)):
                comments[field[1]] = " ".join(lines)
            lines = []
    return comments
