"""The script that travels alone: it finds the packages, refuses another version of itself, and leaves its status."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from sweeps import ROOT, TINY

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "orchestrator" / "sweep.py"


@pytest.fixture
def head(tmp_path):
    """A home with the script alone, as `ray submit` leaves it, and the repository where a cluster file mounts it."""
    shutil.copy(SCRIPT, tmp_path / "sweep.py")
    (tmp_path / "signsym").symlink_to(ROOT)

    def run(*arguments, **environment):
        words = [sys.executable, tmp_path / "sweep.py", *arguments]
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SIGNSYM_", "PYTHON"))
        }
        kept |= {"HOME": str(tmp_path)} | environment
        done = subprocess.run(words, cwd=tmp_path, env=kept, capture_output=True, text=True)
        assert f"sweep.py: exit status {done.returncode}" in done.stdout
        assert (tmp_path / "sweep.status").read_text() == f"{done.returncode}\n"
        return done

    run.home = tmp_path
    return run


def test_it_finds_the_packages_and_the_grid_of_the_repository(head):
    done = head("grids/quickstart.yaml", "--plan")
    assert done.returncode == 0, done.stderr
    assert "quickstart: 700 cells" in done.stdout
    assert f"grid: {ROOT / 'grids/quickstart.yaml'}" in done.stdout


def test_a_grid_beside_it_goes_before_that_of_the_repository_which_a_variable_may_name(head):
    (head.home / "signsym").unlink()
    (head.home / "grids").mkdir()
    (head.home / "grids/quickstart.yaml").write_text(TINY.replace("name: tiny", "name: mine"))
    done = head("grids/quickstart.yaml", "--plan", SIGNSYM_ROOT=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "mine: 27 cells" in done.stdout


def test_another_version_of_itself_is_refused_with_what_to_do(head):
    with (head.home / "sweep.py").open("a") as script:
        script.write("# newer\n")
    done = head("grids/quickstart.yaml", "--plan")
    assert done.returncode == 2
    assert "ray up --no-restart" in done.stderr


def test_without_the_repository_it_says_where_it_was_looked_for(head):
    (head.home / "signsym").unlink()
    done = head("grids/quickstart.yaml", "--plan")
    assert done.returncode == 2
    assert str(head.home / "signsym") in done.stderr


@pytest.mark.parametrize("arguments", [("grids/none.yaml",), ("--fast",), ()])
def test_a_wrong_request_is_2(head, arguments):
    assert head(*arguments, "--plan").returncode == 2


def test_beside_its_package_it_leaves_no_status(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = [sys.executable, SCRIPT, "tiny.yaml", "--plan", "--storage", tmp_path / "store"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit status" not in done.stdout
    assert not (SCRIPT.parent / "sweep.status").exists()
