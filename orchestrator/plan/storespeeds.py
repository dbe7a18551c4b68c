"""The speeds of a store's jobs, without torch in this process where it has none."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.plan.remembered import Content, Request, remembering
from orchestrator.plan.speeds import Speeds


def speeds_of(trained: Mapping[str, Mapping[str, Any]], attacked: Sequence[pa.Table]) -> Speeds:
    """The speeds of finished trainings, by their keys, and attack jobs, with the fields of their records and rows."""
    if not trained:
        # The time of an attack says something where its model is known.
        return Speeds(ratios={}, devices=())
    rows = [row for table in attacked for row in table.to_pylist() if row["finetune_job"] in trained]
    # Whatever the order in which they were read.
    rows.sort(key=lambda row: row["job"])
    if "torch" in sys.modules:
        from orchestrator.plan.measured import speeds

        return speeds(trained, rows)
    rows = [row | {"finished_at": row["finished_at"] and row["finished_at"].isoformat()} for row in rows]
    with remembering([Request(speeds_as_bytes, (trained, rows))]) as results:
        (result,) = results()
    if isinstance(result, Exception):
        raise result
    values = json.loads(result)
    return Speeds(ratios={tuple(pace): ratio for pace, ratio in values["ratios"]}, devices=tuple(values["devices"]))


def speeds_as_bytes(
    trained: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], _source: str
) -> Content:
    """The speeds as bytes."""
    from orchestrator.plan.measured import speeds

    measured = speeds(trained, rows)
    return Content(json.dumps({"ratios": [*measured.ratios.items()], "devices": measured.devices}).encode())
