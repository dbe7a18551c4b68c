"""The nodes of the Ray that this process is connected to: what they have, and what fits on them."""

from __future__ import annotations

from collections.abc import Iterable

import ray

from orchestrator.engine.connection import ClusterLostError
from orchestrator.jobs.job import Resources


class NoResourcesError(ValueError):
    """A job that requests more than the machine has."""


def bundle(gpu: float, cpu: float, accelerator_type: str | None) -> dict[str, float]:
    """The resources that a trial requests of one node, by Ray's names."""
    amounts = {"CPU": cpu, "GPU": gpu}
    if accelerator_type is not None:
        amounts[f"accelerator_type:{accelerator_type}"] = 0.001
    return {name: amount for name, amount in amounts.items() if amount}


def nodes() -> list[dict[str, float]]:
    """The resources of each living node, by Ray's names. Raises ClusterLostError where there is none."""
    try:
        living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    except Exception as error:
        # Ray raises various exceptions when its control store has ended.
        raise ClusterLostError(f"Ray does not answer: {' '.join(str(error).split())}") from error
    if not living:
        raise ClusterLostError("no node of Ray is alive")
    return living


def hosts() -> dict[str, str]:
    """The host name of each node, dead or alive, by its address; none where Ray does not answer."""
    try:
        return {node["NodeManagerAddress"]: node["NodeManagerHostname"] for node in ray.nodes()}
    except Exception:
        # Ray raises various exceptions when its control store has ended.
        return {}


def address_of(actor: str | None) -> str:
    """The address of the node that an actor ran on; "" where Ray does not know it."""
    try:
        return str(ray._private.state.actors(actor)["Address"]["IPAddress"]) if actor else ""
    except Exception:
        # As above; or the actor never started.
        return ""


def fits(nodes: Iterable[dict[str, float]], bundle: dict[str, float]) -> int:
    """How many trials that request `bundle` the nodes can run at once."""
    return sum(int(min(node.get(name, 0.0) / amount for name, amount in bundle.items())) for node in nodes)


def check_fits(needs: Iterable[Resources]) -> None:
    """Raise NoResourcesError where the local Ray's node can never run one of the jobs."""
    (node,) = nodes()
    for need in needs:
        gpu = 0.0 if need.gpu == "auto" else need.gpu
        for name, amount in bundle(gpu, need.cpu, need.accelerator_type).items():
            if node.get(name, 0.0) < amount:
                what = {"CPU": "CPUs", "GPU": "GPUs"}.get(name)
                requested = f"{amount:g} {what}" if what else f"GPUs of kind {need.accelerator_type!r}"
                available = f"{node.get(name, 0.0):g} {what}" if what else "none of them"
                raise NoResourcesError(
                    f"expected jobs that fit this machine, got one that asks for {requested}; the machine has "
                    f"{available}. Put other resources over the grid's, such as --set defaults.resources.gpu=auto, or "
                    f"join a cluster that has them with --address"
                )


def request(bundles: list[dict[str, float]]) -> None:
    """Request nodes from the cluster's autoscaler, where there is one, that can run all `bundles` at once."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)
