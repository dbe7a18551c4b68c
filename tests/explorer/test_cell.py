"""A cell's page: what it is, what is its own and what all seeds share, and values as people read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from stores import SHARES, block, fill, page, png, write_training

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Facts, Links, Pictures, Table
from orchestrator.pages.provenance import settings
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, tables
from signsym_core.statistics.intervals import wilson

CELL = "job-usf-exact-1-0-0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("cell") / "store")


def facts(found):
    return {name: value for each in found.blocks if isinstance(each, Facts) for name, value in each.facts}


def links(found, title):
    return next(
        [(link.text, link.search) for link in each.links]
        for each in found.blocks
        if isinstance(each, Links) and title in each.title
    )


def test_the_title_says_what_the_cell_is(folder, tmp_path):
    assert page(folder, f"?p=cell&c={CELL}").title == "uSF, pgd (exact), ε = 0.1, smallcnn / digits"
    clean = fill(tmp_path / "store", {("bp", "none"): {0.0: 0.9}}, attack="none")
    cell = LiveStore(str(clean)).snapshot.index.value("cell", 0)
    assert page(clean, f"?p=cell&c={cell}").title == "BP, clean, smallcnn / digits"


def test_the_score_names_its_seeds_and_the_cells_own_seed_has_its_own(folder):
    found = facts(page(folder, f"?p=cell&c={CELL}"))
    query = LiveStore(str(folder)).snapshot.query()
    (line,) = query.index.chosen(rule=("usf",), gradient=("exact",))
    point = query.curves([line])[0].point(0.1)
    kept = {seed: round(60 * value) for seed, value in point.by_seed.items()}
    assert found["score over all 3 seeds"] == style.percent(point.score)
    assert found["which is"].startswith(f"{sum(kept.values())} of 180 (3 seeds × 60) handled rightly, ")
    lo, hi = wilson(kept[1], 60)
    own = f"{100 * kept[1] / 60:.1f} % [{100 * lo:.1f}, {100 * hi:.1f}], images only"
    assert found["score of seed 1, this cell"] == own
    assert found["seed 1"] == f"{kept[1]} of 60 images handled rightly"
    assert "3 seeds together" in block(page(folder, f"?p=cell&c={CELL}"), Pictures).title


def test_a_score_over_chosen_seeds_or_the_only_one_says_so(folder, tmp_path):
    found = facts(page(folder, f"?p=cell&s=0,2&c={CELL}"))
    assert "score over 2 of 3 seeds (0, 2)" in found
    assert "score of seed 1, this cell" in found
    alone = fill(tmp_path / "store", seeds=(4,))
    found = page(alone, "?p=cell&c=job-usf-exact-4-0-0.1")
    assert "score of seed 4, the only one" in facts(found)
    assert not [each for each in found.blocks if isinstance(each, Links) and "same point" in each.title]


def test_a_cell_leads_to_those_of_the_other_seeds(folder):
    found = links(page(folder, f"?p=cell&c={CELL}"), "same point")
    assert [text for text, _ in found] == ["seed 0", "seed 1 (this one)", "seed 2"]
    for seed, (_, search) in enumerate(found):
        assert facts(page(folder, search))["cell"] == f"job-usf-exact-{seed}-0-0.1"


def test_a_clean_cell_leads_to_a_page_that_has_it(tmp_path):
    folder = fill(tmp_path / "store", {("bp", "none"): {0.0: 0.9}}, attack="none")
    cell = LiveStore(str(folder)).snapshot.index.value("cell", 0)
    for _, search in links(page(folder, f"?p=cell&c={cell}"), "To"):
        assert [
            each for each in page(folder, search).blocks if getattr(each, "title", "").startswith("Nothing fits")
        ] == []
        assert "Nothing" not in page(folder, search).blocks[0].title


def test_the_provenance_has_the_jobs_of_every_seed(tmp_path):
    folder = tmp_path / "store"
    for seed in range(3):
        fill(folder, seeds=(seed,), finetune_job=f"tuned-{seed}")
    row = LiveStore(str(folder)).snapshot.index
    cell = next(str(row.value("cell", at)) for at in range(len(row)) if "usf-exact-1-" in str(row.value("cell", at)))
    table = next(
        each for each in page(folder, f"?p=cell&c={cell}").blocks if isinstance(each, Table) and "seed" in each.title
    )
    assert [row["seed"] for row in table.rows] == [0, 1, 2]
    assert [row["finetune_job"] for row in table.rows] == ["tuned-0", "tuned-1", "tuned-2"]
    assert len({row["job"] for row in table.rows}) == 3
    assert table.rows[1]["cell"] == cell


def test_values_are_written_as_people_read_them(tmp_path):
    versions = json.dumps({"numpy": "2.4.6", "python": "3.11.7", "torch": "2.15.0"})
    folder = fill(
        tmp_path / "store",
        seconds=0.4210653,
        finished_at=datetime(2026, 11, 25, 23, 7, 11, 654321, tzinfo=UTC),
        versions=versions,
        finetune='{"epochs":3,"lr":0.0005}',
        step_size=0.1 / 3,
        finetune_epoch=2,
        precision="float32",
        deterministic=True,
        finetune_precision="tf32",
        finetune_deterministic=False,
    )
    cell = LiveStore(str(folder)).snapshot.index.value("cell", 0)
    found = facts(page(folder, f"?p=cell&c={cell}"))
    assert found["the attack job took"] == "0.42 s"
    assert found["finished"] == "2026-11-25 23:07:11 UTC"
    assert found["versions"] == "python 3.11.7, torch 2.15.0, numpy 2.4.6"
    assert found["fine-tune settings"] == "epochs=3, lr=0.0005"
    assert found["epoch of the fine-tune"] == "2"
    assert (found["arithmetic"], found["deterministic"]) == ("float32", "yes")
    assert (found["fine-tuned in"], found["fine-tune: deterministic"]) == ("tf32", "no")
    seeds = next(each for each in page(folder, f"?p=cell&c={cell}").blocks if getattr(each, "name", "") == "cell-seeds")
    assert {(row["precision"], row["finetune_precision"]) for row in seeds.rows} == {("float32", "tf32")}
    assert found["weights"] == "none"
    assert found["step size"] == "0.0333333"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"classes":[5,6],"split":"a"}', "classes=[5, 6], split=a"),
        ("{}", "defaults"),
        ("null", "none"),
        ("<b>no JSON", "<b>no JSON"),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_settings_of_any_text_are_readable(text, words):
    assert settings(text) == words


@pytest.mark.parametrize("only", ["gained", "lost"])
def test_a_filter_against_bp_hides_nothing_where_there_is_no_bp_and_is_named(folder, tmp_path, only):
    found = block(page(folder, f"?p=cell&only={only}&c=job-bp-exact-1-0-0.1"), Pictures)
    assert len(found.triples) == 12
    assert "This is BP itself" in found.note
    assert "broken under" in found.note
    alone = fill(tmp_path / "store", {key: value for key, value in SHARES.items() if key[0] != "bp"})
    found = block(page(alone, f"?p=cell&only={only}&c={CELL}"), Pictures)
    assert len(found.triples) == 12
    assert "No BP can be set beside this point" in found.note
    kept = block(page(folder, f"?p=cell&only={only}&c={CELL}"), Pictures)
    assert len(kept.triples) < 12
    assert "left out" not in kept.note


def test_images_are_chosen_by_class_and_those_that_fool_one_model_alone_stand_beside_the_other(tmp_path):
    folder = fill(tmp_path / "store", {(rule, "exact"): {0.1: 0.5} for rule in ("bp", "usf")}, seeds=(0,))
    store = Store(str(folder))
    for rule in ("bp", "usf"):
        cell = f"job-{rule}-exact-0-0-0.1"
        rows = [
            {"cell": cell, "image": at, "label": label, "predicted": "5", "clean": png(at), "adversarial": png(at + 1)}
            for at, label in enumerate(["10", "3", "cat, 3", "9", ""] * 12)
        ]
        store.write_table("examples", f"job-{rule}-exact-0-0", rows, tables.EXAMPLES)
    outcomes = {rule: store.table("outcomes", tables.OUTCOMES).to_pandas() for rule in ("bp", "usf")}
    robust = {
        rule: set(table[table.cell.str.startswith(f"job-{rule}") & table.robust].image)
        for rule, table in outcomes.items()
    }
    found = page(folder, "?p=cell&c=job-usf-exact-0-0-0.1&k=3&only=gained")
    pictures, links = block(found, Pictures), [each for each in found.blocks if isinstance(each, Links)][-1]
    expected = {at for at in range(60) if at % 5 in (1, 2)} & (robust["usf"] - robust["bp"])
    assert {triple.image for triple in pictures.triples} == expected != set()
    assert pictures.title == "Adversarial images of class 3"
    for triple in pictures.triples:
        assert triple.beside is not None
        assert (triple.beside.cell, triple.beside.image) == ("job-bp-exact-0-0-0.1", triple.image)
        assert triple.beside.caption.startswith("BP: ")
    assert [link.text for link in links.links] == ["all", "3 (these)", "9", "10", "cat"]
    assert "k=cat" in links.links[-1].search
    every = block(page(folder, "?p=cell&c=job-usf-exact-0-0-0.1"), Pictures)
    assert len(every.triples) == 24
    assert {triple.beside for triple in every.triples} == {None}
    assert "None of the 60 images" in block(page(folder, "?p=cell&c=job-usf-exact-0-0-0.1&k=7"), Pictures).note


def test_a_file_of_an_older_version_has_its_provenance_too(tmp_path):
    folder = fill(tmp_path / "store", {("usf", "exact"): {0.1: 0.5}}, seeds=(1,))
    path = folder / "results/job-usf-exact-1-0.parquet"
    older = pq.read_table(path)
    pq.write_table(older.drop_columns([name for name in older.schema.names if name in tables.ADDED]), path)
    data = LiveStore(str(folder))
    assert not data.skipped
    found = page(data, f"?p=cell&c={CELL}")
    assert facts(found)["attack job"] == "job-usf-exact-1-0"
    (row,) = next(each for each in found.blocks if isinstance(each, Table) and each.name == "cell-seeds").rows
    assert row["git"] == "abc"


def test_a_class_with_a_comma_in_its_name_is_one(tmp_path):
    folder = fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.5}}, seeds=(0,))
    store = Store(str(folder))
    write_training(store, "f", [1.0, 0.5], classes=["tench, Tinca tinca", "cat", "tench"])
    (name,) = store.names("examples", ".parquet")
    examples = store.table("examples", tables.EXAMPLES).to_pylist()
    labels = ["tench, Tinca tinca", "cat", "tench, Tinca tinca, cat", ""]
    labelled = [example | {"label": label} for example, label in zip(examples, labels, strict=True)]
    store.write_table("examples", name.removesuffix(".parquet"), labelled, tables.EXAMPLES)
    search = f"?p=cell&c={examples[0]['cell']}"
    (links,) = [each for each in page(folder, search).blocks if isinstance(each, Links) and "class" in each.title]
    assert [link.text for link in links.links] == ["all (these)", "cat", "tench, Tinca tinca"]
    found = block(page(folder, links.links[2].search), Pictures)
    assert {triple.image for triple in found.triples} == {0, 2}
    assert not block(page(folder, f"{search}&k=tench"), Pictures).triples
