"""What a worker reports of a job that raised: the cause, as its exception shows it, and the traceback."""

from __future__ import annotations

import errno
import re
from typing import Any

from orchestrator.engine.retries import Cause
from orchestrator.store.store import StoreError

#: Longest traceback that is kept, in characters; the end says what happened.
TRACEBACK = 20_000
#: The messages of CUDA and its libraries for a GPU without free memory.
_NO_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_NOT_INITIALIZED"
    r"|CUDNN_STATUS_INTERNAL_ERROR_(DEVICE|HOST)_ALLOCATION_FAILED|unable to find an engine to execute"
)

#: The errors that a machine has each time: its files are missing, damaged or others, or numbers are not finite. By
#: name: what raises one has been imported, and a report of any other error must not depend on whether it can be.
_LASTING = frozenset(
    {
        "signsym_core.datasets.splits.DataNotFoundError",
        "signsym_core.datasets.decode.BrokenImageError",
        "signsym_core.datasets.files.BrokenImagesError",
        "orchestrator.store.fingerprints.OtherImagesError",
        "signsym_core.backbones.weights.WeightsError",
        "signsym_core.models.outputs.NonFiniteOutputError",
        "signsym_core.training.health.NonFiniteGradientError",
        "signsym_core.training.health.NonFiniteLossError",
        "signsym_core.training.health.NonFiniteWeightsError",
    }
)

#: The messages of CUDA's Multi-Process Service where it, or a job beside this one, has ended.
_SERVICE_ENDED = re.compile(r"\bMPS (client|server)")


def failure(cause: Cause, error: str, trace: str) -> dict[str, Any]:
    """The part of a report that says why a job failed."""
    return {"cause": cause, "error": error, "traceback": trace[-TRACEBACK:]}


def cause_of(error: BaseException) -> Cause:
    """The cause of a job's failure that raised `error`."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
        return "memory"
    if _SERVICE_ENDED.search(str(error)):
        return "death"
    if isinstance(error, StoreError):
        return "store"
    if _LASTING & {f"{cls.__module__}.{cls.__name__}" for cls in type(error).__mro__}:
        return "lasting"
    # Torch reports a full disk, or a full /dev/shm, in an exception of its own.
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "disk" if full or "No space left on device" in str(error) else "error"
