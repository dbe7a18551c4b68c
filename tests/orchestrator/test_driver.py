"""The process that drives a sweep for days holds no torch, and importing signsym_core none of the orchestrator's."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sweeps import ROOT

pytestmark = pytest.mark.slow

HEAVY = ("torch", "torchvision")


def imported(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "module", ["orchestrator.engine.running", "orchestrator.engine.sweep", "orchestrator.commands.sweep"]
)
def test_a_driver_has_no_torch(module):
    assert imported(module) == "[]\n"


def test_a_plan_has_torch_alone():
    # torchvision takes as long to import as torch, and only networks and data sets that are torchvision's need it.
    assert imported("orchestrator.plan.compile, orchestrator.work.execute") == "['torch']\n"


def test_the_test_can_fail():
    assert imported("torchvision") == f"{list(HEAVY)}\n"
