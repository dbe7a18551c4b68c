"""Any tree of images with a folder for each class."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets.base import Data, DataNotFoundError, DataSource
from signsym_core.registry import require

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder(DataSource):
    """Images at PATH/train/CLASS/* and PATH/test/CLASS/* (or val), or at PATH/CLASS/* with a fixed quarter to test.

    Colour, grey and other modes are read as RGB. Square images of one size are kept as they are; others are scaled so
    that their shorter side fits, then cropped to the middle square.
    """

    name = "imagefolder"
    label = "image folder"
    citation = "torchvision's ImageFolder layout"

    #: Place of the tree: absolute, or below the data root.
    path: str = "."
    #: Side in pixels that images are resized to before a crop of `size` is cut (256 with size 224); null: no crop.
    resize: int | None = None
    #: Whether training may mirror images.
    flip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.resize is None or (self.size is not None and self.resize >= self.size)
        require(fits, "resize", "null, or at least the parameter 'size'", self.resize)

    @property
    def flips(self) -> bool:
        return self.flip

    @property
    def crop_from(self) -> int | None:
        return self.resize

    def load(self, root: Path) -> Data:
        tree = root / self.path
        if not tree.is_dir():
            raise DataNotFoundError(
                f"image folder {tree} does not exist. Unpack the images there, a folder for each class (as they are "
                f"or below train/ and test/); --data-root names another place than {root}"
            )
        folders = {entry.name: Path(entry.path) for entry in os.scandir(tree) if entry.is_dir()}
        held_out = folders.get("test") or folders.get("val")
        if "train" in folders and held_out:
            names = _class_names(folders["train"])
            parts = [_files(folders["train"], names), _files(held_out, names)]
            files = [file for part in parts for file in part]
            at = torch.arange(len(files))
            members = {"train": at[: len(parts[0])], "test": at[len(parts[0]) :]}
            numbers = torch.cat([torch.arange(len(part)) for part in parts])
        else:
            names = _class_names(tree)
            files = _files(tree, names)
            order = torch.randperm(len(files), generator=seeds.generator(0, "split", "imagefolder"))
            quarter = len(files) // 4
            members, numbers = {"train": order[quarter:], "test": order[:quarter]}, torch.arange(len(files))
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        chosen = self.choose(names, labels, members, numbers)
        for part, choice in chosen.items():
            if not len(choice.positions):
                raise DataNotFoundError(f"image folder {tree}: no images for the {part} split in {', '.join(names)}")
        return self.assemble(names, chosen, lambda positions: self._decode([files[at][0] for at in positions.tolist()]))

    def _decode(self, files: list[Path]) -> Tensor:
        """All images as one uint8 tensor; decoding leaves Python, so threads share the work."""
        side = self.resize or self.size
        with ThreadPoolExecutor(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) as pool:
            arrays = list(pool.map(lambda file: _read(file, side), files))
        sizes = {array.shape for array in arrays}
        if len(sizes) > 1 and side is None:
            raise ValueError(f"image folder {self.path}: images of {len(sizes)} sizes; set the parameter 'size'")
        # Square ones of one size are scaled on the device; others would be squeezed there.
        if side is not None and (len(sizes) > 1 or any(height != width for height, width, _ in sizes)):
            arrays = [_squared(array, side) for array in arrays]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise DataNotFoundError(
            f"image folder {folder}: expected a folder for each of at least two classes, got {names}"
        )
    return names


def _files(folder: Path, names: list[str]) -> list[tuple[Path, int]]:
    """Images below `folder` with the number of their class, ordered by class and name."""
    found = []
    for label, name in enumerate(names):
        members = folder / name
        if members.is_dir():
            files = [path for path in members.rglob("*") if path.suffix.lower() in _IMAGES and path.is_file()]
            found += [(path, label) for path in sorted(files)]
    return found


def _read(file: Path, side: int | None) -> np.ndarray:
    """An image as uint8 [height, width, 3]; one larger than `side` is reduced to a square of it at once."""
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:
        raise ValueError(f"image {file} cannot be decoded: {error}") from error
    return _squared(pixels, side) if side is not None and min(pixels.shape[:2]) > side else pixels


def _squared(pixels: np.ndarray, side: int) -> np.ndarray:
    """Scaled so that the shorter side is `side`, then the middle square."""
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    scaled = (max(side, round(width * scale)), max(side, round(height * scale)))
    image = Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - side) // 2, (scaled[1] - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))
