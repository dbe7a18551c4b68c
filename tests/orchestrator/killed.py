"""Jobs in a process that kills itself while it writes; imported by the process from which it is forked."""

from __future__ import annotations

import os
import resource
import signal
import sys

import torch

# What the first step of an optimiser would import in every process anew.
import torch._dynamo

from orchestrator.jobs.job import JobContext
from orchestrator.store import files
from orchestrator.work.execute import execute


def do(specs, storage):
    """Do jobs, given as their specs by key, in this process."""
    context = JobContext(storage=str(storage), data_root=str(storage), git="", versions="{}")
    for key, spec in specs.items():
        execute(key, spec, context)


def prepared(prepare, specs, storage):
    """Call `prepare`, where there is one, and do the jobs."""
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    do(specs, storage)


def at_line(number):
    """Kill this process before the line that so many lines of writes come before."""
    lines = 0

    def within(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return within

    code = files.write_file.__code__
    sys.settrace(lambda frame, event, argument: within if frame.f_code is code else None)


def at_byte(number):
    """Have this process killed in the first write that comes to so many bytes, when these are on the disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def in_place():
    """Write files where they belong, of results the first bytes only, before this process kills itself."""

    def write_file(target, data):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data[:100] if target.parent.name == "results" else data)
        if target.parent.name == "results":
            os.kill(os.getpid(), signal.SIGKILL)

    files.write_file = write_file
