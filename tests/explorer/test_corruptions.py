"""Scores under corruptions: beside a loop over the rows of a store, and as tables, figures and exports show them."""

from __future__ import annotations

import csv
import json

import matplotlib as mpl
import numpy as np
import pytest
from stores import SHARES, block, fill, page, write_training

from orchestrator.commands.cli import main
from orchestrator.drawing import paper
from orchestrator.drawing.blocks import Figure, Links, Matrix, Words
from orchestrator.results.declared import constant
from orchestrator.results.live_store import LiveStore
from orchestrator.results.test_images import test_images as images_of
from orchestrator.store import Store
from signsym_core.datasets.corruptions import STANDARD
from signsym_core.statistics.intervals import gap, interval

#: The share of right answers of each rule on each corrupted set of test images.
SETS = {("fog", 1): (0.8, 0.7), ("fog", 2): (0.5, 0.3), ("snow", 1): (0.9, 0.95), ("snow", 2): (0.7, 0.8)}


def corrupted(kind, severity):
    return json.dumps({"corruption": kind, "severity": severity}, separators=(",", ":"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """BP and uSF on clean, attacked and corrupted images; uSF lacks a seed and BP images of one set, frSF a kind."""
    place = tmp_path_factory.mktemp("corrupted") / "store"
    fill(place, SHARES)
    fill(place, {(rule, "none"): {0.0: 0.97} for rule in ("bp", "usf", "frsf")}, draw=1, attack="none")
    for number, ((kind, severity), (bp, usf)) in enumerate(SETS.items(), 2):
        asked = {"attack": "none", "dataset_params": corrupted(kind, severity), "draw": number}
        fill(place, {("bp", "none"): {0.0: bp}}, images=50 if severity == 2 else 60, **asked)
        fill(place, {("usf", "none"): {0.0: usf}}, seeds=(0, 1) if kind == "fog" else (0, 1, 2), **asked)
        if kind == "snow":
            fill(place, {("frsf", "none"): {0.0: 0.6}}, **asked)
    return place


def by_hand(folder, rule):
    """The outcome of each image of each seed on each set; "" and 0 are the clean ones."""
    store = Store(str(folder))
    results, outcomes = store.results(), store.outcomes()
    sets = {}
    for row in results.itertuples():
        if row.rule == rule and row.attack == "none":
            _, kind, severity = images_of(row.dataset_params)
            of_cell = outcomes[outcomes["cell"] == row.cell]
            sets.setdefault((kind, severity), {})[row.seed] = dict(
                zip(of_cell["image"], of_cell["robust"], strict=True)
            )
    return sets


def models_of(folder, seeds=()):
    snapshot = LiveStore(str(folder)).snapshot
    query = snapshot.query(seeds)
    clean = [line for line in query.index.lines if line.attack == "none" and line.dataset_params == "{}"]
    return {
        model.line.rule: model
        for model in snapshot.computed(query.seeds).corruptions.of({line.figure for line in clean})
    }


def test_means_are_over_the_seeds_and_images_that_all_sets_have(folder):
    sets, model = by_hand(folder, "usf"), models_of(folder)["usf"]
    assert model.mean.seeds == 2
    assert model.mean.n == 60
    kinds = []
    for kind in ("fog", "snow"):
        of_kind = [[[sets[kind, s][seed][i] for i in range(60)] for seed in (0, 1)] for s in (1, 2)]
        kinds.append(np.mean(of_kind, axis=0))
        assert model.by_kind[kind] == interval(kinds[-1])
    assert model.mean == interval(np.mean(kinds, axis=0))
    second = np.mean([[[sets[k, 2][seed][i] for i in range(60)] for seed in (0, 1)] for k in ("fog", "snow")], axis=0)
    assert model.by_severity[2] == interval(second)


def test_errors_beside_bp_are_those_of_a_loop(folder):
    own, bp, model = by_hand(folder, "usf"), by_hand(folder, "bp"), models_of(folder)["usf"]
    mce, relative, fog = [], [], []
    for seed in (0, 1):
        ratios, lost = [], []
        for kind in ("fog", "snow"):
            errors = []
            for side in (own, bp):
                wrong = [sum(not side[kind, s][seed][i] for i in range(50)) / 50 for s in (1, 2)]
                clean = sum(not side["", 0][seed][i] for i in range(50)) / 50
                errors.append((sum(wrong), sum(wrong) - 2 * clean))
            ratios.append(errors[0][0] / errors[1][0])
            lost.append(errors[0][1] / errors[1][1])
        mce.append(sum(ratios) / 2)
        relative.append(sum(lost) / 2)
        fog.append(ratios[0])
    assert model.beside_bp.mce.value == pytest.approx(sum(mce) / 2)
    assert model.beside_bp.relative.value == pytest.approx(sum(relative) / 2)
    assert model.beside_bp.ce["fog"].value == pytest.approx(sum(fog) / 2)
    x = [
        np.mean([[[side[key][seed][i] for i in range(50)] for seed in (0, 1)] for key in SETS], axis=0)
        for side in (own, bp)
    ]
    assert model.beside_bp.gap == gap(*x)


def test_bp_is_its_own_measure(folder):
    bp = models_of(folder)["bp"].beside_bp
    assert (bp.mce.value, bp.relative.value, bp.gap.value) == pytest.approx((1, 1, 0))


def test_other_corruptions_than_bps_are_not_compared(folder):
    model = models_of(folder)["frsf"]
    assert model.beside_bp is None
    assert model.reason == "it was tested under other corruptions than BP"
    assert list(model.by_kind) == ["snow"]
    assert model.family == 1


def test_a_store_without_bp_has_scores_and_no_gaps(tmp_path):
    fill(tmp_path / "s", {("usf", "none"): {0.0: 0.5}}, attack="none", dataset_params=corrupted("fog", 1))
    found = page(tmp_path / "s", "?p=tables&t=corruptions")
    ((_, entries),) = block(found, Matrix).rows
    assert entries[0].lines == ["not run"]
    assert entries[2].about == "there is no BP beside it"


def test_models_of_two_settings_have_rows_of_their_own_and_names_that_tell_them_apart(tmp_path):
    for epochs, share in ((1, 0.2), (2, 0.9)):
        asked = {"attack": "none", "dataset_params": corrupted("fog", 1), "finetune": f'{{"epochs":{epochs}}}'}
        fill(tmp_path / "s", {("bp", "none"): {0.0: share}}, draw=epochs, **asked)
    found = page(tmp_path / "s", "?p=tables&t=corruptions").blocks
    for matrix in (each for each in found if isinstance(each, Matrix)):
        names = [names for names, _ in matrix.rows]
        assert [name[1] for name in names] == ["digits / finetune epochs=1", "digits / finetune epochs=2"]
        scores = [float(entries[0 if len(entries) == 1 else 1].lines[0].split()[0]) for _, entries in matrix.rows]
        assert scores[0] < 40 < scores[1]


def test_what_is_not_defined_is_said_with_its_reason_of_bp_too(tmp_path):
    for kind, bp in (("fog", 0.5), ("snow", 1.0)):
        shares = {("bp", "none"): {0.0: bp}, ("usf", "none"): {0.0: 0.6}}
        fill(tmp_path / "s", shares, attack="none", dataset_params=corrupted(kind, 1))
        said = [entries[3:] for _, entries in block(page(tmp_path / "s", "?p=tables&t=corruptions"), Matrix).rows]
        relative = ["not defined: BP loses nothing to a kind, or a clean score is missing"]
        assert [entries[1].lines for entries in said] == [relative] * 2
        if kind == "fog":
            assert said[0][0].lines == ["100"]
    assert [entries[0].lines for entries in said] == [["not defined: BP makes no error under a kind"]] * 2


def test_the_table_has_a_row_for_each_model(folder):
    found = page(folder, "?p=tables&t=corruptions")
    matrix = block(found, Matrix)
    kinds = next(each for each in found.blocks if isinstance(each, Matrix) and each.name == "kinds")
    assert [names[2] for names, _ in kinds.rows] == ["snow", "fog"]
    rows = {names[2]: entries for names, entries in matrix.rows}
    assert [names[1] for names, _ in matrix.rows] == ["digits"] * 3
    model = models_of(folder)["usf"]
    assert rows["uSF"][1].lines[0].startswith(f"{100 * model.mean.value:.1f} [")
    assert rows["uSF"][3].lines[0].startswith(f"{100 * model.beside_bp.mce.value:.1f} [")
    assert rows["BP"][3].lines == ["100"]
    assert rows["frSF"][2].lines == kinds.rows[1][1][kinds.header.index("frSF") - 3].lines == ["–"]
    figure = block(found, Figure)
    drawn = [trace for trace in figure.figure["data"] if trace.get("mode") == "lines+markers"]
    # The mean of three rules, fog of two and snow of three.
    assert len(drawn) == 8
    assert drawn[0]["x"] == [0, 1, 2]
    assert main(["figure", str(folder), "?p=tables&t=corruptions", "--out", str(folder.parent / "table.tex")]) == 0
    assert "mCE" in (folder.parent / "table.tex").read_text()


def test_the_figure_for_a_paper_is_the_mean_over_kinds_by_severity(folder, tmp_path):
    drawing, models = block(page(folder, "?p=tables&t=corruptions"), Figure).drawing, models_of(folder)
    rows = list(csv.DictReader(drawing.as_csv().splitlines()))
    assert [row["severity"] for row in rows if row["rule"] == "uSF"] == ["0", "1", "2"]
    expected = [models["usf"].clean.score, *models["usf"].by_severity.values()]
    assert [float(row["value"]) for row in rows if row["rule"] == "uSF"] == [score.value for score in expected]
    assert main(["figure", str(folder), "?p=tables&t=corruptions", "--out", str(tmp_path / "mean.svg")]) == 0
    # Neither an epsilon on the axis nor the usual radius among the severities.
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure = paper._figure(drawing, 3.3)
    (plot,) = figure.axes
    assert (plot.get_xlabel(), [text.get_text() for text in plot.get_xticklabels()]) == (
        "severity",
        ["clean", "1", "2"],
    )
    assert [text.get_text() for text in plot.texts] == ["chance"]


def test_pages_about_attacks_and_clean_scores_leave_corrupted_images_out(folder):
    tables = page(folder, "?p=tables&t=1")
    assert "corruption" not in str(block(tables, Matrix).rows)
    assert len([1 for names, _ in block(tables, Matrix).rows if names[1].startswith("digits")]) == 1
    assert "corruptions" in block(page(folder, "?p=tables"), Links).links[0].text
    curves = block(page(folder, "?p=curves"), Figure)
    assert "fog" not in str(curves.table.rows)
    snapshot = LiveStore(str(folder)).snapshot
    models = list(snapshot.computed().models.known())
    assert sorted(model.setting["rule"] for model in models) == ["bp", "frsf", "usf"]
    labels = {snapshot.index.labels.of(line, "dataset") for line in snapshot.index.lines}
    assert labels == {"digits", "digits, fog 1", "digits, fog 2", "digits, snow 1", "digits, snow 2"}


def test_attacks_on_corrupted_images_have_panels_of_their_own(tmp_path):
    fill(tmp_path / "s", SHARES)
    fill(tmp_path / "s", SHARES, draw=1, dataset_params=corrupted("fog", 1))
    rows = block(page(tmp_path / "s", "?p=curves"), Figure).table.rows
    assert {row["dataset"] for row in rows} == {"digits", "digits, fog 1"}
    snapshot = LiveStore(str(tmp_path / "s")).snapshot
    assert len(list(snapshot.computed().models.known())) == 4


def test_a_store_without_corrupted_images_says_what_to_run(tmp_path):
    fill(tmp_path / "s", SHARES)
    words = block(page(tmp_path / "s", "?p=tables&t=corruptions"), Words)
    assert "corruption: all" in words.sentences[0]


def test_a_store_of_corrupted_images_alone_shows_them_and_its_trainings_and_says_why_there_is_no_verdict(
    tmp_path, capsys
):
    folder = tmp_path / "s"
    for kind, severity in (("fog", 1), ("fog", 2)):
        sets = {"attack": "none", "dataset_params": corrupted(kind, severity), "finetune_job": "train"}
        fill(folder, {("usf", "none"): {0.0: 0.5}}, seeds=(0,), **sets)
    write_training(Store(str(folder)), "train", (3.0, 2.0))
    assert block(page(folder, "?p=tables"), Matrix).title == "Under natural corruptions"
    rows = block(page(folder, "?p=training"), Figure).table.rows
    assert {(row["place"], row["loss"], row["clean"]) for row in rows} == {
        ("smallcnn / digits", 3.0, None),
        ("smallcnn / digits", 2.0, None),
    }
    for name in ("curves", "gap", "flags"):
        words, links = page(folder, f"?p={name}").blocks
        assert words.title == "No attack yet"
        assert [link.text for link in links.links] == [
            "scores under natural corruptions",
            "trainings over their epochs",
        ]
    assert page(folder, links.links[0].search).title == "Tables"
    assert main(["audit", str(folder), "--no-probes"]) == 2
    assert "scores under natural corruptions, or what attacks measure, alone" in capsys.readouterr().err


def test_a_training_that_was_tested_on_clean_and_on_corrupted_images_is_one(tmp_path):
    folder = tmp_path / "s"
    shares = {("usf", "none"): {0.0: 0.5}}
    fill(folder, shares, seeds=(0,), attack="none", dataset_params=corrupted("fog", 1), finetune_job="train")
    fill(folder, shares, seeds=(0,), draw=1, attack="none", finetune_job="train")
    write_training(Store(str(folder)), "train", (3.0, 2.0))
    rows = block(page(folder, "?p=training"), Figure).table.rows
    clean = LiveStore(str(folder)).snapshot.index
    (line,) = [line for line in clean.lines if "fog" not in line.dataset_params]
    assert [row["clean"] for row in rows] == [None, clean.numbers("value", [line.start])[0]]


def test_kinds_stand_in_the_order_of_the_benchmark(tmp_path):
    shares = {("usf", "none"): {0.0: 0.5}}
    for kind in ("brightness", "zoom_blur", "saturate", "gaussian_noise", "mine"):
        fill(tmp_path / "s", shares, seeds=(0,), attack="none", dataset_params=corrupted(kind, 1))
    found = page(tmp_path / "s", "?p=tables&t=corruptions")
    kinds = next(each for each in found.blocks if isinstance(each, Matrix) and each.name == "kinds")
    ordered = ["gaussian noise", "zoom blur", "brightness", "saturate", "mine"]
    assert [names[2] for names, _ in kinds.rows] == ordered
    titles = [each["text"] for each in block(found, Figure).figure["layout"]["annotations"]]
    assert [kind for title in titles for kind in ordered if kind in title] == ordered
    # As the data sets have them, whose module imports torch.
    assert constant("datasets/corruptions.py", "STANDARD") == STANDARD
    with pytest.raises(KeyError):
        constant("datasets/corruptions.py", "NONE")


def test_the_export_has_every_number_of_the_table(folder, tmp_path):
    assert main(["export", str(folder), "--what", "corruptions", "--out", str(tmp_path / "c.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    usf = models_of(folder)["usf"]
    mean = next(row for row in rows if (row["rule"], row["corruption"], row["severity"]) == ("usf", "mean", ""))
    assert float(mean["value"]) == usf.mean.value
    assert float(mean["ce"]) == usf.beside_bp.mce.value
    assert float(mean["gap_to_bp"]) == usf.beside_bp.gap.value
    assert {row["dataset_params"] for row in rows} == {"{}"}
    sets = [row for row in rows if row["rule"] == "bp" and row["corruption"] == "fog" and row["severity"]]
    assert [row["severity"] for row in sets] == ["1", "2"]
