"""Models of the store, rebuilt from their records and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import signsym_core as ss
from orchestrator.jobs.setting import task_of
from orchestrator.store.store import DamagedError, Store
from signsym_core import seeds
from signsym_core.backbones import Backbone, Model


def rebuilt(store: Store, key: str) -> tuple[Model, dict[str, Any]]:
    """The fine-tuned model `key` on the CPU, converted to its rule, and its record."""
    tensors, record = store.load_model(key)
    spec = record["spec"]
    backbone = ss.BACKBONES.rebuild(spec["backbone"])
    model = fresh(spec, backbone, len(record["classes"]), record["channels"], record.get("sides"))
    rule = ss.RULES.rebuild(spec["rule"])
    try:
        ss.convert(model, rule, seed=spec["seed"]).load_state_dict(tensors)
    except RuntimeError as error:
        # Torch's error lists the tensors that do not fit.
        raise DamagedError(f"models/{key}/model.safetensors: it is no {spec['backbone']['name']}: {error}") from error
    return model, record


def fresh(spec: dict[str, Any], backbone: Backbone, classes: int, channels: int, sides: Sequence[int] | None) -> Model:
    """A model of a job's backbone with the head of its task, with fresh weights."""
    task = task_of(spec)
    model = backbone.build(task.outputs(classes), channels=channels, size=sides, seed=spec["seed"])
    std = getattr(task, "head_std", None)
    if std is not None:
        weight, bias = model.head_parameters()
        with torch.no_grad():
            weight.normal_(0, std, generator=seeds.generator(spec["seed"], "head start"))
            bias.zero_()
    return model
