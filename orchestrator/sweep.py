"""The sweep as a script: python orchestrator/sweep.py GRID, or through `ray submit`."""

from __future__ import annotations

import sys
from pathlib import Path

# Run by its path, the script finds its own folder on sys.path, not the folder that holds the packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
