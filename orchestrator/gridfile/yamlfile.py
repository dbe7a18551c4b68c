"""A YAML file as a tree in which every value has its line, so that any later error can name it.

Only the part of YAML that a grid needs is read:

- Plain numbers, `true`, `false` and `null` are those of YAML 1.2: `1e-5` is a number, while `yes`, `1:30` and `017`
  are no Boolean, no time and no octal number. Numbers that a computer cannot hold are refused here, once.
- Nothing is overwritten in silence and nothing is constructed: a key given twice, a tag (`!!python/...`), an anchor,
  an alias, a merge key and a second document are errors.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.gridfile.nodes import GridError, Node
from signsym_core.registry import shown

#: Nesting beyond this is no grid; bounds the recursion.
_DEEPEST = 20

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)


def read(path: Path) -> str:
    """The text of a file. Raises GridError for a file that cannot be read: no regular file, or not UTF-8."""
    try:
        if not path.is_file():
            raise GridError(f"{path}: expected a file, {'got a directory' if path.is_dir() else 'but there is none'}")
        data = path.read_bytes()
    except OSError as error:
        raise GridError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise GridError(f"{path}:{line}: expected UTF-8, got the byte 0x{data[error.start]:02x}") from None


def parse(text: str, where: Callable[[int], str], path: str = "") -> Node:
    """The tree of `text`; an empty text is the value null.

    `where` gives the place of a line, `path` the path of the top. Raises GridError for YAML that this module refuses.
    """
    if unusual := re.search("[\x85\u2028\u2029]", text):
        # Line breaks to YAML, but not to editors, whose line numbers would differ from those of errors.
        line = text.count("\n", 0, unusual.start()) + 1
        raise GridError(f"{where(line)}: expected printable characters, got {shown(unusual[0])}")
    try:
        return _Builder(text, where).document(path)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise GridError(f"{where(line)}: expected printable characters, got {shown(text[error.position])}") from None


def put(root: Node, setting: str) -> None:
    """Set one value of the tree from "KEY=VALUE", where KEY is its path and VALUE is YAML.

    Missing mappings on the path are created. Raises GridError for a setting without a key or "=" or of several lines,
    for a position outside a list, and for a path through a value that is neither list nor mapping.
    """
    key, equals, text = setting.partition("=")
    steps = key.split(".")
    if not equals or not all(steps) or not setting.isprintable():
        raise GridError(f"--set {shown(setting)}: expected KEY=VALUE, such as experiments.0.finetune.epochs=1")
    where = f"--set {key}"
    new = parse(text, lambda line: where, key)
    node = root
    for depth, step in enumerate(steps, start=1):
        fresh = new if depth == len(steps) else Node(where=where, path=".".join(steps[:depth]), value={})
        if isinstance(node.value, dict):
            if fresh is new:
                node.value[step] = new
            node = node.value.setdefault(step, fresh)
        elif isinstance(node.value, list):
            position = int(step) if re.fullmatch("[0-9]{1,9}", step) else len(node.value)
            if position >= len(node.value):
                last = len(node.value) - 1
                raise GridError(f"{where}: {node.path}: expected a position in 0 .. {last}, got {shown(step)}")
            if fresh is new:
                node.value[position] = new
            node = node.value[position]
        else:
            raise GridError(f"{where}: {node.path}: expected a mapping or a list to set {step!r} in, got {node.shown}")


class _Builder:
    """Builds a tree from the parser's events, which have tags, anchors and lines, and which come one by one, so that
    hostile nesting is refused before it is read."""

    def __init__(self, text: str, where: Callable[[int], str]) -> None:
        self._loader: Any = yaml.SafeLoader(text)
        self._where = where

    def document(self, path: str) -> Node:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Node(where=self._where(1), path=path, value=None)
        top = self._node(self._next(), path, 0)
        self._next()
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, path, "expected one document, got a second one")
        return top

    def _next(self) -> Any:
        try:
            return self._loader.get_event()
        except yaml.MarkedYAMLError as error:
            # A key without its colon is missed on a later line.
            at_key = error.context == "while scanning a simple key"
            mark = error.context_mark if at_key else error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise GridError(f"{self._where(line)}: expected YAML, got {self._fault(error)}") from None
        except (ValueError, OverflowError) as error:
            # PyYAML does not catch Python's error for an escape such as "\UFFFFFFFF".
            line = self._loader.get_mark().line + 1
            raise GridError(f"{self._where(line)}: expected YAML, got a fault: {error}") from None

    def _fault(self, error: yaml.MarkedYAMLError) -> str:
        """What is wrong, in the words of people who write grids where the parser's are its own."""
        problem = str(error.problem)
        if problem.startswith("expected <block end>"):
            token = problem.rpartition("found ")[2]
            if token in ("'}'", "']'", "','", "'<scalar>'"):
                token = token.replace("'<scalar>'", "a text")
                return f"{token} after the end of a value"
            begun = self._where(error.context_mark.line + 1 if error.context_mark else 1)
            return f"a line whose indent or '- ' does not fit those above it; what it stands in begins at {begun}"
        context = f" {error.context}" if error.context else ""
        return f"a fault{context}: {problem}{self._cause(error)}"

    def _cause(self, error: yaml.MarkedYAMLError) -> str:
        """Where the reason of a fault may be, when that is a line before the one in which the parser stops."""
        begun = error.context_mark.line + 1 if error.context_mark else 0
        if error.problem_mark and 0 < begun <= error.problem_mark.line:
            for word in ("quoted scalar", "flow sequence", "flow mapping"):
                if word in str(error.context):
                    return f"; it begins at {self._where(begun)}"
        if error.problem == "mapping values are not allowed here":
            return "; a key needs ': ' after it, in the line before too, and a text with ': ' in it needs quotes"
        if error.problem == "could not find expected ':'":
            return "; a key needs ': ' after it, with an ordinary space"
        if "'\\t'" in str(error.problem):
            return "; lines are indented by spaces, not by tabs"
        return ""

    def _error(self, event: Any, path: str, message: str) -> GridError:
        return Node(where=self._where(event.start_mark.line + 1), path=path, value=None).error(message)

    def _node(self, event: Any, path: str, depth: int) -> Node:
        where = self._where(event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._error(event, path, "expected a value, got an anchor or an alias: use `defaults`")
        if event.tag is not None:
            raise self._error(event, path, f"expected a value without a tag, got the tag {shown(event.tag)}")
        if depth > _DEEPEST:
            raise self._error(event, path, f"expected at most {_DEEPEST} levels, got more")
        if isinstance(event, yaml.ScalarEvent):
            return Node(where=where, path=path, value=self._scalar(event, path))
        if isinstance(event, yaml.SequenceStartEvent):
            nodes: list[Node] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                nodes.append(self._node(event, _joined(path, str(len(nodes))), depth + 1))
            return Node(where=where, path=path, value=nodes)
        members: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key, place = self._key(event, path), self._where(event.start_mark.line + 1)
            if key in members:
                raise self._error(event, path, f"expected each key once, got {key!r} again after {members[key].where}")
            value = self._node(self._next(), _joined(path, key), depth + 1)
            # The line of the key: a block value begins on a later line.
            members[key] = dataclasses.replace(value, where=place)
        return Node(where=where, path=path, value=members)

    def _key(self, event: Any, path: str) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
            raise self._error(event, path, "expected a key that is a plain text, got another value")
        if event.value == "<<" and event.style is None:
            raise self._error(event, path, "expected a key, got a merge key: use `defaults`")
        if not event.value or not event.value.isprintable():
            raise self._error(event, path, f"expected a key in printable characters, got {shown(event.value)}")
        return str(event.value)

    def _scalar(self, event: Any, path: str) -> bool | int | float | str | None:
        text = str(event.value)
        if not text.isprintable():
            raise self._error(event, path, f"expected printable characters on one line, got {shown(text)}")
        if event.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            # Longer texts are not converted: Python limits their length, with an error of its own.
            if len(text) <= 25 and abs(int(text)) < 2**63:
                return int(text)
            raise self._error(event, path, f"expected a number of at most 63 bits, got {shown(text)}")
        if _NOT_FINITE.fullmatch(text):
            raise self._error(event, path, f"expected a finite number, got {text}")
        if _FLOAT.fullmatch(text):
            value = float(text)
            vanished = value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])
            if math.isinf(value) or vanished:
                raise self._error(event, path, f"expected a number in the range of a float64, got {shown(text)}")
            return value
        return text


def _joined(path: str, step: str) -> str:
    return f"{path}.{step}" if path else step
