"""The cluster files: what the launcher, Kubernetes and a shell would say of them before any machine is paid for."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml
from nodes import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = ["gpu.yaml", "onprem.yaml"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launcher_accepts_the_file(name):
    util = pytest.importorskip("ray.autoscaler._private.util", reason="needs ray[default], the extra 'cluster'")
    config = yaml.safe_load((ROOT / "cluster" / name).read_text())
    util.validate_config(util.prepare_config(config))


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launcher_has_nothing_to_warn_of(name, capsys):
    commands = pytest.importorskip("ray.autoscaler._private.commands", reason="needs ray[default], the extra 'cluster'")
    start = yaml.safe_load((ROOT / "cluster" / name).read_text())["head_start_ray_commands"]
    commands.warn_about_bad_start_command(start)
    assert capsys.readouterr() == ("", "")
    # And that it would: the words it looks for are the only ones that differ.
    commands.warn_about_bad_start_command([command.removeprefix(": ray start; ") for command in start])
    assert "Ray runtime will not be started" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_node_gets_the_repository_the_token_and_no_command_that_ends_a_sweep(name):
    config = yaml.safe_load((ROOT / "cluster" / name).read_text())
    mounted = dict(config["file_mounts"])
    assert mounted.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    # By name: the launcher reads every byte of what is mounted, data and environments of gigabytes as well.
    assert mounted == {f"~/signsym/{place}": place for place in SHIPPED}
    commands = [*config["setup_commands"], *config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert not any("ray stop" in command for command in commands)
    for command in commands:
        for mentioned in re.findall(r"~/signsym/(\S+?)['\"]?(?:\s|$)", command):
            assert (ROOT / mentioned.removesuffix("[cluster]")).exists(), mentioned


@pytest.mark.parametrize("name", LAUNCHED)
def test_nothing_needless_travels_and_nothing_that_is_needed_stays(name):
    excluded = yaml.safe_load((ROOT / "cluster" / name).read_text())["rsync_exclude"]
    for needless in (".git", "data", "runs", "report", "ray_results", "__pycache__", ".venv", ".venv-lowest"):
        assert _matches(needless, excluded), needless
    for cache in (".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "signsym.egg-info"):
        assert _matches(cache, excluded), cache
    left = [
        path for place in SHIPPED for path in _files(ROOT / place) if any(_matches(x, excluded) for x in path.parts)
    ]
    assert left == []


def test_an_image_of_the_repository_is_without_what_the_launcher_leaves_out():
    ignored = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().splitlines()]
    for needless in (
        ".git",
        "data",
        "runs",
        "report",
        "ray_results",
        "__pycache__",
        ".venv",
        ".venv-lowest",
        ".mypy_cache",
    ):
        assert _matches(needless, ignored), needless
    assert not any(_matches(place, ignored) for place in SHIPPED)


def _matches(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _files(place):
    """What of the repository lies there, by its path in it; what Python leaves behind is none of it."""
    paths = place.rglob("*") if place.is_dir() else [place]
    return [path.relative_to(ROOT) for path in paths if path.is_file() and "__pycache__" not in path.parts]


def test_workers_are_packed_on_gpus_and_may_be_spot():
    workers = yaml.safe_load((ROOT / "cluster/gpu.yaml").read_text())["available_node_types"]["gpu"]
    assert workers["min_workers"] < workers["max_workers"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_the_kubernetes_job_is_whole_and_its_workers_inherit_the_heads_container():
    job = yaml.safe_load((ROOT / "cluster/kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["env"] == head["env"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in head["resources"]["limits"]


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0


#: Stands in for Ray: says how it was started.
RAY = """#!/bin/sh
echo "$@"
env | grep -E '^(RAY_TMPDIR|RAY_AUTH_MODE|OMP)'
"""


@pytest.fixture
def node(monkeypatch, tmp_path):
    """A folder with a short path, and a home with a token that others can read."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ray").write_text(RAY)
    (tmp_path / "bin/ray").chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0123456789abcdef" * 4)
    (tmp_path / ".ray/auth_token").chmod(0o644)
    short = Path(tempfile.mkdtemp(dir="/tmp", prefix="s-"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(short / "ray"))
    monkeypatch.setenv("SIGNSYM_RAY_PORT", "1")
    monkeypatch.delenv("SIGNSYM_STORAGE", raising=False)
    yield short
    shutil.rmtree(short)


def _start(*words):
    return subprocess.run(["bash", ROOT / "cluster/start.sh", *words], capture_output=True, text=True)


def test_ray_starts_where_nobody_else_can_look_and_with_a_token_that_nobody_else_can_read(node, tmp_path):
    (node / "ray").mkdir(mode=0o755)
    started = _start("head", "--num-cpus", "1")
    assert started.returncode == 0, started.stderr
    assert "start --head --port 1 --dashboard-host 127.0.0.1" in started.stdout
    assert started.stdout.splitlines()[0].endswith("--num-cpus 1")
    assert "RAY_AUTH_MODE=token" in started.stdout
    assert (node / "ray").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    joined = _start("worker", "10.0.0.1", "--block")
    assert joined.stdout.startswith(f"start --address 10.0.0.1:1 --temp-dir {node}/ray/ray ")


def test_a_long_path_of_temporary_files_does_not_stop_ray(node, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(node / ("x" * 80)))
    started = _start("head")
    assert f"RAY_TMPDIR=/tmp/signsym-{os.getuid()}\n" in started.stdout, started.stderr
    # Where it is chosen by hand it must be short enough.
    monkeypatch.setenv("RAY_TMPDIR", str(node / ("x" * 80)))
    refused = _start("head")
    assert refused.returncode == 2
    assert "expected RAY_TMPDIR of at most 37 characters" in refused.stderr


def test_a_start_that_cannot_succeed_says_why(node, monkeypatch):
    (node / "theirs").mkdir()
    (node / "ray").symlink_to(node / "theirs")
    refused = _start("head")
    assert refused.returncode == 2
    assert f"got {node}/ray of somebody else" in refused.stderr
    monkeypatch.setenv("RAY_TMPDIR", "/proc/ray")
    assert "need a folder that can be written; name one by RAY_TMPDIR" in _start("head").stderr
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "expected the command ray, found none" in _start("head").stderr
    monkeypatch.setenv("SIGNSYM_STORAGE", "s3://CHANGE-ME/signsym")
    assert "say where results go" in _start("worker", "10.0.0.1").stderr


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").iterdir()), ids=lambda path: path.name)
def test_no_secret_no_open_door_and_every_command_that_a_person_needs(path):
    text = path.read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|(?i:password)\s*[:=]", text)
    assert "0.0.0.0" not in text
    assert "IpPermissions" not in text
    if path.name not in ("start.sh", "profile.sh"):
        for what in ("sweep", "watch", "resume", "results", "end"):
            assert re.search(rf"^#   {what} ", text, re.MULTILINE), f"{path.name} does not say: {what}"
