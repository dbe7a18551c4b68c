"""The cluster launcher for real: a head and a worker behind sshd, `ray up`, and the sweep as people submit it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from gate import HELD, Gate
from nodes import FAR, JOINED, NEAR, ROOT, TWO_MACHINES, inside, repository, why_not
from sweeps import TINY

from orchestrator.store import Store

PROGRAMS = ["sshd", "ssh", "ssh-keygen", "rsync", "ip", "ss", "pgrep", str(Path(sys.executable).with_name("ray"))]
REASON = why_not(*PROGRAMS)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

#: An sshd on each machine: the launcher reaches both by their addresses, as the same user with homes of their own.
SSHD = """
mount --bind {folder}/near/passwd /etc/passwd
{sshd} -f {folder}/near/sshd_config
far 'mount --bind {folder}/far/passwd /etc/passwd; exec {sshd} -D -f {folder}/far/sshd_config' &
export HOME={folder}/laptop/home && cd {folder}/laptop/repository
step() {{ echo "== $1"; shift; timeout 600 "$@" </dev/null 2>&1; status=$?; echo "== status $status"; return $status; }}
EXEC="ray exec --no-config-cache cluster/test.yaml"
SUBMIT="ray submit --no-config-cache cluster/test.yaml orchestrator/sweep.py"
"""

STEPS = """
step up ray up --yes --no-config-cache cluster/test.yaml || exit
step joined python {folder}/joined.py || exit
until ls {folder}/gate/training-waiting-near-* {folder}/gate/training-waiting-far-* >/dev/null 2>&1; do
    sleep 0.1
done && rm {folder}/gate/training-closed-* &
step sweep $SUBMIT grids/held.yaml
step listening ss -Hltn
step stranger env RAY_AUTH_MODE=disabled ip netns exec far ray status --address {near}:6379
step client env RAY_AUTH_MODE=disabled ip netns exec far python {folder}/client.py
step dashboard ip netns exec far python -c 'import socket; socket.create_connection(("{near}", 8265), 5)'
step failing $SUBMIT grids/failing.yaml -- --storage {folder}/failing
step failing-status $EXEC 'cat ~/sweep.status; signsym status $SIGNSYM_STORAGE'
step job env RAY_AUTH_MODE=token ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
    python orchestrator/sweep.py grids/wider.yaml
echo '# edited' >> orchestrator/sweep.py
step stale $SUBMIT grids/held.yaml
step update ray up --yes --no-restart --no-config-cache cluster/test.yaml
step again $SUBMIT grids/held.yaml
step down ray down --yes cluster/test.yaml
step left pgrep -x -a raylet
"""

#: Ray Client without a token; one try, as its three take half a minute.
CLIENT = f"""
from ray.util.client import ray
ray.connect("{NEAR}:10001", connection_retries=1)
"""

#: Stands in for pip, which would download gigabytes: leaves word of how it was called.
PIP = """#!/bin/sh
for word; do echo "$word"; done > ~/pip.log
"""


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """Output of each step, by its name, and the folder of both machines and of the laptop."""
    folder = tmp_path_factory.mktemp("ssh")
    (folder / "laptop/home/.ray").mkdir(parents=True)
    key = folder / "laptop/home/id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    gate = Gate(folder / "gate")
    for name, address in (("near", NEAR), ("far", FAR)):
        _machine(folder / name, address, key.with_suffix(".pub"), gate.environment)
        # Opened when each has a fine-tune: neither does all the work while the other starts its first process.
        gate.close(host=name)
    (folder / "laptop/home/.ray/auth_token").write_text("0123456789abcdef" * 4)
    (folder / "laptop/home/.ray/auth_token").chmod(0o644)
    (folder / "joined.py").write_text(JOINED)
    (folder / "client.py").write_text(CLIENT)
    laptop = repository(folder / "laptop/repository")
    (laptop / "grids/held.yaml").write_text(HELD)
    (laptop / "grids/wider.yaml").write_text(HELD.replace("epsilon: [0, 0.1]", "epsilon: [0, 0.1, 0.2]"))
    missing = "dataset: {name: imagefolder, path: not-there, size: 8}"
    # One fine-tune, which fails as often as it is tried.
    failing = re.sub(r"\n    dataset: .*", f"\n    {missing}", TINY).replace("[bp, usf, brsf]", "[bp]")
    (laptop / "grids/failing.yaml").write_text(failing)
    (laptop / "cluster/test.yaml").write_text(yaml.safe_dump(_cluster(key, folder / "store")))
    start = TWO_MACHINES + SSHD + STEPS
    script = start.format(folder=folder, sshd=shutil.which("sshd"), near=NEAR)
    output = inside(script, folder, folder / "laptop/home")
    steps = re.split(r"^== (?!status \d)(\S+)\n", output, flags=re.MULTILINE)
    named = dict(zip(steps[1::2], steps[2::2], strict=True))
    return {name: _Step(text) for name, text in named.items()}, folder


class _Step:
    def __init__(self, text):
        body, _, status = text.rpartition("== status ")
        self.text, self.status = body, int(status.split()[0]) if status.split() else None


def _machine(folder, address, public, environment):
    """A machine's home, its sshd, and a passwd file that gives root that home."""
    home = folder / "home"
    (home / "signsym-venv/bin").mkdir(parents=True)
    (home / ".ssh").mkdir()
    (folder / "ray").mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    shutil.copy(public, home / ".ssh/authorized_keys")
    lines = Path("/etc/passwd").read_text().splitlines()
    entries = [re.sub(r"^(root:.*?:0:0:[^:]*):[^:]*:[^:]*$", rf"\1:{home}:/bin/bash", line) for line in lines]
    (folder / "passwd").write_text("\n".join(entries) + "\n")
    (folder / "sshd_config").write_text(
        f"Port 22\nListenAddress {address}\nHostKey {folder}/host\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {home}/.ssh/authorized_keys\nPidFile none\nPermitRootLogin yes\n"
    )
    (home / ".bashrc").touch()
    # The environment that the setup commands would make is there already: the one that the tests run in.
    words = " ".join(f"{name}={value}" for name, value in environment.items())
    path = f"{home}/bin:{Path(sys.executable).parent}:$PATH"
    (home / "signsym-venv/bin/activate").write_text(f"export PATH={path} {words}\n")
    (home / "signsym-venv/bin/pip").write_text(PIP)
    (home / "signsym-venv/bin/pip").chmod(0o755)
    (home / "bin").mkdir()
    (home / "bin/signsym").write_text('#!/bin/sh\ncd ~/signsym && exec python -m orchestrator.commands.cli "$@"\n')
    (home / "bin/signsym").chmod(0o755)


def _cluster(key, store):
    """The shipped cluster file for machines of one's own, with these machines, each with one CPU."""
    shipped = (ROOT / "cluster/onprem.yaml").read_text()
    assert "SIGNSYM_STORAGE=/shared/signsym" in shipped
    cluster = yaml.safe_load(shipped.replace("/shared/signsym", str(store)))
    cluster["provider"] |= {"head_ip": NEAR, "worker_ips": [FAR]}
    cluster |= {"min_workers": 1, "max_workers": 1}
    cluster["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    for kind, address in (("head", NEAR), ("worker", FAR)):
        (start,) = cluster[f"{kind}_start_ray_commands"]
        cluster[f"{kind}_start_ray_commands"] = [f"{start} --node-ip-address {address} --num-cpus 1"]
    return cluster


def test_both_nodes_come_up_and_get_what_the_cluster_file_says(submitted):
    steps, folder = submitted
    assert steps["up"].status == 0, steps["up"].text
    assert "Ray runtime will not be started" not in steps["up"].text
    assert "will not launch any workers" not in steps["up"].text
    assert steps["joined"].status == 0, steps["joined"].text
    for name in ("near", "far"):
        home = folder / name / "home"
        assert (home / "signsym/orchestrator/sweep.py").is_file()
        assert (home / ".ray/auth_token").read_text() == "0123456789abcdef" * 4
        assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
        assert (folder / name / "ray").stat().st_mode & 0o777 == 0o700
        pip = (home / "pip.log").read_text().splitlines()
        assert pip[-2:] == ["--editable", f"{home}/signsym[cluster]"]
        assert (home / ".bashrc").read_text().count("profile.sh") == 1


def test_the_sweep_that_is_submitted_completes_on_both_nodes(submitted):
    steps, folder = submitted
    assert steps["sweep"].status == 0, steps["sweep"].text
    assert "Complete: all 27 cells have a result." in steps["sweep"].text
    assert f"grid: {folder}/near/home/signsym/grids/held.yaml" in steps["sweep"].text
    events = [json.loads(line) for log in (folder / "store/events").glob("*.jsonl") for line in log.open()]
    assert {event["host"] for event in events if event["event"] == "job_finished"} == {"near", "far"}


def test_the_true_exit_status_is_left_on_the_head(submitted):
    steps, _ = submitted
    assert "sweep.py: exit status 0" in steps["sweep"].text
    # ray turns every failure into 1, that of a wrong request too.
    assert steps["failing"].status == steps["stale"].status == 1
    assert "sweep.py: exit status 1" in steps["failing"].text
    assert "sweep.py: exit status 2" in steps["stale"].text
    assert re.search(r"^1\s*$", steps["failing-status"].text, re.MULTILINE)
    assert "27 of 27 cells done" in steps["failing-status"].text, steps["failing-status"].text


def test_a_script_that_is_newer_than_the_cluster_is_refused_until_it_is_updated(submitted):
    steps, _ = submitted
    assert "ray up --no-restart" in steps["stale"].text
    assert steps["update"].status == 0, steps["update"].text
    assert steps["again"].status == 0, steps["again"].text
    assert "Nothing to do" in steps["again"].text


def test_a_job_of_rays_own_runs_the_same_script(submitted):
    steps, folder = submitted
    assert steps["job"].status == 0, steps["job"].text
    assert "10 jobs to run (10 attack)" in steps["job"].text
    assert len(Store(str(folder / "store")).results()) == 27 + 3 * 4


def test_strangers_find_no_dashboard_and_are_asked_for_the_token(submitted):
    steps, folder = submitted
    doors = [line.split()[3] for line in steps["listening"].text.splitlines() if line.strip()]
    inner = [door for door in doors if door.endswith(":8265")]
    assert inner == ["127.0.0.1:8265"]
    assert "ConnectionRefusedError" in steps["dashboard"].text
    assert steps["stranger"].status != 0
    assert re.search("InvalidAuthToken|Unauthenticated|UNAUTHENTICATED", steps["stranger"].text), steps["stranger"].text
    # The client itself only says that it waited in vain.
    assert steps["client"].status != 0
    (log,) = (folder / "near/ray/ray").glob("session_2*/logs/ray_client_server.err")
    assert "Authentication required" in log.read_text()


def test_nothing_of_ray_is_left_when_the_cluster_is_down(submitted):
    steps, _ = submitted
    assert steps["down"].status == 0, steps["down"].text
    assert (steps["left"].status, steps["left"].text) == (1, "")
