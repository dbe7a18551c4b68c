"""The science stands alone: importing it brings torch, and nothing of the sweep."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import signsym_core

FORBIDDEN = ["ray", "pyarrow", "yaml", "pandas", "plotly", "foolbox", "orchestrator"]
PUBLIC = {
    *("ATTACKS", "BACKBONES", "DATASETS", "GRADIENTS", "RULES", "TASKS"),
    *("FineTune", "Outcome", "attack", "convert", "exact_gradient", "feedback", "fine_tune", "revert"),
}


def brought_by(statement):
    """Forbidden packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*[name for name in {FORBIDDEN} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_science_brings_nothing_of_the_sweep():
    assert brought_by("import signsym_core, signsym_core.testing, signsym_core.stats") == []


def test_the_check_itself_can_fail():
    assert brought_by("import signsym_core, yaml") == ["yaml"]


def test_public_names():
    names = {n for n, v in vars(signsym_core).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
    assert names == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"GRADIENTS"}))
def test_public_names_are_documented(name):
    assert getattr(signsym_core, name).__doc__
