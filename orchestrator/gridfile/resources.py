"""The resources of jobs: the amounts that a place of the file states, by stage, and in words."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.gridfile.cells import Stages
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.jobs.job import STAGES, Resources

#: Resources that one place states: by the stage, None for all stages, and the key.
Amounts = dict[tuple[str | None, str], Any]


def resources(node: Node) -> Amounts:
    """The amounts that one place states: for all stages, and under a stage's name for that stage."""
    names = [field.name for field in dataclasses.fields(Resources)]
    amounts: Amounts = {}
    problems = Problems()
    for key, place in node.mapping("resources", [*names, *STAGES]).items():
        inner = {key: place} if key in names else place.mapping(f"resources of {key}", names)
        for name, amount in inner.items():
            with problems.kept():
                amounts[None if key in names else key, name] = _amount(name, amount)
    problems.check()
    return amounts


def _amount(key: str, node: Node) -> float | str | None:
    if key == "accelerator_type":
        return None if node.value is None else node.text("Ray's name of a kind of GPU, such as H200")
    if key == "gpu":
        if node.value == "auto":
            return "auto"
        what = "a whole number of GPUs, a fraction below 1, or auto"
        number = node.number(what)
        if number < 0 or (number > 1 and number != int(number)):
            raise node.expected(what)
        return float(number)
    what = "a number of CPUs above 0" if key == "cpu" else "a number of minutes above 0"
    number = node.number(what)
    if number <= 0:
        raise node.expected(what)
    return float(number)


def by_stage(amounts: Amounts) -> Stages:
    """The resources of each stage: an amount that names the stage replaces one that names none."""
    resources = {
        # Amounts without a stage come first, so that those of the stage replace them.
        stage: {
            key: value
            for named_stage in (None, stage)
            for (amount_stage, key), value in amounts.items()
            if amount_stage == named_stage
        }
        for stage in STAGES
    }
    return Stages(**{stage: Resources(**amounts) for stage, amounts in resources.items()})


def in_words(resources: Stages) -> str:
    """The resources in words: "gpu 1, cpu 4", and for each stage where stages differ."""

    stages = {stage: _in_words(resources.of(stage)) for stage in STAGES}
    if len(set(stages.values())) == 1:
        return stages["attack"]
    return "; ".join(f"{stage}: {amounts}" for stage, amounts in stages.items())


def _in_words(amounts: Resources) -> str:
    usual = Resources(gpu=amounts.gpu, cpu=amounts.cpu)
    shown = [f"gpu {amounts.gpu if amounts.gpu == 'auto' else format(amounts.gpu, 'g')}", f"cpu {amounts.cpu:g}"]
    for name in ("accelerator_type", "minutes"):
        if getattr(amounts, name) != getattr(usual, name):
            shown.append(f"{name} {getattr(amounts, name)}")
    return ", ".join(shown)
