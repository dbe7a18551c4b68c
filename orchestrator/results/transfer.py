"""Who fools whom: what the examples that models of one rule make leave of the models of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from orchestrator.jobs.surrogates import SurrogateName, names_surrogate, surrogate_of
from orchestrator.results import members
from orchestrator.results.index import Index
from orchestrator.results.line import Line

#: The rule of the attacked models, and its parameters.
Attacked = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """One attack on the models of one figure: a row for each surrogate, a column for each attacked rule."""

    #: Those of the same seed first, each in the order of rules.
    surrogates: tuple[SurrogateName, ...]
    attacked: tuple[Attacked, ...]
    #: What was run.
    lines: Mapping[tuple[SurrogateName, Attacked], Line]
    #: The clean scores of the attacked models that have any.
    clean: Mapping[Attacked, Line]

    @property
    def example(self) -> Line:
        """One of its lines: all of them share what they are named by."""
        return next(iter(self.lines.values()))


def matrices(index: Index, lines: Iterable[Line]) -> list[TransferMatrix]:
    """The matrices of those `lines` whose images were made on a surrogate, in their order.

    The BP twin alone makes no matrix: that is one row.
    """
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        if line.transfers:
            groups.setdefault(line.attacked, []).append(line)
    return [_matrix(index, group) for group in groups.values() if any(names_surrogate(line.gradient) for line in group)]


def clean_line(index: Index, line: Line) -> Line | None:
    """The clean performance of a line's model; None where it was not run."""
    return next((other for other in index.models[line.model] if other.attack == "none"), None)


def _matrix(index: Index, lines: list[Line]) -> TransferMatrix:
    by_place = {(surrogate_of(line.gradient), (line.rule, line.rule_params)): line for line in lines}
    surrogates = dict.fromkeys(surrogate for surrogate, _ in by_place)
    clean = {attacked: clean_line(index, line) for (_, attacked), line in by_place.items()}
    return TransferMatrix(
        surrogates=tuple(sorted(surrogates, key=_order)),
        # The lines of an index have the order of rules in each source of gradient, but one source may lack some.
        attacked=tuple(sorted(clean, key=lambda attacked: (members.rank("rule", attacked[0]), attacked[1]))),
        lines=by_place,
        clean={attacked: line for attacked, line in clean.items() if line is not None},
    )


def _order(surrogate: SurrogateName) -> tuple[bool, tuple[int, str], str]:
    return surrogate.other_seed, members.rank("rule", surrogate.rule), surrogate.parameters
