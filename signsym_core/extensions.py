"""User-defined members: the modules that SIGNSYM_EXTENSIONS names are imported before the first use of a registry.

The variable lists importable modules, separated by commas (installed, or below a folder of PYTHONPATH). Each registers
its members when it is imported:

    @ss.ATTACKS.register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Grey(Attack): ...

Nothing is discovered automatically: only named modules are imported, and no file of a store can name one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

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
    for name in _named():
        if name in _loaded:
            continue
        # What is imported, whatever becomes of the file while this process runs.
        digest(name.partition(".")[0])
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


def _named() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def digests() -> dict[str, str]:
    """The digest of each module that VARIABLE names, or of the package that it is in; nothing is imported."""
    tops = dict.fromkeys(name.partition(".")[0] for name in _named())
    return {top: digest(top) for top in tops}


@functools.cache
def digest(module: str) -> str:
    """The first 12 digits of the SHA-256 of a module's file, or of all Python files of a package; "" without a file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    content = hashlib.sha256()
    for path in _files(list(spec.submodule_search_locations or ()), spec.origin):
        content.update(f"{path.name} ".encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


def _files(folders: list[str], origin: str | None) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(Path(folder).rglob("*.py"))
    if not folders and origin is not None and Path(origin).is_file():
        yield Path(origin)


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
