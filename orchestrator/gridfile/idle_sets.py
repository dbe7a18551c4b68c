"""Settings of the command line that change nothing, since each experiment has its own value of what they set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.gridfile.nodes import GridError, Node
from orchestrator.gridfile.yamlfile import parse, put

#: What merges key by key from `defaults` to an experiment; every other key is replaced whole.
MERGED = ("finetune", "resources")


def refuse_idle(text: str, sets: Sequence[str]) -> None:
    """Raise GridError for one of the settings `sets` of a readable grid that every experiment replaces by its own.

    For a new sweep alone: a stored grid with such a setting is still a grid.
    """
    if not sets:
        return
    top = parse(text, str)
    for setting in sets:
        put(top, setting)
    experiments = [node.mapping("an experiment") for node in top.mapping("a grid")["experiments"].entries()]
    for setting in sets:
        key = setting.partition("=")[0]
        if key != "seeds" and not key.startswith("defaults."):
            continue
        first, *rest = key.removeprefix("defaults.").split(".")
        if first in MERGED and not rest:
            # A whole mapping of what merges plays a part by the keys that experiments do not have.
            continue
        path = [first, *rest] if first in MERGED else [first]
        if all(_has(experiment, path) for experiment in experiments):
            name = ".".join(path)
            raise GridError(
                f"--set {key}: expected a setting that plays a part, got one in place of which each experiment has its "
                f"own {name}: set experiments.0.{name}, and so on"
            )


def _has(mapping: Mapping[str, Node], path: Sequence[str]) -> bool:
    node = mapping.get(path[0])
    if node is None or len(path) == 1:
        return node is not None
    return isinstance(node.value, dict) and _has(node.value, path[1:])
