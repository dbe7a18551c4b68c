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
import traceback

VARIABLE = "SIGNSYM_EXTENSIONS"


class ExtensionError(ValueError):
    """A module that SIGNSYM_EXTENSIONS names cannot be imported."""


def hint() -> str:
    """What an unknown name may be: a member of a module that is not named, or of none of those that are."""
    named = os.environ.get(VARIABLE)
    if named:
        return f"None of the modules in {VARIABLE} ({named}) registers it"
    return f"Members of your own are known where {VARIABLE} names their module"


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
                f"{VARIABLE}: the module {name!r} cannot be imported ({type(error).__name__}: {error}); "
                f"{_next_step(name, error)}"
            ) from error


def _next_step(name: str, error: Exception) -> str:
    """What to do about an import that failed: where the module is, or the line of the user's file that raised."""
    if name.endswith(".py") or os.sep in name:
        module = os.path.basename(name).removesuffix(".py")
        return f"expected the name of a module, not a path: {VARIABLE}={module}, with its folder on PYTHONPATH"
    if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{name}.".startswith(f"{error.name}."):
        return "its folder must be on PYTHONPATH, or its package installed"
    # The last line of a file that is neither ours nor the import system's.
    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.dirname(__file__)
    lines = [f"{f.filename}:{f.lineno}" for f in frames if not f.filename.startswith(("<", package))]
    lines = [line for line in lines if not line.startswith(os.path.dirname(importlib.__file__))]
    return f"mend it at {lines[-1]}" if lines else "mend the module"
