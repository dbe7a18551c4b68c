"""Starts a local Ray with what a sweep needs, and waits for its node however busy the machine is.

Two waits of Ray are constants. Its node gives its agents, two Python programs that take three seconds of CPU to start,
15 seconds to say their ports and then ends itself (ray-project/ray issue 65983): here the ports are chosen and said
before. And `ray._private.node` waits 30 seconds for the node: here as long as the node lives.
"""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray._private import parameter, services, utils
from ray._raylet import DASHBOARD_AGENT_LISTEN_PORT_NAME, persist_port  # type: ignore[attr-defined]

from orchestrator.engine import watch

#: Seconds after which a node that has not registered is given up, though its process lives.
LONGEST = 600.0
#: Programs of Ray's that nothing here uses, a second of CPU each: they resize clusters, and pass workers' output on.
UNUSED = {"no_monitor": True, "include_log_monitor": False}
#: The ports of a node's agents that `ray.init` does not let choose.
PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
#: Ports to choose from: above those that `ray start` gives to workers, below those that Kubernetes gives to services.
OWN_PORTS = range(20000, 30000)


@contextlib.contextmanager
def awaited(mark: str, folder: str) -> Iterator[int]:
    """A context in which a Ray that is started is waited for while its node lives, for `LONGEST` seconds at most.

    Yields a port for `_metrics_export_port` of `ray.init`, which is none of the others.

    `mark` and `folder` are those of `watch.processes`. Where no process shows that it lives, Ray's 30 seconds hold.
    """
    module: Any = parameter
    params = module.RayParams
    export, *agent_ports = free_ports(1 + len(PORTS))
    ports = dict(zip(PORTS, agent_ports, strict=True))
    get_node: Callable[[str, str], dict[str, Any] | None] = services.get_node

    def patient(gcs_address: str, node_id: str) -> dict[str, Any] | None:
        # Ray hands the other ports to its node.
        session = Path(folder, "r", "session_latest").resolve()
        persist_port(str(session), node_id, DASHBOARD_AGENT_LISTEN_PORT_NAME, ports["dashboard_agent_listen_port"])
        deadline = time.monotonic() + LONGEST
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline or not _node_lives(mark, folder):
                    raise
            time.sleep(0.1)

    services.get_node = patient
    module.RayParams = functools.partial(params, **ports, **UNUSED)
    try:
        yield export
    finally:
        services.get_node, module.RayParams = get_node, params


@contextlib.contextmanager
def without_dashboard() -> Iterator[None]:
    """A context in which a Ray that is started has no server of a dashboard, and agents that serve none.

    Told to leave the dashboard out, Ray starts its server all the same, for statistics of usage that are off here, and
    waits for it: two seconds before anything else. Its agents take part where the libraries for that are installed.
    """
    server, reason = services.start_api_server, utils.get_dashboard_dependency_error
    services.start_api_server = lambda *arguments, **named: (None, None)
    utils.get_dashboard_dependency_error = lambda: ImportError("a sweep without a dashboard")
    try:
        yield
    finally:
        services.start_api_server, utils.get_dashboard_dependency_error = server, reason


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nothing listens on and no connection is given by itself.

    The agents listen seconds later, and a node ends whose agent finds its port taken. The system gives each connection
    a port of its own range, which Ray's processes take from at their start: where it leaves any, these are others.
    """
    low, high = _connections_range()
    candidates = [port for port in OWN_PORTS if not low <= port <= high]
    random.SystemRandom().shuffle(candidates)
    with contextlib.ExitStack() as stack:
        bound: list[socket.socket] = []
        for port in [*candidates, *[0] * count]:
            if len(bound) == count:
                break
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                bound.append(taken)
        return [taken.getsockname()[1] for taken in bound]


def _connections_range() -> tuple[int, int]:
    """The first and last port that the system gives to connections."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        # What systems without that file have: the range that is registered for it.
        return 49152, 65535
    return low, high


def _node_lives(mark: str, folder: str) -> bool:
    for pid in watch.processes(mark, folder):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                return True
    return False
