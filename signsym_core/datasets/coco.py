"""MS-COCO as distributed, an image with the set of objects it shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets import authors_2024
from signsym_core.datasets.annotations import Annotated, read_annotations
from signsym_core.datasets.base import Origin
from signsym_core.datasets.coco_files import FOLDERS, as_distributed, pooled
from signsym_core.datasets.files import FileSource, Listing, cache_places
from signsym_core.datasets.lists import find_lists, from_lists
from signsym_core.datasets.splits import DataNotFoundError
from signsym_core.registry import Count, require

#: Images of each split of the authors' code; the rest are the database.
AUTHORS_COUNTS = MappingProxyType({"train": 10_000, "test": 5_000, "validation": 5_000})

#: Columns of the literature's list files: the 80 names in alphabetical order (the counts per column confirm it).
_COLUMNS = (
    "airplane|apple|backpack|banana|baseball bat|baseball glove|bear|bed|bench|bicycle|bird|boat|book|bottle|bowl|"
    "broccoli|bus|cake|car|carrot|cat|cell phone|chair|clock|couch|cow|cup|dining table|dog|donut|elephant|"
    "fire hydrant|fork|frisbee|giraffe|hair drier|handbag|horse|hot dog|keyboard|kite|knife|laptop|microwave|"
    "motorcycle|mouse|orange|oven|parking meter|person|pizza|potted plant|refrigerator|remote|sandwich|scissors|"
    "sheep|sink|skateboard|skis|snowboard|spoon|sports ball|stop sign|suitcase|surfboard|teddy bear|tennis racket|"
    "tie|toaster|toilet|toothbrush|traffic light|train|truck|tv|umbrella|vase|wine glass|zebra"
)
NAMES = tuple(_COLUMNS.split("|"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class COCO(FileSource):
    """Photographs with any of 80 objects: PATH/annotations/instances_*.json, PATH/train2017/*.jpg, PATH/val2017/*.jpg.

    The release of 2014 serves as well. Training and validation images are pooled, and one fixed draw gives 10,000 to
    train, 5,000 to test (the queries) and the rest to the database. It draws image numbers, so both releases give the
    same splits. Category numbers, which have gaps, become 0 .. 79 in ascending order. An image is labelled with every
    category of its annotations, crowds included.

    With `lists`, train.txt, test.txt and database.txt of that folder list the images of each split, with the columns
    in alphabetical order; the images may still lie as distributed, in either release.

    `split: authors-2024` divides the images of the release of 2014 in the order of its annotation files as the authors'
    code does, those without any annotation among them: 10,000 to train, 5,000 queries, 5,000 to validate. There a
    category number is a class, the numbers that COCO leaves out too, of which no image is: 90 classes.
    """

    name = "coco"
    label = "MS-COCO"
    citation = "Lin et al. 2014, Microsoft COCO: common objects in context, 1405.0312"
    stated = (10_000, 5_000)
    several = True
    origin = Origin(
        url="https://cocodataset.org/#download (train2017.zip, val2017.zip, annotations_trainval2017.zip)",
        licence="annotations CC BY 4.0; photographs under Flickr's terms of use",
        size="18 GB, 1 GB and 241 MB",
    )
    named_splits = MappingProxyType({authors_2024.NAME: (10_000, 5_000)})

    size: int | None = 224
    path: str = "coco"
    #: Release to read; null: 2017 where its files exist, else 2014.
    year: Literal["2014", "2017"] | None = None
    #: Images of the fixed draw that are trained on, and that are queries.
    train_draw: Count = 10_000
    test_draw: Count = 5_000
    #: What happens to images without any annotation (1,069 of 123,287): left out, as in the literature's lists, or
    #: kept in the database, where they are relevant to no query. They are never trained on and never queries.
    unlabelled: Literal["drop", "database"] = "drop"
    #: Folder of list files: absolute, below PATH, or below the data root; null: the fixed draw.
    lists: str | None = None
    #: With `lists`, the list of the retrieval database; null: the training images are the database.
    database: str | None = "database.txt"
    #: Whether queries that the database list names stay in the database. HashNet's list holds all 5,000 queries, so
    #: each query retrieves its own image.
    queries_in_database: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split == authors_2024.NAME:
            self.refuse_idle("lists", "database", "queries_in_database", "train_draw", "test_draw", "unlabelled")
            order = f"null or 2014 with split {self.split}, which is of that release's order"
            require(self.year in (None, "2014"), "year", order, self.year)

    @property
    def has_database(self) -> bool:
        return super().has_database or self.lists is None or self.database is not None

    def listing(self, root: Path) -> Listing:
        tree = root / self.path
        if not tree.is_dir():
            raise DataNotFoundError(
                f"MS-COCO: the folder {tree} does not exist. It should hold annotations/instances_train2017.json, "
                f"annotations/instances_val2017.json, train2017/ and val2017/, or those of 2014; --data-root names "
                f"another place than {root}"
            )
        if self.lists is not None:
            folder = find_lists(root, tree, self.lists)
            files = {"train": "train.txt", "test": "test.txt"} | ({"database": self.database} if self.database else {})
            return from_lists(
                tree,
                {split: folder / file for split, file in files.items()},
                names=NAMES,
                width=len(NAMES),
                queries_in_database=self.queries_in_database,
                several=True,
                apart=not self.pools,
                elsewhere=as_distributed,
            )
        return self._drawn_listing(root, tree)

    def _drawn_listing(self, root: Path, tree: Path) -> Listing:
        folders = FOLDERS[self._release(tree)]
        annotated = [
            read_annotations(tree / "annotations" / f"instances_{folder}.json", cache_places(root))
            for folder in folders
        ]
        if (annotated[0].names, annotated[0].categories) != (annotated[1].names, annotated[1].categories):
            raise ValueError(f"MS-COCO {tree}: expected the same categories in {' and '.join(folders)}, got others")
        files, places = pooled(tree, folders, annotated)
        labels = torch.cat([images.labels for images in annotated])[places]
        if self.split == authors_2024.NAME:
            return _as_the_authors(tree, files, places, labels, annotated[0])
        some = labels.any(1).nonzero().flatten()
        need = self.train_draw + self.test_draw
        if len(some) <= need:
            raise ValueError(
                f"MS-COCO {tree}: expected more than {need} annotated images for the parameters 'train_draw' and "
                f"'test_draw', got {len(some)}"
            )
        order = some[torch.randperm(len(some), generator=seeds.generator(0, "split", "coco", "draw"))]
        members = {"test": order[: self.test_draw], "train": order[self.test_draw : need], "database": order[need:]}
        if self.unlabelled == "database":
            members["database"] = torch.cat([members["database"], (~labels.any(1)).nonzero().flatten()])
        members = {split: positions.sort().values for split, positions in members.items()}
        return Listing(names=annotated[0].names, tree=tree, files=files, labels=labels, members=members)

    def _release(self, tree: Path) -> str:
        years = ["2014"] if self.split == authors_2024.NAME else [self.year] if self.year else list(FOLDERS)
        looked = []
        for year in years:
            files = [tree / "annotations" / f"instances_{folder}.json" for folder in FOLDERS[year]]
            if all(file.is_file() for file in files):
                return year
            looked += [str(file) for file in files if not file.is_file()]
        raise DataNotFoundError(f"MS-COCO: annotation files are missing: {', '.join(looked)}")


def _as_the_authors(tree: Path, files: list[str], places: Tensor, labels: Tensor, of: Annotated) -> Listing:
    """The listing of `split: authors-2024`, for images by number whose places in the annotation files are `places`."""
    if of.categories[0] < 1:
        raise ValueError(f"MS-COCO {tree}: expected category numbers from 1 on, got {of.categories[0]}")
    try:
        folds = authors_2024.folds(len(files), AUTHORS_COUNTS)
    except ValueError as error:
        raise ValueError(f"MS-COCO {tree}: split {authors_2024.NAME}: {error}") from None
    by_place = places.argsort()
    names = {number: name for number, name in zip(of.categories, of.names, strict=True)}
    every = [names.get(number, f"no category {number}") for number in range(1, of.categories[-1] + 1)]
    wide = torch.zeros(len(files), len(every), dtype=labels.dtype)
    wide[:, torch.tensor(of.categories) - 1] = labels
    members = {split: by_place[rows].sort().values for split, rows in folds.items()}
    return Listing(names=every, tree=tree, files=files, labels=wide, members=members)
