"""Models of the store, rebuilt from their records and weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

import signsym_core as ss
from orchestrator.jobs.setting import task_of
from orchestrator.store.store import DamagedError, Store
from orchestrator.work.device import device
from signsym_core import seeds
from signsym_core.backbones import Backbone, Model

#: Models that a worker keeps loaded.
KEPT = 4
#: The models that this worker used last, on its device, with their records, by store and key.
_loaded: OrderedDict[tuple[str, str], tuple[Model, dict[str, Any]]] = OrderedDict()


def loaded(store: Store, key: str) -> tuple[Model, dict[str, Any]]:
    """The fine-tuned model `key` on this worker's device, and its record, read once while it is among the last used."""
    if (store.uri, key) not in _loaded:
        model, record = rebuilt(store, key)
        keep(store.uri, key, model.to(device()).eval(), record)
    _loaded.move_to_end((store.uri, key))
    return _loaded[store.uri, key]


def keep(storage: str, key: str, model: Model, record: dict[str, Any]) -> None:
    """Keep a model on this worker's device for the jobs to come."""
    if device().type == "cuda":
        # Adaptive pooling has deterministic kernels only in this format; loaded and just trained models have the
        # same format.
        model.to(memory_format=torch.channels_last)
    _loaded[storage, key] = (model, record)
    while len(_loaded) > KEPT:
        _loaded.popitem(last=False)


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
