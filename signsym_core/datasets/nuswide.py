"""NUS-WIDE with its 21 most frequent concepts, from list files or from its own label files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from signsym_core.datasets import authors_2024
from signsym_core.datasets.base import Origin
from signsym_core.datasets.files import Listing
from signsym_core.datasets.listfile import Tree
from signsym_core.datasets.lists import Lists
from signsym_core.datasets.splits import DataNotFoundError

#: Images of each split of the authors' code; the rest are the database.
AUTHORS_COUNTS = MappingProxyType({"train": 10_500, "test": 2_100, "validation": 2_100})
#: Images of a concept, of all that NUS-WIDE lists, from which on the authors' code keeps it: 21 of 81 concepts.
AUTHORS_LEAST = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class NUSWIDE(Lists):
    """Flickr photographs with any of 21 concepts: HashNet-style lists of 10,500 training images and 2,100 queries.

    The database is LISTS/database.txt: 193,734 images in the usual lists. The paper had 148,332 photographs that could
    still be downloaded, and published no list of them. To use a list of all images that you have, name it in all three
    files and let `split: 500/100/rest` draw the paper's splits from it. Lists do not name the concepts, so classes are
    the numbers of their columns.

    `split: authors-2024` reads no lists but NUS-WIDE's own files, PATH/ImageList/Imagelist.txt and
    PATH/AllLabels/Labels_CONCEPT.txt, with the photographs in PATH/images. As in the authors' code, those of the listed
    that are there and have a concept of at least 5,000 listed images are divided: 10,500 to train, 2,100 queries, 2,100
    to validate, the rest in the database. So who has other photographs has other splits. Classes are the concepts, the
    most frequent first.
    """

    name = "nuswide"
    label = "NUS-WIDE"
    citation = "Chua, Tang, Hong, Li, Luo, Zheng 2009, NUS-WIDE: a real-world web image database"
    stated = (10_500, 2_100)
    origin = Origin(
        url="https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html; list files: HashNet",
        licence="labels for research; photographs belong to their Flickr authors and are fetched from their addresses",
        size="269,648 photographs, of which the lists name some 195,000",
    )
    width = 21
    several = True
    named_splits = MappingProxyType({authors_2024.NAME: (10_500, 2_100)})

    size: int | None = 224
    path: str = "nuswide"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split == authors_2024.NAME:
            self.refuse_idle("lists", "database", "queries_in_database")

    def listing(self, root: Path) -> Listing:
        return _as_the_authors(root / self.path) if self.split == authors_2024.NAME else super().listing(root)


def _as_the_authors(tree: Path) -> Listing:
    names_file, folder = tree / "ImageList" / "Imagelist.txt", tree / "AllLabels"
    label_files = sorted(folder.glob("Labels_*.txt"))
    if not names_file.is_file() or not label_files:
        missing = names_file if label_files else folder / "Labels_*.txt"
        raise DataNotFoundError(f"NUS-WIDE: {missing} of split {authors_2024.NAME} does not exist")
    # "actor\0001_2124494179.jpg": folders of somebody else's machine.
    listed = [line.rsplit("\\", 1)[-1].strip() for line in names_file.read_text().splitlines()]
    columns = {file.stem.removeprefix("Labels_"): _column(file, len(listed)) for file in label_files}
    frequent = {name: column for name, column in columns.items() if column.sum(dtype=np.int64) >= AUTHORS_LEAST}
    if len(frequent) < 2:
        raise ValueError(
            f"NUS-WIDE: expected at least two files in {folder} with {AUTHORS_LEAST:,} ones, got {len(frequent)}"
        )
    # The most frequent first; equally frequent ones by name.
    frequent = dict(sorted(frequent.items(), key=lambda item: -int(item[1].sum(dtype=np.int64))))
    labels = torch.from_numpy(np.stack(list(frequent.values()), axis=1))
    inside = Tree(tree)
    stored = torch.tensor([f"images/{name}" in inside for name in listed])
    kept = (stored & labels.any(1)).nonzero().flatten()
    try:
        members = authors_2024.folds(len(kept), AUTHORS_COUNTS)
    except ValueError as error:
        raise ValueError(f"NUS-WIDE {tree / 'images'}: split {authors_2024.NAME}: {error}") from None
    files = [f"images/{listed[row]}" for row in kept.tolist()]
    return Listing(names=list(frequent), tree=tree, files=files, labels=labels[kept], members=members)


def _column(file: Path, images: int) -> npt.NDArray[np.uint8]:
    """The 0 or 1 of every listed image for one concept."""
    words = file.read_text().split()
    if not {"0", "1"}.issuperset(words):
        strange = next(row for row, word in enumerate(words) if word not in ("0", "1"))
        raise ValueError(f"{file}:{strange + 1}: expected 0 or 1, got {words[strange][:40]!r}")
    if len(words) != images:
        raise ValueError(f"{file}: expected a 0 or 1 for each of {images:,} listed images, got {len(words):,}")
    return np.frombuffer("".join(words).encode(), dtype=np.uint8) - ord("0")
