"""One small typed registry, used by every family: rules, attacks, data sets, backbones, tasks.

A member of a family is a frozen, keyword-only dataclass: its fields are its parameters, its class variables say
what it is called, where it comes from and what it promises. A registry is explicit (members are imported by name),
ordered (tables and legends use its order) and closed: nothing is discovered, no import error is swallowed, and what is
not ours comes from the modules that the user names (see `signsym_core.extensions`).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from signsym_core import extensions

#: Characters of a value, and of a list of names, beyond which an error shortens them.
_SHOWN, _LISTED = 60, 300


class UnknownNameError(ValueError):
    """A name that a registry does not hold, or a parameter that a member does not have."""


class ParameterError(ValueError):
    """A parameter of a known name with a value of the wrong type or out of range."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """What every member of every family has; its dataclass fields are its parameters."""

    #: How grids, tables and the command line call it.
    name: ClassVar[str]
    #: How figures and prose print it.
    label: ClassVar[str]
    #: The source of the method, with the number of the equation where there is one.
    citation: ClassVar[str]
    #: Promises that the conformance suites check, such as "sign-symmetric" or "white-box".
    tags: ClassVar[frozenset[str]] = frozenset()

    def parameters(self) -> dict[str, Any]:
        """All parameters with their resolved values, in the order of their definition."""
        return dataclasses.asdict(self)

    def changed(self) -> dict[str, Any]:
        """The parameters that columns tell: see `changed`."""
        return changed(self)


M = TypeVar("M", bound=Member)


class Registry(Generic[M]):
    """The members of one family by name, in the order in which tables and legends show them.

    Members of a library have names `library:NAME`. They are made when they are named and never listed: `libraries`
    has, by the library's name, what returns the member of such a name or raises UnknownNameError.
    """

    def __init__(
        self,
        family: str,
        members: Sequence[type[M]],
        libraries: Mapping[str, Callable[[str], type[M]]] = types.MappingProxyType({}),
    ) -> None:
        self.family, self.libraries = family, libraries
        self._members = {member.name: member for member in members}
        if len(self._members) != len(members):
            raise ValueError(f"two members of the family {family!r} have one name: {[m.name for m in members]}")

    def register(self, member: type[M]) -> type[M]:
        """Add a member of one's own after ours, as a decorator too.

        Raises TypeError for a class that is no complete member, and ValueError where its name is taken.
        """
        _refuse_incomplete(self.family, member)
        known = self._members.setdefault(member.name, member)
        if known is not member:
            owner = f"{known.__module__}.{known.__qualname__}"
            raise ValueError(f"the name of the {self.family} {member.name!r} is taken by {owner}")
        return member

    def _known(self) -> dict[str, type[M]]:
        extensions.load()
        return self._members

    def __iter__(self) -> Iterator[type[M]]:
        return iter(self._known().values())

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        try:
            return bool(self[typing.cast(str, name)])
        except UnknownNameError:
            return False

    def __getitem__(self, name: str) -> type[M]:
        if name in self._known():
            return self._members[name]
        library = name.partition(":")[0] if isinstance(name, str) else None
        if library in self.libraries and name != library:
            return self.libraries[library](name)
        known = [*self.names, *(f"{prefix}:NAME" for prefix in self.libraries)]
        raise UnknownNameError(f"{unknown(self.family, name, known)}. {extensions.hint()}")

    @property
    def names(self) -> list[str]:
        return list(self._known())

    def build(self, name: str, **parameters: Any) -> M:
        """The member `name` with `parameters`, each checked against its declared type.

        Raises UnknownNameError for a name or a parameter that does not exist (with the nearest known one) and
        ParameterError for a value of the wrong type or out of range.
        """
        return build(self[name], f"{self.family} {name!r}", parameters)

    def rebuild(self, described: Mapping[str, Any]) -> M:
        """The member of a stored description, {"name": ..., "parameters": ...}: see `rebuild`."""
        name = described["name"]
        return rebuild(self[name], f"{self.family} {name!r}", described["parameters"])


def _refuse_incomplete(family: str, member: type[Member]) -> None:
    """Raise TypeError for a class that lacks a name, a label, a source, a method or what makes parameters of fields."""
    what = f"the {family} {member.__qualname__}"
    lacking = [f"{a} = a text" for a in ("name", "label", "citation") if not isinstance(getattr(member, a, None), str)]
    lacking += [f"a method {method}" for method in sorted(getattr(member, "__abstractmethods__", ()))]
    if lacking:
        raise TypeError(f"{what} is not complete: it lacks {', '.join(lacking)}")
    if "__dataclass_fields__" not in vars(member):
        raise TypeError(
            f"{what} is no dataclass, so that its fields are no parameters: expected "
            f"@dataclasses.dataclass(frozen=True, kw_only=True) directly above the class, and register above that"
        )


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


def build(cls: type[D], what: str, parameters: dict[str, Any]) -> D:
    """An instance of the dataclass `cls` from `parameters`; `what` names it in errors."""
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, cls))]
    values = {}
    for name, value in parameters.items():
        if name not in fields:
            raise UnknownNameError(unknown(f"parameter of {what}", name, fields))
        try:
            values[name] = coerce(hints[name], value)
        except TypeError:
            expected = f"{what}: parameter {name!r} expects {describe(hints[name])}, got {shown(value)}"
            raise ParameterError(expected) from None
    try:
        return cls(**values)
    except ParameterError as error:
        raise ParameterError(f"{what}: {error}") from None


def unknown(kind: str, name: object, known: Sequence[str]) -> str:
    """The message for an unknown name: the nearest known one, then all of them."""
    folded = {other.casefold(): other for other in reversed(known)}
    near = difflib.get_close_matches(str(name), known, n=1)
    near = near or [folded[other] for other in difflib.get_close_matches(str(name).casefold(), folded, n=1)]
    hint = f", did you mean {near[0]!r}?" if near else ";"
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
