"""Counts, on a CPU, the operations after which the host would wait for a GPU."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations whose result, or its shape, the host has to know.
_WAITING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "repeat_interleave"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Inside the block `counts` grows by the name of each operation that waits; methods that leave torch count too."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._methods = {name: getattr(Tensor, name) for name in ("tolist", "numpy")}

    def __enter__(self) -> Waits:
        for name, method in self._methods.items():
            setattr(Tensor, name, self._counting(name, method))
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for name, method in self._methods.items():
            setattr(Tensor, name, method)

    def _counting(self, name, method):
        def counted(tensor, *arguments, **keywords):
            self.counts[name] += 1
            return method(tensor, *arguments, **keywords)

        return counted

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name, keywords = function.overloadpacket.__name__, keywords or {}
        if name == "repeat_interleave":
            # With the length of the result nothing has to be known.
            waits = keywords.get("output_size") is None
        elif name in _INDEXING:
            # A mask is turned into positions first.
            waits = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])
        else:
            waits = name in _WAITING
        self.counts[name] += waits
        return function(*arguments, **keywords)

    @property
    def total(self) -> int:
        return self.counts.total()
