"""Parameters as the fields of a dataclass: made of plain values by their annotations, and told apart from defaults."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

#: Characters of a value, and of a list of names, beyond which an error shortens them.
_SHOWN, _LISTED = 60, 300


class UnknownNameError(ValueError):
    """A name that a registry does not hold, or a parameter that a member does not have."""


class ParameterError(ValueError):
    """A parameter of a known name with a value of the wrong type or out of range."""


D = TypeVar("D")

_NO_NEUTRAL = object()


def neutral(value: Any, *, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that came after results were stored without it.

    `value` means "as it was before the field existed", for ever: keys, stored descriptions and `*_params` columns
    leave the field out while it has this value, so that no stored key moves. `default` is what a new grid gets, the
    neutral value unless another is named; changing it later makes other keys, as for any field.
    """
    return dataclasses.field(default=value if default is dataclasses.MISSING else default, metadata={"neutral": value})


def identity(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass instance that keys hold: all of them but those at their neutral value."""
    values = dataclasses.asdict(settings)
    return {f.name: values[f.name] for f in dataclasses.fields(settings) if not _same(values[f.name], _neutral(f))}


def changed(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass instance that columns tell: not neutral, or not the default where none is neutral."""
    return {
        f.name: value for f in dataclasses.fields(settings) if not _same(value := getattr(settings, f.name), _usual(f))
    }


def not_default(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass instance that a grid file has to write."""
    return {
        f.name: value for f in dataclasses.fields(settings) if not _same(value := getattr(settings, f.name), f.default)
    }


def rebuild(cls: type[D], what: str, stored: Mapping[str, Any]) -> D:
    """`build` from what `identity` or `changed` kept: a field that is left out has its neutral value."""
    fields = dataclasses.fields(typing.cast(Any, cls))
    left_out = {f.name: _neutral(f) for f in fields if _neutral(f) is not _NO_NEUTRAL}
    return build(cls, what, left_out | dict(stored))


def _neutral(field: dataclasses.Field[Any]) -> Any:
    return field.metadata.get("neutral", _NO_NEUTRAL)


def _usual(field: dataclasses.Field[Any]) -> Any:
    return field.default if _neutral(field) is _NO_NEUTRAL else _neutral(field)


def _same(one: Any, other: Any) -> bool:
    """Equal and of one type: 1, 1.0 and True are three values, as in a key."""
    return type(one) is type(other) and bool(one == other)


@functools.cache
def _hints(cls: type[Any]) -> Mapping[str, Any]:
    """The annotations of a class, whose compilation takes forty times as long as the rest of a build."""
    return typing.get_type_hints(cls)


def takes_lists(cls: type[Any], name: str) -> bool:
    """Whether a list may be a value of the parameter `name` of a dataclass: elsewhere one is several values."""
    hint = _hints(typing.cast(Any, cls))[name]
    return any(typing.get_origin(one) is tuple or hasattr(one, "from_plain") for one in (hint, *typing.get_args(hint)))


def build(cls: type[D], what: str, parameters: dict[str, Any]) -> D:
    """An instance of the dataclass `cls` from `parameters`; `what` names it in errors."""
    hints = _hints(typing.cast(Any, cls))
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
    values = {}
    for name, value in parameters.items():
        if name not in fields:
            elsewhere = getattr(cls, "elsewhere", {})
            raise UnknownNameError(unknown(f"parameter of {what}", name, fields, elsewhere))
        try:
            values[name] = coerce(hints[name], value)
        except TypeError:
            expected = f"{what}: parameter {name!r} expects {describe(hints[name])}, got {shown(value)}"
            raise ParameterError(expected) from None
    try:
        return cls(**values)
    except ParameterError as error:
        raise ParameterError(f"{what}: {error}") from None


def unknown(
    kind: str, name: object, known: Sequence[str], elsewhere: Mapping[str, str] = types.MappingProxyType({})
) -> str:
    """The message for an unknown name: the nearest known one, or where what it says is given, then all known ones."""
    folded = {other.casefold(): other for other in reversed(known)}
    near = difflib.get_close_matches(str(name), known, n=1)
    near = near or [folded[other] for other in difflib.get_close_matches(str(name).casefold(), folded, n=1)]
    hint = f", did you mean {near[0]!r}?" if near else ";"
    if words := elsewhere.get(str(name).casefold()):
        hint = f": {words};"
    listed = textwrap.shorten(", ".join(known) or "none", _LISTED, placeholder=f" ... ({len(known)} in all)")
    return f"unknown {kind}: {shown(name)}{hint} known: {listed}"


def shown(value: object) -> str:
    """A value as a grid file writes it, for an error message; long ones are shortened."""
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key}: {shown(inner)}' for key, inner in value.items())}}}"
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]} ... {text[-10:]} ({len(text) - 2} characters)"


def coerce(hint: Any, value: Any) -> Any:
    """`value` as the annotation `hint` asks for it, or TypeError. An int is a float; a bool is no number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if any(value is option or (type(value) is type(option) and value == option) for option in arguments):
            return value
    elif origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return coerce(option, value)
            except TypeError:
                continue
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(coerce(arguments[0], item) for item in value)
    elif hint is float:
        # A whole number beyond the largest float cannot even be asked whether it is finite.
        small = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if small and math.isfinite(value):
            return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hasattr(hint, "from_plain"):
        # A type of values that files write as something plainer.
        return hint.from_plain(value)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise TypeError(describe(hint))


def describe(hint: Any) -> str:
    """An annotation in words for an error message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(option) for option in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is tuple:
        return f"a list of ({describe(arguments[0])})"
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", type(None): "null"}
    return names.get(hint) or str(getattr(hint, "words", hint))


def require(condition: bool, name: str, expected: str, value: object) -> None:
    """Raise ParameterError unless `condition`: for the range checks of a member's `__post_init__`."""
    if not condition:
        raise ParameterError(f"parameter {name!r} expects {expected}, got {shown(value)}")
