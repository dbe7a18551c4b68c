"""All benchmarks, one after the other, each in a process of its own: `make bench`."""

from __future__ import annotations

import subprocess
import sys

for module in ("benchmarks.training_step", "benchmarks.attacks", "benchmarks.orchestration", "benchmarks.planning"):
    print(f"== {module}", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
