"""The cluster launcher for real: an sshd on a loopback of its own, `ray up`, and the sweep as people submit it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from nodes import ROOT, inside, repository, why_not

from orchestrator.store import Store

REASON = why_not("sshd", "ssh", "ssh-keygen", "rsync", "ip", str(Path(sys.executable).with_name("ray")))
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

#: Private mounts for what the launcher and sshd write outside of the home, then sshd on the only address there is.
MACHINE = """
mount --make-rprivate /
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd
mkdir -p /tmp/ray && mount --bind {folder}/ray /tmp/ray
ip link set lo up
{sshd} -f {folder}/sshd_config
cd {folder}/laptop
step() {{ echo "== $1"; shift; timeout 200 "$@" </dev/null 2>&1; echo "== status $?"; }}
"""


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """Output of each step, by its name, and the head's home."""
    folder = tmp_path_factory.mktemp("ssh")
    home = folder / "home"
    for name in ("home/.ssh", "home/.ray", "ray", "keys"):
        (folder / name).mkdir(parents=True)
    key = folder / "keys/id"
    for path in (key, folder / "keys/host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    shutil.copy(key.with_suffix(".pub"), home / ".ssh/authorized_keys")
    lines = Path("/etc/passwd").read_text().splitlines()
    entries = [re.sub(r"^(root:.*?:0:0:[^:]*):[^:]*:[^:]*$", rf"\1:{home}:/bin/bash", line) for line in lines]
    (folder / "passwd").write_text("\n".join(entries) + "\n")
    (folder / "sshd_config").write_text(
        f"Port 22\nListenAddress 127.0.0.1\nHostKey {folder}/keys/host\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {home}/.ssh/authorized_keys\nPidFile none\nPermitRootLogin yes\n"
    )
    (home / ".ray/auth_token").write_text("0123456789abcdef" * 4)
    (home / ".bashrc").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    laptop = repository(folder / "laptop")
    (laptop / "cluster/test.yaml").write_text(yaml.safe_dump(_cluster(key)))
    profile = laptop / "cluster/profile.sh"
    profile.write_text(profile.read_text().replace("CHANGE-ME", str(folder / "store")))
    submit = "ray submit --no-config-cache cluster/test.yaml orchestrator/sweep.py"
    script = (
        MACHINE.format(folder=folder, sshd=shutil.which("sshd"))
        + f"""
EXEC="ray exec --no-config-cache cluster/test.yaml"
step up ray up --yes --no-config-cache cluster/test.yaml
step sweep {submit} grids/tiny.yaml
step listening ss -Hltn
step stranger env RAY_AUTH_MODE=disabled HOME=/nonexistent ray status --address 127.0.0.1:6379
step asked $EXEC 'cd ~/signsym; python -m orchestrator.cli status $SIGNSYM_STORAGE'
step wrong {submit} grids/none.yaml
step wrong-status $EXEC 'cat ~/sweep.status'
echo '# edited' >> orchestrator/sweep.py
step stale {submit} grids/tiny.yaml
step update ray up --yes --no-restart --no-config-cache cluster/test.yaml
step again {submit} grids/tiny.yaml
step down ray down --yes cluster/test.yaml
"""
    )
    output = inside(script, folder, home, timeout=500)
    steps = re.split(r"^== (?!status \d)(\S+)\n", output, flags=re.MULTILINE)
    named = dict(zip(steps[1::2], steps[2::2], strict=True))
    return {name: _Step(text) for name, text in named.items()}, folder


class _Step:
    def __init__(self, text):
        body, _, status = text.rpartition("== status ")
        self.text, self.status = body, int(status.split()[0]) if status.split() else None


def _cluster(key):
    """The shipped cluster file for machines of one's own, on this one, with the Python that is here."""
    shipped = yaml.safe_load((ROOT / "cluster/onprem.yaml").read_text())
    shipped["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    shipped |= {"min_workers": 0, "max_workers": 0}
    shipped["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    shipped["setup_commands"] = [command for command in shipped["setup_commands"] if "venv" not in command]
    start = shipped["head_start_ray_commands"][0]
    shipped["head_start_ray_commands"] = [f"{start} --node-ip-address 127.0.0.1 --num-cpus 2"]
    return shipped


def test_the_cluster_comes_up(submitted):
    steps, _ = submitted
    assert steps["up"].status == 0, steps["up"].text


def test_the_sweep_that_is_submitted_completes(submitted):
    steps, folder = submitted
    assert steps["sweep"].status == 0, steps["sweep"].text
    assert "Complete: all 27 cells have a result." in steps["sweep"].text
    assert "grid: " in steps["sweep"].text
    assert "signsym/grids/tiny.yaml" in steps["sweep"].text
    assert len(Store(str(folder / "store")).results()) == 27
    assert "27 of 27 cells done" in steps["asked"].text, steps["asked"].text


def test_the_true_exit_status_is_left_on_the_head(submitted):
    steps, _ = submitted
    assert "sweep.py: exit status 0" in steps["sweep"].text
    # ray turns every failure into 1.
    assert steps["wrong"].status == 1
    assert "sweep.py: exit status 2" in steps["wrong"].text
    assert re.search(r"^2\s*$", steps["wrong-status"].text, re.MULTILINE)


def test_a_script_that_is_newer_than_the_cluster_is_refused_until_it_is_updated(submitted):
    steps, _ = submitted
    assert steps["stale"].status == 1
    assert "ray up --no-restart" in steps["stale"].text
    assert "sweep.py: exit status 2" in steps["stale"].text
    assert steps["update"].status == 0, steps["update"].text
    assert steps["again"].status == 0, steps["again"].text
    assert "Nothing to do" in steps["again"].text


def test_nothing_listens_but_on_loopback_and_ray_asks_for_its_token(submitted):
    steps, _ = submitted
    doors = [line.split()[3] for line in steps["listening"].text.splitlines() if line.strip()]
    assert len(doors) > 5
    assert [door for door in doors if not door.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:"))] == []
    assert steps["stranger"].status != 0
    assert "InvalidAuthToken" in steps["stranger"].text or "Unauthenticated" in steps["stranger"].text
