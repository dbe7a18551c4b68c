"""What keeps a Ray from starting on a machine is made right, or said once with what to do."""

from __future__ import annotations

import contextlib
import inspect
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray
from ray._private import node
from sweeps import ONE, ROOT, TINY

from orchestrator.engine import connection, machine, registration, watch
from orchestrator.engine.machine import MachineError, check_files, short_folder, token


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.Path, "home", lambda: tmp_path / "home")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_long_temporary_folder_gives_way_to_a_short_one(tmp_path):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    assert short_folder({"TMPDIR": str(long)}) in machine.FOLDERS
    assert short_folder({"RAY_TMPDIR": "/var/tmp", "TMPDIR": str(long)}) == "/var/tmp"


def test_the_longest_folder_leaves_room_for_rays_sockets():
    assert len("/scratch/user/12345678") <= machine.SOCKET - machine.ADDED


def test_where_no_folder_will_do_each_is_named_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "FOLDERS", ("/not/there",))
    long = tmp_path / ("x" * 60)
    long.mkdir()
    with pytest.raises(MachineError) as caught:
        short_folder({"TMPDIR": str(long)})
    assert f"{long}: a longer path than" in str(caught.value)
    assert "/not/there: missing" in str(caught.value)
    assert "RAY_TMPDIR" in str(caught.value)


def test_a_full_disk_is_named(monkeypatch):
    monkeypatch.setattr(machine, "_free", lambda place: 2**20)
    with pytest.raises(MachineError, match="less than 300 MB free"):
        short_folder({})


def test_few_open_files_are_raised_and_too_few_refused(monkeypatch):
    limits = [(256, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda what, pair: limits.append(pair))
    check_files()
    assert limits[-1] == (4096, 4096)
    limits.append((256, 256))
    with pytest.raises(MachineError, match="256 files open here, and Ray needs 1024: raise the limit"):
        check_files()


def test_a_token_is_made_for_the_user_alone_and_one_that_is_open_is_closed(home, tmp_path):
    assert token(tmp_path, {}) == {}
    made = home / ".ray/auth_token"
    assert mode(made) == 0o600
    assert len(made.read_text()) == 64
    made.chmod(0o644)
    before = made.read_text()
    assert token(tmp_path, {}) == {}
    assert (mode(made), made.read_text()) == (0o600, before)


def test_without_a_home_the_token_is_elsewhere_and_named_to_ray(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.Path, "home", lambda: machine.Path("/proc/no-home"))
    path = tmp_path / "token"
    assert token(tmp_path, {}) == {"RAY_AUTH_TOKEN_PATH": str(path)}
    assert mode(path) == 0o600
    assert token(tmp_path, {"RAY_AUTH_TOKEN_PATH": "/x"}) == {}


@pytest.mark.parametrize(
    ("errors", "tries", "words"),
    [
        (["The current node timed out during startup."] * 2, 3, None),
        (["The current node timed out during startup."] * 9, connection.STARTS, "in 3 tries: The current node timed"),
        (["Ray\ncannot"], 1, "Ray did not start: Ray cannot"),
    ],
)
def test_a_start_that_only_took_too_long_is_tried_again_and_another_is_not(monkeypatch, home, errors, tries, words):
    folders = []

    def init(address, _temp_dir, **options):
        folders.append(Path(_temp_dir).parent)
        assert mode(folders[-1]) == 0o700
        if len(folders) <= len(errors):
            raise Exception(errors[len(folders) - 1])
        return "context"

    monkeypatch.setattr(connection.ray, "init", init)
    if words is None:
        assert connection._started({}) == "context"
    else:
        with pytest.raises(connection.StartError, match=words):
            connection._started({})
    connection.disconnect()
    assert len(folders) == tries
    assert not any(folder.exists() for folder in folders)


def test_of_rays_messages_a_workers_death_is_not_repeated(monkeypatch):
    printed = []
    monkeypatch.setattr(connection, "_print_to_stdstream", lambda data, **options: printed.append(data["lines"][0]))
    for line in (
        "A worker died or was killed while executing a task by an unexpected system error. ...",
        "No GPU left",
    ):
        connection.ray._private.worker.print_to_stdstream({"lines": [line]}, ignore_prefix=False)
    assert printed == ["No GPU left"]


def raylet(folder, mark):
    """A process that looks like Ray's node."""
    copy = folder / "raylet"
    shutil.copy("/bin/sleep", copy)
    return subprocess.Popen([copy, "600"], env={watch.VARIABLE: mark})


def test_a_node_is_waited_for_while_its_process_lives_and_not_longer(tmp_path, monkeypatch):
    process, requests = raylet(tmp_path, "me"), []
    session, params = tmp_path / "r" / "session_latest", registration.parameter.RayParams
    session.mkdir(parents=True)

    def get_node(gcs_address, node_id):
        requests.append(node_id)
        if len(requests) == 4:
            process.kill()
            process.wait()
        raise RuntimeError("no such node")

    monkeypatch.setattr(registration.services, "get_node", get_node)
    with registration.awaited("me", str(tmp_path)):
        ports = [getattr(registration.parameter.RayParams(), name) for name in registration.PORTS]
        with pytest.raises(RuntimeError, match="no such node"):
            registration.services.get_node("address", "0" * 56)
    assert len(requests) == 4
    assert len(set(ports)) == 3
    assert [file.read_text() for file in session.iterdir()] == [str(ports[1])]
    assert (registration.services.get_node, registration.parameter.RayParams) == (get_node, params)


def test_no_connection_is_given_a_port_that_an_agent_will_listen_on(monkeypatch):
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if low <= registration.OWN_PORTS[0] and registration.OWN_PORTS[-1] <= high:
        pytest.skip("this machine gives any port to connections")
    drawn = [port for _ in range(20) for port in registration.free_ports(4)]
    assert not any(low <= port <= high for port in drawn)
    assert len(set(drawn)) > 40


def test_where_no_port_is_left_the_system_draws(monkeypatch):
    # The one that is left is taken: the system draws instead.
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(registration, "OWN_PORTS", range(port, port + 1))
        monkeypatch.setattr(registration, "_connections_range", lambda: (1, 2))
        others = registration.free_ports(3)
    assert len(set(others)) == 3
    assert port not in others


def test_ray_still_waits_where_it_is_made_patient():
    # Functions of Ray's own: where they move, a busy machine has 15 and 30 seconds again.
    assert "ray._private.services.get_node(" in inspect.getsource(node.Node.__init__)
    assert "ray._private.parameter.RayParams(" in inspect.getsource(ray.init)


#: Everything that people's machines have wrong, at once: a Ray of somebody else's on Ray's usual ports, without a CPU
#: to give, no home, a long name for temporary files, no /dev/shm, a proxy, few open files, no UTF-8.
WRONG = """
ip link set lo up
RAY_AUTH_MODE=disabled ray start --head --num-cpus 0 --include-dashboard true --temp-dir {folder}/ray >{folder}/log 2>&1
mkdir {folder}/dev && mount -t tmpfs tmpfs {folder}/dev
for device in null zero random urandom full; do
    touch {folder}/dev/$device; mount --bind /dev/$device {folder}/dev/$device
done
mount --rbind {folder}/dev /dev && [ ! -e /dev/shm ] || exit
export HOME=/proc/no-home TMPDIR={folder}/{long} LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0
export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 grpc_proxy=http://127.0.0.1:9
ulimit -Sn 256
cd {root} && python orchestrator/sweep.py {folder}/grid.yaml --storage {folder}/store
echo "status $?"
ss -Hltn
"""


@pytest.mark.slow
def test_a_sweep_runs_on_a_machine_that_has_everything_wrong():
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*words, "true"], capture_output=True).returncode or shutil.which("ip") is None:
        pytest.skip("this machine gives no namespaces")
    # A short place: the other Ray's sockets are in it.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        long = "x" * 80
        Path(folder, long).mkdir()
        Path(folder, "grid.yaml").write_text(
            TINY.replace("name: tiny", "name: tiny # ε").replace("[bp, usf, brsf]", "[usf]"), encoding="utf-8"
        )
        script = WRONG.format(folder=folder, root=ROOT, long=long)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"PATH": path, "PYTHONPATH": str(ROOT)} | ONE
        command = [*words, "bash", "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        assert "status 0" in done.stdout, Path(folder, "log").read_text() + done.stdout + done.stderr
        assert "9 cells" in done.stdout
        assert ":6379" in done.stdout, "the other Ray was not there"
