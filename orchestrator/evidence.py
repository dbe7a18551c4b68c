"""From the store's rows to what is known of each model: its runs over all its seeds, and the jobs behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from signsym_core.evidence import Evidence, Run
from signsym_core.probes import Probe

#: What is one setting, beside the seed.
SETTING = [
    *("task", "task_params", "dataset", "dataset_params", "backbone", "backbone_params"),
    *("weights", "finetune", "rule", "rule_params"),
]
#: What is one attack on it.
_ATTACK = ["attack", "attack_params", "gradient", "epsilon"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """One setting under one rule, with its seeds."""

    #: The columns SETTING, as in the results.
    setting: Mapping[str, str]
    #: The key of each seed's fine-tune.
    jobs: Mapping[int, str]
    evidence: Evidence
    #: The label of each epsilon of its attacks, as its grid wrote it.
    labels: Mapping[float, str]

    def probed(self, probes: tuple[Probe, ...]) -> Known:
        """The same with the probes of its models."""
        return dataclasses.replace(self, evidence=dataclasses.replace(self.evidence, probes=probes))


def known(results: pd.DataFrame, outcomes: pd.DataFrame) -> list[Known]:
    """Every model of the store, in the order of its first row.

    Two fine-tunes of one setting and seed, such as those of two versions of this program, are two models.
    """
    score = outcomes["ap"].where(outcomes["ap"].notna(), outcomes["robust"].astype(float)).astype(float)
    columns = outcomes.assign(score=score)[["cell", "image", "score", "linf"]]
    by_cell = {str(cell): rows.set_index("image") for cell, rows in columns.groupby("cell", sort=False)}
    rows = results[results["cell"].isin(by_cell.keys())]
    rows = rows.assign(**{name: rows[name].fillna("{}").astype(str) for name in SETTING if name.endswith("_params")})
    twins = rows.groupby([*SETTING, "seed"], sort=False, dropna=False)["finetune_job"]
    rows = rows.assign(version=twins.transform(lambda jobs: pd.factorize(jobs)[0]))
    found = []
    for key, members in rows.groupby([*SETTING, "version"], sort=False, dropna=False):
        seeds = members.drop_duplicates("seed")
        attacks = members.groupby(_ATTACK, sort=False, dropna=False)
        runs = [run for _, attack in attacks if (run := _run(attack, by_cell)) is not None]
        found.append(
            Known(
                setting=dict(zip(SETTING, map(str, key), strict=False)),
                jobs={int(row["seed"]): str(row["finetune_job"]) for row in seeds.to_dict("records")},
                evidence=Evidence(runs=tuple(runs), chance=float(members["chance"].max())),
                labels={
                    float(e): str(label) for e, label in zip(members["epsilon"], members["epsilon_label"], strict=True)
                },
            )
        )
    return found


def _run(rows: pd.DataFrame, by_cell: Mapping[str, pd.DataFrame]) -> Run | None:
    """One attack over the images that all its seeds have; of two cells of one seed, the one with more images."""
    rows = rows.sort_values("n", ascending=False).drop_duplicates("seed").sort_values("seed")
    cells = {int(row["seed"]): by_cell[row["cell"]] for row in rows.to_dict("records")}
    scores = pd.DataFrame({seed: cell["score"] for seed, cell in cells.items()}).dropna()
    if scores.empty:
        return None
    linf = pd.DataFrame({seed: cell["linf"] for seed, cell in cells.items()}).loc[scores.index]
    first = rows.iloc[0]
    return Run(
        attack=str(first["attack"]),
        parameters=str(first["attack_params"]),
        gradient=str(first["gradient"]),
        epsilon=float(first["epsilon"]),
        norm=str(first["norm"]),
        steps=int(first["steps"]),
        step_size=float(first["step_size"]),
        seeds=tuple(cells),
        images=scores.index.to_numpy(np.int64),
        outcomes=scores.to_numpy(float).T,
        linf=None if linf.isna().to_numpy().any() else linf.to_numpy(float).T,
    )
