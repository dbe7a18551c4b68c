"""The wheel holds all that the commands need: it is built, unpacked elsewhere, and used without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "explorer"))
from stores import fill

from signsym_core import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "grids", "orchestrator", "signsym_core"]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves its files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "copy").mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / "copy" / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / "copy" / name)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=folder / "copy", check=True, capture_output=True)
    shutil.rmtree(folder / "copy")
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def signsym(wheel, tmp_path_factory):
    """The command of the unpacked wheel, in a folder without anything of the checkout; returns what it prints."""
    home = tmp_path_factory.mktemp("home")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home / "site")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIGNSYM_")}
    # What the tests' own path has beside the checkout, such as a folder of libraries, is found after the wheel.
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path) != ROOT]
    environment["PYTHONPATH"] = os.pathsep.join([str(home / "site"), *others])

    def run(*words):
        command = [sys.executable, "-P", "-m", "orchestrator.commands.cli", *words]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.home = home
    return run


def test_the_wheel_names_its_version_command_licence_and_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        information = f"signsym-{__version__}.dist-info"
        assert "signsym = orchestrator.commands.cli:main" in archive.read(f"{information}/entry_points.txt").decode()
        assert f"Version: {__version__}\n" in archive.read(f"{information}/METADATA").decode()
    assert {"signsym_core/py.typed", "orchestrator/py.typed", f"{information}/licenses/LICENSE"} <= set(names)
    assert {name.partition("/")[0] for name in names} == {"orchestrator", "signsym_core", information}
    kept = {str(path.relative_to(ROOT)) for name in ("orchestrator", "signsym_core") for path in files(ROOT / name)}
    assert {name for name in names if not name.startswith(information)} == kept


def files(folder):
    """The files of a package, through its link to the grids too."""
    linked = [path for path in folder.iterdir() if path.is_symlink()]
    return [
        path
        for place in (folder, *linked)
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def test_its_command_says_its_version_and_knows_the_shipped_grids_by_name(signsym):
    assert signsym("--version") == f"signsym {__version__}\n"
    shipped = sorted(path.stem for path in (ROOT / "grids").glob("*.yaml"))
    assert [line.split()[0] for line in signsym("grids").splitlines()] == shipped
    printed = signsym("plan", "quickstart", "--storage", "store")
    assert f"grid: {signsym.home / 'site/orchestrator/grids/quickstart.yaml'}" in printed
    assert "quickstart: 700 cells" in printed


def test_its_report_finds_its_template_and_the_papers_values(signsym):
    fill(signsym.home / "store", shares={("usf", "exact"): {0.0: 0.95, 0.1: 0.35}}, seeds=(0,), images=20)
    signsym("report", "store", "--out", "out")
    assert "uSF" in (signsym.home / "out/index.html").read_text()
    assert (signsym.home / "out/tables-classification.html").exists()
