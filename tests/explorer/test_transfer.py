"""Whose examples fool whom: matrices of surrogates and attacked rules, on the page Gap and in the export."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from stores import block, fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Words
from orchestrator.results import members
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store
from signsym_core.statistics.intervals import interval

#: The share of each rule's images that the examples of each source leave at 0.1; what is not named was not run.
LEFT = {
    ("bp", "transfer"): 0.1,
    ("usf", "transfer"): 0.6,
    ("frsf", "transfer"): 0.5,
    ("usf", "transfer from bp (other seed)"): 0.9,
    ("bp", "transfer from usf"): 0.7,
    ("usf", "transfer from usf"): 0.2,
    ("bp", "transfer from usf (other seed)"): 0.8,
    ("usf", "transfer from usf (other seed)"): 0.4,
    ("usf", "exact"): 0.2,
    ("bp", "exact"): 0.1,
}


def filled(folder, left):
    """A store with these attacks, and clean scores."""
    for draw, ((rule, gradient), share) in enumerate(left.items(), start=1):
        fill(folder, {(rule, gradient): {0.1: share, 0.2: share / 2}}, seeds=(0, 1), draw=draw)
    fill(folder, {(rule, "none"): {0.0: 0.95} for rule in ("bp", "usf")}, seeds=(0, 1), attack="none")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("transfer") / "store", LEFT)


def matrix_of(folder, search="?p=gap&e=0.1"):
    """The figure of the matrix."""
    (found,) = (each for each in page(folder, search).blocks if isinstance(each, Figure) and "fool" in each.title)
    return found


def counted(folder, rule, gradient, epsilon=0.1):
    """X [seeds, images], read row by row."""
    store = Store(str(folder))
    robust = {(o.cell, o.image): o.robust for o in store.outcomes().itertuples()}
    results = [
        r
        for r in store.results().sort_values("seed").itertuples()
        if (r.rule, r.gradient, r.epsilon) == (rule, gradient, epsilon)
    ]
    return np.array([[robust[r.cell, image] for image in range(60)] for r in results], dtype=np.uint8)


def test_every_entry_is_what_the_surrogates_examples_leave(folder):
    rows = matrix_of(folder).table.rows
    names = {"transfer": "BP, same seed", "transfer from usf": "uSF, same seed"}
    names |= {f"transfer from {rule} (other seed)": f"{style.label(rule)}, other seed" for rule in ("bp", "usf")}
    names["exact"] = ""
    expected = {("no attack", style.label(rule)): counted(folder, rule, "none", 0.0) for rule in ("bp", "usf")}
    expected |= {(names[g], style.label(rule)): counted(folder, rule, g) for rule, g in LEFT if names[g]}
    assert [(row["made_on"], row["attacked"]) for row in rows] == [
        ("no attack", "BP"),
        ("no attack", "uSF"),
        *(("BP, same seed", rule) for rule in ("BP", "uSF", "frSF")),
        *(("uSF, same seed", rule) for rule in ("BP", "uSF")),
        ("BP, other seed", "uSF"),
        *(("uSF, other seed", rule) for rule in ("BP", "uSF")),
    ]
    for row in rows:
        x = expected[row["made_on"], row["attacked"]]
        assert x.shape == (2, 60)
        score = interval(x)
        assert row["value"] == pytest.approx(x.mean())
        assert (row["lo"], row["hi"], row["images"], row["seeds"]) == (score.lo, score.hi, 60, 2)
    # The surrogate of these is the attacked model itself.
    assert [(row["made_on"], row["attacked"]) for row in rows if row["white_box"] == "yes"] == [
        ("BP, same seed", "BP"),
        ("uSF, same seed", "uSF"),
    ]


def test_the_figure_shows_the_numbers_of_its_table(folder):
    found = matrix_of(folder)
    (heat,) = found.figure["data"]
    assert heat["y"] == ["no attack", "BP, same seed", "uSF, same seed", "BP, other seed", "uSF, other seed"]
    assert heat["x"] == ["BP", "uSF", "frSF"]
    shown = {
        (made_on, attacked): (z, text)
        for made_on, zs, texts in zip(heat["y"], heat["z"], heat["text"], strict=True)
        for attacked, z, text in zip(heat["x"], zs, texts, strict=True)
    }
    assert shown["uSF, same seed", "frSF"] == (None, "")
    for row in found.table.rows:
        z, text = shown[row["made_on"], row["attacked"]]
        assert z == pytest.approx(100 * row["value"], abs=0.01)
        assert f"{100 * row['value']:.1f}" in text
        assert f"[{100 * row['lo']:.1f}, {100 * row['hi']:.1f}]" in text
        assert ("◆" in text) == (row["white_box"] == "yes")
    assert "at ε = 0.1" in found.title
    assert matrix_of(folder, "?p=gap&e=0.2").table.rows[2]["value"] == counted(folder, "bp", "transfer", 0.2).mean()


def test_the_export_has_the_numbers_of_the_page_at_every_epsilon(folder, tmp_path):
    assert main(["export", str(folder), "--what", "transfer", "--out", str(tmp_path / "t.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert len(rows) == 2 * sum("transfer" in gradient for _, gradient in LEFT)
    for row in rows:
        x = counted(folder, row["rule"], row["gradient"], float(row["epsilon"]))
        assert float(row["value"]) == pytest.approx(x.mean())
        score, clean = interval(x), counted(folder, row["rule"], "none", 0.0)
        assert (float(row["lo"]), float(row["hi"]), row["images"], row["seeds"]) == (score.lo, score.hi, "60", "2")
        assert row["clean"] == (str(interval(clean).value) if len(clean) else "")
        # What older sweeps wrote names no surrogate.
        expected = ("usf" if "usf" in row["gradient"] else "bp", "other" if "other" in row["gradient"] else "same")
        assert (row["surrogate_rule"], row["surrogate_seed"], row["surrogate_rule_params"]) == (*expected, "{}")
        assert row["white_box"] == str(expected == (row["rule"], "same")).lower()


def test_an_export_of_several_stores_names_them(folder, tmp_path):
    other = filled(tmp_path / "other", {("usf", "transfer from usf (other seed)"): 0.4})
    words = ["export", str(folder), str(other), "--what", "transfer", "--out", str(tmp_path / "t.csv")]
    assert main(words) == 0
    assert {row["store"] for row in csv.DictReader((tmp_path / "t.csv").open())} <= {"store", "store, other", "other"}


def test_the_bp_twin_alone_makes_no_matrix(tmp_path):
    filled(tmp_path / "store", {key: share for key, share in LEFT.items() if "from" not in key[1]})
    found = page(tmp_path / "store", "?p=gap").blocks
    assert not [each for each in found if isinstance(each, Figure) and "fool" in each.title]
    assert not [each for each in found if isinstance(each, Words) and "fool" in each.title]


def test_a_model_attacked_by_itself_has_no_gap_to_bp_that_was_not(folder):
    snapshot = LiveStore(str(folder)).snapshot
    query = snapshot.query()
    over_bp = {
        (line.rule, line.gradient): query.bp(line) is not None for line in snapshot.index.ordered if line.rule != "bp"
    }
    assert not over_bp["usf", "transfer"]
    assert not over_bp["usf", "transfer from usf"]
    assert over_bp["usf", "transfer from usf (other seed)"]
    assert over_bp["usf", "exact"]
    gaps = block(page(folder, "?p=gap&e=0.1"), Figure).table.rows
    assert {row["gradient"] for row in gaps} == {"exact", "transfer from usf (other seed)"}


def test_sources_with_a_surrogate_stand_with_the_others_and_have_words():
    names = ["none", "hybrid", "transfer from usf (other seed)", "transfer", "eot", "transfer from usf", "exact"]
    ordered = sorted(names, key=lambda name: members.rank("gradient", name))
    transfers = ["transfer", "transfer from usf", "transfer from usf (other seed)"]
    assert ordered == ["exact", *transfers, "eot", "hybrid", "none"]
    # What the registries say of them needs no torch.
    assert all(members.knows("gradient", name) for name in names)
    assert style.gradient("transfer from usf (other seed)") == "the exact gradient of uSF of another seed"
    assert style.gradient('transfer from frsf {"scale":"xavier"}') == "the exact gradient of frSF(scale=xavier)"
