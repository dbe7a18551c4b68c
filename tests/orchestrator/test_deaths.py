"""What people are told of a trial whose worker could not tell: the cause, where, and no guess beyond the evidence."""

from __future__ import annotations

import socket

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayTaskError

from orchestrator.engine.actors import EndedError
from orchestrator.engine.deaths import account

HOSTS = {"10.0.0.1": "near", "10.0.0.2": "far"}
#: Ray's words for a process that a signal ended, with the guesses that it adds.
KILLED = """The actor died unexpectedly before finishing this task.
	class_name: with_resources.<locals>.ResourceTrainable
	pid: 23842
	ip: 10.0.0.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed
by the OOM killer due to high memory usage, (2) ray stop --force was called."""
FULL = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2, ID: ce30) was "
    "7.17GB used / 23.54GB limit (0.304641)"
)


def died(words, init=False):
    error = ActorDiedError()
    error.error_msg, error._actor_init_failed = words, init
    return error


def task_error(cause):
    trace = f'Traceback (most recent call last):\n  File "x.py", line 1, in train\n{type(cause).__name__}: {cause}\n'
    return RayTaskError("train", trace, cause, proctitle="ray::train", pid=1, ip="10.0.0.2")


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (died(KILLED), "death", "the worker process on far was killed by a signal or crashed"),
        (
            died("	ip: 10.0.0.1\nWorker exits unexpectedly. Worker exits with an exit code 3."),
            "death",
            "the worker process on near ended itself with exit code 3",
        ),
        (
            died("The actor died because its node has died.\n	ip: 10.0.0.2"),
            "node",
            "the worker's node was lost: far",
        ),
        (EndedError(NodeDiedError("node (IP: 10.0.0.2) is gone")), "node", "the worker's node was lost: far"),
        (
            ActorUnavailableError("RpcError", None),
            "node",
            "the worker cannot be reached: its node was lost, or the process died",
        ),
        (
            EndedError(OutOfMemoryError(FULL)),
            "host memory",
            "Ray's memory monitor ended the worker on far, whose memory was full (7.17GB of 23.54GB used)",
        ),
        (task_error(TypeError("cannot pickle 'x'")), "error", "TypeError: cannot pickle 'x'"),
        (
            died(f"raised in its creation task, {task_error(ImportError('no module'))}", init=True),
            "error",
            "ImportError: no module",
        ),
        (EndedError(ValueError("no such type")), "error", "ValueError: no such type"),
        (task_error(OSError(28, "No space left on device")), "disk", "OSError: [Errno 28] No space left on device"),
        (None, "death", "the worker process was killed by a signal or crashed"),
    ],
)
def test_each_end_is_told_as_it_was(error, cause, words):
    told = account(error, HOSTS)
    assert (told["cause"], told["error"]) == (cause, words)
    assert "\x1b" not in told["traceback"]


def test_the_host_of_the_traceback_is_named():
    told = account(task_error(TypeError("no")), HOSTS)
    assert told["host"] == "far"
    assert 'File "x.py", line 1' in told["traceback"]
    assert account(ActorUnavailableError("RpcError", None), HOSTS, host="near")["host"] == "near"


def test_the_kernel_is_blamed_with_evidence_only_and_only_for_its_own_machine():
    here = socket.gethostname()
    assert "out-of-memory" not in account(died(KILLED), HOSTS)["error"]
    assert "out-of-memory" not in account(died(KILLED), HOSTS, kernel_killed=True)["error"]
    told = account(died(KILLED), HOSTS | {"10.0.0.2": here}, kernel_killed=True)
    assert told["error"].endswith("meanwhile the kernel's out-of-memory killer ended processes there")
