"""What a GPU gives: fine-tunes over the fastest plain loop that torch has, rules over BP, attacks, and host waits.

The plain loop is a bare step of the same network on the same batch over and over: bfloat16, channels last, fused Adam,
one CUDA graph, nothing else in it. Ours are `fine_tune`'s own images per second, with data, augmentation, norms and
losses. Four minutes on an H100.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

import signsym_core as ss
from signsym_core.datasets import Split
from signsym_core.training.settings import FineTune

#: Floating-point operations that an H100 does in a second in bfloat16 at most.
PEAK = 989e12
DEVICE = "cuda"
RULES = ("bp", "fa", "usf", "frsf", "brsf")
ROWS: list[dict[str, Any]] = []


def told(**row: Any) -> None:
    """Print a row and keep it."""
    ROWS.append(row)
    print("  ".join(f"{name}={value}" for name, value in row.items()), flush=True)


def data(count: int, classes: int = 10) -> Split:
    """Images of 32 px, which are resized on the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Split(images=images.to(DEVICE), labels=labels.to(DEVICE), indices=torch.arange(count))


def plain(
    name: str, size: int, batch: int, *, deterministic: bool = False, graph: bool = True, bf16: bool = True
) -> float:
    """Images per second of the plain loop."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    model = ss.BACKBONES.build(name).build(10, channels=3, size=size, seed=0).to(DEVICE).train()
    images, labels = torch.rand(batch, 3, size, size, device=DEVICE), torch.randint(10, (batch,), device=DEVICE)
    if bf16:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=5e-4, fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=bf16):
            outputs = model(images)
        F.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()

    run: Callable[[], object] = step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(side)
    if graph:
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            step()
        run = recorded.replay
    seconds = timed(run, 60 if size < 100 else 40)
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False
    return batch / seconds


def timed(run: Callable[[], object], times: int, rounds: int = 3) -> float:
    """Seconds of one call: the median of some rounds."""
    for _ in range(5):
        run()
    found = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            run()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - began) / times)
    return median(found)


def ours(name: str, rule: str, size: int, batch: int, steps: int, **settings: Any) -> float:
    """Images per second of the later epochs of a fine-tune."""
    model = ss.convert(ss.BACKBONES.build(name).build(10, channels=3, size=size, seed=0).to(DEVICE), rule, seed=0)
    source = ss.DATASETS.build("imagefolder", path="x", size=size)
    chosen = FineTune(epochs=4, batch_size=batch, **{"precision": "bf16", **settings})
    task = ss.TASKS.build("classification")
    history = ss.fine_tune(model, data(steps * batch), source, task, chosen, seed=0, classes=10)
    return median(row["images_per_second"] for row in history[1:])


def training(name: str, size: int, batch: int, steps: int, operations: float) -> None:
    """Our fine-tune under each rule; `operations` are those of a forward pass of one image, multiply-adds twice."""
    fastest = plain(name, size, batch)
    same = plain(name, size, batch, deterministic=True)
    told(row="plain loop", network=name, px=size, batch=batch, images_s=round(fastest), deterministic=round(same))
    bp = 0.0
    for rule in RULES:
        rate = ours(name, rule, size, batch, steps)
        bp = rate if rule == "bp" else bp
        row = {"row": "fine-tune", "network": name, "px": size, "batch": batch, "rule": rule, "images_s": round(rate)}
        row |= {"over_plain": round(rate / fastest, 3), "time_over_bp": round(bp / rate, 3)}
        told(**row, share_of_peak=round(3 * operations * rate / PEAK, 4))
    for what, settings in (("deterministic off", {"deterministic": False}), ("tf32", {"precision": "tf32"})):
        rate = ours(name, "bp", size, batch, steps, **settings)
        told(
            row=what,
            network=name,
            px=size,
            batch=batch,
            rule="bp",
            images_s=round(rate),
            over_plain=round(rate / fastest, 3),
        )


def waits(run: Callable[[], object]) -> dict[str, int]:
    """Where the host waited for the device while `run` ran."""
    places: Counter[str] = Counter()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchron" in str(warning.message).lower():
            places[f"{'/'.join(warning.filename.split('/')[-2:])}:{warning.lineno}"] += 1
    return dict(places.most_common())


def attacks(size: int, count: int) -> None:
    """Seconds of attacks on ResNet-18, and their waits for each further step or query."""
    model = ss.convert(ss.BACKBONES.build("resnet18").build(10, channels=3, size=size, seed=0).to(DEVICE), "usf").eval()
    images = torch.rand(count, 3, size, size, device=DEVICE)
    with torch.no_grad():
        labels = torch.cat([model(part).argmax(1) for part in images.split(256)])
    for name, parameters, grow in (
        ("pgd", {"steps": 5}, {"steps": 15}),
        ("apgd", {"steps": 20}, {"steps": 40}),
        ("square", {"queries": 100}, {"queries": 200}),
        ("noise", {"draws": 40}, {"draws": 80}),
        ("fab", {"steps": 2}, {"steps": 4}),
        ("boundary", {"steps": 100}, {"steps": 200}),
    ):

        def run(parameters: dict[str, int], name: str = name) -> None:
            ss.attack(name, model, images, labels, [1e-4], gradient="exact", **parameters)

        run(parameters)
        seconds = {}
        for chosen in (parameters, grow):
            torch.cuda.synchronize()
            began = time.perf_counter()
            run(chosen)
            torch.cuda.synchronize()
            seconds[next(iter(chosen.values()))] = time.perf_counter() - began
        few, many = waits(lambda: run(parameters)), waits(lambda: run(grow))  # noqa: B023
        more = {place: times - few.get(place, 0) for place, times in many.items() if times > few.get(place, 0)}
        told(
            row="attack",
            name=name,
            px=size,
            images=count,
            seconds={k: round(v, 3) for k, v in seconds.items()},
            waits_of_more=more,
        )


def main(out: str | None, only: str) -> None:
    """Print all rows, and write them as JSON lines."""
    told(row="device", name=torch.cuda.get_device_name(), torch=torch.__version__, cudnn=torch.backends.cudnn.version())
    jobs: list[tuple[str, Callable[[], None]]] = [
        ("resnet18", lambda: training("resnet18", 224, 32, 128, 2 * 1.81e9)),
        ("small", lambda: training("resnet18", 64, 32, 256, 2 * 1.81e9 * (64 / 224) ** 2)),
        ("small128", lambda: training("resnet18", 64, 128, 96, 2 * 1.81e9 * (64 / 224) ** 2)),
        ("attacks", lambda: attacks(64, 512)),
        ("attacks224", lambda: attacks(224, 256)),
        ("vgg16", lambda: training("vgg16", 224, 32, 32, 2 * 15.5e9)),
        ("alexnet", lambda: training("alexnet", 224, 32, 96, 2 * 0.71e9)),
    ]
    for name, job in jobs:
        if not only or name in only.split(","):
            try:
                job()
            except Exception as error:
                told(row="error", job=name, error=f"{type(error).__name__}: {error}"[:400])
            torch.cuda.empty_cache()
    if out:
        Path(out).write_text("".join(json.dumps(row) + "\n" for row in ROWS))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out")
    parser.add_argument("--only", default="")
    main(**vars(parser.parse_args()))
