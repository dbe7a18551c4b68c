"""What only this code and plain values decide, kept in the user's cache: what takes torch is computed once.

A file plans/NAME.kept of the cache is sealed, and NAME is a digest of the function, the values and all code: what other
code, other values or other libraries give has another name, and a file that is damaged or foreign is not used. Members
of the user's may depend on anything, so nothing is kept, or read, where SIGNSYM_EXTENSIONS names modules.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.plan.code import code_digest
from orchestrator.store.apart import Call, calling_apart
from orchestrator.store.files import write_file
from signsym_core import extensions, seal, usercache

#: Bytes of all kept files: beyond them those that were not used for longest are removed.
KEPT = 1 << 28
_SUFFIX = ".kept"
#: The process that computes for a thread.
_computing = threading.local()


class Content(NamedTuple):
    """What a function returns, and whether its values and the code alone decide it."""

    data: bytes
    kept: bool = True


class Request(NamedTuple):
    """A function of a module, and its arguments: plain values that decide what it returns, and a file for errors."""

    function: Callable[..., Content]
    values: tuple[Any, ...]
    source: str = ""


@contextlib.contextmanager
def remembering(requests: Sequence[Request]) -> Iterator[Callable[[], list[bytes | ValueError | OSError]]]:
    """Yields what waits for what each function returns for its values, or for the error that it raises.

    What is not kept yet is computed by one new process, which begins at once, so that this one stays without torch; by
    the same one where contexts of a thread lie in each other, since torch takes seconds to import. Errors are not kept.
    """
    code = "" if os.environ.get(extensions.VARIABLE) else code_digest()
    names = [_name(request, code) if code else "" for request in requests]
    results: list[bytes | ValueError | OSError | None] = [_read(name) if name else None for name in names]
    missing = [number for number, result in enumerate(results) if result is None]
    with contextlib.ExitStack() as stack:
        wait: Callable[[], Sequence[bytes | ValueError | OSError]] = tuple
        if missing:
            arguments = [requests[number] for number in missing], [names[number] for number in missing]
            wait = stack.enter_context(_calling())(_computed, *arguments)

        def results_of_all() -> list[bytes | ValueError | OSError]:
            for number, result in zip(missing, wait(), strict=True):
                results[number] = result
            return [result for result in results if result is not None]

        yield results_of_all


@contextlib.contextmanager
def _calling() -> Iterator[Call]:
    """What calls a function in the process that computes for this thread; a new one where there is none."""
    if (call := getattr(_computing, "call", None)) is not None:
        yield call
        return
    with calling_apart() as _computing.call:
        try:
            yield _computing.call
        finally:
            del _computing.call


def _computed(requests: Sequence[Request], names: Sequence[str]) -> list[bytes | ValueError | OSError]:
    """The results of the requests in this process; those that have a name are kept under it."""
    results: list[bytes | ValueError | OSError] = []
    for request, name in zip(requests, names, strict=True):
        try:
            content = request.function(*request.values, request.source)
        except (ValueError, OSError) as error:
            results.append(error)
            continue
        results.append(content.data)
        # By the files as they are after all modules were imported: one that was edited meanwhile gives another name.
        if name and content.kept and name == _name(request, code_digest()):
            with contextlib.suppress(OSError):
                _keep(name, content.data)
    return results


def _name(request: Request, code: str) -> str:
    function = f"{request.function.__module__}.{request.function.__qualname__}"
    return hashlib.sha256(json.dumps([code, function, request.values], sort_keys=True).encode()).hexdigest()


def _folder() -> Path:
    """The folder of the files. Raises OSError where there is no home."""
    try:
        return (usercache.stated_cache() or usercache.user_cache()) / "plans"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error


def _read(name: str) -> bytes | None:
    """The content of a kept file; None where there is none that can be used."""
    try:
        path = _folder() / f"{name}{_SUFFIX}"
        file = path.read_bytes()
        header, data = file.split(b"\n", 1)
        if not seal.check(file) or json.loads(header)["name"] != name:
            return None
        # The time of its last use.
        with contextlib.suppress(PermissionError):
            os.utime(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data


def _keep(name: str, data: bytes) -> None:
    """Write a file, whole or not at all, and remove the least recently used ones beyond KEPT bytes."""
    header = json.dumps({"name": name, seal.KEY: seal.BLANK}).encode()
    write_file(_folder() / f"{name}{_SUFFIX}", seal.sealed(header + b"\n" + data))
    with os.scandir(_folder()) as entries:
        files = [(status.st_mtime_ns, status.st_size, entry.path) for entry in entries if (status := entry.stat())]
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > KEPT:
            os.unlink(path)
