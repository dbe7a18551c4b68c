"""ImageNet-C: the validation images of ImageNet under corruptions, from its files.

DATA_ROOT/ImageNet-C/KIND/SEVERITY/WNID/NAME is the validation image WNID/NAME, scaled to 256 px, cropped to the middle
224 x 224 and corrupted.
"""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

from signsym_core.datasets.corruptions import EXTRA, SEVERITIES, STANDARD, Corruptible
from signsym_core.datasets.files import FileSource
from signsym_core.datasets.splits import DataNotFoundError, Progress, Split
from signsym_core.datasets.survey import Survey, survey

FOLDER = "ImageNet-C"
_SOURCE = "record 2235448 of Zenodo, https://zenodo.org/record/2235448 (noise, blur, weather, digital and extra.tar)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptibleImageNet(FileSource, Corruptible, ABC):
    """Images of ImageNet, whose validation images exist under corruptions."""

    kinds = (*STANDARD, *EXTRA)
    testing = MappingProxyType({"corruption": STANDARD, "severity": SEVERITIES})

    @property
    def crop_from(self) -> int | None:
        # The corrupted images have been cropped.
        return super().crop_from if self.corruption is None else None

    def corrupted(self, test: Split, root: Path, progress: Progress | None = None) -> Split:
        """Raises DataNotFoundError for a missing file, and BrokenImagesError, also where `broken` is skip."""
        if test.files is None:
            raise ValueError(f"{FOLDER}: expected test images that come with the paths of their files, got none")
        files = self.replaced(root, test.files)
        assert files is not None
        images, digests = dataclasses.replace(self, resize=None).decoded(root, files, progress)
        return dataclasses.replace(test, images=images, digests=digests, files=files.files)

    def replaced(self, root: Path, files: Sequence[str]) -> Survey | None:
        if self.corruption is None:
            return None
        tree = root / FOLDER / str(self.corruption) / str(self.severity)
        if not tree.is_dir():
            raise DataNotFoundError(
                f"{FOLDER}: {tree} does not exist. Download {_SOURCE} and unpack it so that {root / FOLDER} has a "
                f"folder KIND/SEVERITY for each kind of corruption; --data-root names another place than {root}"
            )
        # Of val/WNID/NAME, or a path that a list names, the class and the name.
        return survey(tree, ["/".join(file.split("/")[-2:]) for file in files])

    def places(self, root: Path) -> Callable[[str, int], str | None]:
        clean = super().places(root)
        if self.corruption is None:
            return clean

        def place(split: str, number: int) -> str | None:
            path = clean(split, number)
            files = self.replaced(root, [path]) if path and split == "test" else None
            return path if files is None else str(files.tree / files.files[0])

        return place
