"""JSON files of the store, read so that a torn, foreign or hostile text is an error with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from signsym_core import seal

#: The required fields of a training's spec.
_SPEC: Mapping[str, type] = {"backbone": dict, "dataset": dict, "task": dict, "finetune": dict, "seed": int}


def parsed(data: bytes) -> Any:
    """The value of a JSON text. Raises ValueError for anything else, also where it is nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None


def written(record: Mapping[str, Any]) -> bytearray:
    """The record of a model as a sealed file."""
    return seal.sealed(json.dumps({**record, seal.KEY: seal.BLANK}, indent=1, sort_keys=True).encode())


def read(data: bytes, key: str) -> dict[str, Any]:
    """The record of the model `key`. Raises ValueError for anything but the record of this model's training."""
    record = parsed(data)
    if not isinstance(record, dict):
        raise ValueError(f"expected the record of a model, got {_called(record)}")
    spec = record.get("spec")
    if not isinstance(spec, dict):
        raise ValueError("expected the record of a model, got an object without its spec")
    if record.get("job", key) != key:
        raise ValueError(f"it is the record of another job, {str(record['job'])[:64]}")
    if spec.get("kind") not in ("pretrain", "finetune"):
        raise ValueError(f"expected a spec of kind pretrain or finetune, got {_called(spec.get('kind'))}")
    for name, kind in _SPEC.items():
        if not isinstance(spec.get(name), kind):
            raise ValueError(f"expected a spec with {name}, got {_called(spec.get(name))}")
    for name in ("backbone", "dataset", "task"):
        if not isinstance(spec[name].get("name"), str):
            raise ValueError(f"expected a spec with the name of its {name}, got {_called(spec[name].get('name'))}")
    if not isinstance(record.get("classes"), list) or not isinstance(record.get("channels"), int):
        raise ValueError("expected a record with classes and channels")
    seconds = record.get("seconds")
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"expected seconds of 0 or more, got {_called(seconds)}")
    return record


def _called(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
