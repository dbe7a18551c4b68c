"""mAP@5000 of 32-bit codes against the loop of the field's code, in the same run; and the memory of a large case."""

from __future__ import annotations

import argparse
import resource
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import in_turn, line, ratio
from signsym_core.retrieval.codes import Codes
from signsym_core.retrieval.ranking import average_precision


def codes(items: int, classes: int, bits: int, seed: int) -> Codes:
    """Codes near one centre for each class, with 15 % of the bits flipped."""
    centres = torch.randn(classes, bits, generator=torch.Generator().manual_seed(0)) >= 0
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (items,), generator=random)
    flipped = torch.rand(items, bits, generator=random) < 0.15
    return Codes(signs=(centres[labels] ^ flipped).to(torch.int8) * 2 - 1, labels=labels)


def usual_loop(queries: Codes, database: Codes, k: int) -> Tensor:
    """The field's loop over queries: sort all distances, keep k, average the precision at the hits."""
    scores = np.zeros(len(queries))
    searched, labels = database.signs.float().numpy(), database.labels.numpy()
    for at in range(len(queries)):
        distances = 0.5 * (searched.shape[1] - searched @ queries.signs[at].float().numpy())
        found = (labels == int(queries.labels[at]))[np.argsort(distances, kind="stable")][:k]
        places = np.flatnonzero(found) + 1
        scores[at] = np.mean(np.arange(1, len(places) + 1) / places) if len(places) else 0.0
    return torch.from_numpy(scores)


def main(queries: int = 1000, items: int = 54_000, k: int = 5000) -> None:
    """Print a line for each way to treat ties, then the large case."""
    few = codes(queries // 10, 10, 32, seed=1)
    many, database = codes(queries, 10, 32, seed=1), codes(items, 10, 32, seed=2)
    difference = (average_precision(few, database, k, "stable") - usual_loop(few, database, k)).abs().max()
    ways = {
        "expected": lambda: average_precision(many, database, k, "expected"),
        "stable": lambda: average_precision(many, database, k, "stable"),
        # A tenth of the queries: the loop's time grows with them and with nothing else.
        "loop": lambda: usual_loop(few, database, k),
    }
    times = in_turn(ways, rounds=3, warm_up=1)
    times["loop"] = [10 * seconds for seconds in times["loop"]]
    for name in ("expected", "stable"):
        what = f"mAP@{k} {name}, {queries} queries x {items} codes, differs from the loop by {difference:.0e} (stable)"
        line(what, median(times[name]), median(times["loop"]), ratio(times, name, "loop"), "at most 1 / 5 = 0.2")
    del ways, times
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = average_precision(codes(5000, 21, 32, seed=3), codes(148_332, 21, 32, seed=4), k)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"5,000 x 148,332: mAP {float(large.mean()):.4f}, process {after / 2**20:.2f} GiB (before {before / 2**20:.2f})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--items", type=int, default=54_000)
    main(**vars(parser.parse_args()))
