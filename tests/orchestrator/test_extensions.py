"""A member of one's own, from one's own package: in the registry, the conformance suite, a grid and its workers."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from sweeps import ROOT, TINY, finish, start

import signsym_core as ss
from orchestrator.commands.cli import main
from orchestrator.engine import connection
from orchestrator.store import Store
from signsym_core import extensions
from signsym_core.attacks import Attack
from signsym_core.attacks.noise import Noise
from signsym_core.registry import Registry

pytestmark = pytest.mark.slow


@pytest.fixture
def package(tmp_path):
    """A package with the attack of the guide, and the environment that names it."""
    text = (ROOT / "docs/add-an-attack.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    code = code.replace("@dataclasses", "@ss.ATTACKS.register\n@dataclasses")
    code = code.replace("from torch import Tensor\n", "from torch import Tensor\n\nimport signsym_core as ss\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("from mine.grey import Grey\n")
    (tmp_path / "mine/grey.py").write_text(code)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    return {**os.environ, "SIGNSYM_EXTENSIONS": "mine", "PYTHONPATH": path}


def python(code, environment):
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)


def test_it_is_in_the_registry_and_passes_the_conformance_suite(package):
    code = "import signsym_core as ss, signsym_core.testing as t; print(ss.ATTACKS.names[-1]); "
    code += "t.check_attack(ss.ATTACKS.build('grey', level=0.4))"
    done = python(code, package)
    assert (done.returncode, done.stdout) == (0, "grey\n"), done.stderr


def test_its_cells_are_swept_by_workers_that_know_it_and_shown_by_those_that_do_not(package, tmp_path):
    grid = TINY.replace("name: [fgsm, pgd], gradient: [feedback, exact]", "name: grey, level: 0.4")
    (tmp_path / "grid.yaml").write_text(grid)
    words = ("orchestrator/sweep.py", tmp_path / "grid.yaml", "--storage", tmp_path / "store")
    status, output = finish(start(*words, env={name: package[name] for name in ("SIGNSYM_EXTENSIONS", "PYTHONPATH")}))
    assert status == 0, output
    results = Store(str(tmp_path / "store")).results()
    assert set(results["attack"]) == {"none", "grey"}
    assert len(results) == 9
    assert "grey" not in ss.ATTACKS.names
    assert main(["report", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 0
    assert "grey" in (tmp_path / "out/index.html").read_text()


def test_a_module_that_cannot_be_imported_is_named(package):
    package["SIGNSYM_EXTENSIONS"] = "mine, theirs"
    done = python("import signsym_core as ss; ss.RULES.names", package)
    assert "ExtensionError: SIGNSYM_EXTENSIONS: the module 'theirs' cannot be imported" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nowhere", r"No module named 'nowhere'\); mend it at .*broken.py:1$"),
        ("import torch\n\ntorch.zeros(2, 3) @ torch.zeros(2)", r"RuntimeError: .*; mend it at .*broken.py:3$"),
    ],
)
def test_a_module_that_raises_is_told_where(tmp_path, monkeypatch, text, words):
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SIGNSYM_EXTENSIONS", "broken")
    with pytest.raises(extensions.ExtensionError, match=words):
        extensions.load()
    sys.modules.pop("broken", None)


@pytest.mark.parametrize("name", ["mine.py", "/home/me/mine.py"])
def test_a_path_in_the_place_of_a_module_is_told_its_module(monkeypatch, name):
    monkeypatch.setenv("SIGNSYM_EXTENSIONS", name)
    with pytest.raises(extensions.ExtensionError, match="not a path: SIGNSYM_EXTENSIONS=mine, with its folder on PYTH"):
        extensions.load()


def test_a_class_that_is_no_complete_member_is_refused():
    registry = Registry("attack", [])
    with pytest.raises(TypeError, match=r"the attack Bare is not complete: it lacks label = a text, a method run$"):
        registry.register(type("Bare", (Attack,), {"name": "bare", "citation": "none"}))
    with pytest.raises(TypeError, match=r"the attack Plain is no dataclass, .* expected @dataclasses.dataclass\("):
        registry.register(type("Plain", (Noise,), {"name": "plain"}))
    assert list(registry) == []


def test_a_name_that_is_taken_is_refused():
    registry = Registry("attack", [Noise])
    assert registry.register(Noise) is Noise
    other = dataclasses.dataclass(frozen=True, kw_only=True)(type("Noise", (Noise,), {"name": "noise"}))
    with pytest.raises(ValueError, match=r"attack 'noise' is taken by signsym_core.attacks.noise.Noise"):
        registry.register(other)


def test_the_driver_and_the_science_mean_the_same_variable():
    assert connection.EXTENSIONS == extensions.VARIABLE
