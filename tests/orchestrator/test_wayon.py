"""The command that goes on with a sweep works where it is read."""

from __future__ import annotations

import pytest

from orchestrator.engine.resume_command import command

SCRIPT = "orchestrator/sweep.py"
SLURM = {"SLURM_JOB_ID": "12"}


@pytest.mark.parametrize(
    ("typed", "more", "joined", "environment", "line"),
    [
        ([SCRIPT, "g.yaml"], [], True, {}, f"python {SCRIPT} g.yaml"),
        ([SCRIPT, "g.yaml", "--retry-failed"], ["--retry-failed"], True, {}, f"python {SCRIPT} g.yaml --retry-failed"),
        (["/x/bin/signsym", "sweep", "a b.yaml"], [], True, {}, "/x/bin/signsym sweep 'a b.yaml'"),
        ([SCRIPT, "g.yaml", "--address", "h:1"], [], True, {}, f"python {SCRIPT} g.yaml --address h:1"),
        ([SCRIPT, "g.yaml", "--address", "h:1", "--set", "a=1"], [], False, {}, f"python {SCRIPT} g.yaml --set a=1"),
        ([SCRIPT, "--address=h:1", "g.yaml"], [], False, {}, f"python {SCRIPT} g.yaml"),
        (
            [SCRIPT, "g.yaml", "--storage", "/s", "--address", "10.0.0.1:20012"],
            ["--retry-failed"],
            True,
            SLURM,
            "sbatch cluster/slurm.sh g.yaml --storage /s --retry-failed",
        ),
        (
            [SCRIPT, "g.yaml"],
            ["--retry-failed"],
            True,
            SLURM | {"SIGNSYM_COMMAND": "sbatch -N 4 mine.sh 'my grid.yaml'"},
            "sbatch -N 4 mine.sh 'my grid.yaml' --retry-failed",
        ),
        (["/home/u/sweep.py", "g.yaml"], [], True, {}, f"ray submit CLUSTER.yaml {SCRIPT} g.yaml"),
        (
            ["/home/u/sweep.py", "g.yaml", "--storage", "s3://b/x"],
            ["--retry-failed"],
            True,
            {},
            f"ray submit CLUSTER.yaml {SCRIPT} g.yaml -- --storage s3://b/x --retry-failed",
        ),
    ],
)
def test_the_way_on(typed, more, joined, environment, line, monkeypatch):
    monkeypatch.setattr("sys.argv", typed)
    for name in ("SIGNSYM_COMMAND", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command(*more, joined=joined) == line
