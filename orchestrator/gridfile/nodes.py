"""The tree of a grid file, in which every value has its place, and the errors that name this place."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from signsym_core.registry import shown, unknown


class GridError(ValueError):
    """The errors of a grid: one line for each problem, `file:line: path: expected ..., got ...`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Problems:
    """Collects errors, so that one reading of a file reports all of them."""

    def __init__(self) -> None:
        self._messages: dict[str, None] = {}

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Collect a GridError of the block instead of raising it."""
        try:
            yield
        except GridError as error:
            self._messages |= dict.fromkeys(error.problems)

    def check(self) -> None:
        """Raise one GridError with all collected problems, each once, if there are any."""
        if self._messages:
            raise GridError(*self._messages)


@dataclasses.dataclass(kw_only=True, eq=False)
class Node:
    """A value of the file: a scalar, a list of nodes or a mapping to nodes."""

    #: "grids/paper.yaml:12", or "--set seeds" for a value from the command line.
    where: str
    #: Keys and positions from the top, such as "experiments.0.finetune"; "" is the top itself.
    path: str
    value: bool | int | float | str | list[Node] | dict[str, Node] | None

    def error(self, message: str) -> GridError:
        return GridError(f"{self.where}: {self.path}: {message}" if self.path else f"{self.where}: {message}")

    def expected(self, what: str) -> GridError:
        return self.error(f"expected {what}, got {self.shown}")

    @property
    def shown(self) -> str:
        """The value as an error shows it."""
        if isinstance(self.value, list):
            return "a list" if self.value else "an empty list"
        if isinstance(self.value, dict):
            return "a mapping" if self.value else "an empty mapping"
        return shown(self.value)

    @property
    def plain(self) -> object:
        """The value as Python's lists, dicts and scalars."""
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        return self.value

    def text(self, what: str = "a text") -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.expected(what)
        return self.value

    def integer(self, least: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < least:
            raise self.expected(f"a whole number, at least {least}")
        return self.value

    def number(self, what: str) -> int | float:
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self.expected(what)
        return self.value

    def entries(self) -> list[Node]:
        """The members of a list, which must not be empty; any other value counts as a list of one."""
        if not isinstance(self.value, list):
            return [self]
        if not self.value:
            raise self.expected("at least one value")
        return self.value

    def mapping(self, kind: str, known: Sequence[str] | None = None) -> dict[str, Node]:
        """The mapping, called `kind` in errors; with `known`, every key must be one of these."""
        if not isinstance(self.value, dict):
            # Some kinds name the keys themselves.
            keys = [key for key in known or () if key not in kind]
            of = f": it is a mapping of {', '.join(known or ())}" if keys else ""
            raise self.error(f"expected {kind}, got {self.shown}{of}")
        problems = Problems()
        for key, node in self.value.items():
            with problems.kept():
                if known is not None and key not in known:
                    raise node.error(unknown(f"key of {kind.partition(':')[0]}", key, known))
        problems.check()
        return self.value
