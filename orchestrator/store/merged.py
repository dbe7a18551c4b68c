"""Merged files: the rows of many jobs in one file of each kind, and the list of those jobs.

results/merged-DIGEST.parquet and the files of the same name in outcomes/ and examples/ have the schemas of the small
files that they replace. merged/merged-DIGEST.json lists the keys of their jobs, so that a sweep, which asks by path
whether a job is done, need not read any table. The list is written when everything that it speaks of is in the store
and has been read back, and before any small file is removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from orchestrator.store import records
from orchestrator.store.files import Files, StoreError
from signsym_core import seal

#: The folder of the lists of jobs, and the names of merged files.
FOLDER = "merged"
#: In the footer of a merged file whose rows come from files without a digest: damage before that may have passed.
UNSEALED = b"signsym_unsealed"
_NAME = re.compile(r"merged-[0-9a-f]{32}")
#: The lists that this process has read, by store and name: a list never changes under its name. And how many are kept.
_KNOWN: dict[tuple[str, str], frozenset[str]] = {}
KEPT = 256
#: Most listings of a store that changes while it is listed.
LOOKS = 20
#: Files that are removed concurrently.
THREADS = 16


def is_merged(name: str) -> bool:
    """Whether a file of this name, without its suffix, was made by merging others."""
    return bool(_NAME.fullmatch(name))


def lists(store: Files) -> list[str]:
    """The names of the present lists of jobs."""
    return [name for file in store.names(FOLDER, ".json") if is_merged(name := file.removesuffix(".json"))]


def write_files(store: Files, contents: Mapping[str, bytes | bytearray]) -> str:
    """Write a merged file into each folder, all of one name, which this returns: that of their contents.

    Raises StoreError where what is read back is not what was written.
    """
    name = f"merged-{hashlib.sha256(b''.join(contents.values())).hexdigest()[:32]}"
    for folder, content in contents.items():
        store.write(f"{folder}/{name}.parquet", content)
    for folder, content in contents.items():
        if store.read(path := f"{folder}/{name}.parquet") != content:
            raise StoreError(f"{path} is not what was written to {store.uri}; nothing was removed")
    return name


def remove(store: Files, paths: Sequence[str]) -> int:
    """Remove files; returns their number."""
    # In threads, since a bucket's latency dominates.
    with ThreadPoolExecutor(THREADS) as pool:
        return len(list(pool.map(store.remove, paths)))


def write_jobs(store: Files, name: str, jobs: Iterable[str]) -> None:
    """Write the list of a merged file's jobs."""
    text = json.dumps({"jobs": sorted(set(jobs)), seal.KEY: seal.BLANK}, sort_keys=True)
    store.write(f"{FOLDER}/{name}.json", seal.sealed(text.encode()))


def finished(store: Files, paths: Sequence[str]) -> set[str]:
    """The paths among `paths`, the results of jobs, that exist: as a file, or in the list of a merged file."""
    loose = store.exists(paths)
    jobs = {_job(path): path for path in paths if path not in loose and path.startswith("results/")}
    return loose | {jobs[job] for name in (lists(store) if jobs else ()) for job in jobs.keys() & jobs_of(store, name)}


def forget_results(store: Files, paths: Iterable[str]) -> None:
    """Make the jobs with results at `paths` count as not done: remove the files, and every list with one of the jobs.

    Without its list a merged file still has its rows; only a sweep that was planned before the file was written runs
    its jobs again.
    """
    jobs = set()
    for path in paths:
        store.remove(path)
        jobs.add(_job(path))
    for name in lists(store) if jobs else ():
        if jobs & jobs_of(store, name):
            store.remove(f"{FOLDER}/{name}.json")


def check_list(store: Files, path: str) -> None:
    """Raises ValueError or DamagedError where the file at `path` is no list of jobs."""
    _parsed(store.read_sealed(path))


def jobs_of(store: Files, name: str) -> frozenset[str]:
    """The jobs of a list; none where it cannot be read, so that they are computed again at worst."""
    place = (store.uri, name)
    if place not in _KNOWN:
        try:
            jobs = _parsed(store.read_sealed(f"{FOLDER}/{name}.json"))
        except (OSError, ValueError):
            return frozenset()
        while len(_KNOWN) >= KEPT:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        _KNOWN[place] = jobs
    return _KNOWN[place]


def _parsed(data: bytes) -> frozenset[str]:
    value = records.parsed(data)
    jobs = value.get("jobs") if isinstance(value, dict) else None
    if not isinstance(jobs, list) or not all(isinstance(job, str) for job in jobs):
        raise ValueError("expected a list of jobs")
    return frozenset(jobs)


def _job(path: str) -> str:
    return path.removeprefix("results/").removesuffix(".parquet")
