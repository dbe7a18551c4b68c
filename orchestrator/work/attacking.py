"""Attacks: a spec in, tables of results, outcomes and examples in the store out."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import JobContext
from orchestrator.jobs.setting import Setting, member_columns, tested_on
from orchestrator.jobs.surrogates import names_surrogate
from orchestrator.store import tables
from orchestrator.store.store import Store
from orchestrator.work import device, hash_codes, models
from orchestrator.work.data import data_set, tested
from orchestrator.work.extended import with_extensions
from signsym_core.attacks import GRADIENTS
from signsym_core.attacks.none import NoAttack
from signsym_core.datasets import Data
from signsym_core.datasets.batches import Prepared
from signsym_core.evaluation.attack import BLOCK
from signsym_core.rules.bp import BP

#: Adversarial images that are stored for each epsilon, at most and at least, and the bytes that those above the least
#: may have before they are compressed.
MOST, LEAST, BYTES = 64, 4, 1 << 16


def attack(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float]:
    """Run the attack of `spec` at all its epsilons, and write its tables under `key`."""
    store, started = Store(context.storage), time.monotonic()
    model, record = models.loaded(store, spec["model"])
    model_spec = record["spec"]
    source, data = data_set(keys.canonical(model_spec["dataset"]), context.data_root, context.storage)
    if "test" in spec:
        source, data = tested(keys.canonical(tested_on(model_spec, spec)), data, context.data_root, context.storage)
    count = len(data.test) if spec["images"] is None else min(spec["images"], len(data.test))
    test = data.test.take(torch.arange(count))
    assert isinstance(test.images, Tensor)
    pixels = Prepared(test.images, source)
    chosen = ss.ATTACKS.rebuild(spec["attack"])
    # What is certified is the image as it is.
    kept = 0 if chosen.certifying else examples_kept(pixels[:1].numel())
    epsilons = sorted({epsilon for _, epsilon, _ in spec["points"]})
    gradient = "feedback" if spec["gradient"] == "none" else spec["gradient"]
    setting = Setting.of(model_spec, spec)
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
        surrogate=models.loaded(store, crafting)[0] if "surrogate" in spec else None,
        gallery=gallery,
        surrogate_gallery=surrogate_gallery,
        keep=kept,
        micro_batch=max(1, BLOCK >> context.halvings),
    )
    trained = [record, *([models.loaded(store, crafting)[1]] if "surrogate" in spec else [])]
    versions = with_extensions(context.versions, spec, *(one["spec"] for one in trained), models=tuple(trained))
    common = (
        {"git": context.git, "versions": versions, "device": device.name()}
        | setting.columns()
        | {"job": key, "finetune_job": spec["model"]}
    )
    common |= {"surrogate_job": spec.get("surrogate")} | device.kernels(chosen.precision, chosen.deterministic)
    common |= {f"finetune_{name}": record.get(name) for name in ("precision", "deterministic", "device")}
    common |= {"finetune_epoch": record.get("kept_epoch")}
    common |= member_columns("attack", chosen) | {"norm": chosen.norm}
    common |= {"revision": keys.revision(chosen, spec, model_spec)}
    common |= {"metric": task.metric, "n": len(test), "seed": spec["seed"]}
    common |= {"chance": task.chance(test.labels, gallery), "steps": chosen.steps_taken()}
    common |= {"forwards": outcome.images_forward, "backwards": outcome.images_backward}
    common |= {"failed_starts": outcome.failed_starts}
    common |= {"gpu_share": context.gpu_share, **device.memory()}
    common |= {"seconds": time.monotonic() - started, "finished_at": datetime.now(UTC)}
    nonfinite = outcome.nonfinite_gradient
    # Confidences of clean images alone: those under attack would be most of a store.
    measured = {**outcome.measured, **({"confidence": outcome.confidence} if isinstance(chosen, NoAttack) else {})}
    results: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    clean = [_png(image) for image in pixels[:kept]]
    made_on = trained[-1]["spec"]
    for cell, gradient_name, epsilon, label in keys.cells(spec):
        row = epsilons.index(epsilon)
        results.append(
            common
            | {"cell": cell, "gradient": gradient_name, "value": outcome.accuracy[row]}
            | {"epsilon": epsilon, "epsilon_label": label}
            | _surrogate_columns(gradient_name, made_on, model_spec)
            | {"step_size": chosen.step(epsilon), "reach": outcome.reach[row]}
            | {"queries": None if outcome.queries is None else float(outcome.queries[row].double().mean())}
            | {"nonfinite_grad": None if nonfinite is None else int((nonfinite[row] > 0).sum())}
        )
        outcomes += _outcome_rows(cell, outcome, row, test.indices, task.retrieves, measured)
        examples += _example_rows(cell, outcome, row, test.indices, clean, data)
    store.write_table("outcomes", key, outcomes, tables.outcomes_with(measured))
    store.write_table("examples", key, examples, tables.EXAMPLES)
    # The results are written last: they mark the job as done.
    store.write_table("results", key, results, tables.RESULTS)
    return {f"{row['metric']} at {row['epsilon_label']}": row["value"] for row in results}


def _surrogate_columns(gradient: str, made_on: Mapping[str, Any], attacked: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a result's surrogate, from the specs of the model of its examples and of the attacked one."""
    if names_surrogate(gradient):
        seed = "same" if made_on["seed"] == attacked["seed"] else "other"
        return member_columns("surrogate_rule", ss.RULES.rebuild(made_on["rule"])) | {"surrogate_seed": seed}
    twin = gradient in GRADIENTS and GRADIENTS[gradient].twin
    return member_columns("surrogate_rule", BP()) | {"surrogate_seed": "same"} if twin else {}


def examples_kept(values: int) -> int:
    """How many images of so many values are stored: the first of the test split, the same for every rule and seed."""
    return max(LEAST, min(MOST, BYTES // max(1, values)))


def _outcome_rows(
    cell: str, outcome: ss.Outcome, row: int, indices: Tensor, retrieves: bool, measured: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    none: list[Any] = [None] * len(indices)
    robust = none if retrieves else outcome.robust[row].tolist()
    ap = outcome.scores[row].tolist() if retrieves else none
    zero = none if outcome.zero_gradient is None else outcome.zero_gradient.tolist()
    queries = none if outcome.queries is None else outcome.queries[row].tolist()
    distance = none if outcome.distances is None else outcome.distances.tolist()
    nonfinite = none if outcome.nonfinite_gradient is None else outcome.nonfinite_gradient[row].tolist()
    names = ("image", "robust", "ap", "linf", "queries", "distance", "zero_grad", "nonfinite_grad")
    columns = (indices.tolist(), robust, ap, outcome.linf[row].tolist(), queries, distance, zero, nonfinite)
    rows = [{"cell": cell, **dict(zip(names, values, strict=True))} for values in zip(*columns, strict=True)]
    for name, numbers in measured.items():
        for outcome_row, number in zip(rows, numbers[row].tolist(), strict=True):
            # A table has no NaN.
            outcome_row[name] = None if math.isnan(number) else number
    return rows


def _example_rows(
    cell: str, outcome: ss.Outcome, row: int, indices: Tensor, clean: Sequence[bytes], data: Data
) -> list[dict[str, Any]]:
    return [
        {
            "cell": cell,
            "image": int(indices[position]),
            "label": _names(data.test.labels[position], data.classes),
            "predicted": _names(outcome.predictions[row, position], data.classes),
            "clean": clean[position],
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
