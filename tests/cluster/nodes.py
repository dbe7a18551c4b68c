"""Machines made of namespaces: a private loopback, home and process table, so that a whole cluster fits into a test."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sweeps import ROOT, TINY, WATCHDOG

#: What a copy of the repository has, as a cluster gets it.
SHIPPED = ["orchestrator", "signsym_core", "cluster", "grids"]
SHIPPED += ["pyproject.toml", "constraints.txt", "README.md", "LICENSE"]
#: Network, processes, mounts and host name of its own; everything inside ends with the first process.
UNSHARE = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "--kill-child"]

#: Addresses of the machine that a script runs on, and of the second one at the other end of a cable.
NEAR, FAR = "10.77.0.1", "10.77.0.2"
#: What an empty /tmp would hide: this Python, and the repository of a checkout that lies there.
BELOW_TMP = [place for place in (str(ROOT), sys.prefix, sys.base_prefix) if Path(place).is_relative_to("/tmp")]
#: Makes two machines that share nothing but this Python, the repository, FOLDER/store and FOLDER/gate, by which tests
#: hold jobs. `far 'COMMANDS'` runs on the second. Each has processes, mounts and a host name of its own, an empty /tmp
#: and /dev/shm, and FOLDER/near or FOLDER/far, whose home and work are its home and working folder, and whose ray holds
#: Ray's files.
TWO_MACHINES = f"""
mount --make-rprivate /
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd /run/netns
mkdir -p {{folder}}/{{{{store,gate}}}} {{folder}}/{{{{near,far}}}}/{{{{home,work,ray}}}}
alone() {{{{
    local own={{folder}}/$1 kept=/run/kept-$1 place; shift
    for place; do mkdir -p "$kept$place"; mount --bind "$place" "$kept$place"; done
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    mkdir -p {{folder}}
    [ -z "$(ls {{folder}})" ] || mount -t tmpfs tmpfs {{folder}}
    for place; do mkdir -p "$place"; mount --bind "$kept$place" "$place"; done
    mkdir /tmp/signsym-0 && mount --bind "$own/ray" /tmp/signsym-0
    export HOME=$own/home RAY_TMPDIR=/tmp/signsym-0 && cd "$own/work"
}}}}
export -f alone
hostname near
ip link set lo up
ip netns add far
ip link add near0 type veth peer name far0
ip link set far0 netns far
ip addr add {NEAR}/24 dev near0 && ip link set near0 up
ip netns exec far sh -c 'ip addr add {FAR}/24 dev far0; ip link set far0 up; ip link set lo up'
alone near {{folder}} {" ".join(BELOW_TMP)}
far() {{{{
    exec ip netns exec far unshare --mount --pid --uts --fork --mount-proc --kill-child bash -c "
        hostname far
        alone far {{folder}}/far {{folder}}/store {{folder}}/gate {" ".join(BELOW_TMP)}
        $1"
}}}}
"""

#: Returns when both machines are in the cluster. One program that asks often is cheaper than a command that is called
#: again and again.
JOINED = f"""
import os, time
os.environ["RAY_AUTH_MODE"] = "token"
import ray
ray.init(address="{NEAR}:6379", logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
"""


@functools.cache
def why_not(*programs: str) -> str:
    """Why this machine cannot have such a cluster; "" where it can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces with mounts of their own"
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: openssh-server rsync iproute2 slurm-wlm munge)"
    tried = subprocess.run([*UNSHARE, "mount", "--make-rprivate", "/"], capture_output=True, text=True)
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else ""


def repository(folder: Path) -> Path:
    """A copy of what a cluster file mounts, with the tests' tiny grid among the grids."""
    folder.mkdir(parents=True)
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / "grids" / "tiny.yaml").write_text(TINY)
    return folder


def environment(home: Path) -> dict[str, str]:
    """What a login on such a machine has: this Python first on the path, and nothing of the caller's Ray."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SIGNSYM_", "PYTHONPATH"))
    }
    return kept | {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def inside(script: str, folder: Path, home: Path) -> str:
    """Run a shell script as the first process of a machine of its own and return what it printed."""
    path = folder / "inner.sh"
    path.write_text(f"set -uo pipefail\n{script}\n")
    words = [*UNSHARE, "bash", str(path)]
    done = subprocess.run(
        words,
        env=environment(home),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=WATCHDOG,
    )
    return done.stdout
