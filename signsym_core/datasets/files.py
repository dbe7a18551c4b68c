"""Data sets that are files: what they hold is listed first, then decoded into a cache, once for all runs.

Two settings of the machine, none of the experiment: SIGNSYM_CACHE names the folder for decoded images (default: a
folder `.signsym-cache` in the data root, or the user's cache where that cannot be written), and
SIGNSYM_RESIDENT_BYTES the size up to which the images of a split are held in memory (default 4 GiB); those of a
larger split stay in the cache's file.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from signsym_core.datasets.base import Choice, Data, DataNotFoundError, DataSource, DataWarning
from signsym_core.datasets.cache import Cache, Progress, cache_folder, open_cache
from signsym_core.datasets.marks import BROKEN
from signsym_core.datasets.survey import Survey, survey
from signsym_core.registry import require

#: Bytes of a split that are held in memory where SIGNSYM_RESIDENT_BYTES does not say otherwise.
RESIDENT = 4 * 2**30


class BrokenImagesError(ValueError):
    """Images that cannot be decoded, counted and named."""


class BrokenImageWarning(DataWarning):
    """Images that were left out because they cannot be decoded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """What a data set holds, before anything is decoded."""

    #: Names of the classes.
    names: Sequence[str]
    #: The folder that holds all images, and their paths below it: the pool.
    tree: Path
    files: Sequence[str]
    #: int64 [images], or uint8 0/1 [images, classes].
    labels: Tensor
    #: Positions in the pool of each split as distributed: "train", "test", and maybe "database".
    members: Mapping[str, Tensor]
    #: The images' own numbers where a split counts from 0; null: positions in the pool.
    numbers: Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSource(DataSource):
    """A data set of image files below one folder; a member writes `listing`."""

    #: Place of the images: absolute, or below the data root.
    path: str = "."
    #: Side in pixels that images are resized to before a crop of `size` is cut (256 with size 224); null: no crop.
    resize: int | None = None
    #: What an image that cannot be decoded does: stop the run, or leave its split (with a warning that counts them).
    broken: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.resize is None or (self.size is not None and self.resize >= self.size)
        require(fits, "resize", "null, or at least the parameter 'size'", self.resize)

    @property
    def crop_from(self) -> int | None:
        return self.resize

    @abstractmethod
    def listing(self, root: Path) -> Listing:
        """What lies below the data root `root`; nothing is decoded.

        Raises DataNotFoundError where files are missing, and ValueError for one that is not as it should be.
        """

    def load(self, root: Path, progress: Progress | None = None) -> Data:
        """The data set, from the cache of decoded images, which is filled with what it lacks.

        Images are there at the side `resize`, or else `size`. `progress` is told how many of the images to decode
        are done. Raises DataNotFoundError, BrokenImagesError as `broken` says, ValueError for what is no regular file
        or a file that a link lists twice, ChangedFileError, and OSError where no place for the cache can be written.
        """
        listing = self.listing(root)
        chosen = self.chosen(listing)
        cache = self._filled(root, survey(listing.tree, listing.files), pooled(chosen), progress)
        chosen = self._without_broken(chosen, cache)
        resident = _resident_bytes()
        return self.assemble(listing.names, chosen, lambda at: cache.images(at, resident), cache.digests)

    def places(self, root: Path) -> Callable[[str, int], str | None]:
        listing = self.listing(root)
        chosen = self.chosen(listing)

        def place(part: str, number: int) -> str | None:
            rows = (chosen[part].indices == number).nonzero().flatten()
            return str(listing.tree / listing.files[int(chosen[part].positions[rows[0]])]) if len(rows) else None

        return place

    def found_cache(self, root: Path, listing: Listing) -> Cache | None:
        """The cache of decoded images that is there already, if any; nothing is made."""
        files = survey(listing.tree, listing.files)
        for place in cache_places(root):
            if cache_folder(place, self.name, files, self.side).joinpath("index.json").is_file():
                return open_cache(place, self.name, files, self.side)
        return None

    @property
    def side(self) -> int | None:
        """Side in pixels at which decoded images are kept."""
        return self.resize or self.size

    def _filled(self, root: Path, files: Survey, wanted: Tensor, progress: Progress | None) -> Cache:
        """The cache of decoded images in the first place that has the images `wanted` or can be written."""
        *first, last = cache_places(root)
        for place in first:
            try:
                return self._filled_at(place, files, wanted, progress)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
        return self._filled_at(last, files, wanted, progress)

    def _filled_at(self, place: Path, files: Survey, wanted: Tensor, progress: Progress | None) -> Cache:
        cache = open_cache(place, self.name, files, self.side)
        cache.fill(wanted, progress)
        return cache

    def chosen(self, listing: Listing) -> dict[str, Choice]:
        """What each split of `listing` holds; raises DataNotFoundError where one would be empty."""
        chosen = self.choose(listing.names, listing.labels, listing.members, listing.numbers)
        for part, choice in chosen.items():
            if not len(choice.positions):
                names = ", ".join(list(listing.names)[:20])
                raise DataNotFoundError(f"{self.label} {listing.tree}: no images for the {part} split in {names}")
        return chosen

    def _without_broken(self, chosen: dict[str, Choice], cache: Cache) -> dict[str, Choice]:
        states = cache.states()
        lost = {part: (states[choice.positions] == BROKEN) for part, choice in chosen.items()}
        if not any(mask.any() for mask in lost.values()):
            return chosen
        positions = torch.cat([chosen[part].positions[mask] for part, mask in lost.items()]).unique().tolist()
        reasons = cache.reasons()
        files = cache.survey
        named = "; ".join(reasons.get(at, f"image {files.tree / files.files[at]}") for at in positions[:5])
        more = f"; and {len(positions) - 5} more" if len(positions) > 5 else ""
        counted = ", ".join(f"{int(mask.sum())} of {len(mask)} in {part}" for part, mask in lost.items())
        said = f"{self.label}: {len(positions)} broken images ({counted}): {named}{more}"
        if self.broken == "stop":
            raise BrokenImagesError(f"{said}. Replace the files, or set the parameter 'broken' to skip")
        kept = {}
        for part, mask in lost.items():
            choice = chosen[part]
            whole = Choice(
                positions=choice.positions[~mask], labels=choice.labels[~mask], indices=choice.indices[~mask]
            )
            if not len(whole.positions):
                raise BrokenImagesError(f"{said}. None is left in {part}")
            kept[part] = whole
        warnings.warn(f"{said}. They are left out", BrokenImageWarning, stacklevel=4)
        return kept


def pooled(chosen: Mapping[str, Choice]) -> Tensor:
    """Positions of all images that some split holds, each once."""
    positions: Tensor = torch.cat([choice.positions for choice in chosen.values()]).unique()
    return positions


def cache_places(root: Path) -> list[Path]:
    """Where decoded images may lie, in the order in which places are tried."""
    given = os.environ.get("SIGNSYM_CACHE")
    if given:
        return [Path(given)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [root / ".signsym-cache", home / "signsym"]


def _resident_bytes() -> int:
    given = os.environ.get("SIGNSYM_RESIDENT_BYTES", str(RESIDENT))
    if not given.isdecimal():
        raise ValueError(f"SIGNSYM_RESIDENT_BYTES expects a whole number of bytes, got {given!r}")
    return int(given)
