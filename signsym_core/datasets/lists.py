"""Any images with list files in the format of HashNet and DeepHash."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from signsym_core.datasets.files import FileSource, Listing
from signsym_core.datasets.listfile import Elsewhere, ImageList, Tree, located, read_list
from signsym_core.datasets.splits import DataNotFoundError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lists(FileSource):
    """Images below PATH, with LISTS/train.txt, LISTS/test.txt and LISTS/database.txt, each line `path 0 1 0 ...`.

    Where every image of all lists has exactly one label, labels are one class per image, else 0/1 rows. Classes are
    named by the numbers of their columns. An image of the training or test list must have a label; one of the database
    need not. No image may be in both of those lists, unless the parameter `split` draws new splits. Queries that the
    database list names are removed from the database, unless `queries_in_database` keeps them. The module `listfile`
    documents the accepted lines.
    """

    name = "lists"
    label = "image lists"
    citation = "Cao, Long, Wang, Yu 2017, HashNet (list files of its code), 1702.00758"

    #: Columns that a line must have; null: as many as the first line.
    width: ClassVar[int | None] = None

    #: Folder of the list files: absolute, below PATH, or below the data root.
    lists: str = "."
    #: The list of the retrieval database, a file of `lists`; null: the training images are the database.
    database: str | None = "database.txt"
    #: Whether queries that the database list names stay in the database, as in HashNet's list of COCO; each query then
    #: retrieves its own image.
    queries_in_database: bool = False

    @property
    def has_database(self) -> bool:
        return super().has_database or self.database is not None

    def listing(self, root: Path) -> Listing:
        tree = root / self.path
        if not tree.is_dir():
            raise DataNotFoundError(
                f"{self.label}: the folder of the images, {tree}, does not exist; --data-root names another place "
                f"than {root}"
            )
        folder = find_lists(root, tree, self.lists)
        files = {"train": "train.txt", "test": "test.txt"} | ({"database": self.database} if self.database else {})
        return from_lists(
            tree,
            {split: folder / file for split, file in files.items()},
            width=self.width,
            queries_in_database=self.queries_in_database,
            several=self.several,
            apart=not self.pools,
        )


def find_lists(root: Path, tree: Path, lists: str) -> Path:
    """The folder of list files: below the images or below the data root."""
    places = [tree / lists, root / lists]
    for place in places:
        if (place / "train.txt").is_file() and (place / "test.txt").is_file():
            return place
    looked = " or ".join(str(place) for place in dict.fromkeys(places))
    raise DataNotFoundError(f"there is no train.txt and test.txt in {looked}; the parameter 'lists' names their folder")


def from_lists(
    tree: Path,
    files: dict[str, Path],
    *,
    names: Sequence[str] | None = None,
    width: int | None = None,
    queries_in_database: bool = False,
    several: bool = False,
    apart: bool = True,
    elsewhere: Elsewhere | None = None,
) -> Listing:
    """The listing of the images below `tree` in the list files "train", "test" and maybe "database".

    The pool holds each image once, even where several lists name it. Raises ValueError, with file and line, where two
    lists give one image different labels, where one list names a file twice or, with `apart`, where the test list names
    a training image; and as `read_list` and `located` do.
    """
    inside = Tree(tree)
    pool: dict[str, int] = {}
    rows: list[Tensor] = []
    members: dict[str, Tensor] = {}
    for split, file in files.items():
        if not file.is_file():
            hint = "; set the parameter 'database' to null where the training images are searched"
            raise DataNotFoundError(f"the list {file} does not exist{hint if split == 'database' else ''}")
        images = read_list(file, width, unlabelled=split == "database")
        width = images.labels.shape[1]
        known = len(pool)
        positions = torch.tensor([pool.setdefault(path, len(pool)) for path in located(images, inside, elsewhere)])
        _refuse_doubles(images, positions)
        rows.append(images.labels[positions >= known])
        old = positions < known
        differ = old.clone()
        differ[old] = (torch.cat(rows)[positions[old]] != images.labels[old]).any(1)
        if differ.any():
            first = int(differ.nonzero()[0])
            where, path = f"{file}:{images.lines[first]}", images.paths[first]
            raise ValueError(f"{where}: expected the labels that another list gives {path!r}, got others")
        members[split] = positions
        if apart and split == "test":
            both = torch.isin(positions, members["train"])
            if both.any():
                first = int(both.nonzero()[0])
                where, path = f"{file}:{images.lines[first]}", images.paths[first]
                raise ValueError(
                    f"{where}: expected test images that are not trained on, got {path!r}, which {files['train']} "
                    f"names too ({int(both.sum())} such images)"
                )
    if "database" in members and not queries_in_database:
        members["database"] = members["database"][~torch.isin(members["database"], members["test"])]
    labels = torch.cat(rows)
    if not several and (labels.sum(1) == 1).all():
        labels = labels.argmax(1)
    names = names or [str(number) for number in range(labels.shape[1] if width is None else width)]
    return Listing(names=names, tree=tree, files=list(pool), labels=labels, members=members)


def _refuse_doubles(images: ImageList, positions: Tensor) -> None:
    if len(positions.unique()) == len(positions):
        return
    seen: dict[int, int] = {}
    for path, line, position in zip(images.paths, images.lines, positions.tolist(), strict=True):
        if seen.setdefault(position, line) != line:
            raise ValueError(
                f"{images.file}:{line}: {path!r} is the file that line {seen[position]} has led to already"
            )
