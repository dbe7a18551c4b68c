"""Data sets of image files: the files are listed first, then decoded once into a cache that all runs share.

Three environment variables configure the machine, not the experiment: SIGNSYM_CACHE is the folder for decoded images
(default: `.signsym-cache` in the data root, or the user's cache where that cannot be written); SIGNSYM_CACHE_COMPRESS=1
makes new caches losslessly compressed and 0 does not (default: as those of the data set beside it are);
SIGNSYM_RESIDENT_BYTES is the size up to which the images of a split are held in memory (default 4 GiB); a larger split
is memory-mapped from the cache's file.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from signsym_core import usercache
from signsym_core.datasets.base import DataSource
from signsym_core.datasets.cache import Cache, open_cache
from signsym_core.datasets.cachefolder import cache_folder
from signsym_core.datasets.mapped import Mapped
from signsym_core.datasets.marks import BROKEN
from signsym_core.datasets.pixels import PACKED
from signsym_core.datasets.splits import Choice, Data, DataNotFoundError, DataWarning, Progress
from signsym_core.datasets.survey import Survey, survey

#: "1" or "0": whether caches that are made are compressed.
COMPRESS = "SIGNSYM_CACHE_COMPRESS"
#: Bytes of a split that are held in memory, unless SIGNSYM_RESIDENT_BYTES is set.
RESIDENT = 4 * 2**30


class BrokenImagesError(ValueError):
    """Some images cannot be decoded; the message counts them and names the first."""


class BrokenImageWarning(DataWarning):
    """Some images were left out because they cannot be decoded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The files and labels of a data set, before anything is decoded."""

    #: Names of the classes.
    names: Sequence[str]
    #: The folder that holds all images, and their paths below it: the pool.
    tree: Path
    files: Sequence[str]
    #: int64 [images], or uint8 0/1 [images, classes].
    labels: Tensor
    #: Positions in the pool of each split as distributed: "train", "test", and maybe "database" and "validation".
    members: Mapping[str, Tensor]
    #: The images' numbers where each split counts from 0; null: positions in the pool.
    numbers: Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource(DataSource):
    """A data set of image files below one folder; a member writes `listing`."""

    #: Folder of the images: absolute, or below the data root.
    path: str = "."
    #: Side in pixels that images are resized to before a crop of `size` is cut (256 with size 224); null: no crop.
    resize: int | None = None
    #: What to do about images that cannot be decoded: stop the run, or leave them out with a warning that counts them.
    broken: Literal["stop", "skip"] = "stop"

    @property
    def crop_from(self) -> int | None:
        return self.resize

    @property
    def known_training_images(self) -> int | None:
        # Whatever was published, the folder decides.
        return None

    @abstractmethod
    def listing(self, root: Path) -> Listing:
        """The files and labels below the data root `root`; nothing is decoded.

        Raises DataNotFoundError where files are missing, and ValueError for one with the wrong content.
        """

    def load(self, root: Path, progress: Progress | None = None, compress: bool = False) -> Data:
        """The data set from the cache of decoded images; images that the cache lacks are decoded into it first.

        The cache holds images with the side `resize`, or else `size`. `progress` is called with the number of decoded
        images and their total. With `compress` it must be compressed; otherwise it is used as it is, and a new one is
        made as SIGNSYM_CACHE_COMPRESS says, or else as those of the data set beside it are. Raises DataNotFoundError,
        BrokenImagesError (see `broken`), ValueError for an irregular file, a file that a link lists twice or a cache
        that is not compressed as asked, ChangedFileError, and OSError where no cache folder can be written.
        """
        listing = self.listing(root)
        chosen = self.chosen(listing)
        cache = self._filled(root, survey(listing.tree, listing.files), pooled(chosen), progress, compress)
        chosen = self._without_broken(chosen, cache)
        images = functools.partial(cache.images, resident=_resident_bytes())
        data = self.assemble(listing.names, chosen, images, cache.digests, listing.files)
        return self.tested(data, root, progress)

    def decoded(self, root: Path, files: Survey, progress: Progress | None) -> tuple[Tensor | Mapped, Tensor]:
        """Images of other files than the listing's, decoded like these, and the digests of the files.

        Raises BrokenImagesError, and what `load` does.
        """
        everything = torch.arange(len(files.files))
        cache = self._filled(root, files, everything, progress, compress=False)
        broken = (cache.states() == BROKEN).nonzero().flatten().tolist()
        if broken:
            named = _named(cache, broken)
            raise BrokenImagesError(f"{self.label}: {len(broken)} broken images: {named}. Replace the files")
        return cache.images(everything, _resident_bytes()), cache.digests(everything)

    def places(self, root: Path) -> Callable[[str, int], str | None]:
        listing = self.listing(root)
        chosen = self.chosen(listing)

        def place(split: str, number: int) -> str | None:
            rows = (chosen[split].indices == number).nonzero().flatten()
            return str(listing.tree / listing.files[int(chosen[split].positions[rows[0]])]) if len(rows) else None

        return place

    def replaced(self, root: Path, files: Sequence[str]) -> Survey | None:
        """The files that are tested on in the place of `files`, the listing's, where they are others.

        Raises DataNotFoundError with what is missing.
        """
        return None

    def existing_cache(self, root: Path, listing: Listing) -> Cache | None:
        """The existing cache of decoded images, if any; nothing is created."""
        files = survey(listing.tree, listing.files)
        for place in cache_places(root):
            if cache_folder(place, self.name, files, self.side).joinpath("index.json").is_file():
                return open_cache(place, self.name, files, self.side)
        return None

    @property
    def side(self) -> int | None:
        """Side in pixels of the decoded images in the cache; null: as the images are."""
        return self.resize or self.size

    def _filled(self, root: Path, files: Survey, positions: Tensor, progress: Progress | None, compress: bool) -> Cache:
        """The cache of decoded images in the first folder that has the images at `positions` or can be written."""
        *first, last = cache_places(root)
        for place in first:
            try:
                return self._filled_at(place, files, positions, progress, compress)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
        return self._filled_at(last, files, positions, progress, compress)

    def _filled_at(
        self, place: Path, files: Survey, positions: Tensor, progress: Progress | None, compress: bool
    ) -> Cache:
        cache = open_cache(place, self.name, files, self.side, compress or compressing(place, self.name))
        if compress and not cache.pixels.compressed:
            raise ValueError(f"cache {cache.folder} exists and is not compressed: delete it, then compress a new one")
        cache.fill(positions, progress)
        return cache

    def chosen(self, listing: Listing) -> dict[str, Choice]:
        """The images of each split of `listing`; raises DataNotFoundError where a split would be empty."""
        chosen = self.choose(listing.names, listing.labels, listing.members, listing.numbers)
        for split, choice in chosen.items():
            if not len(choice.positions):
                names = ", ".join(list(listing.names)[:20])
                raise DataNotFoundError(f"{self.label} {listing.tree}: no images for the {split} split in {names}")
        return chosen

    def _without_broken(self, chosen: dict[str, Choice], cache: Cache) -> dict[str, Choice]:
        states = cache.states()
        lost = {split: (states[choice.positions] == BROKEN) for split, choice in chosen.items()}
        if not any(mask.any() for mask in lost.values()):
            return chosen
        positions = torch.cat([chosen[split].positions[mask] for split, mask in lost.items()]).unique().tolist()
        counted = ", ".join(f"{int(mask.sum())} of {len(mask)} in {split}" for split, mask in lost.items())
        message = f"{self.label}: {len(positions)} broken images ({counted}): {_named(cache, positions)}"
        if self.broken == "stop":
            raise BrokenImagesError(f"{message}. Replace the files, or set the parameter 'broken' to skip")
        kept = {}
        for split, mask in lost.items():
            choice = chosen[split]
            rest = Choice(positions=choice.positions[~mask], labels=choice.labels[~mask], indices=choice.indices[~mask])
            if not len(rest.positions):
                raise BrokenImagesError(f"{message}. None is left in {split}")
            kept[split] = rest
        warnings.warn(f"{message}. They are left out", BrokenImageWarning, stacklevel=4)
        return kept


def _named(cache: Cache, broken: Sequence[int]) -> str:
    """Why the first of the broken images are broken, and how many more are."""
    reasons, files = cache.reasons(), cache.survey
    named = "; ".join(reasons.get(position, f"image {files.tree / files.files[position]}") for position in broken[:5])
    return named + (f"; and {len(broken) - 5} more" if len(broken) > 5 else "")


def pooled(chosen: Mapping[str, Choice]) -> Tensor:
    """The unique positions of all images that some split holds."""
    positions: Tensor = torch.cat([choice.positions for choice in chosen.values()]).unique()
    return positions


def cache_places(root: Path) -> list[Path]:
    """The folders that may hold decoded images, in the order in which they are tried."""
    stated = usercache.stated_cache()
    return [root / ".signsym-cache", usercache.user_cache()] if stated is None else [stated]


def compressing(place: Path, name: str) -> bool:
    """Whether a cache of the data set `name` that is made below `place` is compressed.

    Where the machine does not say so, it is if another one there is, of another size or of files that were replaced.
    """
    setting = os.environ.get(COMPRESS, "")
    if setting not in ("", "0", "1"):
        raise ValueError(f"{COMPRESS} expects 1 or 0, got {setting!r}")
    return setting == "1" if setting else any(place.glob(f"{name}-*/{PACKED}"))


def _resident_bytes() -> int:
    setting = os.environ.get("SIGNSYM_RESIDENT_BYTES", str(RESIDENT))
    if not setting.isdecimal():
        raise ValueError(f"SIGNSYM_RESIDENT_BYTES expects a whole number of bytes, got {setting!r}")
    return int(setting)
