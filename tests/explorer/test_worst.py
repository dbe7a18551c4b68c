"""The worst case over attacks: beside a loop over the rows of the store, and shown as one number everywhere."""

from __future__ import annotations

import csv
import functools

import numpy as np
import pytest
from stores import SHARES, block, fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Figure, Matrix, Words
from orchestrator.explorer.app import make_app
from orchestrator.results import worst_lines
from orchestrator.results.live_store import LiveStore
from orchestrator.results.worst_case import unmatched, worst_case
from orchestrator.results.worst_lines import WorstCases
from orchestrator.store import Store
from signsym_core.auditing.evidence import Run
from signsym_core.statistics.intervals import gap, interval


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of other images, other seeds, another norm and without a gradient, and one attack that BP lacks."""
    place = tmp_path_factory.mktemp("worst") / "store"
    three = {**SHARES, ("frsf", "exact"): {0.0: 0.9, 0.1: 0.9}}
    fill(place, three)
    fill(
        place,
        {("bp", "exact"): {0.1: 0.7, 0.2: 0.5}, ("usf", "feedback"): {0.1: 0.7, 0.2: 0.5}},
        draw=1,
        images=50,
        attack="bim",
    )
    fill(place, {("usf", "exact"): {0.1: 0.6}}, draw=2, seeds=(1, 2, 3), attack="bim")
    fill(place, {(rule, "none"): {0.1: 0.7} for rule in ("bp", "usf", "frsf")}, draw=3, attack="square")
    fill(place, {(rule, "none"): {1.5: 0.5} for rule in ("bp", "usf")}, draw=4, attack="hopskipjump", norm="l2")
    fill(place, {(rule, "none"): {0.0: 0.97} for rule in ("bp", "usf")}, draw=5, attack="none")
    return place


def worst_of(folder, seeds=(), attacks=()):
    """Each worst case by rule, norm and epsilon."""
    snapshot = LiveStore(str(folder)).snapshot
    query = snapshot.query(seeds)
    lines = snapshot.computed(query.seeds).worst_cases.of({line.figure for line in query.index.lines}, attacks)
    return {(e.curve.rule, e.curve.norm, epsilon): point for e in lines for epsilon, point in e.points.items()}


@functools.cache
def rows(folder):
    """Every result with its outcomes by image."""
    store = Store(str(folder))
    outcomes = {cell: list(of_cell.itertuples()) for cell, of_cell in store.outcomes().groupby("cell", observed=True)}
    return [(row, outcomes[row.cell]) for row in store.results().itertuples()]


def by_hand(folder, rule, norm, epsilon, attacks=()):
    """For each run its outcomes by seed and image, row by row."""
    runs = {}
    for row, of_cell in rows(folder):
        fits = row.rule == rule and row.epsilon == epsilon and (row.norm == norm or epsilon == 0)
        if fits and (not attacks or row.attack in attacks or row.attack == "none"):
            scores = {o.image: float(o.robust if row.metric == "top1" else o.ap) for o in of_cell}
            runs.setdefault(f"{row.attack} ({row.gradient})".removesuffix(" (none)"), {})[row.seed] = scores
    return runs


def lowest(*sides):
    """For each side the lowest outcome [seeds, images] over its runs, on the seeds and images that all runs have."""
    runs = [run for side in sides for run in side.values()]
    seeds = sorted(set.intersection(*(set(run) for run in runs)))
    images = sorted(set.intersection(*(set(run[seed]) for run in runs for seed in seeds)))
    return [
        np.array([[min(run[seed][image] for run in side.values()) for image in images] for seed in seeds])
        for side in sides
    ]


@pytest.mark.parametrize("attacks", [(), ("pgd",), ("bim", "square")])
def test_it_is_that_of_a_loop_over_rows(folder, attacks):
    points = worst_of(folder, attacks=attacks)
    for (rule, norm, epsilon), worst in points.items():
        runs = by_hand(folder, rule, norm, epsilon, attacks)
        (x,) = lowest(runs)
        assert worst.point.score == interval(x)
        assert list(worst.point.by_seed.values()) == pytest.approx(x.mean(axis=1).tolist())
        assert set(worst.point.runs) == set(runs)
        (strongest,) = lowest({worst.point.runs[0]: runs[worst.point.runs[0]]})
        assert strongest.mean() <= min(lowest({name: run})[0].mean() for name, run in runs.items()) + 0.1
        if worst.point.over_bp is not None:
            assert worst.point.over_bp == gap(*lowest(runs, by_hand(folder, "bp", norm, epsilon, attacks)))
    norms = {(rule, norm) for rule, norm, _ in points}
    assert (("usf", "l2") in norms) is (not attacks)
    if not attacks:
        # BIM left out seed 0 and ten images.
        usf = points["usf", "linf", 0.1].point
        assert (usf.score.n, usf.score.seeds, len(usf.runs)) == (50, 2, 5)
        assert points["usf", "l2", 0.0].point.score == points["usf", "linf", 0.0].point.score
        assert points["usf", "l2", 1.5].point.over_bp is not None


def test_a_gap_is_over_the_same_attacks_or_there_is_none(folder):
    points = worst_of(folder)
    # BP's BIM is along its exact gradient, as good as uSF's along its feedback; frSF was not attacked by BIM at all.
    assert points["usf", "linf", 0.1].point.over_bp is not None
    assert points["usf", "linf", 0.1].unmatched == ()
    assert points["frsf", "linf", 0.1].point.over_bp is None
    assert points["frsf", "linf", 0.1].unmatched == ("bim (exact)",)
    assert points["frsf", "linf", 0.0].point.over_bp is not None
    # uSF's BIM at 0.2 is along its own feedback alone, and BP's is the exact gradient's.
    assert points["usf", "linf", 0.2].unmatched == ("bim (exact)",)
    assert worst_of(folder, attacks=("pgd", "square"))["frsf", "linf", 0.1].point.over_bp is not None


def run(attack="pgd", gradient="exact", epsilon=0.1, seeds=(0,), images=(0, 1), outcomes=((1, 0),)):
    return Run(attack=attack, parameters="{}", gradient=gradient, epsilon=epsilon, seeds=seeds,
               images=np.array(images), outcomes=np.array(outcomes, dtype=np.uint8))  # fmt: skip


def test_runs_that_share_no_seed_or_image_have_no_worst_case():
    assert worst_case([]) is None
    assert worst_case([run(), run("fgsm", seeds=(1,))]) is None
    assert worst_case([run(), run("fgsm", images=(2, 3))]) is None
    case = worst_case([run(), run("fgsm", images=(1, 0), outcomes=((1, 0),))])
    # Image 0 falls to FGSM and image 1 to PGD.
    assert case.outcomes.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("model", "bp", "lacking"),
    [
        (["pgd exact", "pgd feedback", "pgd transfer"], ["pgd exact"], []),
        (["pgd exact"], ["pgd exact", "pgd feedback"], []),
        (["pgd feedback"], ["pgd feedback"], []),
        (["pgd feedback"], ["pgd exact"], ["pgd exact"]),
        (["pgd exact", "fgsm exact"], ["pgd exact"], ["fgsm exact"]),
        (["square none"], ["square none", "pgd exact"], ["pgd exact"]),
        # A named surrogate is weaker than a white box against one of both, so that it stands for itself alone.
        (["pgd exact", "pgd transfer from usf"], ["pgd exact", "pgd transfer from usf"], []),
        (["pgd exact", "pgd transfer from frsf"], ["pgd exact"], ["pgd transfer from frsf"]),
        (["pgd exact"], ["pgd exact", "pgd transfer from usf"], ["pgd transfer from usf"]),
        (["pgd exact"], ["pgd transfer from usf"], ["pgd exact", "pgd transfer from usf"]),
        # A transfer from BP to BP is a white box, beside which a transfer to the model alone looks weak.
        (["pgd transfer"], ["pgd transfer"], ["pgd transfer"]),
        (["pgd transfer", "fgsm exact"], ["pgd exact", "fgsm exact"], ["pgd transfer", "pgd exact"]),
        (["pgd transfer", "pgd feedback"], ["pgd transfer", "pgd feedback"], []),
    ],
)
def test_what_has_no_counterpart(model, bp, lacking):
    first, second = ([run(*name.split(" ", 1)) for name in names] for names in (model, bp))
    assert [f"{each.attack} {each.gradient}" for each in unmatched(first, second)] == lacking
    assert unmatched([run(*name.split(" ", 1), epsilon=0.0) for name in model], []) == []


def test_retrieval_takes_the_lowest_precision_of_each_query(tmp_path):
    settings = {"task": "hashing", "metric": "map"}
    fill(tmp_path / "store", attack="hag", **settings)
    fill(tmp_path / "store", attack="sdha", draw=1, **settings)
    worst = worst_of(tmp_path / "store")["usf", "linf", 0.1]
    (x,) = lowest(by_hand(tmp_path / "store", "usf", "linf", 0.1))
    assert worst.point.score.value == pytest.approx(interval(x).value)
    assert len(worst.point.runs) == 4
    assert 0 < worst.point.score.value < 0.5


def test_what_is_shown_changes_no_number_but_the_choice_of_attacks_does_and_is_said(folder):
    def numbers(search):
        figure = block(page(folder, f"?over=worst{search}"), Figure)
        rows = figure.table.rows
        return figure.title, {
            (r["rule"], r["norm"], r["epsilon"]): (r["value"], r.get("gap"), r.get("clear")) for r in rows
        }

    title, every = numbers("")
    assert title.endswith("in the worst case over all attacks in the store")
    for search in ("&r=usf", "&g=feedback", "&g=none&r=usf,bp"):
        _, some = numbers(search)
        assert some.items() <= every.items()
        assert len(some) >= 5
    title, one = numbers("&a=pgd")
    assert title.endswith("over pgd alone, as the filter chooses")
    assert one["uSF", "L∞", "0.1"] != every["uSF", "L∞", "0.1"]


def test_one_number_is_on_the_curve_in_the_tables_and_in_the_export(folder, tmp_path):
    figure = block(page(folder, "?over=worst"), Figure)
    (row,) = (row for row in figure.table.rows if (row["rule"], row["norm"], row["epsilon"]) == ("uSF", "L∞", "0.1"))
    texts = [text for trace in figure.figure["data"] for text in trace.get("hovertext", ())]
    (told,) = (
        text for text in texts if f"strongest {row['strongest']};" in text and "5 runs" in text and "gap" in text
    )
    assert f"0.1: {100 * row['value']:.1f} %" in told
    matrix = block(page(folder, "?p=tables&t=worst&e=0.1"), Matrix)
    (entries,) = (entries for names, entries in matrix.rows if names[1:] == ["digits", "uSF"])
    assert entries[1].lines[0].startswith(f"{100 * row['value']:.1f} [")
    # Clean is what was measured without an attack, not ε = 0 of one.
    (clean,) = lowest({"": by_hand(folder, "usf", "linf", 0.0)["none"]})
    assert entries[0].lines[0].startswith(f"{100 * clean.mean():.1f} [")
    assert main(["export", str(folder), "--what", "worst", "--out", str(tmp_path / "worst.csv")]) == 0
    exported = list(csv.DictReader((tmp_path / "worst.csv").open()))
    (ours,) = (r for r in exported if (r["rule"], r["norm"], r["epsilon"]) == ("usf", "linf", "0.1"))
    assert float(ours["value"]) == row["value"]
    assert float(ours["gap_to_bp"]) == row["gap"]
    assert ours["runs"] == row["runs"]
    # Runs along feedback alone conclude nothing, and neither does the clean score.
    asking = {"true": 0, "false": 0}
    for each in exported:
        asks = any(word in each["runs"] for word in ("exact", "square", "hopskipjump"))
        assert each["conclusive"] == str(asks).lower(), each["runs"]
        asking[each["conclusive"]] += 1
    assert all(asking.values())


def test_two_fine_tunes_or_two_results_have_no_worst_case_and_the_page_says_so(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, {("usf", "none"): {0.1: 0.5}}, draw=1, attack="square", finetune_job="another")
    fill(folder, {("frsf", "exact"): {0.1: 0.5}})
    fill(folder, {("frsf", "exact"): {0.1: 0.9}}, seeds=(0,), draw=2)
    found = page(folder, "?over=worst")
    said = " ".join(block(found, Words).sentences)
    assert "No worst case of uSF on smallcnn / digits: one of its seeds was fine-tuned twice" in said
    assert "No worst case of frSF on smallcnn / digits: two results for rule frsf" in said
    assert {row["rule"] for row in block(found, Figure).table.rows} == {"BP"}
    # The two results are of PGD: another attack has its worst case, in whatever order they are asked for.
    fill(folder, {("frsf", "none"): {0.1: 0.5}}, draw=3, attack="noise")
    data = LiveStore(str(folder))
    for search, rules in (("", {"BP"}), ("&a=noise", {"frSF"})):
        assert {row["rule"] for row in block(page(data, f"?over=worst{search}"), Figure).table.rows} == rules


def test_other_pages_compute_no_worst_case(folder, monkeypatch):
    """The first page of a large store must not wait for what it does not show."""

    def refuse(*_):
        raise AssertionError("computed without being asked for")

    monkeypatch.setattr(WorstCases, "of", refuse)
    monkeypatch.setattr(worst_lines, "worst_case", refuse)
    data = LiveStore(str(folder))
    make_app(data)
    for search in ("", "?tb=1", "?p=tables&t=all", "?p=flags"):
        assert page(data, search).blocks
    with pytest.raises(AssertionError, match="without being asked"):
        page(data, "?over=worst")


def test_along_the_own_feedback_bp_is_attacked_as_itself_and_not_by_what_a_surrogate_made(tmp_path):
    fill(tmp_path / "store", {key: shares for key, shares in SHARES.items() if key != ("bp", "feedback")})
    before = worst_of(tmp_path / "store")["usf", "linf", 0.1].feedback
    fill(tmp_path / "store", {(rule, "transfer from usf"): {0.1: 0.9} for rule in ("bp", "usf")}, draw=1)
    assert worst_of(tmp_path / "store")["usf", "linf", 0.1].feedback == before


def test_what_only_measures_is_in_no_worst_case_and_no_verdict(tmp_path):
    """Of fewer seeds and images than the attacks: it would narrow all of them to its own, and AutoAttack's entry."""
    folder = fill(tmp_path / "store", {(rule, "exact"): {0.1: 0.6} for rule in ("bp", "usf")}, attack="autoattack")
    fill(folder, draw=1)
    fill(folder, {(rule, "none"): {0.0: 0.97} for rule in ("bp", "usf")}, draw=2, attack="none")

    def concluded():
        snapshot = LiveStore(str(folder)).snapshot
        query = snapshot.query()
        models = snapshot.computed(query.seeds).models
        pgd = [line for line in query.index.ordered if line.attack == "pgd"]
        assert main(["export", str(folder), "--what", "robustbench", "--out", str(tmp_path / "entries")]) == 0
        return (
            {place: point.point.score for place, point in worst_of(folder).items()},
            [(model.jobs, models.judgement(model).verdict) for model in models.known()],
            snapshot.computed(query.seeds).optimalities.of(pgd),
            [path.read_text() for path in sorted((tmp_path / "entries").rglob("*.json"))],
        )

    before = concluded()
    assert before[0]["usf", "linf", 0.1].seeds == 3
    measured = {(rule, gradient): {0.0: 0.9, 0.1: 0.1} for rule in ("bp", "usf") for gradient in ("feedback", "exact")}
    fill(folder, measured, seeds=(0,), images=20, draw=3, attack="geometry")
    # Two results for one of its points say nothing about the attacks either.
    fill(folder, {("usf", "exact"): {0.1: 0.2}}, seeds=(0,), images=20, draw=4, attack="geometry")
    assert concluded() == before
    data = LiveStore(str(folder))
    (checks,) = (b for b in page(data, "?p=flags").blocks if isinstance(b, Matrix) and b.name == "flags")
    assert {row["attack"] for row in checks.table.rows} == {"autoattack", "pgd"}
    assert "over pgd alone" in block(page(data, "?over=worst&a=pgd,geometry"), Figure).title
    for search in ("?over=worst&a=geometry", "?p=tables&t=worst&a=geometry", "?p=flags&a=geometry"):
        assert "in no worst case and no verdict" in block(page(data, search), Words).sentences[0]
