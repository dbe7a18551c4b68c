"""`signsym data check | prepare`: which files of a data set exist, and its images decoded before a sweep."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from orchestrator.commands.data_files import check_files, say_splits
from orchestrator.commands.data_room import say_room
from orchestrator.engine.sweep import COMPLETE, FAILED
from orchestrator.gridfile.yamlfile import parse
from signsym_core.datasets import (
    DATASETS,
    BrokenImagesError,
    BrokenImageWarning,
    Data,
    DataNotFoundError,
    DataSource,
)
from signsym_core.datasets.files import FileSource
from signsym_core.datasets.fingerprint import fingerprint


def run(parsed: argparse.Namespace, console: Console) -> int:
    """Check or prepare a data set."""
    source, root = _source(parsed), parsed.data_root
    if parsed.action == "check" and parsed.sample < 0:
        raise ValueError(f"--sample: expected a whole number, at least 0, got {parsed.sample}")
    if parsed.action == "check":
        return _check(source, root, parsed.sample, console)
    if parsed.compress and not isinstance(source, FileSource):
        raise ValueError(f"--compress: expected a data set of image files, got {source.name}, which has no cache")
    return _prepare(source, root, parsed.compress, console)


def _check(source: DataSource, root: Path, sample: int, console: Console) -> int:
    """Print which files exist, which are missing and where they come from; 0 where a sweep could start, else 1."""
    _say_origin(source, console)
    try:
        if isinstance(source, FileSource):
            return check_files(source, root, sample, console)
        absent = source.absent(root)
        if absent is not None:
            console.print(f"missing: {absent}. Get it with: signsym data prepare {source.name} --data-root {root}")
            return FAILED
        _say_loaded(source, source.load(root), console)
        return COMPLETE
    except DataNotFoundError as error:
        console.print(f"missing: {error}")
        return FAILED


def _prepare(source: DataSource, root: Path, compress: bool, console: Console) -> int:
    """Decode the images that no cache holds; 0 where a sweep could start, 1 where images are missing or broken."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        # The bar goes to standard error, so that the output can be piped.
        with Progress(*columns, console=Console(stderr=True)) as bar, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BrokenImageWarning)
            if isinstance(source, FileSource):
                task = bar.add_task("decoding", total=None)
                data = source.load(root, lambda done, total: bar.update(task, completed=done, total=total), compress)
            else:
                data = source.load(root)
        for warning in caught:
            console.print(f"warning: {warning.message}")
        _say_loaded(source, data, console)
        cache = source.existing_cache(root, source.listing(root)) if isinstance(source, FileSource) else None
        if cache is not None:
            console.print(f"cache: {cache.folder}")
            say_room(cache, console)
        console.print(f"fingerprint: {fingerprint(data).digest} (equal on machines that have the same data)")
        return COMPLETE
    except BrokenImagesError as error:
        console.print(f"broken: {error}")
    except DataNotFoundError as error:
        _say_origin(source, console)
        console.print(f"missing: {error}")
    return FAILED


def _source(parsed: argparse.Namespace) -> DataSource:
    parameters = {}
    for setting in parsed.sets:
        key, mark, value = setting.partition("=")
        if not mark:
            raise ValueError(f"--set: expected KEY=VALUE such as size=64, got {setting!r}")
        parameters[key] = _value(key, value)
    return DATASETS.build(parsed.dataset, **parameters)


def _value(key: str, text: str) -> Any:
    return parse(text, lambda line: f"--set {key}").plain


def _say_origin(source: DataSource, console: Console) -> None:
    console.print(f"{source.label} ({source.citation})")
    console.print(f"from: {source.origin.url}")
    console.print(f"licence: {source.origin.licence}")
    console.print(f"to fetch: {source.origin.size}")


def _say_loaded(source: DataSource, data: Data, console: Console) -> None:
    say_splits(source, data.splits, len(data.classes), console)
    _, *shape = data.train.images.shape
    console.print(f"ready: images of {' x '.join(map(str, shape))} (channels, height, width)")
