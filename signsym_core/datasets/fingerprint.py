"""What says that a data set is the one of before: its classes in their order, and which image has which label where.

An image counts by the bytes of its file, whatever decodes it; one that is no file, by its pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.base import Data, Split
from signsym_core.datasets.marks import DIGEST

#: Images that a difference names.
NAMED = 3
#: Images that are hashed at once.
BLOCK = 256

#: Given a split and an image's number: where the image is, or nothing.
Place = Callable[[str, int], str | None]


def nowhere(part: str, number: int) -> str | None:
    """The place of an image that is no file."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The images of one split, in its order."""

    #: int64 [n]: each image's number in the data set, as in `Split.indices`.
    numbers: np.ndarray
    #: int64 [n]: of how many classes each image is, and int64 [sum]: the numbers of these classes, image by image.
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
    """The classes of a data set in their order, and its splits: "train", "test" and maybe "database"."""

    classes: tuple[str, ...]
    splits: Mapping[str, Images]

    @property
    def digest(self) -> str:
        """The sha256 of all of it, in hexadecimal."""
        total = hashlib.sha256(json.dumps(["signsym data", 1, self.classes]).encode())
        for part, images in sorted(self.splits.items()):
            total.update(json.dumps([part, len(images)]).encode())
            for values in (images.numbers, images.counts, images.labels):
                total.update(values.astype("<i8").tobytes())
            total.update(images.digests.tobytes())
        return total.hexdigest()


def fingerprint(data: Data) -> Fingerprint:
    """The fingerprint of a loaded data set."""
    splits = {"train": data.train, "test": data.test, "database": data.database}
    return Fingerprint(
        classes=tuple(data.classes),
        splits={part: _images(split) for part, split in splits.items() if split is not None},
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
    """In words, what of `before` is no longer so in `now`; nothing where the two are the same."""
    if before.classes != now.classes:
        yield _classes(before.classes, now.classes)
    for part in sorted(before.splits.keys() | now.splits.keys()):
        if part not in now.splits or part not in before.splits:
            yield f"{part}: expected {_counted(before, part)}, got {_counted(now, part)}"
        else:
            yield from _in_split(part, before, now, place)


def _counted(data: Fingerprint, part: str) -> str:
    return f"{len(data.splits[part]):,} images" if part in data.splits else "no such split"


def _classes(before: Sequence[str], now: Sequence[str]) -> str:
    if sorted(before) == sorted(now):
        what = "the classes have another order"
    elif len(before) != len(now):
        what = f"expected {len(before)} classes, got {len(now)}"
    else:
        what = "classes have other names"
    width = min(len(before), len(now))
    differ = [at for at in range(width) if before[at] != now[at]] or [width]
    named = [f"class {at}: expected {_name(before, at)}, got {_name(now, at)}" for at in differ[:NAMED]]
    return f"{what} ({'; '.join(named)}{_more(len(differ))})"


def _name(classes: Sequence[str], at: int) -> str:
    return repr(classes[at]) if at < len(classes) else "none"


def _more(count: int) -> str:
    return f"; and {count - NAMED:,} more" if count > NAMED else ""


def _in_split(part: str, before: Fingerprint, now: Fingerprint, place: Place) -> Iterator[str]:
    old, new = before.splits[part], now.splits[part]
    if not np.array_equal(old.numbers, new.numbers):
        gone, fresh = np.setdiff1d(old.numbers, new.numbers), np.setdiff1d(new.numbers, old.numbers)
        what = f"{part}: expected {len(old):,} images, got {len(new):,}"
        what += f", {len(gone):,} missing, {len(fresh):,} new" if len(gone) or len(fresh) else ", in another order"
        if len(fresh):
            what += f" ({_listed(part, fresh, place)})"
        elif len(gone):
            what += f" (missing {_listed(part, gone, nowhere)})"
        yield what
    _, ours, theirs = np.intersect1d(old.numbers, new.numbers, return_indices=True)
    changed = (old.digests[ours] != new.digests[theirs]).any(1)
    if changed.any():
        moved = sorted(map(bytes, old.digests[ours[changed]])) == sorted(map(bytes, new.digests[theirs[changed]]))
        what = "have changed places" if moved else "are other images"
        numbers = old.numbers[ours[changed]]
        yield f"{part}: {len(numbers):,} of {len(old):,} images {what}: {_listed(part, numbers, place)}"
    labels = [
        (number, a, b)
        for number, a, b in zip(old.numbers[ours].tolist(), old.labels_of(ours), new.labels_of(theirs), strict=True)
        if a != b
    ]
    if labels:
        named = [f"image {n}: expected {_called(a, before)}, got {_called(b, now)}" for n, a, b in labels[:NAMED]]
        yield f"{part}: {len(labels):,} labels changed ({'; '.join(named)}{_more(len(labels))})"


def _listed(part: str, numbers: np.ndarray, place: Place) -> str:
    named = []
    for number in numbers[:NAMED].tolist():
        where = place(part, number)
        named.append(f"number {number}" + (f", now {where}" if where else ""))
    return "; ".join(named) + _more(len(numbers))


def _called(labels: Sequence[int], data: Fingerprint) -> str:
    return ", ".join(data.classes[number] for number in labels) or "none"
