"""A real SLURM of namespaces: a login machine with its controller, and nodes that share one folder and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gate import EXTENSIONS, Gate
from nodes import UNSHARE, environment
from sweeps import WATCHDOG

#: Addresses of the login machine and of the nodes. The last node does not see the environment that the others do.
LOGIN = "10.77.0.10"
NODES = {"node1": "10.77.0.1", "node2": "10.77.0.2", "node3": "10.77.0.3"}
WITHOUT_ENVIRONMENT = "node3"

#: Four CPUs and two GPUs are declared for each node, whatever this machine has.
CONFIGURATION = """
ClusterName=signsym
SlurmctldHost=login({login})
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
# How long a job that is put back waits.
AuthInfo=cred_expire=5
KillWait=20
# How long a job that has ended is known, so that a slow machine may still ask for it.
MinJobAge=7200
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

#: Ready when the login machine has said so; lives until its input ends.
SCRIPT = """
set -euo pipefail
mount --make-rprivate /
mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/shared
mount --bind {folder} /run/shared
# Empty folders but for what is shared: `alone HOME`.
alone() {{
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mkdir -p {folder} && mount --bind /run/shared {folder}
    mount -t tmpfs tmpfs /run && mkdir -p /run/munge /run/slurmd
    export HOME=$1
    munged --force --key-file={folder}/munge.key --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/pid \\
        --log-file=/run/munge/log --seed-file=/run/munge/seed
}}
export -f alone
node() {{
    ip netns add "$1"
    ip link add "$1" type veth peer name eth0 netns "$1"
    ip link set "$1" master bridge up
    ip netns exec "$1" sh -c "ip addr add $2/24 dev eth0; ip link set eth0 up; ip link set lo up"
    ip netns exec "$1" unshare --mount --pid --uts --fork --mount-proc --kill-child bash -c "
        hostname $1
        alone {folder}/home-$1
        $3
        exec slurmd -D" >/dev/null 2>&1 &
}}
hostname login
ip link set lo up
ip link add bridge type bridge
ip addr add {login}/24 dev bridge && ip link set bridge up
mount --bind {folder}/hosts /etc/hosts
{nodes}
alone {folder}/home-login
slurmctld
until [ "$(sinfo --noheader --states=idle --format=%D)" = {count} ]; do sleep 0.2; done
echo ready
read -r _
"""


class Slurm:
    """The cluster while the block runs; commands run on the login machine, in FOLDER/repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        for name in ("login", *NODES):
            (folder / f"home-{name}").mkdir()
        (folder / "state").mkdir()
        shutil.copytree(EXTENSIONS, folder / "extensions")
        (folder / "gpu0").touch()
        (folder / "gpu1").touch()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        addresses = {"localhost": "127.0.0.1", "login": LOGIN, **NODES}
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in addresses.items()))
        # A job that names no node gets one with the environment where it can.
        lines = [
            f"NodeName={name} NodeAddr={address} CPUs=4 Gres=gpu:2 Weight={1 + (name == WITHOUT_ENVIRONMENT)}"
            for name, address in NODES.items()
        ]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, login=LOGIN, nodes="\n".join(lines)))
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
        # No control groups: they belong to the machine, not to a namespace.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def __enter__(self) -> Slurm:
        hidden = {WITHOUT_ENVIRONMENT: f"mount -t tmpfs tmpfs {self.repository}/.venv"}
        nodes = "\n".join(f"node {name} {address} '{hidden.get(name, '')}'" for name, address in NODES.items())
        script = SCRIPT.format(folder=self.folder, login=LOGIN, nodes=nodes, count=len(NODES))
        self.log = (self.folder / "machines.log").open("w+")
        self.machines = subprocess.Popen(
            [*UNSHARE, "bash", "-c", script],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.machines.stdout is not None
        if self.machines.stdout.readline() != "ready\n":
            raise AssertionError(f"SLURM did not start: {(self.folder / 'machines.log').read_text()}")
        return self

    def __exit__(self, *_: object) -> None:
        self.machines.communicate()
        self.log.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a login has: this Python is in the repository's environment alone."""
        here = str(Path(sys.executable).parent)
        path = os.pathsep.join(place for place in os.environ["PATH"].split(os.pathsep) if place != here)
        login = environment(self.folder / "home-login") | {"PATH": path}
        extension = {"SIGNSYM_EXTENSIONS": "held", "PYTHONPATH": str(self.folder / "extensions")}
        return login | extension | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a command on the login machine."""
        children = Path(f"/proc/{self.machines.pid}/task/{self.machines.pid}/children").read_text().split()
        enter = ["nsenter", "--target", children[0], "--mount", "--net", "--pid", "--uts", f"--wd={self.repository}"]
        return subprocess.Popen(
            [*enter, *map(str, words)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str | Path) -> str:
        """What a command on the login machine prints; it must succeed."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output

    def submit(self, *words: str | Path, gate: Gate | None = None) -> Job:
        """Submit a job as a person types it, with the words after `sbatch`; `gate` may hold its sweep's jobs."""
        held = [f"--export=ALL,SIGNSYM_TEST_GATE={gate.folder}"] if gate else []
        return Job(self, self.run("sbatch", *held, *words).split()[-1])


class Job:
    """A job that was submitted."""

    def __init__(self, slurm: Slurm, number: str) -> None:
        self.slurm, self.id = slurm, number

    def facts(self) -> dict[str, str]:
        """What SLURM knows of the job."""
        return dict(re.findall(r"(\w+)=(\S+)", self.slurm.run("scontrol", "show", "job", self.id)))

    @property
    def running(self) -> bool:
        """Whether it runs or waits for that."""
        return self.facts()["JobState"] in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")

    @property
    def output(self) -> str:
        path = self.slurm.repository / f"slurm-{self.id}.out"
        return path.read_text() if path.exists() else ""

    def wait(self) -> int:
        """The job's exit status, when it has ended."""
        end = time.monotonic() + WATCHDOG
        while self.running:
            assert time.monotonic() < end, self.output
            time.sleep(1)
        return int(self.facts()["ExitCode"].split(":")[0])


PROGRAMS = ["slurmctld", "slurmd", "sbatch", "munged", "nsenter", "ip", str(Path(sys.executable).with_name("ray"))]
