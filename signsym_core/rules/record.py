"""The record of a layer's feedback in a checkpoint: the characters of a JSON text as a float tensor of fixed length.

Code that averages, interpolates or casts the tensors of state dicts can treat it like any other: it holds floats, one
for each character, and has one length for all layers of one kind. The average of different records is invalid, which
its checksum shows.
"""

from __future__ import annotations

import json
import warnings
import zlib
from typing import Any

import torch
from torch import Tensor

from signsym_core.rules.base import Rule

#: Characters reserved for the numbers, besides the rule and its sizes.
_ROOM = 200
#: Characters of a float in JSON, with its comma.
_FLOAT = 26


class FeedbackOfAnotherRuleError(ValueError):
    """A checkpoint whose feedback is that of another rule than the network's, or of other parameters of it."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        #: The name of the checkpoint's rule.
        self.rule = rule


def write(fields: dict[str, Any]) -> Tensor:
    """The record of `fields`, float32 [characters]; its length depends only on the rule and the number of sizes."""
    sizes = fields["frozen_size"] or []
    text = json.dumps(fields | {"check": _check(fields)}, sort_keys=True)
    settings = json.dumps([fields["rule"], fields["parameters"]])
    return torch.tensor(list(text.ljust(_ROOM + len(settings) + _FLOAT * len(sizes)).encode()), dtype=torch.float32)


def read(record: Tensor) -> dict[str, Any] | None:
    """The fields of a record, also of one that was cast or averaged with equal ones; None where it is invalid."""
    letters = record.detach().cpu().double().round()
    if not ((letters >= 0) & (letters < 128)).all():
        return None
    try:
        fields = json.loads(bytes(letters.to(torch.uint8).tolist()))
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    # The first records, bytes without a checksum, were never averaged: their lengths differ.
    check = fields.pop("check", None if record.is_floating_point() else _check(fields))
    return fields if check == _check(fields) else None


def read_for(rule: Rule, record: Tensor, layer: str) -> dict[str, Any] | None:
    """The fields of the record of a layer with this rule; None, with a warning, where it is invalid.

    Raises FeedbackOfAnotherRuleError, naming the layer, where it is of another rule or of other parameters.
    """
    fields = read(record)
    if fields is None:
        warnings.warn(
            f"layer {layer!r}: the checkpoint's record of its feedback is no record, as after averaging state "
            f"dicts; the weights are loaded, the feedback goes on with the seed and the draws that the layer has",
            stacklevel=3,
        )
        return None
    expected = {"rule": rule.name, "parameters": json.loads(json.dumps(rule.parameters()))}
    recorded = {"rule": fields["rule"], "parameters": fields["parameters"]}
    if expected != recorded:
        raise FeedbackOfAnotherRuleError(
            f"layer {layer!r}: the checkpoint's feedback is {recorded}, the model was converted with "
            f"{expected}; convert the network with the checkpoint's rule first",
            str(fields["rule"]),
        )
    return fields


def _check(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())
