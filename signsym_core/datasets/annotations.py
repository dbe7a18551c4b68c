"""COCO's annotation files as a table of labels; the half gigabyte of JSON is parsed once and the table kept."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.cache import write_whole

#: Raised when the same file gives another table.
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotated:
    """The images of one annotation file, in its order."""

    numbers: Sequence[int]
    files: Sequence[str]
    #: uint8 0/1 [images, categories]: which categories an image's annotations have.
    labels: Tensor
    #: Names of the categories, by ascending category number.
    names: tuple[str, ...]


def read_annotations(file: Path, places: Sequence[Path]) -> Annotated:
    """The table of `file`, from the first of `places` that holds it; else it is made and kept where that is possible.

    Raises ValueError, naming file and entry, where the JSON is not what COCO distributes.
    """
    stat = os.stat(file)
    key = hashlib.sha256(json.dumps([VERSION, str(file.resolve()), stat.st_size, stat.st_mtime_ns]).encode())
    name = f"{file.stem}-{key.hexdigest()[:20]}.npz"
    for place in places:
        if (place / name).is_file():
            with np.load(place / name, allow_pickle=False) as table:
                return Annotated(
                    numbers=table["numbers"].tolist(),
                    files=table["files"].tolist(),
                    labels=torch.from_numpy(table["labels"]),
                    names=tuple(table["names"].tolist()),
                )
    made = _parse(file)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        numbers=np.asarray(made.numbers),
        files=np.asarray(made.files),
        labels=made.labels.numpy(),
        names=np.asarray(made.names),
    )
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / name, content.getvalue())
        except OSError:
            # It is only time that is lost.
            continue
        break
    return made


def _parse(file: Path) -> Annotated:
    try:
        tree = json.loads(file.read_bytes())
    except ValueError as error:
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
        raise ValueError(f"{file}: expected every image and every category to have a number of its own")
    labels = np.zeros((len(images), len(categories)), dtype=np.uint8)
    for at, (image, category) in enumerate(_entries(file, tree, "annotations", {"image_id": int, "category_id": int})):
        if image not in rows or category not in columns:
            raise ValueError(
                f"{file}: annotations[{at}]: expected an image and a category of this file, got image {image}, "
                f"category {category}"
            )
        labels[rows[image], columns[category]] = 1
    names = tuple(name for _, name in categories)
    numbers, files = [number for number, _ in images], [name for _, name in images]
    return Annotated(numbers=numbers, files=files, labels=torch.from_numpy(labels), names=names)


def _entries(file: Path, tree: dict[str, Any], key: str, fields: dict[str, type]) -> list[tuple[Any, ...]]:
    """The values of `fields` of every entry of the list `key`."""
    entries = tree.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"{file}: expected a list {key!r} (the file instances_*.json), got {type(entries).__name__}")
    found = []
    for at, entry in enumerate(entries):
        values = tuple(entry.get(field) for field in fields) if isinstance(entry, dict) else ()
        if len(values) < len(fields) or not all(map(isinstance, values, fields.values())):
            expected = " and ".join(f"{field} ({kind.__name__})" for field, kind in fields.items())
            raise ValueError(f"{file}: {key}[{at}]: expected {expected}, got {str(entry)[:80]}")
        found.append(values)
    return found
