"""Outcomes of cells by image: read when they are needed, and kept as long as a share of memory lasts.

A sweep writes a file of outcomes for each file of results, under the same name. Where small files were merged, the
outcomes of a cell are in files with names of their own.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.index import Index
from orchestrator.results.outcome_file import ImageLists, Source, joined, source
from orchestrator.store import merged, tables
from orchestrator.store.folder import Folder
from orchestrator.store.store import Store
from orchestrator.store.trusted import Expected, expected, misfit, missing, places, sharing

_COLUMNS = ("cell", "image", "robust", "ap", "linf", "zero_grad")
#: Bytes of outcomes that are kept; what was used longest ago goes first, and is read again when it is wanted.
KEPT = 500_000_000
#: Files that are read at once: their tables are larger than what is kept of them.
AT_ONCE = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the images of one cell, sorted by image."""

    images: NDArray[np.int32]
    #: 1 for a robust image and 0 for one that is not, or the average precision of a query.
    scores: NDArray[np.uint8] | NDArray[np.float32]
    #: Whether the loss had no gradient at the clean image; None where that was not recorded.
    zero: NDArray[np.bool_] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """The outcomes of the cells of one file of results: for each its number in a source, -1 where it has none."""

    source: Source
    at: NDArray[np.int64]
    #: Whether other blocks have the same source.
    shared: bool = False

    @property
    def complete(self) -> bool:
        """Whether every cell has outcomes."""
        return bool((self.at >= 0).all())

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.at.nbytes) + (0 if self.shared else self.source.nbytes)


class Outcomes:
    """The outcomes of a store."""

    def __init__(self, store: Store) -> None:
        self.folder = Folder(store, "outcomes", tables.OUTCOMES, _COLUMNS)
        self.images = ImageLists()
        self._blocks: collections.OrderedDict[str, Block] = collections.OrderedDict()
        self._bytes = 0
        #: Blocks with cells that have no outcomes, which may come later.
        self._partial: dict[str, Block] = {}
        #: Files that results of other names may have their outcomes in, as far as they were read.
        self._shared: dict[str, Source] = {}
        #: The cells without outcomes of each file of results that has any, and the files that contradict theirs.
        self.lost: dict[str, pa.Array] = {}
        self.wrong: set[str] = set()
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether what is read next takes the place of something else."""
        return self._bytes > 0.8 * KEPT

    def forget_partial(self) -> None:
        """Look again for outcomes that were not there: the store has changed."""
        with self._lock:
            self._partial = {}

    def blocks(self, index: Index, parts: Iterable[int]) -> Mapping[int, Block]:
        """The outcomes of files of results, by the number that the index gives them."""
        names = {part: index.parts[part] for part in parts}
        found: dict[int, Block] = {}
        with self._lock:
            for part, name in names.items():
                block = self._blocks.get(name) or self._partial.get(name)
                if block is not None:
                    found[part] = block
                    if name in self._blocks:
                        self._blocks.move_to_end(name)
            wanted = {name: index.expected(part) for part, name in names.items() if part not in found}
            if wanted:
                made = self._read(wanted, set(self.folder.names()), set(index.parts))
                found |= {part: made[name] for part, name in names.items() if name in made}
        return found

    def read_others(self, index: Index) -> None:
        """Read the files that are named like no file of results, so that broken ones are named."""
        with self._lock:
            self._others((there := set(self.folder.names())) - set(index.parts), there)

    def look_again(self, results: Mapping[str, pa.Table], known: set[str]) -> None:
        """Read the outcomes of these results anew: what was lost or wrong may be computed again by now."""
        with self._lock:
            self._read({name: expected(table) for name, table in results.items()}, set(self.folder.names()), known)

    def _read(self, wanted: Mapping[str, Expected], there: set[str], known: set[str]) -> dict[str, Block]:
        names = list(wanted)
        made = {}
        for name in names:
            self._partial.pop(name, None)
            self.lost.pop(name, None)
            self.wrong.discard(name)
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            own = self.folder.read([name for name in some if name in there])
            for name in some:
                found = source(own[name], self.images) if name in own else joined([])
                made[name] = self._checked(name, _block(found, wanted[name][0]), wanted[name], own=True)
        lacking = [name for name in names if not made[name].complete and name not in self.wrong]
        others = self._others(sharing(there, known), there) if lacking else []
        if others:
            # Put together once for all that lack their own.
            together = joined(others)
            for name in lacking:
                own_source, cells = made[name].source, wanted[name][0]
                both = joined([own_source, together]) if len(own_source.cells) else together
                made[name] = self._checked(name, _block(both, cells, shared=both is together), wanted[name], own=False)
        for name, block in made.items():
            if not block.complete:
                self._lose(name, block, wanted[name][0])
            self._keep(name, block)
        return made

    def _checked(self, name: str, block: Block, results: Expected, own: bool) -> Block:
        """The block, or one without outcomes where they contradict the results."""
        if not len(block.source.cells) or not (reason := misfit(results, block.at, block.source.tally, own)):
            return block
        self.folder.skip(name, reason)
        self.wrong.add(name)
        return Block(joined([]), np.full(len(block.at), -1))

    def _lose(self, name: str, block: Block, cells: pa.Array) -> None:
        self.lost[name] = cells.filter(pa.array(block.at < 0))
        if name not in self.folder.broken:
            self.folder.skip(name, missing(int((block.at < 0).sum()), len(block.at)))

    def _others(self, names: set[str], there: set[str]) -> list[Source]:
        # A file that was there before its results was is no longer one of these.
        shared = names | {name for name in there if merged.is_merged(name)}
        self._shared = {name: known for name, known in self._shared.items() if name in shared}
        new = sorted(names - set(self._shared))
        for start in range(0, len(new), AT_ONCE):
            for name, table in self.folder.read(new[start : start + AT_ONCE]).items():
                self._shared[name] = source(table, self.images)
        return [self._shared[name] for name in sorted(names) if name in self._shared]

    def _keep(self, name: str, block: Block) -> None:
        if not block.complete:
            self._partial[name] = block
            return
        self._blocks[name] = block
        self._bytes += block.nbytes
        while self._bytes > KEPT and len(self._blocks) > 1:
            self._bytes -= self._blocks.popitem(last=False)[1].nbytes


def _block(found: Source, cells: pa.Array, shared: bool = False) -> Block:
    return Block(found, places(cells, found.cells), shared)
