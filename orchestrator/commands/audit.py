"""`signsym audit`: a verdict for each model of one or several stores, with its evidence and the missing checks."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.commands.progress import Lines
from orchestrator.commands.verdict import show_missing, show_raised
from orchestrator.results.judgements import SETTING, AttackScore, Judgement, ModelEvidence
from orchestrator.results.labels import Labels, words
from orchestrator.results.live_stores import opened
from orchestrator.store.files import write_file
from orchestrator.store.progress import silent
from orchestrator.store.store import Store, StoreError, open_store, skipped_in
from signsym_core.auditing.checks import MODEL

if TYPE_CHECKING:
    # torch is imported only where models are probed: its import takes longer than the audit.
    from signsym_core.auditing.probes import Probe

_COLOURS = {"sound": "green", "weak attack": "yellow", "masked gradient": "red", "undecided": "cyan"}


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Audit every model of the stores; with `--no-probes` no model is loaded.

    With `--grid` a grid file for the missing attacks is written. Raises StoreError for stores without results, and for
    `--grid` with several stores: each sweep writes into one.
    """
    stores, grid = [open_store(storage) for storage in parsed.storages], parsed.grid
    if grid is not None and len(stores) > 1:
        raise StoreError(f"--grid: expected one store, whose models a sweep of the grid attacks, got {len(stores)}")
    data_root = None if parsed.no_probes else parsed.data_root
    data = opened([store.uri for store in stores], at_once=True)
    # What a program reads is the JSON alone.
    data.check(silent if parsed.json else Lines(console))
    models = list(data.snapshot.computed().models.known())
    if not models and (problems := data.snapshot.problems):
        raise StoreError("\n".join([f"{data.uri}: no model has results that a verdict can rest on", *problems]))
    if not models and len(data.snapshot.index):
        export = shlex.join(["signsym", "export", *data.uris, "--what", "corruptions", "--out", "scores.csv"])
        raise StoreError(
            f"{data.uri} has scores under natural corruptions, or what attacks measure, alone, and a verdict is on "
            f"attacked models: put attacks into the grid. The scores: {export}"
        )
    if not models:
        status = " and ".join(f"signsym status {store.word}" for store in stores)
        raise StoreError(f"no model in {data.uri} has a result yet; run its sweep first, or see: {status}")
    notes, labels = [*data.snapshot.problems, *data.snapshot.mixtures()], data.snapshot.index.labels
    #: The store of each trained model.
    done = {} if data_root is None else {job: store for store in stores for job in store.done_models()}
    judgements = []
    for model in models:
        probes = () if data_root is None else _probes(model, done, data_root, notes, labels)
        judgements.append((model, model.judged(probes)))
    accused = [model for model, judgement in judgements if judgement.verdict.may_be_the_loss]
    notes += [f"skipped {name}: {reason}" for name, reason in sorted((data.skipped | skipped_in(stores)).items())]
    if grid is not None:
        from orchestrator.commands.audit_grid import audit_grid

        write_file(grid, audit_grid(models, stores[0], "audit", accused).encode())
    commands = [command for store in stores for command in _commands(store, grid, data_root)]
    if parsed.json:
        sys.stdout.write(json.dumps(_json(data.uri, judgements, notes, commands), indent=1, ensure_ascii=False) + "\n")
        return
    _print(judgements, accused, notes, commands, labels, console)


def _probes(
    model: ModelEvidence, done: Mapping[str, Store], root: Path, notes: list[str], labels: Labels
) -> tuple[Probe, ...]:
    """A probe for each seed; none, with a note of the reason, where a model or its data are missing."""
    absent = [key for key in model.jobs.values() if key not in done]
    if absent:
        notes.append(f"{_model_name(model, labels)}: not probed: no store here has the model {absent[0]}")
        return ()
    import torch

    from orchestrator.jobs import keys
    from orchestrator.jobs.setting import task_of
    from orchestrator.work.data import data_set
    from orchestrator.work.device import device
    from orchestrator.work.models import rebuilt
    from signsym_core.auditing.audit import PROBED
    from signsym_core.auditing.probes import measure
    from signsym_core.datasets import inputs

    probes = []
    try:
        for key in model.jobs.values():
            network, record = rebuilt(done[key], key)
            described = keys.canonical(record["spec"]["dataset"])
            source, data = data_set(described, str(root), done[key].uri, records=False)
            test = data.test.take(torch.arange(min(PROBED, len(data.test))))
            assert isinstance(test.images, torch.Tensor)
            task = task_of(record["spec"])
            probes.append(measure(network.to(device()).eval(), inputs(test.images, source), test.labels, task=task))
    except (OSError, ValueError) as error:
        notes.append(f"{_model_name(model, labels)}: not probed: {error}")
        return ()
    return tuple(probes)


def _commands(store: Store, grid: Path | None, root: Path | None) -> list[str]:
    """The commands that run the missing attacks."""
    file = str(grid or "audit.yaml")
    data = ["--data-root", str(root)] if root is not None else []
    write = ["signsym", "audit", store.uri, "--grid", file]
    sweep = ["signsym", "sweep", file, "--storage", store.uri, *data]
    return [shlex.join(sweep)] if grid is not None else [shlex.join(write), shlex.join(sweep)]


def _print(
    judgements: Sequence[tuple[ModelEvidence, Judgement]],
    accused: Sequence[ModelEvidence],
    notes: list[str],
    commands: list[str],
    labels: Labels,
    console: Console,
) -> None:
    table = Table("model", "rule", "n", "clean", "ε", "exact gradient", "own feedback", "verdict", title="audit")
    for model, judgement in judgements:
        scored = judgement.exact or judgement.feedback or judgement.clean
        n = "" if scored is None else f"{scored.score.n} × {scored.score.seeds}"
        scores = [_percent(judgement.clean), judgement.label, _percent(judgement.exact), _percent(judgement.feedback)]
        verdict = Text(judgement.verdict.words, style=_COLOURS[judgement.verdict.kind])
        table.add_row(*_setting(model, labels), n, *scores, verdict)
    console.print(table)
    console.print("n: images × seeds. Scores in %, with 95 % intervals; the exact gradient is the result.")
    for model, judgement in judgements:
        if any(result.finding.raised for result in judgement.verdict.made):
            console.print(f"{_model_name(model, labels)}:", soft_wrap=True)
        show_raised(judgement.verdict, console)
    for note in notes:
        console.print(note, soft_wrap=True)
    lacking = {check.id: check for _, judgement in judgements for check in judgement.verdict.missing}
    if lacking:
        console.print("Missing for a verdict:")
    show_missing(lacking.values(), console)
    if any(check.needs == MODEL for check in lacking.values()):
        console.print("To probe the models, name their data: --data-root DIR, without --no-probes.")
    if accused:
        console.print(
            "Only attacks without the model's gradient call it masked. Those along it may have raised a poor loss, as "
            "the cross-entropy of small logits is; APGD on the ratio of logits decides that of "
            f"{'; '.join(_model_name(model, labels) for model in accused)}.",
            soft_wrap=True,
        )
    if accused or any(check.needs != MODEL for check in lacking.values()):
        console.print("To run the missing attacks:")
        for command in commands:
            console.print(f"  {command}", soft_wrap=True)


def _percent(scored: AttackScore | None) -> str:
    if scored is None:
        return "–"
    score = scored.score
    return f"{100 * score.value:.1f} [{100 * score.lo:.1f}, {100 * score.hi:.1f}]"


def _setting(model: ModelEvidence, labels: Labels) -> tuple[str, str]:
    """A model's task, backbone and data set, and its rule, with the parameters that are not the default.

    And with each other setting in which the models of its task differ.
    """
    names = ("backbone", "dataset", "rule")
    backbone, dataset, rule = (_with_parameters(model.setting[name], model.setting[f"{name}_params"]) for name in names)
    task = "" if model.setting["task"] == "classification" else f"{model.setting['task']}: "
    settings = labels.settings(next(iter(model.lines.values())))
    return " / ".join([f"{task}{backbone}", dataset, *settings]), rule


def _with_parameters(name: str, parameters: str) -> str:
    inner = ", ".join(f"{key}={words(value)}" for key, value in json.loads(parameters).items())
    return f"{name}({inner})" if inner else name


def _model_name(model: ModelEvidence, labels: Labels) -> str:
    source, rule = _setting(model, labels)
    return f"{rule} on {source}"


def _json(
    storage: str, judgements: Sequence[tuple[ModelEvidence, Judgement]], notes: list[str], commands: list[str]
) -> dict[str, Any]:
    rows = []
    for model, judgement in judgements:
        verdict = judgement.verdict
        row: dict[str, Any] = {name: model.setting[name] for name in SETTING}
        row |= {"finetune_jobs": {str(seed): job for seed, job in model.jobs.items()}}
        row |= {"clean": None if judgement.clean is None else judgement.clean.score.value, "epsilon": judgement.epsilon}
        row |= {"exact": _score_json(judgement.exact), "feedback": _score_json(judgement.feedback)}
        row |= {"verdict": verdict.kind, "words": verdict.words}
        row["may_be_the_loss"] = verdict.may_be_the_loss
        row |= {"overstated": verdict.overstated, "overstated_at": verdict.epsilon, "reasons": list(verdict.reasons)}
        row["missing"] = [{"id": check.id, "flag": check.flag, "needs": check.needs} for check in verdict.missing]
        row["checks"] = [
            {
                "id": result.check.id,
                "flag": result.check.flag,
                "level": result.check.level,
                "raised": result.finding.raised,
            }
            | {"epsilon": result.epsilon, "first": result.finding.first, "second": result.finding.second}
            | {"names": list(result.finding.names), "n": result.finding.n, "seeds": result.finding.seeds}
            | {"words": result.words}
            for result in verdict.made
        ]
        rows.append(row)
    return {"storage": storage, "models": rows, "notes": notes, "commands": commands}


def _score_json(scored: AttackScore | None) -> dict[str, Any] | None:
    if scored is None:
        return None
    attack, parameters, _ = scored.run
    row = {"attack": attack, "attack_params": parameters, "steps": scored.steps}
    score = scored.score
    return row | {"value": score.value, "lo": score.lo, "hi": score.hi, "n": score.n, "seeds": score.seeds}
