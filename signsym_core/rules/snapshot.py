"""Snapshots of weights, and whether a tensor still holds the same values.

Only the values themselves show every write: torch's version counters miss writes through `weight.data` and by fused
kernels, and an address may have belonged to another tensor before. A counter that increased proves a write; an
unchanged one proves nothing.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import torch
from torch import Tensor

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_marks = itertools.count(1)


class Snapshot:
    """The identity and version of a layer's weights when the snapshot was made; their values too, after `keep`."""

    def __init__(self, weight: Tensor) -> None:
        # A number on the tensor beside its address, which may become another tensor's. A weak reference would do,
        # but `torch.utils.swap_tensors` refuses tensors that have one.
        if not hasattr(weight, "carries_feedback"):
            weight.carries_feedback = next(_marks)  # type: ignore[attr-defined]
        self._tensor: tuple[int, int] | None = _identity(weight)
        self._version = _version(weight)
        self.values: Tensor | None = None

    def keep(self, weight: Tensor, buffer: Tensor | None = None) -> Snapshot:
        """Copy the values of `weight`, which is as it was when the snapshot was made, into `buffer` where it fits."""
        if buffer is not None and alike(buffer, weight):
            self.values = buffer.copy_(weight)
        else:
            self.values = weight.clone()
        return self

    def written(self, weight: Tensor) -> bool:
        """Whether `weight` is the same tensor and its counter says that something was written."""
        return self._tensor == _identity(weight) and self._version != _version(weight)

    def holds(self, weight: Tensor) -> bool:
        """Whether `weight` has the values that were kept, bit by bit. On another device the host waits for it."""
        kept = self.values
        if kept is None or not alike(kept, weight):
            return False
        if weight.device.type != "cpu":
            return torch.equal(kept, weight)
        # `alike` strides are those of a clone, so both are dense and begin at their lowest address.
        return bool(_memcmp(kept.data_ptr(), weight.data_ptr(), kept.numel() * kept.element_size()) == 0)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is of the values; its counter would be that of the original's tensor.
        return self.__dict__ | {"_tensor": None}


def alike(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape, type, device and memory format."""
    return (tensor.shape, tensor.dtype, tensor.device, tensor.stride()) == (
        other.shape,
        other.dtype,
        other.device,
        other.stride(),
    )


def _identity(weight: Tensor) -> tuple[int, int]:
    return id(weight), getattr(weight, "carries_feedback", 0)


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version
