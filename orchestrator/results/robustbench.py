"""Entries of RobustBench's leaderboard, one for each network that AutoAttack was run on along the exact gradient.

The fields are those of the files in `model_info` of github.com/RobustBench/robustbench (Croce et al. 2021, 2010.09670).
What a store cannot know is null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.results import members
from orchestrator.results.judgements import Judgement, ModelEvidence
from orchestrator.results.labels import mapping
from orchestrator.results.live_stores import Results
from orchestrator.results.test_images import test_images
from orchestrator.store.files import write_file
from signsym_core.auditing.evidence import Run

#: Parameters that AutoAttack may have: with any other one it is not the standard one.
_STANDARD = {"norm", "precision", "deterministic"}
#: How many of the images another attack may break alone: AutoAttack's own limit for a warning.
LIMIT = 0.002
_FOLDERS = {"linf": "Linf", "l2": "L2"}


def write_entries(data: Results, out: Path) -> int:
    """Write each entry into OUT/DATASET/NORM/NAME.json, as `model_info` has them; returns their number.

    Raises ValueError where there is none.
    """
    written = 0
    for path, entry in entries(data):
        write_file(out / path, (json.dumps(entry, indent=2, ensure_ascii=False) + "\n").encode())
        written += 1
    if not written:
        raise ValueError(
            f"{data.uri}: expected a clean score and the standard AutoAttack along the exact gradient of some model, "
            f"found none; in a grid: {{name: autoattack, gradient: exact, epsilon: 8/255}}"
        )
    return written


def entries(data: Results) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The entries with their paths, network by network: of each seed and ε one."""
    models = data.snapshot.computed().models
    for model in models.known():
        clean = model.evidence.clean
        if (
            clean is None
            or model.setting["task"] != "classification"
            or test_images(model.setting["dataset_params"]).kind
        ):
            continue
        for run in model.evidence.runs:
            if _is_standard(run):
                judgement = models.judgement(model)
                yield from _of_run(data, model, judgement, clean, run)


def _is_standard(run: Run) -> bool:
    along = run.attack == "autoattack" and run.gradient == "exact" and run.epsilon > 0
    return along and set(mapping(run.parameters)) <= _STANDARD


def _of_run(
    data: Results, model: ModelEvidence, judgement: Judgement, clean: Run, run: Run
) -> Iterator[tuple[Path, dict[str, Any]]]:
    labels, line, label = data.snapshot.index.labels, judgement.line, model.labels[run.epsilon]
    rule, architecture = labels.of(line, "rule"), labels.of(line, "backbone")
    # In other arithmetic it is another run on the same network.
    computed = "".join(f"-{value}" for name, value in mapping(run.parameters).items() if name != "norm")
    # AutoAttack may have run on some of the test images; both accuracies are of these.
    attacked = np.isin(clean.images, run.images)
    for seed in run.seeds:
        if seed not in clean.seeds or not attacked.any():
            continue
        left = _of_seed(run, seed)
        external, strongest = _worst(model.evidence.runs, run, seed)
        broken = float(left.mean() - external.mean())
        weaker = strongest and f" {strongest} breaks {100 * broken:.2f} points of the images that it leaves."
        undecided = judgement.verdict.kind == "undecided"
        entry = {
            "link": None,
            "name": None,
            "authors": None,
            "additional_data": _additional(line.weights),
            "number_forward_passes": 1,
            "dataset": line.dataset,
            "venue": None,
            "architecture": f"{architecture}, learning rule {_labelled(rule)}",
            "eps": label,
            "clean_acc": _percent(_of_seed(clean, seed)[attacked]),
            "reported": None,
            "autoattack_acc": _percent(left),
            "external": _percent(external) if strongest else None,
            "footnote": f"AutoAttack follows the exact gradient, on {len(left):,} images; seed {seed}.{weaker} "
            f"Audit: {judgement.verdict.words}.",
            "unreliable": True if broken > LIMIT else None if undecided else False,
        }
        name = f"{rule}-{architecture}-seed{seed}-{label.replace('/', 'over')}{computed}-{model.jobs[seed][:8]}"
        yield Path(_safe(line.dataset), _FOLDERS[run.norm], f"{_safe(name)}.json"), entry


def _worst(runs: Sequence[Run], of: Run, seed: int) -> tuple[NDArray[np.float64], str]:
    """Which images of a run no run at its ε breaks, and the run that alone breaks most more; "" where none does."""
    left = _of_seed(of, seed)
    worst, strongest, fewest = left, "", float(left.mean())
    for other in runs:
        if (other.epsilon, other.norm) != (of.epsilon, of.norm) or seed not in other.seeds:
            continue
        _, here, there = np.intersect1d(of.images, other.images, return_indices=True)
        both = left.copy()
        both[here] = np.minimum(left[here], _of_seed(other, seed)[there])
        worst = np.minimum(worst, both)
        if both.mean() < fewest:
            fewest = float(both.mean())
            strongest = other.attack + (f" along {other.gradient}" if other.gradient != "none" else "")
    return worst, strongest


def _of_seed(run: Run, seed: int) -> NDArray[np.float64]:
    return np.asarray(run.outcomes[run.seeds.index(seed)], dtype=np.float64)


def _additional(weights: str) -> bool | None:
    """Whether more than the data set was trained on; None where the weights before do not say."""
    if weights == "null":
        return False
    return True if "published" in mapping(weights) else None


def _labelled(rule: str) -> str:
    """A rule as figures print it, parameters kept."""
    name, bracket, rest = rule.partition("(")
    return members.label(name) + bracket + rest


def _percent(outcomes: NDArray[np.float64]) -> str:
    return f"{100 * outcomes.mean():.2f}"


def _safe(name: str) -> str:
    """A name as a file's: what stores hold must not become a path."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "_"
