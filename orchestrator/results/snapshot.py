"""The results of a store at one moment, with the curves, verdicts and flags that were asked of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from orchestrator.results.categories import Numbers
from orchestrator.results.corruptions import Corruptions
from orchestrator.results.evidence import Models
from orchestrator.results.flags import Flags
from orchestrator.results.index import Index
from orchestrator.results.mixtures import mixtures
from orchestrator.results.optimality import Optimalities
from orchestrator.results.outcomes import OutcomeReader
from orchestrator.results.query import Query
from orchestrator.results.worst_lines import WorstCases

#: Number of choices of seeds whose curves are kept.
KEPT = 4


class Computed:
    """What is computed of the results over some seeds, each when it is first asked for."""

    def __init__(self, query: Query) -> None:
        #: The curves.
        self.query = query

    @functools.cached_property
    def models(self) -> Models:
        """The verdicts on models, and the checks that they rest on."""
        return Models(self.query)

    @functools.cached_property
    def flags(self) -> Flags:
        """The same checks by line."""
        return Flags(self.models)

    @functools.cached_property
    def worst_cases(self) -> WorstCases:
        """The worst cases over attacks of the models."""
        return WorstCases(self.models)

    @functools.cached_property
    def optimalities(self) -> Optimalities:
        """The optimality of the attacks on the models."""
        return Optimalities(self.models)

    @functools.cached_property
    def corruptions(self) -> Corruptions:
        """The models on corrupted test images."""
        return Corruptions(self.query)


class Snapshot:
    """The results of the store at one moment, and why some are left out, in sentences: its `problems`."""

    def __init__(self, index: Index, outcomes: OutcomeReader, version: int = 0, problems: Sequence[str] = ()) -> None:
        self.index, self.outcomes, self.version = index, outcomes, version
        self.problems = [*problems, *index.notices]
        self._mixtures: dict[bytes, list[str]] = {}
        self._computed: dict[frozenset[int], Computed] = {}

    def computed(self, seeds: Iterable[int] = ()) -> Computed:
        """What is computed over these seeds, and kept; none stands for all seeds. A new one replaces the oldest."""
        chosen = frozenset(seeds)
        if chosen not in self._computed:
            while len(self._computed) >= KEPT:
                self._computed.pop(next(iter(self._computed)))
            self._computed[chosen] = Computed(Query(self.index, self.outcomes, sorted(chosen)))
        return self._computed[chosen]

    def mixtures(self, rows: Numbers | None = None) -> list[str]:
        """What `rows`, or all results, mix: see `mixtures`. Kept, as `computed` is."""
        name = b"" if rows is None else rows.tobytes()
        if name not in self._mixtures:
            while len(self._mixtures) >= KEPT:
                self._mixtures.pop(next(iter(self._mixtures)))
            self._mixtures[name] = mixtures(self.index, rows)
        return self._mixtures[name]

    def query(self, seeds: Iterable[int] = ()) -> Query:
        """The curves over these seeds."""
        return self.computed(seeds).query
