"""ImageNet-100: the hundred ImageNet classes of the hashing literature."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets import authors_2024
from signsym_core.datasets.choice import nested
from signsym_core.datasets.classfolders import class_files
from signsym_core.datasets.files import Listing
from signsym_core.datasets.imagenet import ImageNet, imagenet_tree
from signsym_core.datasets.imagenetc import CorruptibleImageNet
from signsym_core.datasets.lists import find_lists, from_lists
from signsym_core.datasets.splits import DataNotFoundError
from signsym_core.registry import Count, require

#: The classes in the order of the list files' columns, which is alphabetical.
_COLUMNS = (
    "n01514668 n01537544 n01560419 n01629819 n01632458 n01664065 n01685808 n01687978 n01698640 n01729322 "
    "n01774750 n01797886 n01819313 n01828970 n01944390 n01986214 n02017213 n02018207 n02077923 n02088466 "
    "n02093256 n02094114 n02096177 n02096294 n02097209 n02098105 n02102177 n02105162 n02106550 n02111129 "
    "n02111277 n02113023 n02128385 n02256656 n02281787 n02346627 n02391049 n02408429 n02415577 n02454379 "
    "n02488291 n02526121 n02655020 n02834397 n02840245 n02841315 n02865351 n02871525 n02895154 n02939185 "
    "n02948072 n02965783 n02992211 n03018349 n03045698 n03047690 n03196217 n03223299 n03272562 n03291819 "
    "n03345487 n03445924 n03483316 n03584829 n03680355 n03690938 n03733131 n03743016 n03803284 n03814639 "
    "n03838899 n03857828 n03891332 n03895866 n03899768 n03902125 n03944341 n04026417 n04153751 n04201297 "
    "n04238763 n04254120 n04344873 n04350905 n04366367 n04404412 n04417672 n04435653 n04486054 n04548362 "
    "n04560804 n04579432 n04596742 n07583066 n07584110 n07753113 n07754684 n07836838 n12057211 n13044778"
)
WNIDS = tuple(_COLUMNS.split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet100(CorruptibleImageNet):
    """100 classes of ImageNet's folders: 13,000 images to train, the 5,000 validation images as queries.

    One fixed draw takes 130 training images of each class; the database holds all 128,503 training images of the
    classes, those that are trained on included, as in HashNet. With `lists`, train.txt and test.txt of that folder list
    the training images and the queries, and database.txt, where it exists, the database; queries are never in it. The
    images may lie in ImageNet's own folders, whatever the paths in the lists. `corruption`: the queries as ImageNet-C
    has them, so all have to be validation images of ImageNet.

    `split: authors-2024` needs all three lists of HashNet: every second line of the test list validates, as in the
    authors' code, from the second on.
    """

    name = "imagenet100"
    label = "ImageNet-100"
    citation = "Cao, Long, Wang, Yu 2017, HashNet: deep learning to hash by continuation, 1702.00758"
    stated = (13_000, 5_000)
    stated_classes = 100
    origin = ImageNet.origin
    named_splits = MappingProxyType({authors_2024.NAME: (13_000, 2_500)})

    size: int | None = 224
    path: str = "imagenet"
    #: Images of each class that the fixed draw trains on.
    train_draw: Count = 130
    #: Folder of list files: absolute, below PATH, or below the data root; null: the fixed draw.
    lists: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split == authors_2024.NAME:
            self.refuse_idle("train_draw")
            require(self.lists is not None, "lists", f"a folder with split {self.split}: HashNet's lists", self.lists)

    @property
    def has_database(self) -> bool:
        return True

    def listing(self, root: Path) -> Listing:
        if self.lists is not None:
            return self._listed(root, root / self.path, self.lists)
        tree = imagenet_tree(self.label, root, self.path)
        listed = {folder: class_files(tree, folder, list(WNIDS)) for folder in ("train", "val")}
        for folder, (_, numbers) in listed.items():
            counts = torch.bincount(torch.tensor(numbers, dtype=torch.int64), minlength=len(WNIDS))
            need = self.train_draw if folder == "train" else 1
            poor = [f"{name} ({count})" for name, count in zip(WNIDS, counts.tolist(), strict=True) if count < need]
            if poor:
                raise DataNotFoundError(
                    f"ImageNet-100: {len(poor)} of 100 classes have fewer than {need} images below {tree / folder}: "
                    f"{', '.join(poor[:5])}{', ...' if len(poor) > 5 else ''}"
                )
        files = listed["train"][0] + listed["val"][0]
        labels = torch.tensor(listed["train"][1] + listed["val"][1])
        positions, size = torch.arange(len(files)), len(listed["train"][0])
        order = torch.randperm(size, generator=seeds.generator(0, "split", "imagenet100", "draw"))
        drawn, _ = nested(labels[:size], range(len(WNIDS)), False, order)
        train = drawn[: self.train_draw * len(WNIDS)].sort().values
        members = {"train": train, "test": positions[size:], "database": positions[:size]}
        return Listing(names=WNIDS, tree=tree, files=files, labels=labels, members=members)

    def _listed(self, root: Path, tree: Path, lists: str) -> Listing:
        if not tree.is_dir():
            raise DataNotFoundError(f"ImageNet-100: the folder of the images, {tree}, does not exist")
        folder = find_lists(root, tree, lists)
        files = {split: folder / f"{split}.txt" for split in ("train", "test", "database")}
        has_database = files["database"].is_file()
        if self.split == authors_2024.NAME and not has_database:
            raise DataNotFoundError(f"ImageNet-100: the list {files['database']} of split {self.split} does not exist")
        chosen = files if has_database else {split: files[split] for split in ("train", "test")}
        listing = from_lists(
            tree, chosen, names=WNIDS, width=len(WNIDS), apart=not self.pools, elsewhere=_in_class_folders
        )
        if listing.labels.dim() == 2:
            raise ValueError(
                f"ImageNet-100: expected one label per image in the lists of {folder}, got several or none"
            )
        if self.split == authors_2024.NAME:
            # Lines 0, 2, 4, ... of the test list ask, the others validate.
            test = listing.members["test"]
            members = {**listing.members, "test": test[::2], "validation": test[1::2]}
            return dataclasses.replace(listing, members=members)
        return listing if has_database else _with_all_training_images(listing)


def _with_all_training_images(listing: Listing) -> Listing:
    paths, numbers = class_files(listing.tree, "train", list(WNIDS))
    pool = {path: position for position, path in enumerate(listing.files)}
    fresh = [(path, number) for path, number in zip(paths, numbers, strict=True) if path not in pool]
    positions = torch.tensor([pool.setdefault(path, len(pool)) for path in paths], dtype=torch.int64)
    labels = torch.cat([listing.labels, torch.tensor([number for _, number in fresh], dtype=torch.int64)])
    # Queries that the test list takes from ImageNet's training images would be found as their own neighbours.
    searched = positions[~torch.isin(positions, listing.members["test"])]
    members = {**listing.members, "database": searched}
    return dataclasses.replace(listing, files=list(pool), labels=labels, members=members)


def _in_class_folders(path: str, row: Tensor) -> list[str]:
    name, wnid = PurePosixPath(path).name, WNIDS[int(row.argmax())]
    return [f"{folder}/{wnid}/{name}" for folder in ("train", "val")]
