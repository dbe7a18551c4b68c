"""A digest of everything that decides a plan beside the grid: this code, the libraries that it calls, and Python."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import orchestrator
import signsym_core

#: The libraries that the modules which plan may import.
LIBRARIES = (
    "eagerpy",
    "foolbox",
    "numpy",
    "PIL",
    "pyarrow",
    "safetensors",
    "scipy",
    "torch",
    "torchvision",
    "triton",
    "yaml",
)

#: The packages that hold this code.
PACKAGES = (orchestrator, signsym_core)


def code_digest() -> str:
    """The digest, from the files as they are now: no module is imported for it."""
    digest = hashlib.sha256(f"{sys.version}\n{sorted(set(_installed()))}\n{[*_origins()]}\n".encode())
    for package in PACKAGES:
        root = Path(*package.__path__)
        for path in sorted(_sources(root)):
            source = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(root)} {len(source)}\n".encode())
            digest.update(source)
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root):
        yield from (Path(folder, file) for file in files if file.endswith(".py"))


def _installed() -> Iterator[str]:
    """The names of all installed distributions, which hold their versions."""
    for folder in sys.path:
        if os.path.isdir(folder or "."):
            yield from (name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info")))


def _origins() -> Iterator[tuple[str, int]]:
    """Where each library would be imported from, and when that file was last written."""
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        if spec is not None and spec.origin is not None:
            yield spec.origin, os.stat(spec.origin).st_mtime_ns
