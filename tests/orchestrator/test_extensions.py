"""A member of one's own, from one's own package: in the registry, the conformance suite, and a sweep on a bucket."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from places import SECRET
from sweeps import ONE, ROOT, TINY

import signsym_core as ss
from orchestrator.commands.cli import main
from orchestrator.engine import connection
from orchestrator.store import Store
from signsym_core import extensions
from signsym_core.attacks import Attack
from signsym_core.attacks.noise import Noise
from signsym_core.registry import Registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with the attack of the guide, and the environment that names it."""
    folder = tmp_path_factory.mktemp("package")
    text = (ROOT / "docs/add-an-attack.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    code = code.replace("@dataclasses", "@ss.ATTACKS.register\n@dataclasses")
    code = code.replace("from torch import Tensor\n", "from torch import Tensor\n\nimport signsym_core as ss\n")
    (folder / "mine").mkdir()
    (folder / "mine/__init__.py").write_text("from mine.grey import Grey\n")
    (folder / "mine/grey.py").write_text(code)
    path = os.pathsep.join([str(ROOT), str(folder)])
    return {**os.environ, "SIGNSYM_EXTENSIONS": "mine", "PYTHONPATH": path}


def python(code, environment):
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)


def test_it_is_in_the_registry_and_passes_the_conformance_suite(package):
    code = "import signsym_core as ss, signsym_core.testing as t; print(ss.ATTACKS.names[-1]); "
    code += "t.check_attack(ss.ATTACKS.build('grey', level=0.4))"
    done = python(code, package)
    assert (done.returncode, done.stdout) == (0, "grey\n"), done.stderr


@pytest.fixture(scope="module")
def swept(package, bucket, tmp_path_factory):
    """The place of a sweep of its cells on a bucket, what the sweep printed, and how its server is reached."""
    grid = tmp_path_factory.mktemp("swept") / "grid.yaml"
    text = TINY.replace("name: [fgsm, pgd], gradient: [feedback, exact]", "name: grey, level: 0.4")
    grid.write_text(text.replace("rule: [bp, usf, brsf]", "rule: [usf]"))
    server = {"AWS_ENDPOINT_URL": bucket, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET}
    server |= {"AWS_DEFAULT_REGION": "us-east-1"}
    words = [sys.executable, "orchestrator/sweep.py", grid, "--storage", "s3://sweeps/extended"]
    # On the host's own network: the server is there. Ray asks for its token as in every local sweep.
    done = subprocess.run(words, cwd=ROOT, env=package | server | ONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return "s3://sweeps/extended", done.stdout, server


@pytest.mark.usefixtures("undrawn")
def test_its_cells_are_swept_by_workers_that_know_it_and_shown_by_those_that_do_not(swept, tmp_path, monkeypatch):
    place, _, server = swept
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    results = Store(place).results()
    assert set(results["attack"]) == {"none", "grey"}
    assert len(results) == 3
    assert "grey" not in ss.ATTACKS.names
    assert main(["report", place, "--out", str(tmp_path / "out")]) == 0
    assert "grey" in (tmp_path / "out/index.html").read_text()


def test_a_sweep_on_a_bucket_leaves_no_secret(swept):
    place, output, server = swept
    assert "Complete: all 3 cells have a result." in output
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": server["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": SECRET}
    client = boto3.client("s3", endpoint_url=server["AWS_ENDPOINT_URL"], **keys)
    listed = client.list_objects_v2(Bucket="sweeps", Prefix=place.rpartition("/")[2])["Contents"]
    assert {entry["Key"].split("/")[1] for entry in listed} >= {"results", "outcomes", "models", "grids", "events"}
    for entry in listed:
        body = client.get_object(Bucket="sweeps", Key=entry["Key"])["Body"].read()
        assert SECRET.encode() not in body, entry["Key"]


def test_a_module_that_cannot_be_imported_is_named(package):
    done = python("import signsym_core as ss; ss.RULES.names", package | {"SIGNSYM_EXTENSIONS": "mine, theirs"})
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
