"""Grid files for tests, and cells as plain values."""

from __future__ import annotations

import json
import textwrap

BASE = {
    "name": "base",
    "seeds": [0],
    "experiments": [
        {
            "task": "classification",
            "dataset": "digits",
            "backbone": "smallcnn",
            "rule": "bp",
            "attacks": [{"name": "fgsm", "epsilon": [0.1, "8/255"]}],
        }
    ],
}


def written(folder, content):
    """A grid file: from a text, or from plain values, because JSON is YAML."""
    path = folder / "grid.yaml"
    path.write_text(textwrap.dedent(content) if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def base(**changes):
    """The base grid with other values in its experiment."""
    return {**BASE, "experiments": [{**BASE["experiments"][0], **changes}]}


def facts(cell):
    """A cell in plain values."""
    model, choice = cell.model, cell.choice
    names = (model.task.name, model.dataset.name, model.backbone.name, model.rule.name, model.seed)
    return (*names, choice.attack.name, choice.gradient, cell.epsilon.value)
