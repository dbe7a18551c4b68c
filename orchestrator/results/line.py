"""A line: a model without its seed, under one attack with one source of gradient."""

from __future__ import annotations

import dataclasses

from orchestrator.jobs.surrogates import attacks_itself, transfers

#: What is shown in one figure. `store` is the name of a store where the results of each are shown apart, else "".
FIGURE = (
    *("store", "task", "task_params", "dataset", "dataset_params", "backbone", "backbone_params"),
    *("weights", "finetune", "metric"),
)
#: With these, what is shown in one panel of it, and with RULE, what is one line in it.
ATTACK = ("attack", "attack_params", "gradient")
RULE = ("rule", "rule_params")
LINE = (*FIGURE, *ATTACK, *RULE)
#: Those of them that results have.
STORED = tuple(name for name in LINE if name != "store")
#: Columns that a filter can choose values of.
FILTERS = ("task", "backbone", "dataset", "attack", "gradient", "rule")
_PLACES = {name: place for place, name in enumerate(LINE)}
_ATTACK, _GRADIENT, _RULE = (_PLACES[name] for name in ("attack", "gradient", "rule"))
#: Those of STORED that a grid knows before there is a result.
GRID_KEY = tuple(name for name in STORED if name != "metric")
_ROW = tuple(name for name in GRID_KEY if name not in RULE)


@dataclasses.dataclass(frozen=True)
class Line:
    """The key of a line, and its rows, which are contiguous and sorted by epsilon and seed."""

    number: int
    #: Values of LINE's columns.
    key: tuple[str, ...]
    start: int
    stop: int

    @property
    def rows(self) -> range:
        """The positions of its rows in the index's table."""
        return range(self.start, self.stop)

    @property
    def figure(self) -> tuple[str, ...]:
        """Values of FIGURE's columns."""
        return self.key[: len(FIGURE)]

    @property
    def panel(self) -> tuple[str, ...]:
        """Values of FIGURE's and ATTACK's columns."""
        return self.key[: -len(RULE)]

    @property
    def attacked(self) -> tuple[str, ...]:
        """Values of FIGURE's columns, and the attack with its parameters: what its gradients and rules share."""
        return self.key[: len(FIGURE) + ATTACK.index("gradient")]

    @property
    def model(self) -> tuple[str, ...]:
        """What was fine-tuned: the key without its attack."""
        return (*self.key[: len(FIGURE)], *self.key[-len(RULE) :])

    @property
    def grid_key(self) -> tuple[str, ...]:
        """The values of GRID_KEY's columns."""
        store, metric = LINE.index("store"), LINE.index("metric")
        return (*self.key[store + 1 : metric], *self.key[metric + 1 :])

    @property
    def attack(self) -> str:
        """The attack's name."""
        return self.key[_ATTACK]

    @property
    def gradient(self) -> str:
        """The source of its gradient."""
        return self.key[_GRADIENT]

    @property
    def rule(self) -> str:
        """The rule's name."""
        return self.key[_RULE]

    @property
    def transfers(self) -> bool:
        """Whether its images were made on a surrogate, be it the attacked model itself."""
        return transfers(self.gradient)

    @property
    def attacks_itself(self) -> bool:
        """Whether its surrogate is the attacked model, so that its own exact gradient was followed."""
        return attacks_itself(self.gradient, self.rule, self.rule_params)

    def __getattr__(self, name: str) -> str:
        """The value of another of LINE's columns."""
        if name in _PLACES:
            return self.key[_PLACES[name]]
        raise AttributeError(name)


def planned_line(grid_key: tuple[str, ...]) -> Line:
    """A line without rows that a grid plans, of no store and with no metric, for its labels."""
    values = dict(zip(GRID_KEY, grid_key, strict=True))
    return Line(-1, tuple(values.get(name, "") for name in LINE), 0, 0)


def grid_key_value(grid_key: tuple[str, ...], column: str) -> str:
    """The value of one of LINE's columns in a line's grid key."""
    return grid_key[GRID_KEY.index(column)]


def row_key(grid_key: tuple[str, ...]) -> tuple[str, ...]:
    """The grid key of a line without its rule: lines with equal ones share a row of a table."""
    return tuple(value for name, value in zip(GRID_KEY, grid_key, strict=True) if name in _ROW)


def row_value(row: tuple[str, ...], column: str) -> str:
    """The value of one of LINE's columns in a row key."""
    return row[_ROW.index(column)]
