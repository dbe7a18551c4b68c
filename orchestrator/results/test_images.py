"""Which test images a result is about: those of its data set, or these under a natural corruption."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import NamedTuple

from orchestrator.jobs import keys
from orchestrator.results.line import LINE, Line

_PARAMS = LINE.index("dataset_params")


class TestImages(NamedTuple):
    """The parameters of a data set, apart from the corruption of its test images."""

    #: JSON, as in results.
    params: str
    #: "" and 0 without a corruption.
    kind: str
    severity: int


@functools.lru_cache(maxsize=4096)
def test_images(dataset_params: str) -> TestImages:
    """The parts of a column `dataset_params`; text that is no JSON object has no corruption."""
    try:
        values = json.loads(dataset_params)
    except ValueError:
        values = None
    kind, severity = (values.get(name) if isinstance(values, dict) else None for name in ("corruption", "severity"))
    if not isinstance(kind, str) or not isinstance(severity, int):
        return TestImages(dataset_params, "", 0)
    rest = {name: value for name, value in values.items() if name not in ("corruption", "severity")}
    return TestImages(keys.canonical(rest), kind, severity)


def on_clean_images(line: Line) -> Line:
    """The line, named as if its model had been tested on clean images."""
    key = (*line.key[:_PARAMS], test_images(line.dataset_params).params, *line.key[_PARAMS + 1 :])
    return dataclasses.replace(line, key=key)
