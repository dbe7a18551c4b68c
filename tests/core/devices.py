"""Finds, on a CPU, tensors of the host that meet those of a device, which a GPU refuses.

Tensors that are marked, and all that is computed from them, count as on the device `DEVICE`, which they name as theirs;
what is made without a device or comes from NumPy is the host's. Of other tensors nothing is known, and nothing is said.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

#: A CPU by another name than the host's, which is `cpu`.
DEVICE, HOST = torch.device("cpu", 0), torch.device("cpu")
_MADE = {
    *("zeros", "ones", "empty", "full", "arange", "linspace", "eye", "rand", "randn", "randint", "randperm", "tensor"),
    *("as_tensor", "from_numpy", "scalar_tensor"),
}
#: What takes tensors of two devices.
_ACROSS = {"to", "cpu", "copy_", "set_", "type", "__set__", "__setitem__", "__getitem__"}


class Devices(TorchFunctionMode):
    """Inside the block `mixed` has a line for each operation on tensors of both, and the tensors read by NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []
        self._devices = WeakIdKeyDictionary()

    def on_device(self, *tensors: Tensor | nn.Module) -> None:
        """Tensors, and all of modules, are the device's."""
        for tensor in tensors:
            own = [*tensor.parameters(), *tensor.buffers()] if isinstance(tensor, nn.Module) else [tensor]
            self._mark(own, DEVICE)

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = getattr(function, "__name__", "")
        first = arguments[0] if arguments else None
        if name == "__get__" and function.__self__ is Tensor.device:
            return self._devices.get(first) or function(*arguments, **keywords)
        given = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
        known = [device for tensor in given if (device := self._devices.get(tensor)) is not None]
        # A single number of the host meets every device.
        met = {self._devices.get(tensor) for tensor in given if tensor.dim()} - {None}
        result = function(*arguments, **keywords)
        if len(met) > 1 and name not in _ACROSS:
            self._say(name, given)
        if name == "numpy" and DEVICE in known:
            self._say(name, given)
        stated = keywords.get("device")
        if name == "to":
            named = [each for each in (*arguments[1:], stated) if isinstance(each, str | torch.device)]
            named += [self._devices.get(each, HOST) for each in arguments[1:] if isinstance(each, Tensor)]
            device = torch.device(named[0]) if named else self._devices.get(first)
        elif name == "cpu":
            device = HOST
        elif name in _MADE:
            device = torch.device(stated) if stated is not None else HOST
        else:
            device = DEVICE if DEVICE in known else HOST if known else None
        if name in ("to", "cpu") and result is first and device != self._devices.get(first):
            # Another device has a copy.
            result = result.clone()
        self._mark([leaf for leaf in tree_leaves(result) if all(leaf is not tensor for tensor in given)], device)
        return result

    def _mark(self, leaves: Iterable[Any], device: torch.device | None) -> None:
        for leaf in leaves:
            if isinstance(leaf, Tensor) and device is not None:
                self._devices[leaf] = device

    def _say(self, name: str, given: list[Tensor]) -> None:
        places = [frame for frame in traceback.extract_stack() if "signsym_core" in frame.filename]
        where = f"{places[-1].filename}:{places[-1].lineno}" if places else "outside"
        shapes = ", ".join(f"{list(tensor.shape)} on {self._devices.get(tensor)}" for tensor in given)
        self.mixed.append(f"{name} at {where}: {shapes}")
