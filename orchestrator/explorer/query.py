"""From the store's rows to curves: every number with its interval, and none that depends on what else is shown.

Legend: X [seeds, images], a point's outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signsym_core.stats import Interval, gap, interval

#: What is shown in one figure.
FIGURE = ["task", "dataset", "dataset_params", "backbone", "backbone_params", "weights", "finetune", "metric"]
#: With these, what is shown in one panel of it, and with RULE, what is one line in it.
ATTACK = ["attack", "attack_params", "gradient"]
RULE = ["rule", "rule_params"]
#: Below these a result is called small.
FEW_IMAGES, FEW_SEEDS = 1000, 3


class AmbiguousCurveError(ValueError):
    """Two values for one seed and epsilon of one line: some setting that tells them apart is not looked at."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A curve at one epsilon."""

    epsilon: float
    label: str
    score: Interval
    #: The score of each seed.
    by_seed: dict[int, float]
    #: Score minus that of BP in the same panel, paired by seed and image; None where BP is absent, or for BP itself.
    over_bp: Interval | None
    #: Score minus that under the exact gradient on the same weights, paired; None where there is none.
    over_exact: Interval | None
    reach: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: a rule under one attack with one source of gradient."""

    #: Values of FIGURE's columns.
    figure: tuple[str, ...]
    #: Name and parameters of the figure, rule and attack, as people read them.
    title: str
    rule: str
    rule_label: str
    attack: str
    attack_label: str
    gradient: str
    chance: float
    points: tuple[Point, ...]

    @property
    def n(self) -> int:
        """Images of the smallest point."""
        return min(point.score.n for point in self.points)

    @property
    def seeds(self) -> int:
        """Seeds of the point that has fewest."""
        return min(point.score.seeds for point in self.points)

    @property
    def small(self) -> bool:
        """Whether the line rests on too few images or seeds for a firm claim."""
        return self.n < FEW_IMAGES or self.seeds < FEW_SEEDS


def curves(results: pd.DataFrame, outcomes: pd.DataFrame) -> list[Curve]:
    """Every line that the rows hold, attacks without "none", in the order of their first row.

    Raises AmbiguousCurveError where a line has two different values for one seed and epsilon.
    """
    score = outcomes["ap"].where(outcomes["ap"].notna(), outcomes["robust"].astype(float))
    by_cell = {
        str(cell): rows.set_index("image")["score"]
        for cell, rows in outcomes.assign(score=score.astype(float)).groupby("cell", sort=False)
    }
    shown = results[results["attack"] != "none"]
    _refuse_ambiguous(shown)
    lines = _grouped(shown, [*FIGURE, *ATTACK, *RULE])
    made = []
    for key, rows in lines.items():
        figure, attack, rule = key[: len(FIGURE)], key[len(FIGURE) : -len(RULE)], key[-len(RULE) :]
        bp = None if rule[0] == "bp" else _first(lines, (*figure, *attack), "bp")
        exact = None if attack[2] != "feedback" else lines.get((*figure, *attack[:2], "exact", *rule))
        made.append(
            Curve(
                figure=figure,
                title=_title(figure, results),
                rule=rule[0],
                rule_label=_named(rule[0], rule[1], shown, "rule"),
                attack=attack[0],
                attack_label=_named(attack[0], attack[1], shown, "attack"),
                gradient=attack[2],
                chance=float(rows["chance"].max()),
                points=tuple(
                    _point(at, bp, exact, by_cell) for _, at in rows.sort_values("epsilon").groupby("epsilon")
                ),
            )
        )
    return made


def clean_scores(results: pd.DataFrame, outcomes: pd.DataFrame) -> list[tuple[str, str, Interval]]:
    """(figure title, rule, score) of every model's clean performance over its seeds."""
    clean = results[results["attack"] == "none"]
    cells = {str(cell): rows for cell, rows in outcomes.groupby("cell", sort=False)}
    scores = []
    for key, rows in _grouped(clean, [*FIGURE, *RULE]).items():
        series = {
            int(row["seed"]): cells[row["cell"]].set_index("image")["robust"].astype(float)
            for row in rows.to_dict("records")
            if row["cell"] in cells
        }
        if series:
            rule = _named(key[-2], key[-1], clean, "rule")
            scores.append((_title(key[: len(FIGURE)], results), rule, interval(_matrix(series)[1])))
    return scores


def _point(
    at: pd.DataFrame, bp: pd.DataFrame | None, exact: pd.DataFrame | None, by_cell: dict[str, pd.Series]
) -> Point:
    epsilon = float(at["epsilon"].iloc[0])
    mine = _by_seed(at, epsilon, by_cell)
    _, x = _matrix(mine)
    return Point(
        epsilon=epsilon,
        label=str(at["epsilon_label"].iloc[0]),
        score=interval(x),
        by_seed={seed: float(series.mean()) for seed, series in mine.items()},
        over_bp=_paired(mine, None if bp is None else _by_seed(bp, epsilon, by_cell)),
        over_exact=_paired(mine, None if exact is None else _by_seed(exact, epsilon, by_cell)),
        reach=float(at["reach"].mean()),
    )


def _by_seed(rows: pd.DataFrame, epsilon: float, by_cell: dict[str, pd.Series]) -> dict[int, pd.Series]:
    at = rows[rows["epsilon"] == epsilon]
    found = {int(row["seed"]): by_cell[row["cell"]] for row in at.to_dict("records") if row["cell"] in by_cell}
    if len(found) < len(at) and not found:
        raise ValueError(f"the results of job {at['job'].iloc[0]} have no outcomes in the store")
    return dict(sorted(found.items()))


def _matrix(series: dict[int, pd.Series]) -> tuple[Sequence[int], NDArray[np.float64]]:
    """Images that all seeds share, and X over them."""
    frame = pd.DataFrame(series).dropna()
    return list(frame.index), frame.to_numpy(dtype=np.float64).T


def _paired(mine: dict[int, pd.Series], theirs: dict[int, pd.Series] | None) -> Interval | None:
    """The gap over the seeds and images that both have."""
    seeds = sorted(set(mine) & set(theirs or {}))
    if theirs is None or not seeds:
        return None
    ours, others = pd.DataFrame({s: mine[s] for s in seeds}), pd.DataFrame({s: theirs[s] for s in seeds})
    images = ours.dropna().index.intersection(others.dropna().index)
    if not len(images):
        return None
    return gap(ours.loc[images].to_numpy(float).T, others.loc[images].to_numpy(float).T)


def _grouped(rows: pd.DataFrame, columns: list[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    groups = rows.groupby(columns, sort=False, dropna=False)
    return {tuple(map(str, key)): members for key, members in groups}


def _refuse_ambiguous(rows: pd.DataFrame) -> None:
    columns = [*FIGURE, *ATTACK, *RULE, "seed", "epsilon"]
    twice = rows[rows.duplicated(columns, keep=False)]
    if len(twice):
        first = twice.iloc[0]
        where = ", ".join(f"{name} {first[name]}" for name in ("rule", "attack", "gradient", "seed", "epsilon"))
        jobs = ", ".join(twice["job"].astype(str).unique()[:4])
        raise AmbiguousCurveError(f"two results for {where} (jobs {jobs}): they differ in a setting that is not shown")


def _first(lines: dict[tuple[str, ...], pd.DataFrame], panel: tuple[str, ...], rule: str) -> pd.DataFrame | None:
    return next((rows for key, rows in lines.items() if key[:-2] == panel and key[-2] == rule), None)


def _named(name: str, parameters: str, rows: pd.DataFrame, column: str) -> str:
    """The name, with its parameters where rows of that name differ in them."""
    if rows.loc[rows[column] == name, f"{column}_params"].nunique() < 2:
        return name
    inner = ", ".join(f"{key}={value}" for key, value in json.loads(parameters).items())
    return f"{name}({inner})" if inner else f"{name}(defaults)"


def _title(figure: tuple[str, ...], rows: pd.DataFrame) -> str:
    """Backbone / data set, with each other setting in which the store's rows differ."""
    values = dict(zip(FIGURE, figure, strict=True))
    parts = [_named(values[name], values[f"{name}_params"], rows, name) for name in ("backbone", "dataset")]
    parts += [f"{name} {values[name]}" for name in ("task", "weights", "finetune") if rows[name].nunique() > 1]
    return " / ".join(parts)
