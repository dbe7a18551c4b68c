"""torchvision without torch's compiler, which takes as long to load as torch and which no network needs.

`torchvision.ops.roi_align` imports one function of `torch._dynamo`, and with it the whole compiler: two seconds of the
start of every worker, and of a plan.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from typing import Any

_COMPILER = "torch._dynamo"


def torchvision(name: str) -> Any:
    """The module `torchvision.NAME`; what torchvision needs of the compiler is imported when it is first called."""
    if _COMPILER in sys.modules or "torchvision" in sys.modules:
        return importlib.import_module(f"torchvision.{name}")
    original = builtins.__import__

    def importing(module: str, namespace: Any = None, local: Any = None, names: Any = (), level: int = 0) -> Any:
        within = str((namespace or {}).get("__name__", "")).startswith("torchvision.")
        if within and module == f"{_COMPILER}.utils" and tuple(names or ()) == ("is_compile_supported",):
            return types.SimpleNamespace(is_compile_supported=_is_compile_supported)
        return original(module, namespace, local, names, level)

    # Every import statement calls it.
    builtins.__import__ = importing  # type: ignore[assignment]
    try:
        return importlib.import_module(f"torchvision.{name}")
    finally:
        builtins.__import__ = original


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))
