"""Executes one job: its spec in, its tables and its model in the store out."""

from __future__ import annotations

import functools
import io
import json
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import JobContext
from orchestrator.jobs.setting import Setting, member_columns, task_of
from orchestrator.store import fingerprints, tables
from orchestrator.store.store import Store, StoreError
from orchestrator.work import hash_codes, models
from signsym_core.arithmetic import Precision, effective
from signsym_core.backbones import Backbone, Model
from signsym_core.backbones.weights import load_body, load_file, load_published, load_whole
from signsym_core.checkpoint import Checkpoint
from signsym_core.datasets import Data, DataSource
from signsym_core.datasets.batches import Prepared
from signsym_core.evaluate import BLOCK
from signsym_core.registry import rebuild
from signsym_core.selection import kept_epoch

#: Adversarial images that are stored for each epsilon.
EXAMPLES = 4
#: Models that a worker keeps loaded.
MODELS = 4


def execute(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float] | None:
    """Run the job `spec` and commit its results to the store under `key`; returns numbers for the progress display."""
    _refuse_another_store(context)
    run = {"pretrain": _train, "finetune": _train, "attack": _attack}[spec["kind"]]
    return run(key, spec, context)


def device() -> torch.device:
    """The device of this worker: its GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _refuse_another_store(context: JobContext) -> None:
    store = Store(context.storage)
    if context.sign is not None and not store.exists([context.sign]):
        raise StoreError(
            f"storage {store.uri} on {socket.gethostname()} is not the one that the sweep was started with; with "
            f"several nodes it must be a bucket (--storage s3://...) or a folder that all of them mount"
        )


def _started(spec: dict[str, Any], context: JobContext, source: DataSource, backbone: Backbone, data: Data) -> Model:
    """The model of a pre-training or a fine-tune before its first step."""
    model = _fresh(spec, source, backbone, data)
    weights = spec.get("weights") or {}
    if "pretrain" in weights:
        return _going_on(spec, context, model)
    if "published" in weights:
        load_published(model, backbone, weights["published"])
    elif "file" in weights:
        load_file(model, Path(weights["file"]), sha256=weights["sha256"])
    return _converted(spec, model)


def _converted(spec: dict[str, Any], model: Model) -> Model:
    if "rule" in spec:
        ss.convert(model, ss.RULES.rebuild(spec["rule"]), seed=spec["seed"])
    return model


def _going_on(spec: dict[str, Any], context: JobContext, model: Model) -> Model:
    """`model` with the weights of the training before, and with its feedback where the rule is the same."""
    weights = spec["weights"]
    tensors, record = Store(context.storage).load_model(weights["pretrain"])
    source = f"training {weights['pretrain'][:12]}"
    rules = [ss.RULES.rebuild(one["rule"]) if "rule" in one else None for one in (record["spec"], spec)]
    same_rule = rules[0] is not None and rules[0] == rules[1]
    if same_rule:
        _converted(spec, model)
    load = load_whole if weights.get("head") == "keep" else load_body
    load(model, tensors, source, feedback=same_rule)
    return model if same_rule else _converted(spec, model)


def _train(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float]:
    store, started = Store(context.storage), time.monotonic()
    source, backbone, data = _ingredients(spec, context)
    model = _started(spec, context, source, backbone, data)
    model.to(device())
    progress = store.load_progress(key)
    resume = None
    alignment: list[dict[str, Any]] = []
    if progress is not None:
        tensors, state = progress
        alignment = state.get("alignment", [])
        resume = Checkpoint(epoch=state["epoch"], tensors=tensors, history=state["history"])

    def save(checkpoint: Checkpoint) -> None:
        state = {"epoch": checkpoint.epoch, "history": checkpoint.history, "alignment": alignment}
        store.save_progress(key, checkpoint.tensors, state)

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
    record |= {"kept_epoch": kept_epoch(history, settings.keep), "sides": list(_sides(source, data))}
    record |= {"train_images": len(data.train), "seconds": time.monotonic() - started, "device": _device_name()}
    record |= _kernels(settings.precision, settings.deterministic)
    record |= {"micro_batch": micro_batch, "gpu_share": context.gpu_share, **_memory()}
    record |= {"git": context.git, "versions": context.versions, "finished_at": datetime.now(UTC).isoformat()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if task.retrieves:
        store.save_codes(key, hash_codes.encoded(model, data, source))
    if alignment:
        store.write_table("alignment", key, [{"job": key} | row for row in alignment], tables.ALIGNMENT)
    store.save_model(key, tensors, record)
    store.drop_progress(key)
    _Models.put(context.storage, key, model.eval(), record)
    return {"loss": history[-1]["loss"]} if history and "loss" in history[-1] else {}


def _attack(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float]:
    store, started = Store(context.storage), time.monotonic()
    model, record = _Models.get(store, spec["model"])
    model_spec = record["spec"]
    source, data = _data(keys.canonical(model_spec["dataset"]), context.data_root, context.storage)
    count = len(data.test) if spec["images"] is None else min(spec["images"], len(data.test))
    test = data.test.take(torch.arange(count))
    assert isinstance(test.images, Tensor)
    pixels = Prepared(test.images, source)
    chosen = ss.ATTACKS.rebuild(spec["attack"])
    epsilons = sorted({epsilon for _, epsilon, _ in spec["points"]})
    gradient = "feedback" if spec["gradient"] == "none" else spec["gradient"]
    setting = Setting.of(model_spec, spec.get("score"))
    task = setting.task
    crafting = spec.get("surrogate", spec["model"])
    gallery, surrogate_gallery = None, None
    if task.retrieves:
        bits = task.outputs(len(data.classes))
        by_features = (model, source) if getattr(task, "ties", None) == "features" else None
        gallery = hash_codes.gallery(store, data, bits, spec["model"], spec["model"], by_features)
        if "surrogate" in spec:
            surrogate_gallery = hash_codes.gallery(store, data, bits, spec["model"], crafting)
    outcome = ss.attack(
        chosen,
        model,
        pixels,
        test.labels,
        epsilons,
        gradient=gradient,
        seed=spec["seed"],
        task=task,
        surrogate=_Models.get(store, crafting)[0] if "surrogate" in spec else None,
        gallery=gallery,
        surrogate_gallery=surrogate_gallery,
        keep=EXAMPLES,
        micro_batch=max(1, BLOCK >> context.halvings),
    )
    common = _provenance(context) | setting.columns() | {"job": key, "finetune_job": spec["model"]}
    common |= {"surrogate_job": spec.get("surrogate")} | _kernels(chosen.precision, chosen.deterministic)
    common |= {f"finetune_{name}": record.get(name) for name in ("precision", "deterministic", "device")}
    common |= {"finetune_epoch": record.get("kept_epoch")}
    common |= member_columns("attack", chosen) | {"norm": chosen.norm}
    common |= {"metric": task.metric, "n": len(test), "seed": spec["seed"]}
    common |= {"chance": task.chance(test.labels, gallery), "steps": chosen.steps_taken()}
    common |= {"forwards": outcome.images_forward, "backwards": outcome.images_backward}
    common |= {"failed_starts": outcome.failed_starts}
    common |= {"gpu_share": context.gpu_share, **_memory()}
    common |= {"seconds": time.monotonic() - started, "finished_at": datetime.now(UTC)}
    nonfinite = outcome.nonfinite_gradient
    results: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    for cell, gradient_name, epsilon, label in keys.cells(spec):
        row = epsilons.index(epsilon)
        results.append(
            common
            | {"cell": cell, "gradient": gradient_name, "value": outcome.accuracy[row]}
            | {"epsilon": epsilon, "epsilon_label": label}
            | {"step_size": chosen.step(epsilon), "reach": outcome.reach[row]}
            | {"queries": None if outcome.queries is None else float(outcome.queries[row].double().mean())}
            | {"nonfinite_grad": None if nonfinite is None else int((nonfinite[row] > 0).sum())}
        )
        outcomes += _outcome_rows(cell, outcome, row, test.indices, task.retrieves)
        examples += _example_rows(cell, outcome, row, test.indices, pixels[:EXAMPLES], data)
    store.write_table("outcomes", key, outcomes, tables.OUTCOMES)
    store.write_table("examples", key, examples, tables.EXAMPLES)
    # The results are written last: they mark the job as done.
    store.write_table("results", key, results, tables.RESULTS)
    return {f"{row['metric']} at {row['epsilon_label']}": row["value"] for row in results}


def _outcome_rows(cell: str, outcome: ss.Outcome, row: int, indices: Tensor, retrieves: bool) -> list[dict[str, Any]]:
    none: list[Any] = [None] * len(indices)
    robust = none if retrieves else outcome.robust[row].tolist()
    ap = outcome.scores[row].tolist() if retrieves else none
    zero = none if outcome.zero_gradient is None else outcome.zero_gradient.tolist()
    queries = none if outcome.queries is None else outcome.queries[row].tolist()
    distance = none if outcome.distances is None else outcome.distances.tolist()
    nonfinite = none if outcome.nonfinite_gradient is None else outcome.nonfinite_gradient[row].tolist()
    names = ("image", "robust", "ap", "linf", "queries", "distance", "zero_grad", "nonfinite_grad")
    columns = (indices.tolist(), robust, ap, outcome.linf[row].tolist(), queries, distance, zero, nonfinite)
    return [{"cell": cell, **dict(zip(names, values, strict=True))} for values in zip(*columns, strict=True)]


def _example_rows(
    cell: str, outcome: ss.Outcome, row: int, indices: Tensor, clean: Tensor, data: Data
) -> list[dict[str, Any]]:
    return [
        {
            "cell": cell,
            "image": int(indices[position]),
            "label": _names(data.test.labels[position], data.classes),
            "predicted": _names(outcome.predictions[row, position], data.classes),
            "clean": _png(clean[position]),
            "adversarial": _png(adversarial),
        }
        for position, adversarial in enumerate(outcome.adversarial[row])
    ]


def _names(label: Tensor, classes: Sequence[str]) -> str:
    """The class of a number, or the classes of a 0/1 vector; nothing for -1 and for a vector without a 1."""
    numbers = label.nonzero().flatten().tolist() if label.ndim else [int(label)]
    return ", ".join(classes[number] for number in numbers if number >= 0)


def _png(image: Tensor) -> bytes:
    """A float image [channels, height, width] in [0, 1] as PNG, rounded to 8 bits."""
    pixels = image.mul(255).round().to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _ingredients(spec: dict[str, Any], context: JobContext) -> tuple[DataSource, Backbone, Data]:
    backbone = ss.BACKBONES.rebuild(spec["backbone"])
    source, data = _data(keys.canonical(spec["dataset"]), context.data_root, context.storage)
    return source, backbone, data


@functools.lru_cache(maxsize=2)
def _data(dataset_json: str, root: str, storage: str) -> tuple[DataSource, Data]:
    """A data set on this worker's device, decoded once per worker; its images must be those of the store's results."""
    description = json.loads(dataset_json)
    source = ss.DATASETS.rebuild(description)
    data = source.load(Path(root))
    fingerprints.keep(Store(storage), description, data, functools.partial(source.places, Path(root)))
    return source, data.to(device())


def _fresh(spec: dict[str, Any], source: DataSource, backbone: Backbone, data: Data) -> Model:
    return models.fresh(spec, backbone, len(data.classes), data.channels, _sides(source, data))


def _sides(source: DataSource, data: Data) -> tuple[int, int]:
    """Height and width of a model's input."""
    return source.sides or data.sides


class _Models:
    """A cache of the models that this worker used last, on its device."""

    _loaded: ClassVar[OrderedDict[tuple[str, str], tuple[Model, dict[str, Any]]]] = OrderedDict()

    @classmethod
    def put(cls, storage: str, key: str, model: Model, record: dict[str, Any]) -> None:
        if device().type == "cuda":
            # Adaptive pooling has deterministic kernels only in this format; loaded and just trained models have the
            # same format.
            model.to(memory_format=torch.channels_last)
        cls._loaded[storage, key] = (model, record)
        while len(cls._loaded) > MODELS:
            cls._loaded.popitem(last=False)

    @classmethod
    def get(cls, store: Store, key: str) -> tuple[Model, dict[str, Any]]:
        if (store.uri, key) not in cls._loaded:
            model, record = models.rebuilt(store, key)
            cls.put(store.uri, key, model.to(device()).eval(), record)
        cls._loaded.move_to_end((store.uri, key))
        return cls._loaded[store.uri, key]


def _provenance(context: JobContext) -> dict[str, Any]:
    return {"git": context.git, "versions": context.versions, "device": _device_name()}


def _kernels(precision: Precision, deterministic: bool) -> dict[str, Any]:
    """The precision and determinism that this device had under these settings; a CPU is always deterministic."""
    this_device = device()
    return {
        "precision": effective(precision, this_device),
        "deterministic": deterministic or this_device.type != "cuda",
    }


def _memory() -> dict[str, int | None]:
    """The peak bytes of tensors on the GPU since the job began, and the GPU's bytes."""
    this_device = device()
    if this_device.type != "cuda":
        return {"gpu_peak": None, "gpu_total": None}
    total = torch.cuda.get_device_properties(this_device).total_memory
    return {"gpu_peak": torch.cuda.max_memory_allocated(this_device), "gpu_total": total}


def _device_name() -> str:
    this_device = device()
    return torch.cuda.get_device_name(this_device) if this_device.type == "cuda" else f"cpu x {torch.get_num_threads()}"
