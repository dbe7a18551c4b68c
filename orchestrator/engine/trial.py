"""A Ray Tune trial that runs one job, in a process that is limited to its share of a device.

The worker is reused for the next job, with its loaded models. It ends only where its state can no longer be trusted:
after a job that hangs, and after an error of the device.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import faulthandler
import gc
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

from ray import tune

from orchestrator.engine.causes import cause_of, failure
from orchestrator.jobs.job import Execute, JobContext
from orchestrator.store import merged
from orchestrator.store.store import Store

#: Seconds after its time limit at which a job that holds Python's lock takes its process with it.
GRACE = 20.0


class RetiredError(RuntimeError):
    """Ends a worker that cannot be trusted with another job."""


class Trial(tune.Trainable):
    """Runs one job after the other in one process; `step` runs one and returns its report."""

    def setup(self, config: dict[str, Any], execute: Execute | None = None, context: JobContext | None = None) -> None:
        assert execute is not None
        assert context is not None
        self.execute, self.context, self.job = execute, context, config
        self.retired = False
        # cuBLAS is deterministic only where its workspace was configured before CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if not config["gpu"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # Imported here, since it would take its time from the first job's limit: up to a minute on a busy machine.
        import torch  # noqa: F401

        # One thread for all jobs: torch's CPU thread pool belongs to the thread that calls it.
        self.thread = concurrent.futures.ThreadPoolExecutor(1)

    def step(self) -> dict[str, Any]:
        if self.retired:
            raise RetiredError("this worker has reported the reason")
        limit = 60 * float(self.job["minutes"])
        faulthandler.dump_traceback_later(limit + GRACE, exit=True)
        running = self.thread.submit(self._run)
        try:
            report = running.result(timeout=limit)
        except TimeoutError:
            report = self._hangs()
        finally:
            faulthandler.cancel_dump_traceback_later()
        report["host"] = socket.gethostname()
        return report

    def _run(self) -> dict[str, Any]:
        import torch

        # Ray's own setting of the threads is lost where a login shell exports OMP_NUM_THREADS.
        torch.set_num_threads(max(1, int(self.job["cpu"])))
        on_gpu = torch.cuda.is_available()
        started = time.monotonic()
        report: dict[str, Any] = {"done": True, "said": []}
        try:
            if on_gpu:
                # The first call on a GPU creates CUDA's context, which may run out of memory.
                self._bound_memory()
            if self.job["key"] is None:
                from orchestrator.work.warm_up import warm_up

                warm_up()
                return report
            context = dataclasses.replace(self.context, halvings=self.job["halvings"], gpu_share=self.job["gpu"])
            # A driver that was suspended may have started a job that another sweep has finished meanwhile.
            if not merged.finished(Store(context.storage), [self.job["results"]]):
                with _collected_warnings(report["said"]):
                    report |= self.execute(self.job["key"], self.job["spec"], context) or {}
        except BaseException as error:
            # A SystemExit raised by a library is an error of the job too: it would end the worker without a report.
            report |= failure(cause_of(error), f"{type(error).__name__}: {error}", traceback.format_exc())
            # An error of the device is permanent: every later job of this process would fail with it. So is a context,
            # or a library's handle, that could not be created.
            self.retired = "CUDA error" in str(error) or "cuDNN error" in str(error)
            report["done"] = not self.retired
            if on_gpu and not self.retired:
                # The objects of a failed step, such as its graph, may form reference cycles.
                gc.collect()
                torch.cuda.empty_cache()
        report["seconds"] = time.monotonic() - started
        if on_gpu and not self.retired:
            report["gpu_peak"] = torch.cuda.max_memory_allocated()
            report["gpu_total"] = torch.cuda.get_device_properties(0).total_memory
        return report

    def _bound_memory(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats()
        if 0 < self.job["gpu"] < 1:
            # Ray counts shares but limits no memory: a job that needs more must fail without failing its neighbours.
            torch.cuda.set_per_process_memory_fraction(self.job["gpu"])

    def _hangs(self) -> dict[str, Any]:
        (thread,) = self.thread._threads
        frame = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(frame)) if frame else ""
        words = f"TimeoutError: the job ran longer than its limit of {self.job['minutes']:g} minutes"
        self.retired = True
        return {"done": False, **failure("time", words, f"{where}{words}")}

    def next_job(self, config: dict[str, Any]) -> dict[str, Any]:
        """Run another job in this worker; returns its report."""
        self.reset(dict(config), storage=self._storage)  # type: ignore[no-untyped-call]
        report: dict[str, Any] = self.train()  # type: ignore[no-untyped-call]
        return report

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.job = new_config
        return True

    def cleanup(self) -> None:
        if self.retired:
            # A thread that hangs would keep the process alive, and the device occupied.
            os._exit(1)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the results of a trial are in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a restarted trial reads the store."""


@contextlib.contextmanager
def _collected_warnings(messages: list[str]) -> Iterator[None]:
    """Collect the warnings of data sets for the driver's display: a worker's output is not shown to anybody."""
    from signsym_core.datasets import DataWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        show = warnings.showwarning

        def collect(message: Any, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, DataWarning):
                messages.append(str(message))
            else:
                show(message, category, *rest, **named)

        warnings.showwarning = collect
        yield
