"""The fingerprint of a data set, which shows whether it changed: its classes in order, its images and their labels.

An image is identified by the bytes of its file, whatever decodes it, or by its pixels where it does not come from a
file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.decode import DIGEST
from signsym_core.datasets.splits import Data, Split

#: Most images that a message about a difference names.
NAMED = 3
#: The splits of a data set.
SPLITS = ("train", "test", "database", "validation")
#: Images that are hashed per batch.
BLOCK = 256

#: From a split and an image's number to the path of the image, or None.
Place = Callable[[str, int], str | None]


def nowhere(split: str, number: int) -> str | None:
    """The `Place` of data sets whose images do not come from files."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The images of one split, in its order."""

    #: int64 [n]: each image's number in the data set, as in `Split.indices`.
    numbers: np.ndarray
    #: int64 [n]: the number of each image's classes, and int64 [sum]: the numbers of these classes, image by image.
    counts: np.ndarray
    labels: np.ndarray
    #: uint8 [n, 16]: the first bytes of the SHA-256 of each image's file or pixels.
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def labels_of(self, rows: np.ndarray) -> list[list[int]]:
        """The numbers of the classes of the images at the positions `rows`."""
        ends = self.counts.cumsum()
        return [self.labels[ends[row] - self.counts[row] : ends[row]].tolist() for row in rows.tolist()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The classes of a data set in their order, and its splits: "train", "test", maybe "database", "validation"."""

    classes: tuple[str, ...]
    splits: Mapping[str, Images]

    @property
    def digest(self) -> str:
        """The sha256 of the whole fingerprint, in hexadecimal."""
        total = hashlib.sha256(json.dumps(["signsym data", 1, self.classes]).encode())
        for split, images in sorted(self.splits.items()):
            total.update(json.dumps([split, len(images)]).encode())
            for values in (images.numbers, images.counts, images.labels):
                total.update(values.astype("<i8").tobytes())
            total.update(images.digests.tobytes())
        return total.hexdigest()


def fingerprint(data: Data, names: Sequence[str] = SPLITS) -> Fingerprint:
    """The fingerprint of a loaded data set, or of some of its splits."""
    splits = {name: getattr(data, name) for name in names}
    return Fingerprint(
        classes=tuple(data.classes),
        splits={name: _images(split) for name, split in splits.items() if split is not None},
    )


def _images(split: Split) -> Images:
    labels = split.labels.cpu()
    ones = labels > 0 if labels.dim() == 2 else None
    digests = _of_pixels(split) if split.digests is None else split.digests
    return Images(
        numbers=split.indices.numpy(),
        counts=(torch.ones_like(labels) if ones is None else ones.sum(1)).numpy(),
        labels=(labels if ones is None else ones.nonzero()[:, 1]).numpy(),
        digests=digests.numpy(),
    )


def _of_pixels(split: Split) -> Tensor:
    shape = json.dumps(list(split.images.shape[1:])).encode()
    digests = []
    for start in range(0, len(split), BLOCK):
        block = split.images[start : start + BLOCK].cpu()
        for row in block.reshape(len(block), -1).numpy():
            total = hashlib.sha256(shape)
            total.update(row)
            digests.append(total.digest()[:DIGEST])
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST).copy())


def differences(before: Fingerprint, now: Fingerprint, place: Place) -> Iterator[str]:
    """Sentences that say how `now` differs from `before`; none where the two are equal."""
    if before.classes != now.classes:
        yield _classes(before.classes, now.classes)
    for split in sorted(before.splits.keys() | now.splits.keys()):
        if split not in now.splits or split not in before.splits:
            yield f"{split}: expected {_counted(before, split)}, got {_counted(now, split)}"
        else:
            yield from _in_split(split, before, now, place)


def _counted(data: Fingerprint, split: str) -> str:
    return f"{len(data.splits[split]):,} images" if split in data.splits else "no such split"


def _classes(before: Sequence[str], now: Sequence[str]) -> str:
    if sorted(before) == sorted(now):
        what = "the classes have another order"
    elif len(before) != len(now):
        what = f"expected {len(before)} classes, got {len(now)}"
    else:
        what = "classes have other names"
    width = min(len(before), len(now))
    differ = [number for number in range(width) if before[number] != now[number]] or [width]
    named = [f"class {number}: expected {_name(before, number)}, got {_name(now, number)}" for number in differ[:NAMED]]
    return f"{what} ({'; '.join(named)}{_more(len(differ))})"


def _name(classes: Sequence[str], number: int) -> str:
    return repr(classes[number]) if number < len(classes) else "none"


def _more(count: int) -> str:
    return f"; and {count - NAMED:,} more" if count > NAMED else ""


def _in_split(split: str, before: Fingerprint, now: Fingerprint, place: Place) -> Iterator[str]:
    old, new = before.splits[split], now.splits[split]
    if not np.array_equal(old.numbers, new.numbers):
        gone, fresh = np.setdiff1d(old.numbers, new.numbers), np.setdiff1d(new.numbers, old.numbers)
        what = f"{split}: expected {len(old):,} images, got {len(new):,}"
        what += f", {len(gone):,} missing, {len(fresh):,} new" if len(gone) or len(fresh) else ", in another order"
        if len(fresh):
            what += f" ({_listed(split, fresh, place)})"
        elif len(gone):
            what += f" (missing {_listed(split, gone, nowhere)})"
        yield what
    _, rows_before, rows_now = np.intersect1d(old.numbers, new.numbers, return_indices=True)
    changed = (old.digests[rows_before] != new.digests[rows_now]).any(1)
    if changed.any():
        moved = sorted(map(bytes, old.digests[rows_before[changed]])) == sorted(
            map(bytes, new.digests[rows_now[changed]])
        )
        what = "have changed places" if moved else "are other images"
        numbers = old.numbers[rows_before[changed]]
        yield f"{split}: {len(numbers):,} of {len(old):,} images {what}: {_listed(split, numbers, place)}"
    labels = [
        (number, a, b)
        for number, a, b in zip(
            old.numbers[rows_before].tolist(), old.labels_of(rows_before), new.labels_of(rows_now), strict=True
        )
        if a != b
    ]
    if labels:
        named = [f"image {n}: expected {_called(a, before)}, got {_called(b, now)}" for n, a, b in labels[:NAMED]]
        yield f"{split}: {len(labels):,} labels changed ({'; '.join(named)}{_more(len(labels))})"


def _listed(split: str, numbers: np.ndarray, place: Place) -> str:
    named = []
    for number in numbers[:NAMED].tolist():
        where = place(split, number)
        named.append(f"number {number}" + (f", now {where}" if where else ""))
    return "; ".join(named) + _more(len(numbers))


def _called(labels: Sequence[int], data: Fingerprint) -> str:
    return ", ".join(data.classes[number] for number in labels) or "none"
