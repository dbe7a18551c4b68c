"""Triton's kernels without a GPU: in its interpreter, which a process chooses before it imports them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="this build of torch comes without Triton"
)


def run_interpreted(script, monkeypatch):
    """Run a script, which prints "compared" at its end, in a process whose kernels are interpreted."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    here = Path(__file__).parent
    # The packages of this checkout; the script imports test modules from the folder that it runs in.
    monkeypatch.setenv("PYTHONPATH", str(here.parents[1]), prepend=os.pathsep)
    ran = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True)
    assert ran.stdout == "compared\n", ran.stderr
