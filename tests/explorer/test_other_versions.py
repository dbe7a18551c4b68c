"""Results of two versions of signsym beside each other, whose numbers moved: which count, and what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from stores import block, fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Figure, Words
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import opened

OLD = {("bp", "exact"): {0.1: 0.4}, ("usf", "exact"): {0.1: 0.6}}


def grown(folder, newer=("bp", "usf"), seeds=(0, 1), images=40, **more):
    """BP and uSF on 60 images, then those of `newer` by a newer version on fewer."""
    fill(folder, OLD, seeds=(0, 1), images=60)
    return fill(folder, {(rule, "exact"): {0.1: 0.2} for rule in newer}, seeds, images, 1, revision=1, **more)


def rows(folder):
    found = [each for each in page(folder).blocks if isinstance(each, Figure)]
    return {row["rule"]: row for row in found[0].table.rows} if found else {}


def said(folder, search=""):
    return " ".join(text for each in page(folder, search).blocks if isinstance(each, Words) for text in each.sentences)


def by_hand(folder, rule, revision):
    results, outcomes = (pd.read_parquet(folder / name) for name in ("results", "outcomes"))
    of_version = results[(results.rule == rule) & (results.revision.fillna(0) == revision)]
    return outcomes[outcomes.cell.isin(of_version.cell)]["robust"].mean()


@pytest.mark.parametrize("more", [{}, {"finetune_job": "g"}], ids=["attack", "fine-tune"])
def test_the_newer_result_stands_for_the_older_one_whatever_its_images(tmp_path, more):
    folder = grown(tmp_path / "store", **more)
    found = rows(folder)
    for name, rule in (("BP", "bp"), ("uSF", "usf")):
        assert found[name]["value"] == pytest.approx(by_hand(folder, rule, 1))
        assert (found[name]["images"], found[name]["seeds"]) == (40, 2)
    assert "older version" not in said(folder)
    assert "is of an older version of signsym" in said(folder, "?p=cell&c=job-bp-exact-0-0-0.1")
    assert main(["export", str(folder), "--what", "results", "--out", str(tmp_path / "r.csv")]) == 0
    assert set(pd.read_csv(tmp_path / "r.csv").revision) == {1}


@pytest.mark.parametrize("seeds", [(0, 1), (0,)], ids=["a rule", "a seed"])
def test_versions_are_neither_compared_nor_averaged(tmp_path, seeds, capsys):
    folder = grown(tmp_path / "store", ("usf",), seeds)
    found = rows(folder)
    # BP is of the older version; of uSF one seed may be.
    assert set(found) == ({"uSF"} if len(seeds) == 2 else set())
    assert all("gap" not in row for row in found.values())
    lines = "1 line with results" if len(seeds) == 2 else "2 lines with results"
    for search in ("", "?p=gap", "?p=flags"):
        assert f"{lines} of an older version of signsym neither drawn, compared nor judged" in said(folder, search)
    assert "run the sweep again, which computes it anew" in said(folder)
    main(["export", str(folder), "--what", "curves", "--out", str(tmp_path / "c.csv")])
    main(["export", str(folder), "--what", "results", "--out", str(tmp_path / "r.csv")])
    main(["audit", str(folder), "--no-probes"])
    told = capsys.readouterr()
    assert "".join((told.out + told.err).split()).count("neitherdrawn,comparednorjudged") == 3


def test_of_two_stores_the_newer_results_count_and_it_is_said(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    fill(old, OLD, seeds=(0, 1), images=60)
    fill(new, {key: {0.1: 0.2} for key in OLD}, (0, 1), 40, 1, revision=1)
    data = opened([str(old), str(new)])
    found = rows(data)
    assert found["uSF"]["value"] == pytest.approx(by_hand(new, "usf", 1))
    assert {row["store"] for row in found.values()} == {"new"}
    assert "4 results of old do not count: of an older version of signsym" in said(data)
    # Apart, each store is shown with what it has.
    assert "older version" not in said(data, "?rows=store")


def test_a_gap_to_a_line_with_two_results_is_not_made(tmp_path):
    folder = fill(tmp_path / "store", OLD, seeds=(0, 1))
    fill(folder, {("bp", "exact"): {0.1: 0.9}}, (0, 1), 60, 1)
    found = rows(folder)
    assert set(found) == {"uSF"}
    assert "gap" not in found["uSF"]
    assert "two results for rule bp" in said(folder)


def test_of_two_surrogates_of_an_other_seed_the_later_one_counts(tmp_path):
    # Seeds [1, 2], then [0, 1, 2]: the surrogate of seed 1 was of seed 2, and is of seed 0 now.
    source, folder = "transfer from bp (other seed)", tmp_path / "store"
    for place, surrogate in enumerate(("of seed 2", "of seed 0")):
        fill(folder, {("usf", source): {0.1: 0.3 + 0.4 * place}}, (1,), 60, place, surrogate_job=surrogate)
    (found,) = [each for each in page(folder).blocks if isinstance(each, Figure)][:1]
    results = pd.read_parquet(folder / "results")
    (row,) = found.table.rows
    assert row["value"] == results.set_index("surrogate_job")["value"]["of seed 0"]
    assert len(set(results["value"])) == 2
    (older,) = results[results.surrogate_job == "of seed 2"].cell
    assert "was made on another surrogate of an other seed" in said(folder, f"?p=cell&c={older}")
    assert LiveStore(str(folder)).snapshot.index.results == 2
    assert np.isfinite(row["lo"])
    assert block(page(folder), Figure).title == "Robust accuracy over ε"
