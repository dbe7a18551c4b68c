"""Why a trial ended without a report: Ray's account of it, as a cause, a message for people, and the host."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError

from orchestrator.engine.actors import EndedError
from orchestrator.engine.retries import Cause

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def account(
    error: Exception | None, hosts: Mapping[str, str], host: str = "", kernel_killed: bool = False
) -> dict[str, Any]:
    """The report of a trial that ended with `error`: its cause, error, traceback and host.

    `hosts` are the names of nodes by their addresses, `host` is the trial's where it is known, and `kernel_killed` says
    whether this machine's kernel has killed processes for lack of memory since the trial began.
    """
    trace = _COLOUR.sub("", str(error or "Ray says nothing of it")).strip()
    host = host or _host(trace, hosts)
    report: dict[str, Any] = {"traceback": trace, "host": host}
    place = f" on {host}" if host else ""
    reason = error.reason if isinstance(error, EndedError) else error
    if isinstance(reason, OutOfMemoryError):
        used = re.search(r"was ([\d.]+GB) used / ([\d.]+GB)", trace)
        words = f" ({used[1]} of {used[2]} used)" if used else ""
        return report | _why(
            "host memory", f"Ray's memory monitor ended the worker{place}, whose memory was full{words}"
        )
    if isinstance(reason, NodeDiedError) or "its node has died" in trace:
        return report | _why("node", f"the worker's node was lost{f': {host}' if host else ''}")
    if "ActorUnavailable" in trace or type(reason).__name__ == "ActorUnavailableError":
        return report | _why("node", f"the worker{place} cannot be reached: its node was lost, or the process died")
    if isinstance(reason, RayTaskError) or getattr(reason, "actor_init_failed", False) or isinstance(error, EndedError):
        last = [line for line in trace.splitlines() if line.strip() and not line.startswith(" ")][-1]
        full = "No space left on device" in last or "Disk quota exceeded" in last
        return report | _why("disk" if full else "error", last)
    if code := re.search(r"exit code (\d+)", trace):
        return report | _why("death", f"the worker process{place} ended itself with exit code {code[1]}")
    words = f"the worker process{place} was killed by a signal or crashed"
    if kernel_killed and host in ("", socket.gethostname()):
        words += "; meanwhile the kernel's out-of-memory killer ended processes there"
    return report | _why("death", words)


def kernel_kills() -> int:
    """How many processes this machine's kernel has killed for lack of memory since it booted."""
    try:
        return int(Path("/proc/vmstat").read_text().partition("\noom_kill ")[2].partition("\n")[0] or 0)
    except (OSError, ValueError):
        return 0


def _why(cause: Cause, error: str) -> dict[str, str]:
    return {"cause": cause, "error": error}


def _host(trace: str, hosts: Mapping[str, str]) -> str:
    """The name of the node whose address Ray's account mentions; "" where it mentions none."""
    for address in re.findall(r"(?:ip|IP)[:=]\s*([0-9a-fA-F.:]*[0-9a-fA-F])", trace):
        if address in hosts:
            return hosts[address]
    return ""
