"""This process and Ray: joining a cluster or starting one, leaving it, and what it has."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from orchestrator.engine import machine
from orchestrator.jobs.job import Resources

#: Settings that Ray reads when a sweep starts. Automatic loggers import torch into the driver and write five files a
#: trial; snapshots of all trials are of no use here; more than one trial must be able to wait for a free slot; a
#: worker without a GPU must not see those of its node; the newer output engine prints tables whatever the verbosity;
#: what failed is told by the sweep itself.
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
}


#: How often a Ray of this machine's own is started before it counts as one that cannot be: Ray gives itself 30 seconds,
#: which are not enough on a machine that is busy with other things.
STARTS = 5

#: As `signsym_core.extensions` has it, whose import would bring torch into the driver.
EXTENSIONS = "SIGNSYM_EXTENSIONS"


class ClusterLostError(RuntimeError):
    """Ray's own processes are gone: no job can run, and none is to blame."""


class StartError(ClusterLostError):
    """A Ray of this machine's own that did not start, however often it was tried."""


class OpenDoorError(ValueError):
    """A setting with which Ray would serve anybody."""


class JoinError(ValueError):
    """A cluster that cannot be joined, with Ray's reason."""


class NoResourcesError(ValueError):
    """A job that asks for more than the machine has."""


#: Where the Ray of this machine's own lives, while there is one.
_quarters: machine.Quarters | None = None


def connect(
    address: str | None, slots: int | None = None, gpus: float | None = None, dashboard: bool = False
) -> list[str]:
    """Join the Ray cluster at `address`, or start one on this machine; returns what people should know of it.

    A local Ray listens on loopback alone where Ray can, keeps Ray's token authentication, and has no dashboard
    unless it is asked for. `slots` and `gpus` override its numbers of CPUs and GPUs.

    Raises MachineError and OpenDoorError for what keeps a Ray from starting here, JoinError for a cluster that cannot
    be joined, and StartError where Ray did not start for another reason.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    chdir = {"RAY_CHDIR_TO_TRIAL_DIR": os.environ["RAY_CHDIR_TO_TRIAL_DIR"]}
    own = {name: os.environ[name] for name in [EXTENSIONS] if name in os.environ}
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths), **chdir, **own}}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": environment}
    outside = address is None and _outside_addresses()
    if outside and os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise OpenDoorError(
            f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} would leave Ray open to everybody who reaches this machine: "
            f"unset it, so that Ray asks for its token"
        )
    if address is None:
        options |= {"num_cpus": slots, "num_gpus": gpus, "include_dashboard": dashboard}
        context = _started(options | {"_node_ip_address": "127.0.0.1"})
    else:
        machine.close_token()
        try:
            context = ray.init(address=address, **options)
        except Exception as error:
            # Ray raises whatever it meets, such as another version of it or of Python there.
            raise JoinError(f"the Ray at {address} cannot be joined: {' '.join(str(error).split())}") from error
    notes = []
    if outside:
        notes.append("Ray listens on all addresses of this machine; its token authentication is on.")
    if context.dashboard_url:
        notes.append(f"Ray dashboard: http://{context.dashboard_url}")
    return notes


def _started(options: dict[str, Any]) -> Any:
    """Start a Ray of this machine's own, in quarters of its own; again where it only took too long."""
    global _quarters
    for attempt in range(1, STARTS + 1):
        _quarters = machine.Quarters()
        try:
            with _quarters.environment():
                # Not the one that another program, or another user, has on this machine.
                return ray.init(address="local", **options, **_quarters.options)
        except Exception as error:
            disconnect()
            # Ray raises whatever it meets, this in a bare Exception.
            if "timed out" in str(error) and attempt < STARTS:
                continue
            tries = f" in {attempt} tries" if attempt > 1 else ""
            raise StartError(f"Ray did not start{tries}: {' '.join(str(error).split())}") from error
    raise AssertionError


def disconnect() -> None:
    """Leave the cluster; a local one ends, with all of its processes."""
    global _quarters
    ray.shutdown()
    if _quarters is not None:
        _quarters.leave()
        _quarters = None


def ended() -> bool:
    """Whether the node process of a Ray of this machine's own has ended.

    Ray itself notices after 15 seconds and more, and then ends this process too when it asks for an object.
    """
    node = ray._private.worker._global_node
    mine: dict[str, list[Any]] = node.all_processes if node is not None else {}
    return any(info.process.poll() is not None for info in mine.get("raylet", []))


def alive() -> bool:
    """Whether any node of the cluster is."""
    if ended():
        return False
    try:
        return any(node["Alive"] for node in ray.nodes())
    except Exception:
        # Whatever Ray raises when its control store does not answer.
        return False


def bundle(gpu: float, cpu: float, accelerator_type: str | None) -> dict[str, float]:
    """What a trial asks of one node, by Ray's names."""
    asked = {"CPU": cpu, "GPU": gpu}
    if accelerator_type is not None:
        asked[f"accelerator_type:{accelerator_type}"] = 0.001
    return {name: amount for name, amount in asked.items() if amount}


def nodes() -> list[dict[str, float]]:
    """What each living node has, by Ray's names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def hosts() -> dict[str, str]:
    """The host name of each node, dead or alive, by its address; none where Ray does not answer."""
    try:
        return {node["NodeManagerAddress"]: node["NodeManagerHostname"] for node in ray.nodes()}
    except Exception:
        # Whatever Ray raises when its control store is gone.
        return {}


def address_of(actor: str | None) -> str:
    """The address of the node that an actor ran on; "" where Ray does not know it."""
    try:
        return str(ray._private.state.actors(actor)["Address"]["IPAddress"]) if actor else ""
    except Exception:
        # As above; or the actor was never anywhere.
        return ""


def fits(nodes: Iterable[dict[str, float]], bundle: dict[str, float]) -> int:
    """How many trials that ask for `bundle` the nodes can run at once."""
    return sum(int(min(node.get(name, 0.0) / amount for name, amount in bundle.items())) for node in nodes)


def check_fits(needs: Iterable[Resources]) -> None:
    """Raise NoResourcesError where one node of this machine's Ray can never run a job."""
    (have,) = nodes()
    for need in needs:
        gpu = 0.0 if need.gpu == "auto" else need.gpu
        for name, amount in bundle(gpu, need.cpu, need.accelerator_type).items():
            if have.get(name, 0.0) < amount:
                what = {"CPU": "CPUs", "GPU": "GPUs"}.get(name)
                asked = f"{amount:g} {what}" if what else f"GPUs of kind {need.accelerator_type!r}"
                found = f"{have.get(name, 0.0):g} {what}" if what else "none of them"
                raise NoResourcesError(
                    f"expected jobs that fit this machine, got one that asks for {asked}; the machine has {found}. "
                    f"Put other resources over the grid's, such as --set defaults.resources.gpu=auto, or join a "
                    f"cluster that has them with --address"
                )


def request(bundles: list[dict[str, float]]) -> None:
    """Ask the cluster's autoscaler, where there is one, for room for `bundles` at once."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def _outside_addresses() -> bool:
    """Whether this machine has an address that others may reach."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # No packet is sent: this only asks which address would be the sender's.
            probe.connect(("192.0.2.1", 9))
            return not probe.getsockname()[0].startswith("127.")
    except OSError:
        return False
