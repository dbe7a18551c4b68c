"""The fine-tune loop: Adam with one rate for the head and a lower one for the body, checkpoints after every epoch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.arithmetic import arithmetic
from signsym_core.backbones import Model
from signsym_core.datasets import DataSource, Split
from signsym_core.rules.bypassed import refuse_bypassed_by_gradient
from signsym_core.tasks import Objective, Task
from signsym_core.training.adversarial import Adversary
from signsym_core.training.alignment import LayerAlignment, epoch_alignment, layer_alignment
from signsym_core.training.batches import epoch_batches, first_images
from signsym_core.training.checkpoint import Checkpoint, best_in, copies, restore, tensors_of
from signsym_core.training.health import Health, refuse_broken_outputs
from signsym_core.training.optimizers import optimizer_of, refuse_misfit
from signsym_core.training.replay import one_ahead
from signsym_core.training.selection import kept_epoch, stops, validation_score, validation_scores
from signsym_core.training.settings import FineTune
from signsym_core.training.step import Step
from signsym_core.validation import check_labels, check_module

#: Validation images that are in the network at once, where the device holds so many.
BATCH = 256


def fine_tune(
    model: Model,
    train: Split,
    source: DataSource,
    task: Task,
    settings: FineTune,
    *,
    seed: int,
    classes: int | None = None,
    resume: Checkpoint | None = None,
    on_epoch: Callable[[Checkpoint], None] | None = None,
    micro_batch: int | None = None,
    alignment: list[dict[str, Any]] | None = None,
    validation: Split | None = None,
) -> list[dict[str, Any]]:
    """Train all layers of `model` in place on `train`, both on one device, and return the history.

    `classes` is the number of classes, for a task with parameters per class; by default it is inferred from the labels.
    The order of images, the augmentation and dropout depend only on `seed` and the epoch, so a run that continues from
    `resume` gives the numbers of an uninterrupted one. `on_epoch` receives a checkpoint after every whole epoch.
    `micro_batch` bounds the images that are in the network at once, with the result of whole batches up to rounding
    (see `signsym_core.microbatch`). A list `alignment` receives for each epoch a row for each layer, at its last step
    but one (see `alignment.epoch_alignment` in this package); no number of the training depends on it. `validation` are
    images on the same device that score every epoch where the settings ask for it (`keep`, `patience`): their rows of
    the history have it as "validation", and `selection.kept_epoch` says which epoch `model` is of.

    With `settings.adversarial`, such as `{"name": "pgd", "epsilon": "8/255", "steps": 7, "gradient": "exact"}`, each
    batch is replaced by the examples that the attack makes of it against the model as it is then, in evaluation mode
    (see `adversarial.Adversary` in this package), before the step of the rule. The loss, the alignment and all checks
    are those of the examples; validation images are clean.

    Raises NonFiniteGradientError or NonFiniteLossError, naming the layer and the step; NonFiniteWeightsError, naming
    the first parameter, buffer or moment of the optimiser that is not finite after an epoch, before `on_epoch` is
    called; and ValueError where a converted layer takes no part in the forward pass, where a rule does not fit the
    optimizer, where an adversarial training does not fit the task, where validation images are missing, and where
    labels are not int64 [n] below `classes` or 0/1 [n, classes].

    >>> import torch, signsym_core as ss
    >>> from signsym_core.datasets import Split
    >>> images = torch.randint(256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    >>> train = Split(images=images, labels=(images[:, 0, 0, 0] > 127).long(), indices=torch.arange(64))
    >>> source, task = ss.DATASETS.build("digits"), ss.TASKS.build("classification")
    >>> network = ss.BACKBONES.build("smallcnn", width=4).build(task.outputs(2), channels=1)
    >>> settings = ss.FineTune(epochs=3, batch_size=16, lr=1e-3, head_lr=1e-2)
    >>> history = ss.fine_tune(ss.convert(network, "frsf"), train, source, task, settings, seed=0)
    >>> history[-1]["loss"] < history[0]["loss"]
    True
    """
    check_module(model)
    check_labels(train.labels, classes=classes)
    if settings.validates and validation is None:
        raise ValueError("settings with keep 'best' or a patience expect validation images, got validation=None")
    score: Callable[..., float] | None = None
    if settings.validates and validation is not None:
        check_labels(validation.labels, classes=classes)
        batch = BATCH if micro_batch is None else min(BATCH, micro_batch)
        score = functools.partial(validation_score, model, task, validation, source, seed=seed, batch=batch)
    with arithmetic(settings.precision, settings.deterministic, train.device, model):
        return _fine_tune(
            model, train, source, task, settings, seed, classes, resume, on_epoch, micro_batch, alignment, score
        )


def _fine_tune(
    model: Model,
    train: Split,
    source: DataSource,
    task: Task,
    settings: FineTune,
    seed: int,
    classes: int | None,
    resume: Checkpoint | None,
    on_epoch: Callable[[Checkpoint], None] | None,
    micro_batch: int | None,
    alignment: list[dict[str, Any]] | None,
    score: Callable[..., float] | None,
) -> list[dict[str, Any]]:
    refuse_misfit(model, settings)
    if settings.adversarial is not None and (problem := settings.adversarial.misfit(task)) is not None:
        raise ValueError(problem)
    device = train.labels.device
    known = classes if classes is not None else _classes(train.labels)
    objective = task.objective(known, seed).to(device)
    if device.type == "cuda":
        # For the fast convolution kernels, and the deterministic kernels of adaptive pooling.
        model.to(memory_format=torch.channels_last)
    optimizer = optimizer_of(model, objective, settings)
    history: list[dict[str, Any]] = []
    first = 0
    best: dict[str, Tensor] = {}
    if resume is not None:
        first, history = resume.epoch, list(resume.history)
        best = best_in(resume, settings.keep)
        restore(model, objective, optimizer, resume)
    per_epoch = settings.batches(len(train))
    epochs = settings.epochs if settings.steps is None else -(-settings.steps // per_epoch)
    health = Health(model, objective, optimizer)
    adversary = None
    if settings.adversarial is not None:
        adversary = Adversary(settings.adversarial, model, task, seed, micro_batch)
    take_step = Step(model, objective, optimizer, health, settings.precision, micro_batch, device)
    model.train()
    for epoch in range(first, epochs):
        if stops(validation_scores(history), settings.patience, settings.min_delta):
            break
        steps = per_epoch if settings.steps is None else min(per_epoch, settings.steps - epoch * per_epoch)
        started = time.monotonic()
        losses: list[Tensor] = []
        with seeds.seeded_globally(seed, "dropout", epoch, device=device):
            batches = itertools.islice(epoch_batches(train, source, settings, seed, epoch), steps)
            seen = 0
            for images, labels in one_ahead(batches, device):
                seen += len(images)
                step = len(losses) + 1
                if adversary is not None:
                    images = adversary(images, labels, epoch, step)
                between, rows = None, list[LayerAlignment]()
                if epoch == first and step == 1:
                    between = functools.partial(refuse_bypassed_by_gradient, model)
                logs = bool(settings.log_alignment) and step % settings.log_alignment == 0
                stores = alignment is not None and step == max(1, steps - 1)
                if logs or stores:
                    # What fits into the network at once.
                    this_batch = (model, objective, images[:micro_batch], labels[:micro_batch])
                    stored = alignment if stores else None
                    when = {"epoch": epoch + 1, "step": step}
                    between = functools.partial(_align, rows if logs else None, stored, when, *this_batch, len(train))
                loss, norms = take_step(images, labels, between)
                losses.append(loss)
                history += [{"epoch": epoch + 1, "step": step, **dataclasses.asdict(row)} for row in rows]
                health.watch(epoch, step, loss, norms)
        health.look()
        health.refuse_broken(f"after epoch {epoch + 1}")
        mean_loss = float(torch.stack(losses).mean())
        seconds = time.monotonic() - started
        history.append({"epoch": epoch + 1, "loss": mean_loss, "seconds": seconds, "images_per_second": seen / seconds})
        if score is not None:
            history[-1]["validation"] = score(epoch=epoch)
        if settings.keep == "best" and kept_epoch(history, "best") == epoch + 1:
            best = copies(model)
        if on_epoch is not None and steps == per_epoch:
            tensors = tensors_of(model, objective, optimizer)
            if settings.keep == "best" and kept_epoch(history, "best") <= epoch:
                tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
            on_epoch(Checkpoint(epoch=epoch + 1, tensors=tensors, history=list(history)))
    model.eval()
    take_step.release()
    if kept_epoch(history, settings.keep) < kept_epoch(history, "last"):
        model.load_state_dict(best)
    if device.type == "cuda":
        model.to(memory_format=torch.contiguous_format)
    refuse_broken_outputs(model, first_images(train, source, settings))
    return history


def _classes(labels: Tensor) -> int:
    return int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]


def _align(
    logged: list[LayerAlignment] | None,
    stored: list[dict[str, Any]] | None,
    when: dict[str, int],
    model: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    images_of_epoch: int,
) -> None:
    refuse_bypassed_by_gradient(model)
    if logged is not None:
        logged += layer_alignment(model, objective, images, labels)
    if stored is not None:
        stored += [when | row for row in epoch_alignment(model, objective, images, labels, images_of_epoch)]
