"""An experiment of a grid file: its axes, attacks and training settings, before they are expanded."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.gridfile.attacks import Attacks
from orchestrator.gridfile.conditions import Condition
from orchestrator.gridfile.nodes import Node
from orchestrator.gridfile.training import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """Other training settings for some of an experiment's models."""

    when: Condition
    training: Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A product of axes with one set of attacks."""

    node: Node
    #: The values of each of MODEL_AXES, in this order, with their nodes.
    axes: dict[str, dict[Any, Node]]
    attacks: Attacks
    training: Training
    overrides: list[Override]

    def has_models(self, condition: Condition) -> bool:
        """Whether the product has a model that the condition admits."""
        return all(any(condition.admits(axis, value) for value in values) for axis, values in self.axes.items())

    def has_cells(self, condition: Condition) -> bool:
        """Whether the product has a cell that the condition admits."""
        cells = ((choice, epsilon) for choice, epsilons in self.attacks.cells.items() for epsilon in epsilons)
        return self.has_models(condition) and any(condition.admits_cell(*cell) for cell in cells)
