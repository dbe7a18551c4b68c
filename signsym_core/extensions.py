"""User-defined members: the modules that SIGNSYM_EXTENSIONS names are imported before the first use of a registry.

The variable lists importable modules, separated by commas (installed, or below a folder of PYTHONPATH). Each registers
its members when it is imported:

    @ss.ATTACKS.register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Grey(Attack): ...

Nothing is discovered automatically: only named modules are imported, and no file of a store can name one.
"""

from __future__ import annotations

import importlib
import os

VARIABLE = "SIGNSYM_EXTENSIONS"


class ExtensionError(ValueError):
    """A module that SIGNSYM_EXTENSIONS names cannot be imported."""


#: Modules that this process has imported, or is about to.
_loaded: set[str] = set()


def load() -> None:
    """Import the named modules, each once in a process. Raises ExtensionError with the module and the reason."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        if name in _loaded:
            continue
        # Before the import, because the module uses the registries itself.
        _loaded.add(name)
        try:
            importlib.import_module(name)
        except Exception as error:
            _loaded.discard(name)
            raise ExtensionError(
                f"{VARIABLE}: the module {name!r} cannot be imported ({type(error).__name__}: {error}); its folder "
                f"must be on PYTHONPATH, or its package installed"
            ) from error
