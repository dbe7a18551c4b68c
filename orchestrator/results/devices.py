"""In which arithmetic, on what kind of device and with what text of the user's modules results were computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from orchestrator.results.categories import Categories, Numbers, encoded, numbered
from orchestrator.store.provenance import extended

#: What is computed, by the beginning of its columns' names.
WAYS = {"finetune_": "fine-tuned", "": "attacked"}


def ways(column: Callable[[str], pa.Array], prefix: str, positions: Numbers) -> Categories:
    """How each of some rows was computed, such as "tf32 on NVIDIA H200"; "" where unknown, as in older files."""
    columns = [encoded(column(f"{prefix}{name}"), "").take(positions) for name in ("precision", "device")]
    number, first = numbered(columns)
    words = [_way(*texts) for texts in zip(*(texts.take(first).texts() for texts in columns), strict=True)]
    values = sorted(set(words)) or [""]
    return Categories(values, np.array([values.index(text) for text in words], dtype=np.int32)[number])


def modules(column: Callable[[str], pa.Array], positions: Numbers) -> Categories:
    """With what text of the user's modules each of some rows was computed, by digests; "" where with none."""
    versions = encoded(column("versions"), "").take(positions)
    words = [", ".join(" ".join(item) for item in sorted(extended(text).items())) for text in versions.values]
    values = sorted({*words, ""})
    return Categories(values, np.array([values.index(text) for text in words] or [0], dtype=np.int32)[versions.codes])


def _way(precision: str, device: str) -> str:
    if not device:
        return ""
    on_cpu = device.startswith("cpu")
    # Files of older versions do not name the arithmetic.
    # The threads of a CPU are no kind of device.
    return f"{precision or ('float32' if on_cpu else 'tf32')} on {'a CPU' if on_cpu else device}"
