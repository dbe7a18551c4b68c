"""Small stores as sweeps write them, with outcomes drawn from a fixed seed."""

from __future__ import annotations

import functools
import hashlib
import io
import shutil
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import storerows
from PIL import Image

from orchestrator import pages
from orchestrator.gridfile import stored
from orchestrator.gridfile.grid import load
from orchestrator.pages.context import context_of
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import Results
from orchestrator.store import Store, records, tables

#: Share of robust images for each rule, gradient and epsilon.
SHARES = {
    ("bp", "feedback"): {0.0: 1.0, 0.1: 0.4},
    ("bp", "exact"): {0.0: 1.0, 0.1: 0.4},
    ("usf", "feedback"): {0.0: 0.95, 0.1: 0.8},
    ("usf", "exact"): {0.0: 0.95, 0.1: 0.35},
}

#: Cosine of each layer in each epoch of a training.
COSINES = {"conv": 0.5, "head": 0.9}

GRID = """
name: asked
seeds: [0, 1]
experiments:
  - task: classification
    dataset: {name: digits, size: 8, classes: [5, 6, 7], train_images: 120, test_images: 60}
    backbone: {name: smallcnn, width: 4}
    rule: [bp, usf]
    finetune: {epochs: 2}
    attacks:
      - {name: pgd, gradient: [feedback, exact], epsilon: [0, 0.1]}
"""


@functools.cache
def png(seed, side=8):
    """A PNG of noise."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder, shares=None, seeds=(0, 1, 2), images=60, draw=0, outcome=None, **changes):
    """Write a job for each rule, gradient and seed into the store at `folder`.

    `changes` overwrite columns of results, and `outcome` those of outcomes. What was written before is copied.
    """
    asked = (shares or SHARES, seeds, images, draw, outcome, changes)
    if "://" in str(folder):
        _write(str(folder), *asked)
        return folder
    place = Path(_FILLED.name, f"{hashlib.sha256(repr(asked).encode()).hexdigest()}")
    if not place.exists():
        _write(str(place), *asked)
    # With times of their own, by which readers know that files are others.
    shutil.copytree(place, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return folder


#: The stores that were written in this process, by a digest of what was asked for.
_FILLED = tempfile.TemporaryDirectory(prefix="signsym-stores-")


def _write(uri, shares, seeds, images, draw, outcome, changes):
    store, generator = Store(uri), np.random.default_rng(draw)
    for (rule, gradient), by_epsilon in shares.items():
        for seed in seeds:
            job = f"job-{rule}-{gradient}-{seed}-{draw}" + (f"-{zlib.crc32(repr(changes).encode())}" if changes else "")
            results, outcomes, examples = [], [], []
            for epsilon, share in by_epsilon.items():
                cell = f"{job}-{epsilon}"
                robust = generator.random(images) < share
                row = dict.fromkeys(tables.RESULTS.names) | {"cell": cell, "job": job, "finetune_job": "f"}
                row |= {name: "{}" for name in tables.RESULTS.names if name.endswith("_params")}
                row |= {"task": "classification", "dataset": "digits", "backbone": "smallcnn", "metric": "top1"}
                row |= {"rule": rule, "attack": "pgd", "gradient": gradient, "seed": seed, "weights": "null"}
                row |= {"epsilon": epsilon, "epsilon_label": f"{epsilon:g}", "value": robust.mean(), "n": images}
                row |= {"chance": 0.1, "reach": 1.0, "norm": "linf", "finetune": "{}", "git": "abc", "device": "cpu"}
                row |= {"versions": "{}", "steps": 5, "step_size": epsilon / 2, "finished_at": datetime.now(UTC)}
                results.append(row | changes)
                retrieval = results[-1]["metric"] == "map"
                if retrieval:
                    results[-1]["value"] *= 0.5
                outcomes += [
                    {"cell": cell, "image": at, "robust": None if retrieval else bool(hit)}
                    | {"ap": float(hit) * 0.5 if retrieval else None, "linf": epsilon * (1 - at / 10_000)}
                    | {"zero_grad": False}
                    | (outcome or {})
                    for at, hit in enumerate(robust)
                ]
                examples += [
                    {"cell": cell, "image": at, "label": "5", "predicted": "6", "clean": png(at)}
                    | {"adversarial": png(at + 100)}
                    for at in range(4)
                ]
            store.write_table("outcomes", job, outcomes, tables.OUTCOMES)
            store.write_table("examples", job, examples, tables.EXAMPLES)
            store.write_table("results", job, results, tables.RESULTS)


def write_training(store, job, losses, **more):
    """Write the record and the alignment of a training with these losses of its epochs."""
    history = [{"epoch": at, "loss": loss, "seconds": 1.0} for at, loss in enumerate(losses, 1)]
    history[0]["validation"] = 0.25
    # As `log_alignment` writes it among the epochs.
    history.insert(1, {"epoch": 1, "step": 5, "layer": "conv", "cosine": 0.1})
    record = storerows.record(job) | {"history": history, "kept_epoch": 2} | more
    store.write(f"models/{job}/record.json", records.written(record))
    empty = dict.fromkeys(tables.ALIGNMENT.names) | {"job": job, "step": 1, "norm": 1.0, "ratio": 2.0}
    rows = [
        empty | {"epoch": epoch, "layer": layer, "cosine": cosine, "angle": None if layer == "head" else 40.0}
        for epoch in range(1, len(losses) + 1)
        for layer, cosine in COSINES.items()
    ]
    store.write_table("alignment", job, rows, tables.ALIGNMENT)


def keep_grid(folder, text=GRID):
    """Put a grid into the store as a sweep does; the grid."""
    path = folder.parent / "kept.yaml"
    path.write_text(text)
    grid = load(path)
    stored.keep_grid(Store(str(folder)), grid.name, grid.text, grid.sets)
    return grid


def page(folder, search=""):
    """A page of the store at `folder`, or of stores that are open."""
    return pages.build(context_of(folder if isinstance(folder, Results) else LiveStore(str(folder)), search))


def block(found, kind):
    """The first block of a class of blocks on a page."""
    return next(each for each in found.blocks if isinstance(each, kind))
