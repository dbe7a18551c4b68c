"""A grid file to a Grid: reads every key, merges defaults, then expands by `orchestrator.gridfile.expand`.

Reading has two phases. First each value is read by itself, and all errors of single values are reported together.
Then conditions between several places are checked: missing keys, combinations, conditions that match nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.gridfile import values
from orchestrator.gridfile.attacks import CLEAN_ONLY, attacks
from orchestrator.gridfile.callbacks import CallbackChoice
from orchestrator.gridfile.cells import Grid
from orchestrator.gridfile.conditions import Condition, condition
from orchestrator.gridfile.expand import expand
from orchestrator.gridfile.experiment import Experiment, Override
from orchestrator.gridfile.nodes import GridError as GridError
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.notices import notices
from orchestrator.gridfile.training import training
from orchestrator.gridfile.values import ATTACK_AXES, MODEL_AXES, NAMED_AXES
from orchestrator.gridfile.yamlfile import parse, put, read

GRID_KEYS = ["name", "seeds", "defaults", "experiments", "exclude", "callbacks"]
TRAINING_KEYS = ["weights", "finetune", "resources"]
DEFAULTS_KEYS = [*NAMED_AXES, "seeds", *TRAINING_KEYS, "attacks"]
EXPERIMENT_KEYS = [*DEFAULTS_KEYS, "overrides"]
NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def load(path: Path | str, sets: Sequence[str] = ()) -> Grid:
    """Read a grid file, with the settings "KEY=VALUE" of `sets` applied to it one after the other.

    Finetune settings and resources merge key by key, from `defaults` to the experiment to its overrides in their
    order; every other key of an experiment replaces that of `defaults`. An exclusion removes every cell that it
    matches, also the clean cell: `{epsilon: 0}` and `{gradient: none}` match it.

    Raises GridError for a file that cannot be read or whose grid cannot be run, with the place, the expected and the
    actual value, for all problems of the first phase that has any.
    """
    return grid_of(read(Path(path)), Path(path), sets)


def grid_of(text: str, source: Path, sets: Sequence[str] = ()) -> Grid:
    """The grid of `text`, as `load` reads it; errors name `source` as its file."""
    top = parse(text, lambda line: f"{source}:{line}")
    mapping = top.mapping("a grid: a mapping with a name and experiments")
    for setting in sets:
        put(top, setting)
    problems = Problems()
    with problems.kept():
        for key in mapping:
            if key in EXPERIMENT_KEYS and key not in GRID_KEYS:
                words = f"expected {key!r} in an experiment, or in defaults for all of them (defaults.{key})"
                raise mapping[key].error(f"{words}, got it at the top")
        top.mapping("a grid", GRID_KEYS)
    name, experiments, excludes = "", list[tuple[Node, dict[str, Any]]](), list[Condition]()
    defaults: dict[str, Any] = {}
    with problems.kept():
        name = _name(values.required(mapping, "name", top))
    with problems.kept():
        defaults = _defaults(mapping)
    with problems.kept():
        experiment_list = values.required(mapping, "experiments", top)
        if not _list(experiment_list):
            raise experiment_list.expected("at least one experiment")
        for node in _list(experiment_list):
            with problems.kept():
                experiments.append((node, _settings(node, "an experiment", EXPERIMENT_KEYS)))
    with problems.kept():
        for node in _list(mapping["exclude"]) if "exclude" in mapping else []:
            with problems.kept():
                excludes.append(condition(node, [*MODEL_AXES, *ATTACK_AXES]))
    callbacks: tuple[CallbackChoice, ...] = ()
    with problems.kept():
        if "callbacks" in mapping:
            callbacks = values.callbacks(mapping["callbacks"])
    problems.check()
    merged = []
    for node, settings in experiments:
        with problems.kept():
            merged.append(_merged(node, settings, defaults))
    problems.check()
    models, origins = expand(top, merged, excludes)
    return Grid(
        name=name,
        models=models,
        experiments=tuple(_experiment_name(number, experiment) for number, experiment in enumerate(merged, 1)),
        origins=origins,
        callbacks=callbacks,
        source=source,
        text=text,
        sets=tuple(sets),
        notices=notices(merged, models.values()),
    )


def _experiment_name(number: int, experiment: Experiment) -> str:
    names = [member.name for axis in ("task", "dataset") for member in experiment.axes[axis]]
    return f"{number}: {', '.join(dict.fromkeys(names))}"


def _name(node: Node) -> str:
    what = "a name of letters, digits and ._-, at most 100, that starts with a letter or a digit"
    if not NAME.fullmatch(node.text(what)):
        raise node.expected(what)
    return node.text()


def _list(node: Node) -> list[Node]:
    if not isinstance(node.value, list):
        raise node.error(f"expected a list, got {node.shown}: each entry begins with '- '")
    return node.value


def _defaults(top: dict[str, Node]) -> dict[str, Any]:
    """The settings of `defaults`, and the seeds at the top of the file."""
    problems = Problems()
    settings: dict[str, Any] = {}
    with problems.kept():
        if "defaults" in top:
            settings = _settings(top["defaults"], "defaults", DEFAULTS_KEYS)
    with problems.kept():
        if "seeds" in top:
            if "seed" in settings:
                raise top["seeds"].error("expected seeds at the top or in defaults, got both")
            settings["seed"] = values.seeds(top["seeds"])
    problems.check()
    return settings


def _settings(node: Node, kind: str, known: Sequence[str]) -> dict[str, Any]:
    """The settings that one place states: values of axes by the axis, "attacks", "overrides" and "training"."""
    mapping = node.mapping(kind)
    problems = Problems()
    with problems.kept():
        node.mapping(kind, known)
    settings: dict[str, Any] = {}
    for axis, registry in NAMED_AXES.items():
        if axis in mapping:
            with problems.kept():
                settings[axis] = values.members(mapping[axis], registry)
    with problems.kept():
        if "seeds" in mapping:
            settings["seed"] = values.seeds(mapping["seeds"])
    with problems.kept():
        if "attacks" in mapping:
            settings["attacks"] = attacks(mapping["attacks"])
    with problems.kept():
        settings["training"] = training(mapping)
    with problems.kept():
        if "overrides" in mapping:
            settings["overrides"] = [_override(entry) for entry in _list(mapping["overrides"])]
    problems.check()
    return settings


def _override(node: Node) -> Override:
    mapping = node.mapping("an override", ["when", *TRAINING_KEYS])
    when = condition(values.required(mapping, "when", node), MODEL_AXES)
    if len(mapping) == 1:
        raise node.error(f"expected one or more of {', '.join(TRAINING_KEYS)} beside 'when', got none")
    return Override(when=when, training=training(mapping))


def _merged(node: Node, experiment_settings: dict[str, Any], defaults: dict[str, Any]) -> Experiment:
    """An experiment with the settings that it inherits from `defaults`."""
    problems = Problems()
    settings = {**defaults, **experiment_settings}
    for axis in MODEL_AXES:
        with problems.kept():
            if axis not in settings:
                key = "seeds" if axis == "seed" else axis
                raise node.error(f"expected the key {key!r} here or in defaults, got neither")
    problems.check()
    stated = experiment_settings["training"]
    return Experiment(
        node=node,
        axes={axis: settings[axis] for axis in MODEL_AXES},
        attacks=settings.get("attacks", CLEAN_ONLY),
        training=defaults["training"].under(stated) if "training" in defaults else stated,
        overrides=settings.get("overrides", []),
    )
