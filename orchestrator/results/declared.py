"""Members of a family as their source declares them, read as text: to import a member is to import torch."""

from __future__ import annotations

import ast
import importlib.resources
from collections.abc import Iterator

_PACKAGE = "signsym_core"
ROOT = importlib.resources.files(_PACKAGE)


def declared(module: str, registry: str) -> Iterator[dict[str, object]]:
    """The class variables of each member of a registry, in its order, as far as they are written as literals, and as
    "extends" the names of the classes that it extends.

    `registry` is the variable of `module`, a file of the package, that holds the registry: its members are the classes
    that are named in its value, each defined in the module or imported from one of signsym_core. A class without a
    literal `name` is left out.
    """
    tree = _parsed(module)
    modules = {
        alias.name: statement.module
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
    for name in _names(tree, registry):
        source = modules.get(name)
        if source is None:
            definition = _class(tree, name)
        elif source.startswith(f"{_PACKAGE}."):
            path = source.removeprefix(f"{_PACKAGE}.").replace(".", "/")
            file = f"{path}.py" if ROOT.joinpath(f"{path}.py").is_file() else f"{path}/__init__.py"
            definition = _class(_parsed(file), name)
        else:
            continue
        variables = _literals([] if definition is None else definition.body)
        if definition is not None and "name" in variables:
            yield variables | {"extends": tuple(map(ast.unparse, definition.bases))}


def constant(module: str, variable: str) -> tuple[str, ...]:
    """The texts of a variable of `module`, a file of the package, that is written as a literal. Raises KeyError."""
    for statement in _parsed(module).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == variable:
            return tuple(map(str, ast.literal_eval(statement.value)))
    raise KeyError(f"{module}: {variable}")


def _parsed(module: str) -> ast.Module:
    return ast.parse(ROOT.joinpath(module).read_text(encoding="utf-8"))


def _names(tree: ast.Module, variable: str) -> list[str]:
    """The names within the value of a module's variable, in the order of the text."""
    for statement in tree.body:
        targets = [*getattr(statement, "targets", ()), getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            value = getattr(statement, "value", None)
            names = [node for node in ast.walk(value or statement) if isinstance(node, ast.Name)]
            return [node.id for node in sorted(names, key=lambda node: (node.lineno, node.col_offset))]
    return []


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    classes = (statement for statement in tree.body if isinstance(statement, ast.ClassDef) and statement.name == name)
    return next(classes, None)


def _literals(body: list[ast.stmt]) -> dict[str, object]:
    variables: dict[str, object] = {}
    for statement in body:
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name) and isinstance(statement.value, ast.Constant):
            variables[target.id] = statement.value.value
    return variables
