"""Imports point one way: the packages of signsym_core and of orchestrator, and their modules, form no circle."""

from __future__ import annotations

import ast
import functools
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imports(root):
    """For each module below `root` the modules below it that it imports, anywhere in its text."""
    files = {
        path.relative_to(root).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
        for package in ("orchestrator", "signsym_core")
        for path in (root / package).rglob("*.py")
    }
    graph = {}
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} imports relatively, which this test does not read"
                for alias in node.names:
                    # A module of the package, or a name in it.
                    name = f"{node.module}.{alias.name}"
                    names.add(name if name in files else node.module)
        graph[module] = (names & files.keys()) - {module}
    return graph


def packages(graph):
    """The same of packages: the first two words of each module's name."""
    joined = {}
    for module, others in graph.items():
        name = ".".join(module.split(".")[:2])
        joined.setdefault(name, set()).update(".".join(other.split(".")[:2]) for other in others)
    return {name: others - {name} for name, others in joined.items() if "." in name}


@functools.cache
def ours():
    return imports(ROOT)


@pytest.mark.parametrize("view", [lambda graph: graph, packages], ids=["modules", "packages"])
def test_no_circle(view):
    graph = view(ours())
    assert len(graph) > 20
    graphlib.TopologicalSorter(graph).prepare()


def test_a_circle_is_seen_also_inside_a_function(tmp_path):
    for package, text in (("attacks", "import signsym_core.rules.a"), ("rules", "def f():\n    from x import y")):
        (tmp_path / "signsym_core" / package).mkdir(parents=True)
        (tmp_path / "signsym_core" / package / "a.py").write_text(text)
    graphlib.TopologicalSorter(packages(imports(tmp_path))).prepare()
    later = "def f():\n    from signsym_core.attacks import a"
    (tmp_path / "signsym_core/rules/a.py").write_text(later)
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(packages(imports(tmp_path))).prepare()
