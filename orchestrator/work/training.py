"""Pre-trainings and fine-tunes: a spec in, a model with its record in the store out."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import JobContext
from orchestrator.jobs.setting import task_of
from orchestrator.store import tables
from orchestrator.store.store import Store
from orchestrator.work import device, hash_codes, models
from orchestrator.work.data import data_set, sides
from orchestrator.work.extended import with_extensions
from signsym_core.backbones import Backbone, Model
from signsym_core.backbones.weights import WeightsError, load_body, load_file, load_published, load_whole
from signsym_core.datasets import Data, DataSource
from signsym_core.registry import rebuild
from signsym_core.training.checkpoint import Checkpoint
from signsym_core.training.selection import kept_epoch

#: A checkpoint that took longer than so many seconds is followed by another only after as many times its own seconds.
QUICK, PAUSE = 1.0, 10.0


def train(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float]:
    """Train the model of `spec`, or go on from its last epoch, and save it under `key`."""
    store, started = Store(context.storage), time.monotonic()
    backbone = ss.BACKBONES.rebuild(spec["backbone"])
    source, data = data_set(keys.canonical(spec["dataset"]), context.data_root, context.storage)
    model = _started(spec, context, source, backbone, data)
    model.to(device.device())
    progress = store.load_progress(key)
    resume = None
    alignment: list[dict[str, Any]] = []
    if progress is not None:
        tensors, state = progress
        alignment = state.get("alignment", [])
        resume = Checkpoint(epoch=state["epoch"], tensors=tensors, history=state["history"])

    saved, took = time.monotonic(), 0.0

    def save(checkpoint: Checkpoint) -> None:
        nonlocal saved, took
        began = time.monotonic()
        if took > QUICK and began - saved < PAUSE * took:
            return
        state = {"epoch": checkpoint.epoch, "history": checkpoint.history, "alignment": alignment}
        store.save_progress(key, checkpoint.tensors, state)
        saved = time.monotonic()
        took = saved - began

    settings = rebuild(ss.FineTune, "finetune", spec["finetune"])
    task = task_of(spec)
    micro_batch = max(1, settings.batch_size >> context.halvings) if context.halvings else None
    history = ss.fine_tune(
        model,
        data.train,
        source,
        task,
        settings,
        seed=spec["seed"],
        classes=len(data.classes),
        resume=resume,
        on_epoch=save,
        micro_batch=micro_batch,
        alignment=alignment,
        validation=data.validation,
    )
    record = {"job": key, "spec": spec, "history": history, "classes": list(data.classes), "channels": data.channels}
    record |= {"kept_epoch": kept_epoch(history, settings.keep), "sides": list(sides(source, data))}
    record |= {"train_images": len(data.train), "seconds": time.monotonic() - started, "device": device.name()}
    record |= device.kernels(settings.precision, settings.deterministic)
    record |= {"micro_batch": micro_batch, "gpu_share": context.gpu_share, **device.memory()}
    record |= {
        "git": context.git,
        "versions": with_extensions(context.versions, spec),
        "finished_at": datetime.now(UTC).isoformat(),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if task.retrieves:
        store.save_codes(key, hash_codes.encoded(model, data, source))
    if alignment:
        store.write_table("alignment", key, [{"job": key} | row for row in alignment], tables.ALIGNMENT)
    store.save_model(key, tensors, record)
    store.drop_progress(key)
    models.keep(context.storage, key, model.eval(), record)
    return {"loss": history[-1]["loss"]} if history and "loss" in history[-1] else {}


def _started(spec: dict[str, Any], context: JobContext, source: DataSource, backbone: Backbone, data: Data) -> Model:
    """The model of a pre-training or a fine-tune before its first step."""
    model = models.fresh(spec, backbone, len(data.classes), data.channels, sides(source, data))
    weights = spec.get("weights") or {}
    if "pretrain" in weights:
        return _going_on(spec, context, model, list(data.classes))
    if "published" in weights:
        load_published(model, backbone, weights["published"])
    elif "file" in weights:
        load_file(model, Path(weights["file"]), sha256=weights["sha256"])
    return _converted(spec, model)


def _converted(spec: dict[str, Any], model: Model) -> Model:
    if "rule" in spec:
        ss.convert(model, ss.RULES.rebuild(spec["rule"]), seed=spec["seed"])
    return model


def _going_on(spec: dict[str, Any], context: JobContext, model: Model, classes: list[str]) -> Model:
    """`model` with the weights of the training before, and with its feedback where the rule is the same.

    Raises WeightsError where a head that is kept is of other classes, or of the same ones in another order.
    """
    weights = spec["weights"]
    tensors, record = Store(context.storage).load_model(weights["pretrain"])
    source = f"training {weights['pretrain'][:12]}"
    if weights.get("head") == "keep" and record["classes"] != classes:
        pairs = enumerate(itertools.zip_longest(record["classes"], classes, fillvalue="none"))
        first, of_head, of_data = next((n, *pair) for n, pair in pairs if pair[0] != pair[1])
        raise WeightsError(
            f"head: keep goes on with the outputs of {source}, which are {len(record['classes'])} classes, expected "
            f"those of the data set in their order: {len(classes)}, where number {first} is {of_data!r}, got "
            f"{of_head!r}. Give the pretrain's data set the same classes, or take head: fresh"
        )
    rules = [ss.RULES.rebuild(one["rule"]) if "rule" in one else None for one in (record["spec"], spec)]
    same_rule = rules[0] is not None and rules[0] == rules[1]
    if same_rule:
        _converted(spec, model)
    load = load_whole if weights.get("head") == "keep" else load_body
    load(model, tensors, source, feedback=same_rule)
    return model if same_rule else _converted(spec, model)
