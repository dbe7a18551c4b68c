"""One small typed registry, used by every family: rules, attacks, data sets, backbones, tasks.

A member of a family is a frozen, keyword-only dataclass: its fields are its parameters, its class variables say
what it is called, where it comes from and what it promises. A registry is explicit (members are imported by name),
ordered (tables and legends use its order) and closed: nothing is discovered, no import error is swallowed, and what is
not ours comes from the modules that the user names (see `signsym_core.extensions`).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from signsym_core import extensions
from signsym_core.registry.bounds import check_bounds
from signsym_core.registry.parameters import UnknownNameError, build, changed, rebuild, unknown


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
    #: Parameters that a grid and the command line have to state: none of their values is the usual one.
    no_default: ClassVar[tuple[str, ...]] = ()
    #: Names that people try as parameters, in small letters, with where what they say is given.
    elsewhere: ClassVar[Mapping[str, str]] = types.MappingProxyType({})

    def __post_init__(self) -> None:
        check_bounds(self)

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
