"""The command that resumes a sweep, as it must be typed where the sweep was started."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def command(*added: str, joined: bool = True) -> str:
    """The command that was typed, with `added` at its end.

    A script that starts a sweep states it in SIGNSYM_COMMAND. Inside a SLURM job it is the `sbatch` line that submits
    another job, and on a head to which `ray submit` copied the script, the line for the machine that submitted it. The
    address of a Ray is left out where that Ray belongs to the job, or has ended (`joined` is False).
    """
    if stated := shlex.split(os.environ.get("SIGNSYM_COMMAND", "")):
        return shlex.join([*(word for word in stated if word not in added), *added])
    words = [word for word in sys.argv if word not in added]
    script, arguments = words[0], [*words[1:], *added]
    on_slurm = "SLURM_JOB_ID" in os.environ
    if on_slurm or not joined:
        arguments = _without_address(arguments)
    if on_slurm:
        return shlex.join(["sbatch", "cluster/slurm.sh", *arguments])
    if Path(script).name == "sweep.py" and Path(script).resolve().parent.name != "orchestrator":
        grid = [word for word in arguments[:1] if not word.startswith("-")]
        options = arguments[len(grid) :]
        words = ["ray", "submit", "CLUSTER.yaml", "orchestrator/sweep.py", *grid]
        return shlex.join([*words, *(["--", *options] if options else [])])
    return shlex.join([*(["python"] if script.endswith(".py") else []), script, *arguments])


def _without_address(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--address" and not word.startswith("--address="):
            kept.append(word)
        skip = word == "--address"
    return kept
