"""All benchmarks, one after the other, each in a process of its own: `make bench`."""

from __future__ import annotations

import subprocess
import sys

for module in ("training_step", "attacks", "retrieval", "orchestration", "planning", "explorer", "audit", "coverage"):
    print(f"== benchmarks.{module}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{module}"], check=True)
