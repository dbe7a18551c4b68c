"""`signsym audit`: a verdict for each model of a store, with its evidence and with what is missing."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.results.data import Data
from orchestrator.results.evidence import SETTING, Judgement, Known, Score
from orchestrator.store.store import Store, StoreError
from signsym_core.checks import MODEL

if TYPE_CHECKING:
    # Models and their data are loaded where they are probed: torch takes longer than the rest.
    from signsym_core.datasets import Data as Images
    from signsym_core.datasets import DataSource
    from signsym_core.probes import Probe

_COLOURS = {"sound": "green", "weak attack": "yellow", "masked gradient": "red", "undecided": "cyan"}


def run_audit(store: Store, data_root: Path | None, grid: Path | None, as_json: bool, console: Console) -> None:
    """Audit every model of `store`; without a data root the models themselves are not probed.

    With `grid` the file is written that would supply what is missing. Raises StoreError for a store without results.
    """
    data = Data(store.uri, at_once=True)
    data.check()
    models = list(data.snapshot.models(data.snapshot.query()).known())
    if not models:
        raise StoreError(
            f"no model in {store.uri} has a result yet; run its sweep first, or ask: signsym status {store.uri}"
        )
    notes: list[str] = []
    done = set() if data_root is None else store.done_models()
    judged = []
    for model in models:
        probes = () if data_root is None else _probes(model, store, done, data_root, notes)
        judged.append((model, model.judged(probes)))
    notes += [f"skipped {name}: {reason}" for name, reason in sorted((data.skipped | store.skipped).items())]
    if grid is not None:
        from orchestrator.commands.audit_grid import audit_grid

        grid.write_text(audit_grid(models, store, name="audit"))
    commands = _commands(store, grid, data_root)
    if as_json:
        sys.stdout.write(json.dumps(_json(store, judged, notes, commands), indent=1, ensure_ascii=False) + "\n")
        return
    _print(judged, notes, commands, console)


def _probes(model: Known, store: Store, done: set[str], root: Path, notes: list[str]) -> tuple[Probe, ...]:
    """A probe for each seed; none, with a note of the reason, where a model or its data are not at hand."""
    absent = [key for key in model.jobs.values() if key not in done]
    if absent:
        notes.append(f"{_called(model)}: not probed: the store has no model {absent[0]}")
        return ()
    import torch

    from orchestrator.work.execute import device
    from orchestrator.work.models import rebuilt, task_of
    from signsym_core.auditing import PROBED
    from signsym_core.datasets import inputs
    from signsym_core.probes import measure

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
def _data(described: str, root: Path, storage: str) -> tuple[DataSource, Images]:
    """A data set on this machine's device; raises OtherImagesError where the store's results come from another."""
    import signsym_core as ss
    from orchestrator.store import fingerprints
    from orchestrator.work.execute import device

    parts = json.loads(described)
    source = ss.DATASETS.rebuild(parts)
    data = source.load(root)
    fingerprints.compare(Store(storage), parts, data, functools.partial(source.places, root))
    return source, data.to(device())


def _commands(store: Store, grid: Path | None, root: Path | None) -> list[str]:
    """What supplies the attacks that are missing."""
    file = str(grid or "audit.yaml")
    data = ["--data-root", str(root)] if root is not None else []
    write = ["signsym", "audit", store.uri, "--grid", file]
    sweep = ["signsym", "sweep", file, "--storage", store.uri, *data]
    return [shlex.join(sweep)] if grid is not None else [shlex.join(write), shlex.join(sweep)]


def _print(judged: Sequence[tuple[Known, Judgement]], notes: list[str], commands: list[str], console: Console) -> None:
    table = Table("model", "rule", "n", "clean", "ε", "exact gradient", "own feedback", "verdict", title="audit")
    for model, found in judged:
        some = found.exact or found.own or found.clean
        n = "" if some is None else f"{some.score.n} × {some.score.seeds}"
        scores = [_percent(found.clean), found.label, _percent(found.exact), _percent(found.own)]
        words = Text(found.verdict.words, style=_COLOURS[found.verdict.kind])
        table.add_row(*_setting(model), n, *scores, words)
    console.print(table)
    console.print(
        "n: images × seeds. Scores in %, with 95 % intervals; the exact gradient is the result.", highlight=False
    )
    for model, found in judged:
        told = [made for made in found.verdict.made if made.finding.raised]
        if told:
            console.print(f"{_called(model)}:", highlight=False, soft_wrap=True)
        for made in told:
            console.print(f"  {made.check.id} {made.check.flag}: {made.words}", highlight=False, soft_wrap=True)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    lacking = {check.id: check for _, found in judged for check in found.verdict.missing}
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


def _percent(found: Score | None) -> str:
    if found is None:
        return "–"
    score = found.score
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
    store: Store, judged: Sequence[tuple[Known, Judgement]], notes: list[str], commands: list[str]
) -> dict[str, Any]:
    rows = []
    for model, found in judged:
        verdict = found.verdict
        row: dict[str, Any] = {name: model.setting[name] for name in SETTING}
        row |= {"finetune_jobs": {str(seed): job for seed, job in model.jobs.items()}}
        row |= {"clean": None if found.clean is None else found.clean.score.value, "epsilon": found.epsilon}
        row |= {"exact": _scored(found.exact), "feedback": _scored(found.own)}
        row |= {"verdict": verdict.kind, "words": verdict.words}
        row |= {"overstated": verdict.overstated, "overstated_at": verdict.epsilon, "reasons": list(verdict.reasons)}
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


def _scored(found: Score | None) -> dict[str, Any] | None:
    if found is None:
        return None
    attack, parameters, _ = found.run
    named = {"attack": attack, "attack_params": parameters, "steps": found.steps}
    score = found.score
    return named | {"value": score.value, "lo": score.lo, "hi": score.hi, "n": score.n, "seeds": score.seeds}
