"""`signsym audit` of stores of 5,000 to 20,000 results with 100 images each, made up: seconds, and how they grow.

    python -m benchmarks.audit [--results N ...]

There is no peer: what counts is that twice the store takes twice the time, beside the start of Python. Models are not
probed, since there are none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.explorer import make, show

IMAGES, SEEDS = 100, 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    for results in parser.parse_args().results:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), results, results * IMAGES, SEEDS)
            started, before = time.perf_counter(), os.times().children_user
            subprocess.run(
                [sys.executable, "-m", "orchestrator.commands.cli", "audit", folder],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            show(f"audit of {results:,} results, s", time.perf_counter() - started)
            show("    of a processor, s", os.times().children_user - before)


if __name__ == "__main__":
    main()
