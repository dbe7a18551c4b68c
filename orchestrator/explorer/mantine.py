"""Mantine's components, without importing all 180 of them: that is a quarter of what it takes to open a page.

The package has its components from one module, in the place of which stands one that imports those of NAMES. Any other
component is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

#: The components of the explorer.
NAMES = ("Button", "ColorSchemeToggle", "MantineProvider", "MultiSelect", "SegmentedControl", "Select", "Switch")
_PACKAGE = "dash_mantine_components"
_COMPONENTS = f"{_PACKAGE}._imports_"


def _component(name: str) -> Any:
    try:
        component = getattr(importlib.import_module(f"{_PACKAGE}.{name}"), name)
    except ModuleNotFoundError:
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}") from None
    # In the place of its module, which the import has put there.
    setattr(sys.modules[_PACKAGE], name, component)
    return component


def _imported() -> Any:
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE]
    sys.modules[_COMPONENTS] = types.ModuleType(_COMPONENTS)
    vars(sys.modules[_COMPONENTS]).update(__all__=[*NAMES], __getattr__=_component)
    package = importlib.import_module(_PACKAGE)
    vars(package).setdefault("__getattr__", _component)
    return package


#: The package.
dmc = _imported()
