"""The shipped grid of the authors' settings, row by row of what their code does, as its plan has it."""

from __future__ import annotations

import math

import pytest
import torch
from sweeps import ROOT

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs.setting import Setting
from orchestrator.plan.compile import compile_plan
from signsym_core.datasets import Split, inputs
from signsym_core.retrieval.ranking import average_precision
from signsym_core.tasks.hyp2 import hyp2_loss
from signsym_core.training.batches import epoch_batches

PLAN = compile_plan(load(ROOT / "grids/authors-2024.yaml"), set(), set())
TUNES = [job for job in PLAN.jobs.values() if job.kind == "finetune"]
SETTINGS = [Setting.of(job.spec) for job in TUNES]
TASKS = {setting.task for setting in SETTINGS}
DATASETS = {setting.dataset.name: setting.dataset for setting in SETTINGS}
#: Classes of each data set in their code; COCO's are its category numbers, 1 to 90.
CLASSES = {"cifar10": 10, "coco": 90, "nuswide": 21, "imagenet100": 100}


def test_rules_and_networks():
    made = {(s.backbone.name, s.rule.name, s.dataset.name) for s in SETTINGS}
    assert len(made) == len(TUNES) == 2 * 4 * 4
    assert {backbone for backbone, _, _ in made} == {"alexnet", "vgg16"}
    assert {rule for _, rule, _ in made} == {"bp", "fa", "usf", "frsf"}
    assert all(s.rule.scale == "xavier" and not s.rule.bp_layers for s in SETTINGS if s.rule.name != "bp")
    assert all(s.weights == {"published": "IMAGENET1K_V1"} for s in SETTINGS)
    assert {job.spec["seed"] for job in TUNES} == {0}


def test_optimiser_batches_and_epochs():
    (finetune,) = {setting.finetune for setting in SETTINGS}
    assert (finetune.optimizer, finetune.weight_decay, finetune.beta1, finetune.beta2) == ("adam", 5e-4, 0.9, 0.999)
    assert (finetune.lr, finetune.head_lr) == (1e-5, 10 * 1e-5)
    assert (finetune.batch_size, finetune.epochs, finetune.steps) == (128, 20, None)
    (task,) = TASKS
    assert task.proxy_lr == task.objective(10, 0).lr == 1e-3


def test_the_best_epoch_and_the_early_stop():
    (finetune,) = {setting.finetune for setting in SETTINGS}
    assert (finetune.keep, finetune.patience, finetune.min_delta) == ("best", 10, 0.05)
    assert all(dataset.has_validation for dataset in DATASETS.values())


def test_the_loss():
    (task,) = TASKS
    assert (task.name, task.bits, task.beta, task.tanh, task.variant) == ("hashing", 32, 0.01, True, "h2q")
    generator = torch.Generator().manual_seed(0)
    # Some images without any label, as theirs of COCO have.
    outputs, labels = torch.randn(9, 32, generator=generator), (torch.rand(9, 10, generator=generator) < 0.15).long()
    objective = task.objective(10, seed=0)
    # Their code, written out pair by pair: an attraction and a repulsion of proxies, and 0.01 of the images'.
    images, proxies = outputs.tanh(), objective.proxies.detach().tanh()
    sums, counts = {"near": 0.0, "far": 0.0, "pairs": 0.0}, {"near": 0, "far": 0, "pairs": 0}

    def add(what, value):
        sums[what] += value
        counts[what] += 1

    def cosine(one, other):
        return float(one @ other / (one.norm() * other.norm()))

    for i in range(9):
        for c in range(10):
            value = cosine(images[i], proxies[c])
            add("near" if labels[i, c] else "far", -value if labels[i, c] else max(0.0, value))
        for j in range(9):
            if not int(labels[i] @ labels[j]):
                add("pairs", max(0.0, cosine(images[i], images[j])))
    expected = sum(weight * sums[w] / max(1, counts[w]) for w, weight in (("near", 1), ("far", 1), ("pairs", 0.01)))
    # They leave out the 1 of 1 - cos.
    assert float(objective(outputs, labels).detach()) - 1 == pytest.approx(expected, abs=1e-5)
    assert counts["pairs"] > 9
    other = hyp2_loss(images, labels, objective.proxies.detach(), zeta=0.0, variant="h2q", beta=0.5)
    assert float(other) - 1 > expected + 0.01


@pytest.mark.parametrize(
    ("name", "separation"), [("cifar10", 0.0), ("coco", 0.125), ("nuswide", 0.0), ("imagenet100", 0.125)]
)
def test_the_separation_of_32_bits_and_so_many_classes_is_that_of_their_table(name, separation):
    (task,) = TASKS
    assert task.objective(CLASSES[name], seed=0).zeta == separation


def test_the_proxies_start():
    (task,) = TASKS
    proxies = torch.cat([task.objective(100, seed).proxies.detach() for seed in range(20)])
    # Kaiming's normal start over the fan out, which is the number of classes.
    assert float(proxies.std()) == pytest.approx(math.sqrt(2 / 100), rel=0.02)


def test_the_hash_layer_starts():
    assert {task.head_std for task in TASKS} == {0.01}


@pytest.mark.parametrize("name", list(CLASSES))
def test_images_are_resized_to_256_and_cropped_to_the_middle_in_training_too(name):
    source, finetune = DATASETS[name], SETTINGS[0].finetune
    assert (source.size, source.crop_from, finetune.augment) == (224, 256, False)
    pixels = torch.randint(256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images=pixels, labels=torch.arange(2), indices=torch.arange(2))
    ((images, labels),) = epoch_batches(split, source, finetune, 0, 0)
    middle = pixels[labels][:, :, 16:240, 16:240] / 255
    assert torch.equal(images, middle)
    assert torch.equal(inputs(pixels, source)[labels], middle)


@pytest.mark.parametrize(
    ("name", "trained", "asked"),
    [("cifar10", 5_000, 1_000), ("coco", 10_000, 5_000), ("nuswide", 10_500, 2_100), ("imagenet100", 13_000, 2_500)],
)
def test_splits_are_theirs_and_whole(name, trained, asked):
    source = DATASETS[name]
    assert source.split == "authors-2024"
    assert source.counts == (trained, asked)
    assert source.classes is source.train_images is source.test_images is source.validation_images is None


def test_a_ranking_is_that_of_their_code_at_their_cuts():
    attacks = [job for job in PLAN.jobs.values() if job.kind == "attack"]
    assert len(attacks) == 3 * len(TUNES)
    assert {(job.spec["attack"]["name"], job.spec["score"]["ties"], job.spec["score"]["k"]) for job in attacks} == {
        ("none", "features", k) for k in (1000, 5000, None)
    }
    # Ten for a bit and the squared distance at length 1, sorted; the mean over the hits of the first k.
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 8, generator=generator).double(), torch.randint(3, (60,), generator=generator)
    codes = [
        ss.Codes(signs=features[rows].sign(), labels=labels[rows], features=features[rows])
        for rows in (slice(0, 10), slice(10, 60))
    ]
    unit, signs = features / features.norm(dim=1, keepdim=True), features.sign()
    for k in (7, None):
        for query, got in enumerate(average_precision(*codes, k, "features").tolist()):
            keys = [
                (10 * 0.5 * float(8 - signs[query] @ signs[at]) + float(((unit[query] - unit[at]) ** 2).sum()), at)
                for at in range(10, 60)
            ]
            hits, total = 0, 0.0
            for place, (_, at) in enumerate(sorted(keys)[:k], start=1):
                if labels[at] == labels[query]:
                    hits += 1
                    total += hits / place
            assert got == pytest.approx(total / max(1, hits), abs=1e-9)
