"""`signsym attack`: the attacks, checks and verdict of a sweep on one checkpoint of the user's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import signsym_core as ss
from orchestrator.commands import audit_grid
from orchestrator.commands.verdict import show_missing, show_raised
from orchestrator.gridfile import attacks as gridattacks
from orchestrator.gridfile import values, yamlfile
from orchestrator.gridfile.cells import AttackChoice
from orchestrator.gridfile.nodes import Node
from orchestrator.store import fingerprints
from orchestrator.work.device import device
from signsym_core.auditing.audit import PROBED
from signsym_core.auditing.evidence import Evidence, Run
from signsym_core.auditing.probes import measure
from signsym_core.auditing.runs import as_runs
from signsym_core.auditing.verdict import Verdict, judge
from signsym_core.backbones import Model
from signsym_core.backbones.weights import load_whole_file
from signsym_core.datasets import inputs
from signsym_core.registry import Member, Registry
from signsym_core.rules.record import FeedbackOfAnotherRuleError
from signsym_core.statistics.intervals import interval
from signsym_core.training.health import broken_layers

M = TypeVar("M", bound=Member)


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Attack the checkpoint, print a row for each attack and ε and the verdict, and write the rows to `--out`.

    Members are written as in a grid: "pgd" or "{name: pgd, steps: 40}". All inputs are read and checked before the
    first attack. Raises ValueError for names, parameters and weights that do not fit, and DataNotFoundError.
    """
    backbone = _member(parsed.backbone, "--backbone", ss.BACKBONES)
    source = _member(parsed.dataset, "--dataset", ss.DATASETS)
    rule = _member(parsed.rule, "--rule", ss.RULES)
    requested = _requested_attacks(parsed)
    if parsed.images is not None and parsed.images < 1:
        raise ValueError(f"--images: expected a whole number, at least 1, got {parsed.images}")
    if parsed.out is not None and not parsed.out.parent.is_dir():
        raise ValueError(f"--out: expected a file in an existing folder, got {parsed.out.parent}, which does not exist")
    data = source.load(parsed.data_root)
    fingerprints.compare_beside(parsed.weights, source, data, parsed.data_root)
    data = data.to(device())
    test = data.test.take(torch.arange(min(parsed.images or len(data.test), len(data.test))))
    assert isinstance(test.images, torch.Tensor)
    pixels, labels = inputs(test.images, source), test.labels

    def loaded(path: Path, rule: ss.rules.Rule) -> Model:
        size = source.sides or data.sides
        model = backbone.build(len(data.classes), channels=data.channels, size=size, seed=parsed.seed)
        try:
            load_whole_file(ss.convert(model, rule, seed=parsed.seed), path)  # type: ignore[arg-type]
        except FeedbackOfAnotherRuleError as error:
            raise ValueError(f"{error}: --rule names it, such as --rule {error.rule}") from None
        broken = broken_layers(model)
        if broken:
            raise ValueError(f"{path} holds NaN or infinity in {', '.join(broken[:3])}: no model that can be attacked")
        return model.to(device()).eval()

    model = loaded(parsed.weights, rule)
    twin = None if parsed.twin is None else loaded(parsed.twin, ss.RULES.build("bp"))
    chance = ss.TASKS.build("classification").chance(labels, None)
    probe = measure(model, pixels[:PROBED], labels[:PROBED])
    runs: list[Run] = []
    reaches: list[float] = []
    computed: dict[Any, ss.Outcome] = {}

    def judged(requested: Mapping[AttackChoice, list[float]]) -> Verdict:
        """Run the attacks and judge by all that were run so far."""
        for choice, epsilons in requested.items():
            # With B = W both gradients are equal, so they are computed once.
            gradient = "exact" if rule.sends_gradient and choice.gradient == "feedback" else choice.gradient
            count = len(pixels) if choice.images is None else min(choice.images, len(pixels))
            key = (choice.attack, gradient, count, tuple(epsilons))
            if key not in computed:
                settings: dict[str, Any] = {} if gradient == "none" else {"gradient": gradient}
                settings |= {"surrogate": twin} if gradient == "transfer" else {}
                settings |= {"seed": parsed.seed}
                computed[key] = ss.attack(choice.attack, model, pixels[:count], labels[:count], epsilons, **settings)
            numbers = test.indices[:count]
            runs.extend(as_runs(computed[key], choice.attack, choice.gradient, seed=parsed.seed, images=numbers))
            reaches.extend(computed[key].reach)
        evidence = Evidence(
            runs=tuple(run for run in runs if not ss.ATTACKS[run.attack].measuring), chance=chance, probes=(probe,)
        )
        return judge(evidence)

    verdict = judged(requested)
    if not parsed.attack and verdict.may_be_the_loss:
        epsilons = [_node(text, "--epsilon").plain for text in parsed.epsilon]
        verdict = judged(_cells(audit_grid.on_margins(len(data.classes), epsilons)))  # type: ignore[arg-type]
    rows = [_row(run, reach) for run, reach in zip(runs, reaches, strict=True)]
    _print(rows, verdict, console)
    if parsed.out is not None:
        pd.DataFrame(rows).to_csv(parsed.out, index=False)
        console.print(f"rows: {parsed.out.resolve()}", soft_wrap=True)


def _requested_attacks(parsed: argparse.Namespace) -> dict[AttackChoice, list[float]]:
    """The requested attacks with their epsilons, read by the grid file's rules."""
    gradients = list(parsed.gradient) or ["feedback", "exact", *([] if parsed.twin is None else ["transfer"])]
    if ("transfer" in gradients) != (parsed.twin is not None):
        raise ValueError(
            "--gradient transfer needs --twin FILE, the checkpoint that makes the images; others need none"
        )
    nodes = [_node(text, "--epsilon") for text in parsed.epsilon]
    for node in nodes:
        # An attack that is named may have radii in L2, for which the grid file's rules are kept below.
        values.epsilon(node, "l2" if parsed.attack else "linf")
    epsilons = [node.plain for node in nodes]
    items: list[dict[str, Any]] = []
    for text in parsed.attack:
        node = _node(text, "--attack")
        items.append({"name": node.plain} if isinstance(node.value, str) else dict(node.mapping("an attack")))
        items[-1] = {key: value.plain if isinstance(value, Node) else value for key, value in items[-1].items()}
    usual = audit_grid.attacks("classification", epsilons)  # type: ignore[arg-type]
    for item in usual:
        # Without a twin there is no transfer.
        item |= {"gradient": [one for one in item["gradient"] if one in gradients]} if "gradient" in item else {}
    # Several names of an item ask for gradients or not, each for itself.
    items = [item | {"name": name} for item in items for name in _names(item)] or usual
    for item in items:
        item.setdefault("epsilon", epsilons)
        item.setdefault("images", None)
        white = item["name"] in ss.ATTACKS and "white-box" in ss.ATTACKS[item["name"]].tags
        if white and (parsed.gradient or "gradient" not in item):
            item["gradient"] = gradients
    return _cells(items, twin=parsed.twin is not None)


def _names(item: Mapping[str, Any]) -> list[Any]:
    name = item.get("name")
    return name if isinstance(name, list) and name else [name]


def _cells(items: Sequence[Mapping[str, Any]], twin: bool = False) -> dict[AttackChoice, list[float]]:
    cells = gridattacks.attacks(_node(json.dumps(items), "--attack")).cells
    for choice in cells:
        if choice.surrogate is not None:
            raise ValueError(f"--attack: expected no surrogate for {choice.attack.name!r}: it is the model of --twin")
        if choice.gradient in ss.attacks.GRADIENTS and ss.attacks.GRADIENTS[choice.gradient].twin and not twin:
            raise ValueError(
                f"--attack: gradient {choice.gradient} needs --twin FILE, the checkpoint that makes the images"
            )
        if "classification" not in choice.attack.tasks:
            raise ValueError(f"--attack: {choice.attack.name!r} does not fit classification")
    return {choice: [epsilon.value for epsilon in epsilons] for choice, epsilons in cells.items()}


def _node(text: str, option: str) -> Node:
    return yamlfile.parse(text, lambda line: option)


def _member(text: str, option: str, registry: Registry[M]) -> M:
    members = list(values.members(_node(text, option), registry))
    if len(members) != 1:
        raise ValueError(f"{option}: expected one {registry.family}, got {len(members)}")
    return members[0]


def _row(run: Run, reach: float) -> dict[str, Any]:
    score = interval(run.outcomes)
    row: dict[str, Any] = {"attack": run.attack, "attack_params": run.parameters, "gradient": run.gradient}
    row |= {"epsilon": run.epsilon, "norm": run.norm, "value": score.value, "lo": score.lo, "hi": score.hi}
    return row | {"n": score.n, "steps": run.steps, "step_size": run.step_size, "reach": reach}


def _print(rows: Sequence[dict[str, Any]], verdict: Verdict, console: Console) -> None:
    table = Table("attack", "gradient", "ε", "top-1", "95 % interval", "n", "reach")
    for row in rows:
        inner = ", ".join(f"{key}={value}" for key, value in json.loads(row["attack_params"]).items())
        name = f"{row['attack']}({inner})" if inner else row["attack"]
        bounds = f"{100 * row['lo']:.1f} .. {100 * row['hi']:.1f}"
        reach = "" if row["epsilon"] == 0 else f"{row['reach']:.2f}"
        table.add_row(
            name, row["gradient"], f"{row['epsilon']:.4g}", f"{100 * row['value']:.1f}", bounds, str(row["n"]), reach
        )
    console.print(table)
    console.print(f"verdict: {verdict.words}")
    show_raised(verdict, console)
    show_missing(verdict.missing, console)
