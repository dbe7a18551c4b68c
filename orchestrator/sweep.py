"""The sweep as a script: python orchestrator/sweep.py GRID, or through `ray submit`.

`ray submit` copies this file alone to the head's home, as ~/sweep.py, and runs it there; it turns every exit status but
0 into 1. So the script looks for the packages, stops where their version differs from its own, joins the cluster that
it was submitted to, and leaves its exit status as its last line and in sweep.status beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Where cluster files put the repository on every node.
MOUNTED = Path("~/signsym")
WRONG = 2


def main() -> int:
    """Run the sweep that the command line asks for and return its exit status."""
    script = Path(__file__).resolve()
    root = script.parents[1]
    copied = not (root / "orchestrator" / "__init__.py").is_file()
    if copied:
        root = Path(os.environ.get("SIGNSYM_ROOT", MOUNTED)).expanduser()
        reason = _mismatch(script, root)
        if reason:
            print(f"sweep.py: {reason}", file=sys.stderr)
            return WRONG
        os.environ.setdefault("RAY_ADDRESS", "auto")
    # Python puts the script's own folder on sys.path, not the folder that holds the packages.
    sys.path[:] = [str(root), *(place for place in sys.path if place != str(script.parent))]
    from orchestrator.commands.cli import main as run

    return run(["sweep", *sys.argv[1:]])


def _mismatch(script: Path, root: Path) -> str | None:
    """Why the script must not run with the packages below `root`; None where it may."""
    same = root / "orchestrator" / "sweep.py"
    if not same.is_file():
        return (
            f"expected the repository at {root}, found none there. The cluster file's file_mounts should put it there; "
            f"another place can be named by SIGNSYM_ROOT"
        )
    if same.read_bytes() != script.read_bytes():
        return (
            f"{script} is not the version that the cluster has in {root}: `ray submit` copies the script alone. Bring "
            f"the rest up to date first: ray up --no-restart --yes CLUSTER.yaml"
        )
    return None


def _with_status() -> int:
    """`main`, with its exit status printed and written to a file: `ray submit` does not pass it on."""
    status = 1
    try:
        status = main()
    except SystemExit as stop:
        # The command line's own errors.
        status = stop.code if isinstance(stop.code, int) else WRONG
    finally:
        script = Path(__file__).resolve()
        if script.parent.name != "orchestrator":
            script.with_suffix(".status").write_text(f"{status}\n")
            print(f"sweep.py: exit status {status}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(_with_status())
