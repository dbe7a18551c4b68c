"""The device of this worker, and what a result says about it."""

from __future__ import annotations

from typing import Any

import torch

from signsym_core.arithmetic import Precision, effective


def device() -> torch.device:
    """The device of this worker: its GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name() -> str:
    """The name of the GPU, or the number of threads of the CPU."""
    this_device = device()
    return torch.cuda.get_device_name(this_device) if this_device.type == "cuda" else f"cpu x {torch.get_num_threads()}"


def kernels(precision: Precision, deterministic: bool) -> dict[str, Any]:
    """The precision and determinism that this device had under these settings; a CPU is always deterministic."""
    this_device = device()
    return {
        "precision": effective(precision, this_device),
        "deterministic": deterministic or this_device.type != "cuda",
    }


def memory() -> dict[str, int | None]:
    """The peak bytes of tensors on the GPU since the job began, and the GPU's bytes."""
    this_device = device()
    if this_device.type != "cuda":
        return {"gpu_peak": None, "gpu_total": None}
    total = torch.cuda.get_device_properties(this_device).total_memory
    return {"gpu_peak": torch.cuda.max_memory_allocated(this_device), "gpu_total": total}
