"""The provenance that is stored with every number: the commit of the code and the versions of the libraries."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

#: Before the name of a module of the user's among the versions of a result, and before that where its model was trained
#: with it.
EXTENSION, TRAINED = "extension ", "trained with "
_LIBRARIES = ("signsym", "torch", "torchvision", "ray", "numpy", "pyarrow")


def git() -> str:
    """The commit of the code, with "+" where files are changed; "" where the code is not in a checkout."""
    folder = Path(__file__).resolve().parent

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions() -> str:
    """JSON of the versions of Python and of the libraries that numbers depend on."""
    libraries = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return json.dumps(libraries, sort_keys=True)


@functools.lru_cache(maxsize=256)
def extended(versions: str | None) -> Mapping[str, str]:
    """Of the versions of a result, or of a model's record, the digests of the user's modules."""
    try:
        values = json.loads(versions or "{}")
    except ValueError:
        return {}
    items = values.items() if isinstance(values, dict) else ()
    return {str(name): str(digest) for name, digest in items if EXTENSION in name}
