"""What `signsym data check` says of a data set of image files: splits, cache, and whether a sample decodes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console

from orchestrator.commands.data_room import say_missing, say_room
from orchestrator.engine.sweep import COMPLETE, FAILED
from signsym_core.datasets import DataSource, Split
from signsym_core.datasets.cache import Cache
from signsym_core.datasets.decode import DIGEST, BrokenImageError, decoded, opened
from signsym_core.datasets.files import FileSource, Listing, cache_places, pooled
from signsym_core.datasets.marks import BROKEN, MISSING, READY
from signsym_core.datasets.splits import Choice

#: At most this many broken images are named; the rest are counted.
NAMED = 20
#: The prefix of the message about a file that has changed since it was decoded.
CHANGED = "changed:"


def check_files(source: FileSource, root: Path, sample: int, console: Console) -> int:
    """Print the splits and the state of the cache, and decode `sample` of the images; the exit status."""
    listing = source.listing(root)
    console.print(f"files: {len(listing.files):,} listed images below {listing.tree}")
    chosen = source.chosen(listing)
    say_splits(source, chosen, len(listing.names), console)
    tested = [listing.files[position] for position in chosen["test"].positions.tolist()]
    if (corrupted := source.replaced(root, tested)) is not None:
        console.print(f"tested on: {len(corrupted.files):,} corrupted images below {corrupted.tree} in their place")
    used = pooled(chosen)
    order = torch.randperm(len(used), generator=torch.Generator().manual_seed(0))
    positions = used[order[:sample]].sort().values
    files = [listing.tree / listing.files[position] for position in positions.tolist()]
    cache = _say_cache(source, root, listing, used, files, console)
    digests = [_digest(cache, position) for position in positions.tolist()]
    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(_problem, files, digests))
    changed = [words for words in problems if words is not None and words.startswith(CHANGED)]
    broken = [words for words in problems if words is not None and words not in changed]
    console.print(f"sample: {len(files) - len(broken)} of {len(files)} images decode")
    for words in changed[:NAMED]:
        console.print(words)
    if changed and cache is not None:
        console.print(f"a sweep would use the decoded images: restore the files, or delete {cache.folder}")
    for problem in broken[:NAMED]:
        console.print(f"broken: {problem}")
    if len(broken) > NAMED:
        console.print(f"broken: and {len(broken) - NAMED} more")
    if broken and source.broken == "stop":
        console.print("a sweep would stop at them; replace the files, or set broken=skip to leave them out")
    return FAILED if changed or (broken and source.broken == "stop") else COMPLETE


def _digest(cache: Cache | None, position: int) -> bytes | None:
    """The digest of the file that the cached image at `position` was decoded from; None where it is not cached."""
    if cache is None or cache.marks["state"][position] != READY:
        return None
    return bytes(cache.marks["file"][position])


def _problem(file: Path, digest: bytes | None) -> str | None:
    """Why an image file cannot be used: it cannot be decoded, or its digest has changed; None where it can."""
    try:
        reader, _ = opened(file)
        with reader:
            data = reader.read()
        decoded(data, file, None)
    except (BrokenImageError, OSError) as error:
        return str(error)
    if digest is not None and hashlib.sha256(data).digest()[:DIGEST] != digest:
        return f"{CHANGED} {file} has other bytes than when it was decoded, under the same size and time of change"
    return None


def _say_cache(
    source: FileSource, root: Path, listing: Listing, used: torch.Tensor, sample: Sequence[Path], console: Console
) -> Cache | None:
    cache = source.existing_cache(root, listing)
    if cache is not None:
        states = cache.states()[used]
        ready, broken, missing = (int((states == state).sum()) for state in (READY, BROKEN, MISSING))
        console.print(f"cache: {ready:,} of {len(used):,} images decoded, {broken:,} broken, in {cache.folder}")
        say_room(cache, console)
    else:
        place = cache_places(root)[0]
        console.print(f"cache: none yet; it would be in {place}")
        missing = len(used)
    if missing:
        say_missing(source, root, cache, missing, sample, console)
    return cache


def say_splits(source: DataSource, splits: Mapping[str, Choice | Split], classes: int, console: Console) -> None:
    """Print how many images and classes each split has, and what its publication has instead."""
    for (name, split), stated in zip(splits.items(), (*source.stated, None, None), strict=False):
        several = split.labels.dim() == 2
        counts = split.labels.sum(0) if several else torch.bincount(split.labels, minlength=classes)
        kind = f", {split.labels.sum() / len(split.labels):.2f} labels an image" if several else ""
        choosing = {"split", "classes", f"{name}_images", "validation_images", "lists", "train_draw", "test_draw"}
        plain = not source.changed().keys() & choosing
        known = type(source).stated is not DataSource.stated
        differs = stated is not None and known and plain and stated != len(split.labels)
        note = f" (its publication has {stated:,})" if differs else ""
        console.print(
            f"{name}: {len(split.labels):,} images{note}, {len(counts)} classes with {int(counts.min()):,} to "
            f"{int(counts.max()):,} images{kind}"
        )
