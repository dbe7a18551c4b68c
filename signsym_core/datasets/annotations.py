"""COCO's annotation files as a table of labels; the half gigabyte of JSON is parsed once and the table kept."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.cachefolder import write_whole
from signsym_core.datasets.splits import DataWarning

#: Increased when the same file gives another table.
VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotated:
    """The images of one annotation file, in its order."""

    numbers: Sequence[int]
    files: Sequence[str]
    #: uint8 0/1 [images, categories]: which categories an image's annotations have.
    labels: Tensor
    #: Names of the categories, by ascending category number, and these numbers.
    names: tuple[str, ...]
    categories: tuple[int, ...]


def read_annotations(file: Path, places: Sequence[Path]) -> Annotated:
    """The table of `file`, read from the first of `places` that holds it; else parsed and saved where that is possible.

    A damaged table is parsed again, with a DataWarning. Raises ValueError, naming file and entry, where the JSON is not
    what COCO distributes: images and categories with unique numbers and names, relative file names, and annotations
    that refer to them.
    """
    stat = os.stat(file)
    key = hashlib.sha256(json.dumps([VERSION, str(file.resolve()), stat.st_size, stat.st_mtime_ns]).encode())
    name = f"{file.stem}-{key.hexdigest()[:20]}.npz"
    for place in places:
        if (place / name).is_file():
            try:
                return _read(place / name)
            except Exception as error:
                # Whatever is wrong with it, it can be parsed again.
                message = f"{place / name} is damaged ({error}); it is made again from {file}"
                warnings.warn(message, DataWarning, stacklevel=2)
    table = _parse(file)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        numbers=np.asarray(table.numbers),
        files=np.asarray(table.files),
        labels=table.labels.numpy(),
        names=np.asarray(table.names),
        categories=np.asarray(table.categories),
    )
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / name, content.getvalue())
        except OSError:
            # The table is a cache: without it the next run parses again.
            continue
        break
    return table


def _read(table: Path) -> Annotated:
    """The saved table; every array in the file carries a checksum."""
    with np.load(table, allow_pickle=False) as arrays:
        return Annotated(
            numbers=arrays["numbers"].tolist(),
            files=arrays["files"].tolist(),
            labels=torch.from_numpy(arrays["labels"]),
            names=tuple(arrays["names"].tolist()),
            categories=tuple(arrays["categories"].tolist()),
        )


def _parse(file: Path) -> Annotated:
    try:
        tree = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected COCO's annotations as JSON, got: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(
            f"{file}: expected an object with images, annotations and categories, got {type(tree).__name__}"
        )
    images = _entries(file, tree, "images", {"id": int, "file_name": str})
    categories = sorted(_entries(file, tree, "categories", {"id": int, "name": str}))
    columns = {number: column for column, (number, _) in enumerate(categories)}
    rows = {number: row for row, (number, _) in enumerate(images)}
    if len(columns) < len(categories) or len(rows) < len(images):
        raise ValueError(f"{file}: expected every image and every category to have a unique number")
    _refuse_paths(file, [name for _, name in images])
    _refuse_double(file, "images", "file_name", [name for _, name in images])
    _refuse_double(file, "categories", "name", [name for _, name in categories])
    labels = np.zeros((len(images), len(categories)), dtype=np.uint8)
    for index, (image, category) in enumerate(
        _entries(file, tree, "annotations", {"image_id": int, "category_id": int})
    ):
        if image not in rows or category not in columns:
            raise ValueError(
                f"{file}: annotations[{index}]: expected an image and a category of this file, got image {image}, "
                f"category {category}"
            )
        labels[rows[image], columns[category]] = 1
    names = tuple(name for _, name in categories)
    numbers, files = [number for number, _ in images], [name for _, name in images]
    return Annotated(
        numbers=numbers, files=files, labels=torch.from_numpy(labels), names=names, categories=tuple(columns)
    )


def _refuse_paths(file: Path, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if not name or name.endswith("/") or name.startswith("/") or {"", "..", "."} & set(name.split("/")):
            raise ValueError(f"{file}: images[{index}]: expected the name of a file below its folder, got {name!r}")


def _refuse_double(file: Path, key: str, field: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        double = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{file}: {key}: expected every {field} once, got {double!r} twice")


def _entries(file: Path, tree: dict[str, Any], key: str, fields: dict[str, type]) -> list[tuple[Any, ...]]:
    """The values of `fields` of every entry of the list `key`."""
    entries = tree.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"{file}: expected a list {key!r} (the file instances_*.json), got {type(entries).__name__}")
    rows = []
    for index, entry in enumerate(entries):
        values = tuple(entry.get(field) for field in fields) if isinstance(entry, dict) else ()
        fits = len(values) == len(fields) and all(map(_is, values, fields.values()))
        if not fits:
            expected = " and ".join(f"{field} ({kind.__name__})" for field, kind in fields.items())
            raise ValueError(f"{file}: {key}[{index}]: expected {expected}, got {str(entry)[:80]}")
        rows.append(values)
    return rows


def _is(value: object, kind: type) -> bool:
    """Whether `value` is of type `kind` (a bool is no int) and, as an int, fits int64."""
    return type(value) is kind and not (isinstance(value, int) and abs(value) >= 2**63)
