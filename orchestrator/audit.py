"""`signsym audit`: a verdict for each model of a store, with its evidence and with what is missing."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

import signsym_core as ss
from orchestrator import splits
from orchestrator.evidence import SETTING, Known, known
from orchestrator.models import rebuilt, task_of
from orchestrator.store import Store, StoreError
from orchestrator.work import device
from signsym_core.auditing import PROBED
from signsym_core.checks import MODEL
from signsym_core.datasets import Data, DataSource, inputs
from signsym_core.evidence import Run
from signsym_core.masking import GREY
from signsym_core.probes import Probe, measure
from signsym_core.stats import interval
from signsym_core.verdict import Verdict, judge

_COLOURS = {"sound": "green", "weak attack": "yellow", "masked gradient": "red", "undecided": "cyan"}


def run_audit(store: Store, data_root: Path | None, grid: Path | None, as_json: bool, console: Console) -> None:
    """Audit every model of `store`; without a data root the models themselves are not probed.

    With `grid` the file is written that would supply what is missing. Raises StoreError for a store without results.
    """
    models = known(store.results(), store.outcomes())
    if not models:
        raise StoreError(
            f"no model in {store.uri} has a result yet; run its sweep first, or ask: signsym status {store.uri}"
        )
    notes: list[str] = []
    judged = []
    for model in models:
        probed = model if data_root is None else model.probed(_probes(model, store, data_root, notes))
        judged.append((probed, judge(probed.evidence)))
    notes += [f"skipped {name}: {reason}" for name, reason in store.skipped.items()]
    if grid is not None:
        from orchestrator.auditgrid import audit_grid

        grid.write_text(audit_grid(models, store, name="audit"))
    commands = _commands(store, grid, data_root)
    if as_json:
        sys.stdout.write(json.dumps(_json(store, judged, notes, commands), indent=1, ensure_ascii=False) + "\n")
        return
    _print(judged, notes, commands, console)


def _probes(model: Known, store: Store, root: Path, notes: list[str]) -> tuple[Probe, ...]:
    """A probe for each seed; none, with a note of the reason, where a model or its data are not at hand."""
    probes = []
    try:
        for key in model.jobs.values():
            network, record = rebuilt(store, key)
            source, data = _data(json.dumps(record["spec"]["dataset"], sort_keys=True), root, store.uri)
            test = data.test.take(torch.arange(min(PROBED, len(data.test))))
            assert isinstance(test.images, torch.Tensor)
            task = task_of(record["spec"])
            probes.append(measure(network.to(device()).eval(), inputs(test.images, source), test.labels, task=task))
    except (OSError, ValueError) as error:
        notes.append(f"{_called(model)}: not probed: {error}")
        return ()
    return tuple(probes)


@functools.lru_cache(maxsize=2)
def _data(described: str, root: Path, storage: str) -> tuple[DataSource, Data]:
    """A data set on this machine's device; raises OtherImagesError where the store's results come from another."""
    parts = json.loads(described)
    source = ss.DATASETS.rebuild(parts)
    data = source.load(root)
    splits.compare(Store(storage), parts, data, functools.partial(source.places, root))
    return source, data.to(device())


def _commands(store: Store, grid: Path | None, root: Path | None) -> list[str]:
    """What supplies the attacks that are missing."""
    file = str(grid or "audit.yaml")
    data = ["--data-root", str(root)] if root is not None else []
    write = ["signsym", "audit", store.uri, "--grid", file]
    sweep = ["signsym", "sweep", file, "--storage", store.uri, *data]
    return [shlex.join(sweep)] if grid is not None else [shlex.join(write), shlex.join(sweep)]


def _print(judged: Sequence[tuple[Known, Verdict]], notes: list[str], commands: list[str], console: Console) -> None:
    table = Table("model", "rule", "n", "clean", "ε", "exact gradient", "own feedback", "verdict", title="audit")
    for model, verdict in judged:
        epsilon = _shown(model)
        exact, own = (None if epsilon is None else model.evidence.strongest(g, epsilon) for g in ("exact", "feedback"))
        some = exact or own or model.evidence.clean
        n = "" if some is None else f"{some.outcomes.shape[1]} × {len(some.seeds)}"
        label = "" if epsilon is None else model.labels.get(epsilon, f"{epsilon:g}")
        words = Text(verdict.words, style=_COLOURS[verdict.kind])
        where, rule = _setting(model)
        table.add_row(where, rule, n, _percent(model.evidence.clean), label, _percent(exact), _percent(own), words)
    console.print(table)
    console.print(
        "n: images × seeds. Scores in %, with 95 % intervals; the exact gradient is the result.", highlight=False
    )
    for model, verdict in judged:
        told = [made for made in verdict.made if made.finding.raised]
        if told:
            console.print(f"{_called(model)}:", highlight=False, soft_wrap=True)
        for made in told:
            console.print(f"  {made.check.id} {made.check.flag}: {made.words}", highlight=False, soft_wrap=True)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    lacking = {check.id: check for _, verdict in judged for check in verdict.missing}
    if lacking:
        console.print("Undecided for want of:", highlight=False)
    for check in lacking.values():
        console.print(f"  {check.id} {check.flag}: needs {check.needs}", highlight=False)
    if any(check.needs == MODEL for check in lacking.values()):
        console.print("Models are probed where their data are: --data-root DIR, without --no-probes.", highlight=False)
    if any(check.needs != MODEL for check in lacking.values()):
        console.print("The attacks that are missing are supplied by:", highlight=False)
        for command in commands:
            console.print(f"  {command}", highlight=False, soft_wrap=True)


def _shown(model: Known) -> float | None:
    """The ε below 0.5 whose number tells most: where the two gradients differ most, else the middle of the curve."""
    found = []
    for epsilon in sorted({run.epsilon for run in model.evidence.of(below=GREY)}):
        exact, own = (model.evidence.strongest(gradient, epsilon) for gradient in ("exact", "feedback"))
        if exact is not None:
            apart = 0.0 if own is None else own.score - exact.score
            found.append((round(apart, 6), -abs(exact.score - 0.5), epsilon))
        elif own is not None:
            found.append((0.0, -abs(own.score - 0.5), epsilon))
    return max(found)[2] if found else None


def _percent(run: Run | None) -> str:
    if run is None:
        return "–"
    score = interval(run.outcomes)
    return f"{100 * score.value:.1f} [{100 * score.lo:.1f}, {100 * score.hi:.1f}]"


def _setting(model: Known) -> tuple[str, str]:
    """Where a model comes from, and its rule, each with the parameters that are not the default."""
    names = ("backbone", "dataset", "rule")
    backbone, dataset, rule = (_with(model.setting[name], model.setting[f"{name}_params"]) for name in names)
    task = "" if model.setting["task"] == "classification" else f"{model.setting['task']}: "
    return f"{task}{backbone} / {dataset}", rule


def _with(name: str, parameters: str) -> str:
    inner = ", ".join(f"{key}={value}" for key, value in json.loads(parameters).items())
    return f"{name}({inner})" if inner else name


def _called(model: Known) -> str:
    where, rule = _setting(model)
    return f"{rule} on {where}"


def _json(
    store: Store, judged: Sequence[tuple[Known, Verdict]], notes: list[str], commands: list[str]
) -> dict[str, Any]:
    rows = []
    for model, verdict in judged:
        epsilon = _shown(model)
        clean = model.evidence.clean
        row: dict[str, Any] = {name: model.setting[name] for name in SETTING}
        row |= {"finetune_jobs": {str(seed): job for seed, job in model.jobs.items()}}
        row |= {"clean": None if clean is None else clean.score, "epsilon": epsilon}
        for gradient in ("exact", "feedback"):
            run = None if epsilon is None else model.evidence.strongest(gradient, epsilon)
            row[gradient] = None if run is None else _scored(run)
        row |= {"verdict": verdict.kind, "words": verdict.words}
        row |= {"overstated": verdict.overstated, "overstated_at": verdict.epsilon}
        row["missing"] = [{"id": check.id, "flag": check.flag, "needs": check.needs} for check in verdict.missing]
        row["checks"] = [
            {"id": made.check.id, "flag": made.check.flag, "level": made.check.level, "raised": made.finding.raised}
            | {"epsilon": made.epsilon, "first": made.finding.first, "second": made.finding.second}
            | {"names": list(made.finding.names), "n": made.finding.n, "seeds": made.finding.seeds}
            | {"words": made.words}
            for made in verdict.made
        ]
        rows.append(row)
    return {"storage": store.uri, "models": rows, "notes": notes, "commands": commands}


def _scored(run: Run) -> dict[str, Any]:
    score = interval(run.outcomes)
    named = {"attack": run.attack, "attack_params": run.parameters, "steps": run.steps}
    return named | {"value": score.value, "lo": score.lo, "hi": score.hi, "n": score.n, "seeds": score.seeds}
