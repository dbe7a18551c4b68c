"""The process that drives a sweep for days holds no torch, and importing signsym_core none of the orchestrator's."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sweeps import ROOT

pytestmark = pytest.mark.slow

#: What takes seconds and half a gigabyte, and what is imported once each of these has been.
HEAVY = ("torch", "torchvision")
DRIVER = ("orchestrator.engine.running", "orchestrator.engine.sweep", "orchestrator.commands.cli")
PLAN = ("orchestrator.plan.compile", "orchestrator.work.execute")

LOOK = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(module, [name for name in {heavy!r} if name in sys.modules])
"""


def imported(*modules, path=ROOT):
    """What of `HEAVY` is there after each of the modules was imported, one after the other in one process."""
    words = [sys.executable, "-c", LOOK.format(heavy=HEAVY), *modules]
    done = subprocess.run(words, cwd=path, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_a_driver_has_no_torch():
    assert imported(*DRIVER) == dict.fromkeys(DRIVER, "[]")


def test_a_plan_has_torch_alone():
    # torchvision takes as long to import as torch, and only networks and data sets that are torchvision's need it.
    assert imported(*PLAN)["orchestrator.work.execute"] == "['torch']"


def test_the_test_can_fail(tmp_path):
    # In the place of the real ones: only their names are looked for.
    for name in HEAVY:
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "driver.py").write_text("import torchvision, torch")
    assert imported("sys", "driver", path=tmp_path) == {"sys": "[]", "driver": f"{list(HEAVY)}"}
