"""MS-COCO as distributed, an image with the set of objects it shows."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets.annotations import Annotated, read_annotations
from signsym_core.datasets.base import DataNotFoundError, Origin
from signsym_core.datasets.files import FileSource, Listing, cache_places
from signsym_core.datasets.listfile import Tree
from signsym_core.datasets.lists import find_lists, from_lists
from signsym_core.registry import require

#: The folders of a release; both releases hold the same 123,287 images under the same numbers.
_PARTS = {"2017": ("train2017", "val2017"), "2014": ("train2014", "val2014")}

#: Columns of the literature's list files: the 80 names in alphabetical order (which the counts per column confirm).
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
    train, 5,000 to test (the queries) and the rest to the database; it goes by image number, so both releases give
    the same parts. Category numbers, which have gaps, become 0 .. 79 in their order. An image is labelled with every
    category of its annotations, crowds included.

    With `lists`, train.txt, test.txt and database.txt of that folder say what each part holds, with the columns in
    alphabetical order; the images may still lie as distributed, in either release.
    """

    name = "coco"
    label = "MS-COCO"
    citation = "Lin et al. 2014, Microsoft COCO: common objects in context, 1405.0312"
    stated = (10_000, 5_000)
    origin = Origin(
        url="https://cocodataset.org/#download (train2017.zip, val2017.zip, annotations_trainval2017.zip)",
        licence="annotations CC BY 4.0; photographs under Flickr's terms of use",
        size="18 GB, 1 GB and 241 MB",
    )

    size: int | None = 224
    path: str = "coco"
    #: Release to read; null: 2017 where it is there, else 2014.
    year: Literal["2014", "2017"] | None = None
    #: Images of the fixed draw that are trained on, and that are queries.
    train_draw: int = 10_000
    test_draw: int = 5_000
    #: What becomes of the images without any annotation (1,069 of 123,287): left out, as in the literature's lists, or
    #: part of the database, where no query finds them relevant. They are never trained on and never queries.
    unlabelled: Literal["drop", "database"] = "drop"
    #: Folder of list files: absolute, below PATH, or below the data root; null: the fixed draw.
    lists: str | None = None
    #: With `lists`, the list of what is searched; null: the training images are searched.
    database: str | None = "database.txt"
    #: Whether queries that a database list names stay there. HashNet's list holds all 5,000 queries: each finds itself.
    queries_in_database: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_draw", "test_draw"):
            require(getattr(self, name) >= 1, name, "a whole number, at least 1", getattr(self, name))

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
                {part: folder / file for part, file in files.items()},
                names=NAMES,
                width=len(NAMES),
                queries_in_database=self.queries_in_database,
                several=True,
                apart=self.split is None,
                elsewhere=_as_distributed,
            )
        return self._drawn_listing(root, tree)

    def _drawn_listing(self, root: Path, tree: Path) -> Listing:
        parts = _PARTS[self._release(tree)]
        annotated = [
            read_annotations(tree / "annotations" / f"instances_{part}.json", cache_places(root)) for part in parts
        ]
        if annotated[0].names != annotated[1].names:
            raise ValueError(f"MS-COCO {tree}: expected the same categories in {' and '.join(parts)}, got others")
        files, labels = _pooled(tree, parts, annotated)
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
        members = {part: positions.sort().values for part, positions in members.items()}
        return Listing(names=annotated[0].names, tree=tree, files=files, labels=labels, members=members)

    def _release(self, tree: Path) -> str:
        wanted = [self.year] if self.year else list(_PARTS)
        looked = []
        for year in wanted:
            files = [tree / "annotations" / f"instances_{part}.json" for part in _PARTS[year]]
            if all(file.is_file() for file in files):
                return year
            looked += [str(file) for file in files if not file.is_file()]
        raise DataNotFoundError(f"MS-COCO: annotation files are missing: {', '.join(looked)}")


def _pooled(tree: Path, parts: Sequence[str], annotated: Sequence[Annotated]) -> tuple[list[str], Tensor]:
    """Paths below `tree` and labels of all images, by image number."""
    inside = Tree(tree)
    found: list[tuple[int, str, int, int]] = []
    missing: list[str] = []
    for number, (part, images) in enumerate(zip(parts, annotated, strict=True)):
        for row, (identity, file) in enumerate(zip(images.numbers, images.files, strict=True)):
            places = (f"{part}/{file}", f"images/{part}/{file}")
            path = next((place for place in places if place in inside), None)
            if path is None:
                missing.append(places[0])
            else:
                found.append((identity, path, number, row))
    if missing:
        total = len(found) + len(missing)
        raise DataNotFoundError(
            f"MS-COCO: {len(missing)} of {total} annotated images are not below {tree}; the first was looked for at "
            f"{missing[0]} and images/{missing[0]}"
        )
    found.sort()
    double = next((one for one, other in itertools.pairwise(found) if one[0] == other[0]), None)
    if double is not None:
        raise ValueError(
            f"MS-COCO {tree}: expected every image to have a number of its own, got number {double[0]} in both parts"
        )
    labels = torch.cat([images.labels for images in annotated])
    start = len(annotated[0].files)
    rows = torch.tensor([row + start * number for _, _, number, row in found], dtype=torch.int64)
    return [path for _, path, _, _ in found], labels[rows]


def _as_distributed(path: str, row: Tensor) -> list[str]:
    """Where either release has the image that a list names by its number."""
    number = re.search(r"(\d+)$", PurePosixPath(path).stem)
    if number is None:
        return []
    places = []
    for year, parts in _PARTS.items():
        for part in parts:
            file = f"{int(number[1]):012d}.jpg"
            place = f"{part}/{file if year == '2017' else f'COCO_{part}_{file}'}"
            places += [place, f"images/{place}"]
    return places
