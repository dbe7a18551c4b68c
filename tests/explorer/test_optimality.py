"""The optimality of an attack: by hand, beside a loop over rows, on the Flags page and in the export."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from stores import fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Matrix
from orchestrator.results.live_store import LiveStore
from orchestrator.results.optimality import optimality
from orchestrator.store import Store
from signsym_core.auditing.evidence import Run

CLEAN = {0.0: (1, 1, 1, 1)}
#: Four images: PGD breaks three at 0.1 and all at 0.3; FGSM breaks one, and then two.
PGD = {0.1: (0, 0, 0, 1), 0.3: (0, 0, 0, 0)}
FGSM = {0.1: (1, 1, 1, 0), 0.3: (0, 1, 1, 0)}


def runs(attack, outcomes, gradient="exact", images=(0, 1, 2, 3), norm="linf"):
    return [
        Run(
            attack=attack,
            parameters="{}",
            gradient=gradient,
            epsilon=epsilon,
            seeds=(0,),
            norm=norm,
            images=np.array(images),
            outcomes=np.array([robust], dtype=np.uint8),
        )
        for epsilon, robust in outcomes.items()
    ]


def test_it_is_the_share_of_the_area_that_an_attack_takes():
    clean, pgd, fgsm = runs("none", CLEAN, "none"), runs("pgd", PGD), runs("fgsm", FGSM)
    # Together they break every image at 0.1, so the worst case is 1, 0, 0 at 0, 0.1, 0.3: an area of 0.05.
    best, most = 0.05, 1 * 0.3 - 0.05
    # PGD: 1, 1/4, 0, and FGSM: 1, 3/4, 2/4.
    of_pgd, of_fgsm = 0.0625 + 0.025, 0.0875 + 0.125
    every = [*clean, *pgd, *fgsm]
    assert optimality(pgd, every) == pytest.approx(1 - (of_pgd - best) / most)
    assert optimality(fgsm, every) == pytest.approx(1 - (of_fgsm - best) / most)
    # Alone each is the best that there is, and what breaks nothing has 0 beside one that breaks something.
    assert optimality(fgsm, [*clean, *fgsm]) == 1
    idle = runs("noise", {0.1: (1, 1, 1, 1), 0.3: (1, 1, 1, 1)})
    assert optimality(idle, [*every, *idle]) == 0
    assert optimality(idle, [*clean, *idle]) is None


def test_it_is_over_the_images_of_all_runs_and_below_the_grey_image():
    clean, pgd = runs("none", CLEAN, "none"), runs("pgd", PGD | {0.5: (1, 1, 1, 1)})
    fgsm = runs("fgsm", {0.1: (1, 0), 0.3: (1, 0), 0.9: (1, 1)}, images=(2, 3))
    # Of the images 2 and 3 PGD breaks the first at once; 0.5 and 0.9 count for neither.
    best, most = 0.05, 0.3 - 0.05
    assert optimality(pgd, [*clean, *pgd, *fgsm]) == pytest.approx(1 - (0.075 + 0.05 - best) / most)
    assert optimality(pgd, pgd) is None
    assert optimality(clean, [*clean, *pgd]) is None
    assert optimality(fgsm, [*clean, *runs("fgsm", FGSM, images=(5, 6, 7, 8))]) is None
    # Another norm's radii say nothing here, and one of L2 may be long.
    l2 = runs("boundary", {0.1: (0, 0, 0, 0), 2.0: (0, 0, 0, 0)}, norm="l2")
    assert optimality(pgd, [*clean, *pgd, *l2]) == optimality(pgd, [*clean, *pgd])
    assert optimality(l2, [*clean, *pgd, *l2]) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("optimality") / "store"
    curve = {0.0: 0.95, 0.1: 0.7, 0.2: 0.5, 0.5: 0.4}
    fill(place, {("usf", "feedback"): curve, ("usf", "exact"): {**curve, 0.1: 0.3, 0.2: 0.1}})
    fill(place, {("usf", "none"): {0.2: 0.3}}, attack="square", draw=1)
    return place


def by_hand(folder, attack, gradient):
    store = Store(str(folder))
    results, outcomes = store.results(), store.outcomes()

    def x(frame):
        return [outcomes[outcomes.cell == cell].sort_values("image").robust.to_numpy(float) for cell in frame.cell]

    epsilons = [0.0, *sorted(set(results[(results.attack == attack) & results.epsilon.between(0.01, 0.49)].epsilon))]
    own, lowest = [], []
    for epsilon in epsilons:
        at = results[results.epsilon == epsilon]
        of_seeds = [np.min(x(at[at.seed == seed]), axis=0).mean() for seed in (0, 1, 2)]
        lowest.append(np.mean(of_seeds))
        mine = at[(at.attack == attack) & (at.gradient == gradient)]
        own.append(np.mean(x(mine)) if epsilon > 0 else lowest[0])
    area, best = (
        sum((b - a) * (f + g) / 2 for a, b, f, g in zip(epsilons, epsilons[1:], y, y[1:], strict=False))
        for y in (own, lowest)
    )
    return 1 - (area - best) / (lowest[0] * epsilons[-1] - best)


def test_it_is_that_of_a_loop_over_rows_on_the_page_of_flags_and_in_the_export(folder, tmp_path):
    snapshot = LiveStore(str(folder)).snapshot
    lines = snapshot.query().index.ordered
    known = dict(zip(lines, snapshot.computed().optimalities.of(lines), strict=True))
    for line, value in known.items():
        assert value == pytest.approx(by_hand(folder, line.attack, line.gradient))
        assert 0 < value <= 1
    assert len(known) == 3
    matrix = next(each for each in page(folder, "?p=flags").blocks if isinstance(each, Matrix) and each.name == "flags")
    at = matrix.header.index("optimality") - 4
    shown = {(names[2], names[3]): entries[at].lines for names, entries in matrix.rows}
    assert shown == {(line.attack, line.gradient): [f"{value:.2f}"] for line, value in known.items()}
    rows = [row for row in matrix.table.rows if row["flag"] == "optimality"]
    assert [row["first"] for row in rows] == list(known.values())
    assert main(["export", str(folder), "--what", "curves", "--out", str(tmp_path / "curves.csv")]) == 0
    exported = {
        (row["attack"], row["gradient"]): row["optimality"] for row in csv.DictReader((tmp_path / "curves.csv").open())
    }
    assert {key: float(value) for key, value in exported.items()} == {
        (line.attack, line.gradient): value for line, value in known.items()
    }


def test_a_store_without_a_clean_score_has_none_and_says_what_it_needs(tmp_path):
    folder = fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.4}})
    matrix = next(each for each in page(folder, "?p=flags").blocks if isinstance(each, Matrix) and each.name == "flags")
    entry = matrix.rows[0][1][matrix.header.index("optimality") - 4]
    assert entry.lines == ["–"]
    assert entry.about.startswith("needs a clean score")
