"""The cluster files: what the launcher, Kubernetes and a shell would say of them before any machine is paid for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = ["gpu.yaml", "onprem.yaml"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launcher_accepts_the_file(name):
    util = pytest.importorskip("ray.autoscaler._private.util", reason="needs ray[default], the extra 'cluster'")
    config = yaml.safe_load((ROOT / "cluster" / name).read_text())
    util.validate_config(util.prepare_config(config))


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_node_gets_the_repository_the_token_and_no_command_that_ends_a_sweep(name):
    config = yaml.safe_load((ROOT / "cluster" / name).read_text())
    assert config["file_mounts"]["~/signsym"] == "."
    assert "~/.ray/auth_token" in config["file_mounts"]
    commands = [*config["setup_commands"], *config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert not any("ray stop" in command for command in commands)
    for command in commands:
        for mentioned in re.findall(r"~/signsym/(\S+?)['\"]?(?:\s|$)", command):
            assert (ROOT / mentioned.removesuffix("[cluster]")).exists(), mentioned


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


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").iterdir()), ids=lambda path: path.name)
def test_no_secret_no_open_door_and_every_command_that_a_person_needs(path):
    text = path.read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|(?i:password)\s*[:=]", text)
    assert "0.0.0.0" not in text
    assert "IpPermissions" not in text
    if path.name not in ("start.sh", "profile.sh"):
        for what in ("sweep", "watch", "resume", "results", "end"):
            assert re.search(rf"^#   {what} ", text, re.MULTILINE), f"{path.name} does not say: {what}"
