"""This process and Ray: join a cluster or start a local one, leave it, and read its resources."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

import ray

from orchestrator.engine import gpus, machine, registration
from orchestrator.engine.environment import variables

#: Settings that Ray reads when a sweep starts. Automatic loggers import torch into the driver and write five files a
#: trial; snapshots of all trials are never read; more than one trial must be able to wait for a free slot; a worker
#: without a GPU must not see those of its node; Ray would start a worker for each CPU with the first driver; the newer
#: output engine prints tables whatever the verbosity; the sweep reports failed jobs itself.
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_prestart_worker_first_driver": "0",
}


#: Attempts to start a local Ray: some of Ray's waits are too short for a busy machine.
STARTS = 3

#: The variable of `signsym_core.extensions`; importing that module would load torch into the driver.
EXTENSIONS = "SIGNSYM_EXTENSIONS"


class ClusterLostError(RuntimeError):
    """Ray's own processes have ended: no job can run, and no job is the cause."""


class StartError(ClusterLostError):
    """A local Ray that did not start in `STARTS` attempts."""


class OpenDoorError(ValueError):
    """A setting with which Ray would accept commands from anybody."""


class JoinError(ValueError):
    """A cluster that cannot be joined, with Ray's reason."""


#: The folder and environment of the local Ray, while one runs; and whether its workers run on a GPU at once.
_ray_folder: machine.RayFolder | None = None
_shared = False


def connect(
    address: str | None, slots: int | None = None, num_gpus: float | None = None, dashboard: bool = False
) -> list[str]:
    """Join the Ray cluster at `address`, or start a local one; returns notes for the user.

    A local Ray listens on loopback only, where Ray supports it, keeps Ray's token authentication, and has a dashboard
    only with `dashboard`. `slots` and `num_gpus` override its numbers of CPUs and GPUs.

    Raises MachineError and OpenDoorError where this machine or its settings keep Ray from starting, JoinError for a
    cluster that cannot be joined, and StartError where Ray did not start for another reason.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    workers = {"PYTHONPATH": os.pathsep.join(paths)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    outside = address is None and _has_outside_address()
    if outside and os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise OpenDoorError(
            f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} would leave Ray open to everybody who reaches this machine: "
            f"unset it, so that Ray asks for its token"
        )
    if address is None:
        options |= {"num_cpus": slots, "num_gpus": num_gpus, "include_dashboard": dashboard}
        # Inherited, since a worker for which Ray makes an environment imports Ray twice.
        lean = contextlib.nullcontext() if dashboard else registration.without_dashboard()
        with variables(workers), lean:
            context = _started(options | {"_node_ip_address": "127.0.0.1"})
    else:
        machine.close_token()
        passed = {name: os.environ[name] for name in ["RAY_CHDIR_TO_TRIAL_DIR", EXTENSIONS] if name in os.environ}
        options["runtime_env"] = {"env_vars": workers | passed}
        try:
            context = ray.init(address=address, **options)
        except Exception as error:
            # Ray raises any exception here, such as for another version of Ray or Python on the cluster.
            raise JoinError(f"the Ray at {address} cannot be joined: {' '.join(str(error).split())}") from error
    notes = []
    if outside:
        notes.append("Ray listens on all addresses of this machine; its token authentication is on.")
    if context.dashboard_url:
        notes.append(f"Ray dashboard: http://{context.dashboard_url}")
    return notes


def _started(options: dict[str, Any]) -> Any:
    """Start a local Ray in its own folder; try again where it timed out."""
    global _ray_folder, _shared
    for attempt in range(1, STARTS + 1):
        _ray_folder = machine.RayFolder()
        try:
            awaited = registration.awaited(_ray_folder.mark, str(_ray_folder.folder))
            with _ray_folder.environment(), gpus.shared(_ray_folder.folder) as _shared, awaited as export:
                # "local": never the Ray that another program, or another user, runs on this machine.
                return ray.init(address="local", _metrics_export_port=export, **options, **_ray_folder.options)
        except Exception as error:
            disconnect()
            # Ray raises a timeout as a bare Exception.
            if "timed out" in str(error) and attempt < STARTS:
                continue
            tries = f" in {attempt} tries" if attempt > 1 else ""
            raise StartError(f"Ray did not start{tries}: {' '.join(str(error).split())}") from error
    raise AssertionError


def _print_message(data: dict[str, Any], **options: Any) -> None:
    """Print one of Ray's messages, except for a worker's death: the sweep reports it with its cause and its job, while
    Ray's paragraph names options of Ray's own commands, whatever `log_to_driver` says.
    """
    if not any("A worker died or was killed while executing" in line for line in data["lines"]):
        _print_to_stdstream(data, **options)


_print_to_stdstream = ray._private.worker.print_to_stdstream
ray._private.worker.print_to_stdstream = _print_message  # type: ignore[assignment]


def disconnect() -> None:
    """Leave the cluster; a local one ends, with all of its processes."""
    global _ray_folder, _shared
    ray.shutdown()
    if _ray_folder is not None:
        gpus.end(_ray_folder.folder)
        _shared = False
        _ray_folder.leave()
        _ray_folder = None


def started() -> bool:
    """Whether this process has started the Ray that it is connected to, whose workers inherit its environment."""
    return _ray_folder is not None


def ended() -> bool:
    """Whether the node process of the local Ray has ended.

    Ray notices only after 15 seconds or more, and then ends this process too when it requests an object.
    """
    node = ray._private.worker._global_node
    processes: dict[str, list[Any]] = node.all_processes if node is not None else {}
    return any(info.process.poll() is not None for info in processes.get("raylet", []))


def alive() -> bool:
    """Whether any node of the cluster is alive."""
    if ended():
        return False
    try:
        return any(node["Alive"] for node in ray.nodes())
    except Exception:
        # Ray raises various exceptions when its control store does not answer.
        return False


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU of a local Ray; None on a cluster, whose workers report them."""
    return gpus.memory() if started() else None


def shares_gpus() -> bool:
    """Whether workers run on a GPU at once, by CUDA's Multi-Process Service, instead of taking turns."""
    return _shared


def _has_outside_address() -> bool:
    """Whether this machine has an address that others may reach."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # No packet is sent: this only shows which address would be the sender's.
            probe.connect(("192.0.2.1", 9))
            return not probe.getsockname()[0].startswith("127.")
    except OSError:
        return False
