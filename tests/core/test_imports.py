"""The science stands alone: importing it brings torch, and nothing of the sweep."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import signsym_core

pytestmark = pytest.mark.slow

FORBIDDEN = ["ray", "pyarrow", "yaml", "pandas", "plotly", "foolbox", "orchestrator"]
PUBLIC = {
    *("ATTACKS", "BACKBONES", "DATASETS", "GRADIENTS", "RULES", "TASKS"),
    *("FineTune", "Outcome", "attack", "audit", "convert", "exact_gradient", "feedback", "fine_tune", "revert"),
    *("Codes", "Gallery", "encode", "mean_average_precision"),
}

PACKAGE = Path(signsym_core.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def brought_by(statement):
    """Forbidden packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*[name for name in {FORBIDDEN} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_science_brings_nothing_of_the_sweep():
    assert brought_by("import signsym_core, signsym_core.testing, signsym_core.statistics.intervals") == []


def test_the_check_itself_can_fail():
    assert brought_by("import signsym_core, yaml") == ["yaml"]


def test_public_names():
    found = {name: getattr(signsym_core, name) for name in dir(signsym_core) if not name.startswith("_")}
    of_ours = {name for name, value in found.items() if not isinstance(value, types.ModuleType)}
    assert of_ours - {"Any", "TYPE_CHECKING"} == PUBLIC


def test_an_unknown_name_is_refused_as_any_module_does():
    with pytest.raises(AttributeError, match="module 'signsym_core' has no attribute 'fgms'"):
        _ = signsym_core.fgms


def test_statistics_and_checks_need_no_torch():
    auditing = (f"auditing.{name}" for name in ("masking", "checks", "verdict", "evidence"))
    modules = ("statistics.intervals", *auditing, "registry")
    code = f"import sys, {', '.join(f'signsym_core.{name}' for name in modules)}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("name", sorted(PUBLIC - {"GRADIENTS"}))
def test_public_names_are_documented(name):
    assert getattr(signsym_core, name).__doc__


def named_in(code):
    """Packages that any import of a source text names, also one inside a function."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_module_of_the_science_imports_them_later_either(file):
    # Foolbox is imported in one place, when one of its attacks is named.
    allowed = {"foolbox"} if file == PACKAGE / "attacks" / "foolboxclasses.py" else set()
    assert named_in(file.read_text()) & set(FORBIDDEN) == allowed


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("statement", ["import {}", "import {}.part as p", "from {} import x", "def f(): import {}"])
def test_the_look_into_the_source_can_fail(statement, name):
    assert named_in(statement.format(name)) == {name}


def test_the_look_into_the_source_sees_the_package():
    assert len(FILES) > 30


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_re_exported_in_the_way_that_type_checkers_accept(name):
    assert f"import {name} as {name}\n" in (PACKAGE / "__init__.py").read_text()
