"""The results of a store at one moment, with the curves, verdicts and flags that were asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.results.corruptions import Corruptions
from orchestrator.results.evidence import Models
from orchestrator.results.flags import Flags
from orchestrator.results.index import Index
from orchestrator.results.optimality import Optimalities
from orchestrator.results.outcomes import OutcomeReader
from orchestrator.results.query import Query
from orchestrator.results.worst_lines import WorstCases

#: Number of choices of seeds whose curves are kept.
KEPT = 4
K = TypeVar("K")
V = TypeVar("V")


class Snapshot:
    """The results of the store at one moment, and why some are left out, in sentences."""

    def __init__(self, index: Index, outcomes: OutcomeReader, version: int = 0, problems: Sequence[str] = ()) -> None:
        self.index, self.outcomes, self.version, self.problems = index, outcomes, version, [*problems, *index.notices]
        self._queries: dict[tuple[int, ...], Query] = {}
        self._flags: dict[frozenset[int], Flags] = {}
        self._models: dict[frozenset[int], Models] = {}
        self._worst: dict[frozenset[int], WorstCases] = {}
        self._corruptions: dict[frozenset[int], Corruptions] = {}
        self._optimalities: dict[frozenset[int], Optimalities] = {}

    def query(self, seeds: tuple[int, ...] = ()) -> Query:
        """The curves over these seeds; an empty tuple stands for all seeds."""
        return _kept(self._queries, seeds, lambda: Query(self.index, self.outcomes, seeds))

    def models(self, query: Query) -> Models:
        """The verdicts on a query's models, and the checks that they rest on."""
        return _kept(self._models, query.seeds, lambda: Models(query))

    def flags(self, query: Query) -> Flags:
        """The same checks by line."""
        return _kept(self._flags, query.seeds, lambda: Flags(self.models(query)))

    def worst_cases(self, query: Query) -> WorstCases:
        """The worst cases over attacks of a query's models."""
        return _kept(self._worst, query.seeds, lambda: WorstCases(self.models(query)))

    def corruptions(self, query: Query) -> Corruptions:
        """A query's models on corrupted test images."""
        return _kept(self._corruptions, query.seeds, lambda: Corruptions(query))

    def optimalities(self, query: Query) -> Optimalities:
        """The optimality of the attacks on a query's models."""
        return _kept(self._optimalities, query.seeds, lambda: Optimalities(self.models(query)))


def _kept(known: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """The value of a key in a cache of KEPT entries; a new one takes the place of the oldest."""
    if key not in known:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = make()
    return known[key]
