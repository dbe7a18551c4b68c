"""Outcomes however they are stored: whole, merged, in pieces, of different images, or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import block, fill, keep_grid, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Figure
from orchestrator.explorer import precompute
from orchestrator.results import kept_outcomes, members, outcome_file
from orchestrator.results.declared import declared
from orchestrator.results.export import export
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import opened
from orchestrator.results.outcomes import Outcomes
from orchestrator.store import Store, tables
from orchestrator.store.filerows import FileRows
from orchestrator.store.folder import FOOTER, Folder
from signsym_core.attacks import ATTACKS, GRADIENTS
from signsym_core.backbones import BACKBONES
from signsym_core.datasets.corruptions import EXTRA, STANDARD
from signsym_core.rules import RULES
from signsym_core.statistics.intervals import gap, interval
from signsym_core.tasks import TASKS


def rows(folder, search=""):
    return block(page(folder, search), Figure).table.rows


def merged(folder, name, into):
    """Put all files of a folder of the store together under one name."""
    files = sorted((folder / name).glob("*.parquet"))
    whole = pa.concat_tables([pq.read_table(file) for file in files])
    for file in files:
        file.unlink()
    pq.write_table(whole, folder / name / f"{into}.parquet", row_group_size=101)


@pytest.mark.parametrize("names", [("all", "all"), ("some", "other")], ids=["one name", "names of their own"])
def test_merged_files_say_the_same(tmp_path, names):
    folder = fill(tmp_path / "store")
    before = rows(folder)
    for kind, into in zip(("results", "outcomes"), names, strict=True):
        merged(folder, kind, into)
    assert rows(folder) == before


def test_outcomes_that_were_merged_beside_others_say_the_same(tmp_path):
    folder = fill(tmp_path / "store")
    before = rows(folder)
    merged(folder, "outcomes", "merged")
    fill(folder, {("fa", "feedback"): {0.0: 1.0, 0.1: 0.3}}, draw=5)
    assert [row for row in rows(folder) if row["rule"] != "FA"] == before


def test_rows_in_any_order_and_twice_say_the_same(tmp_path):
    folder = fill(tmp_path / "store")
    before = rows(folder)
    for at, file in enumerate(sorted((folder / "outcomes").glob("*.parquet"))):
        table = pq.read_table(file)
        order = np.random.default_rng(at).permutation(len(table))
        shuffled = table.take(pa.array(order))
        pq.write_table(pa.concat_tables([shuffled, shuffled.slice(0, 40)]), file)
    assert rows(folder) == before


def test_seeds_with_other_images_are_paired_over_those_that_all_have(tmp_path):
    folder = fill(tmp_path / "store")
    file = folder / "outcomes" / "job-usf-exact-1-0.parquet"
    table = pq.read_table(file)
    kept = table.filter(pa.compute.greater_equal(table["image"], 20))
    pq.write_table(kept, file)
    results = pq.read_table(folder / "results" / file.name)
    means = kept.to_pandas().groupby("cell")["robust"].mean()
    for name, values in (("n", [40] * len(results)), ("value", [means[cell] for cell in results["cell"].to_pylist()])):
        at = results.schema.get_field_index(name)
        results = results.set_column(at, results.schema.field(at), pa.array(values, results.schema.field(at).type))
    pq.write_table(results, folder / "results" / file.name)
    stored = Store(str(folder)).outcomes()

    def x(rule, gradient):
        cells = [f"job-{rule}-{gradient}-{seed}-0-0.1" for seed in range(3)]
        kept = stored[stored["image"] >= 20]
        return np.array([kept.loc[kept["cell"] == cell, "robust"].to_numpy(float) for cell in cells])

    (row,) = (r for r in rows(folder) if (r["rule"], r["gradient"], r["epsilon"]) == ("uSF", "exact", "0.1"))
    ours = interval(x("usf", "exact"))
    assert (row["value"], row["lo"], row["hi"], row["images"]) == (ours.value, ours.lo, ours.hi, 40)
    assert row["gap_lo"] == gap(x("usf", "exact"), x("bp", "exact")).lo


def test_what_does_not_fit_into_memory_is_read_again(tmp_path, monkeypatch):
    folder = fill(tmp_path / "store")
    before = rows(folder)
    monkeypatch.setattr(kept_outcomes, "KEPT", 1)
    data = LiveStore(str(folder))
    assert rows(data) == before
    assert rows(data, "?s=0,1") == rows(folder, "?s=0,1")
    assert data.outcomes.full
    assert len(data.outcomes._complete._tables) == 1


def test_results_without_outcomes_are_wilsons_for_one_seed_and_named_for_several(tmp_path):
    folder = fill(tmp_path / "store", seeds=(0,))
    before = {(r["rule"], r["gradient"], r["epsilon"]): (r["value"], r["lo"], r["hi"]) for r in rows(folder)}
    shutil.rmtree(folder / "outcomes")
    found = rows(folder)
    assert {(r["rule"], r["gradient"], r["epsilon"]): (r["value"], r["lo"], r["hi"]) for r in found} == before
    assert {r.get("gap") for r in found} == {None}
    fill(folder, seeds=(1,), draw=1)
    shutil.rmtree(folder / "outcomes")
    said = " ".join(page(folder).blocks[0].sentences)
    assert "8 points have results of several seeds but no outcomes" in said


def test_a_cell_that_two_sweeps_computed_counts_once_and_the_first_one_does(tmp_path):
    folder = fill(tmp_path / "store")
    before = rows(folder)
    file = folder / "results" / "job-usf-exact-1-0.parquet"
    later = pq.read_table(file)
    at = later.schema.get_field_index("value")
    later = later.set_column(at, later.schema.field(at), pa.array([0.0] * len(later)))
    at = later.schema.get_field_index("finished_at")
    finished = pa.array(
        [value.as_py().replace(year=2100) for value in later["finished_at"]], later.schema.field(at).type
    )
    pq.write_table(later.set_column(at, later.schema.field(at), finished), folder / "results" / "again.parquet")
    data = LiveStore(str(folder))
    assert rows(data) == before
    assert len(data.snapshot.index) == 24


def test_exported_outcomes_are_once_those_of_the_result_that_counts(tmp_path):
    folder = fill(tmp_path / "store", seeds=(0,), images=20)

    def exported():
        export([Store(str(folder))], "outcomes", tmp_path / "outcomes.parquet")
        return sorted(map(repr, pq.read_table(tmp_path / "outcomes.parquet").to_pylist()))

    before = exported()
    # A second sweep, whose file comes first, has other outcomes of a cell, and a killed merge the same of another one.
    job = folder / "outcomes" / "job-usf-exact-0-0.parquet"
    stored = pq.read_table(job).to_pylist()
    other = [row | {"robust": False} for row in stored if row["cell"].endswith("-0.1")]
    Store(str(folder)).write_table("outcomes", "again", other, tables.OUTCOMES)
    result = pq.read_table(folder / "results" / job.name).to_pylist()[1]
    later = {"value": 0.0, "job": "again", "finished_at": result["finished_at"].replace(year=2100)}
    Store(str(folder)).write_table("results", "again", [result | later], tables.RESULTS)
    same = [row for row in stored if row["cell"].endswith("-0.0")]
    Store(str(folder)).write_table("outcomes", f"merged-{'0' * 32}", [*same, *same[:5]], tables.OUTCOMES)
    assert exported() == before


def test_two_values_of_a_cell_in_one_store_are_told_and_which_of_them_counts(tmp_path, capsys):
    folder = fill(tmp_path / "store", seeds=(0,), images=20)
    results = pq.read_table(folder / "results" / "job-usf-exact-0-0.parquet").to_pylist()
    outcomes = pq.read_table(folder / "outcomes" / "job-usf-exact-0-0.parquet").to_pylist()

    def again(job, broken):
        lost = [row | {"robust": row["robust"] and row["image"] not in broken} for row in outcomes]
        Store(str(folder)).write_table("outcomes", job, lost, tables.OUTCOMES)
        later = {"job": job, "finished_at": results[0]["finished_at"].replace(year=2100)}
        value_of = {cell["cell"]: np.mean([r["robust"] for r in lost if r["cell"] == cell["cell"]]) for cell in results}
        rows = [row | later | {"value": value_of[row["cell"]]} for row in results]
        Store(str(folder)).write_table("results", job, rows, tables.RESULTS)
        return [row["value"] for row in rows]

    def told():
        warnings = page(folder).blocks[0]
        return [words for words in getattr(warnings, "sentences", ()) if "different values" in words]

    again("same", ())
    assert not told()
    assert main(["status", str(folder), "--verify"]) == 0
    assert "different values" not in capsys.readouterr().out
    robust = [row["image"] for row in outcomes if row["cell"] == results[1]["cell"] and row["robust"]]
    value = again("other", robust[:1])[1]
    assert value == results[1]["value"] - 1 / 20
    (sentence,) = told()
    assert sentence.startswith("results/job-usf-exact-0-0.parquet and results/other.parquet have different values of ")
    assert sentence.endswith("that of the former, which was finished first, counts.")
    assert main(["export", str(folder), "--what", "results", "--out", str(tmp_path / "results.csv")]) == 0
    output = capsys.readouterr().out
    assert f"such as {results[1]['cell'][:16]}, were computed twice with different values" in output
    assert main(["status", str(folder), "--verify"]) == 0
    assert sentence in capsys.readouterr().out
    fill(tmp_path / "more", seeds=(1,), images=20)
    both = opened([str(folder), str(tmp_path / "more")])
    assert any(f"{folder}/results/other.parquet have different values" in words for words in both.snapshot.problems)


def test_what_is_known_of_names_without_torch_is_what_the_registries_say():
    # In a fresh process: what one test has read of the registries, this one has too.
    code = (
        "import json, sys; from orchestrator.results import members\n"
        "known = members._labels, members.DEFAULT_K, sorted(members.SPIKING), *map(sorted, (members._measuring,"
        " members._certifying))\n"
        "print(json.dumps([*known, 'torch' in sys.modules]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    labels, default_k, spiking, measuring, certifying, torch_imported = json.loads(printed)
    assert {family: list(known) for family, known in labels.items()} == {
        "rule": RULES.names,
        "attack": ATTACKS.names,
        "gradient": list(GRADIENTS),
        "corruption": [*STANDARD, *EXTRA],
    }
    assert labels["rule"] == {rule.name: rule.label for rule in RULES}
    assert default_k == {t.name: t().k for t in TASKS if "k" in t.__dataclass_fields__}
    assert spiking == [backbone.name for backbone in BACKBONES if backbone.spiking]
    assert measuring == [attack.name for attack in ATTACKS if attack.measuring] == ["geometry", "smoothing"]
    assert certifying == [attack.name for attack in ATTACKS if attack.certifying] == ["smoothing"]
    assert not torch_imported


def test_an_attack_of_ones_own_that_only_measures_is_known_once_the_registries_are_read(monkeypatch):
    mine = type("Mine", (ATTACKS["geometry"],), {"name": "mine"})
    monkeypatch.setattr(members, "_measuring", {"geometry"})
    with monkeypatch.context() as patch:
        patch.setitem(ATTACKS._members, "mine", mine)
        assert not members.measuring("mine")
        assert members.learn()
    assert members.measuring("mine")
    # What one test has read of the registries, others would have too.
    assert members.learn()


def test_what_is_computed_ahead_is_what_pages_show(tmp_path):
    folder = fill(tmp_path / "store")
    keep_grid(folder)
    data = LiveStore(str(folder), at_once=True)
    query = data.snapshot.query()
    assert not query._curves
    assert not data.status.planned
    for step in precompute.steps(data, data.snapshot):
        step()
    assert len(query._curves) == len(query.index.lines)
    assert rows(data) == rows(folder)
    assert data.status.planned


def test_nothing_is_computed_ahead_while_somebody_asks_and_a_new_moment_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(precompute, "CALM", 0.2)
    folder = fill(tmp_path / "store", seeds=(0,))
    data = LiveStore(str(folder), at_once=True)
    # An answer that takes longer than the pause after one.
    data.answering.add(0)
    threading.Thread(target=precompute.follow, args=[data], daemon=True).start()
    time.sleep(0.5)
    assert not data.snapshot.query()._curves
    data.answering.discard(0)
    for _ in range(200):
        if len(data.snapshot.query()._curves) == 4:
            break
        time.sleep(0.05)
    fill(folder, seeds=(1,), draw=1)
    data.refresh()
    for _ in range(200):
        if len(data.snapshot.query()._curves) == 4:
            break
        time.sleep(0.05)
    assert {row["seeds"] for row in rows(data)} == {2}
    assert len(data.snapshot.query()._curves) == 4


@pytest.mark.slow
def test_fifty_thousand_points_are_looked_through_in_a_moment(tmp_path):
    store = Store(str(tmp_path / "store"))
    epsilons, names = [at / 100 for at in range(10)], [f"net{at}" for at in range(250)]
    rules, attacks = ("bp", "fa", "usf", "frsf", "brsf"), ("fgsm", "bim", "mim", "pgd")
    found = []
    for net in names:
        for rule in rules:
            for attack in attacks:
                for epsilon in epsilons:
                    row = dict.fromkeys(tables.RESULTS.names) | {"cell": f"{net}-{rule}-{attack}-{epsilon}", "job": "j"}
                    row |= {name: "{}" for name in tables.RESULTS.names if name.endswith("_params")}
                    row |= {"task": "classification", "dataset": "digits", "backbone": net, "metric": "top1", "n": 50}
                    row |= {"rule": rule, "attack": attack, "gradient": "feedback", "seed": 0, "weights": "null"}
                    row |= {"epsilon": epsilon, "epsilon_label": f"{epsilon:g}", "norm": "linf", "finetune": "{}"}
                    found.append(row | {"value": 0.5, "chance": 0.1})
    store.write_table("results", "j", found, tables.RESULTS)
    data = LiveStore(str(tmp_path / "store"), at_once=True)
    query = data.snapshot.query()
    assert sum(len(line.rows) for line in query.index.ordered) == 50_000
    spent = []
    for at in range(5):
        started = time.process_time()
        curves = query.curves(query.index.chosen(backbone=(names[at],), attack=("pgd",)))
        spent.append(time.process_time() - started)
        assert len(curves) == 5
    assert min(spent) < 0.05, spent


def test_a_new_member_is_listed_from_its_source_alone_and_a_computed_name_is_left_out(tmp_path, monkeypatch):
    for package in ("rules", "registry"):
        (tmp_path / package).mkdir()
    (tmp_path / "registry/__init__.py").write_text("from signsym_core.registry.family import Registry as Registry")
    (tmp_path / "rules/__init__.py").write_text(
        "from signsym_core.registry import Registry\nfrom signsym_core.rules.kp import KP\n"
        "RULES: Registry = Registry('rule', [Computed, KP, Here])\n"
        "class Here:\n    name: str = 'here'\n    label = 'Here'\n\nclass Computed:\n    name = 'a' + 'b'\n"
    )
    (tmp_path / "rules/kp.py").write_text(
        "import nowhere\n\nclass KP(nowhere.Rule):\n    name, size = 'kp', 3\n    name = 'kp'\n"
    )
    monkeypatch.setattr("orchestrator.results.declared.ROOT", tmp_path)
    found = declared("rules/__init__.py", "RULES")
    assert [(rule["name"], rule.get("label")) for rule in found] == [("kp", None), ("here", "Here")]


def table_of(*blocks):
    """A file's table as `Folder` reads it: `blocks` are cells with their images and the robust ones among these."""
    cells, images, robust = [], [], []
    for cell, of_cell, survivors in blocks:
        cells += [cell] * len(of_cell)
        images += of_cell
        robust += [image in survivors for image in of_cell]
    size = len(cells)
    return pa.table(
        {
            "cell": pa.array(cells, pa.string()).dictionary_encode(),
            "image": pa.array(images, pa.int64()),
            "robust": pa.array(robust, pa.bool_()),
            "ap": pa.nulls(size, pa.float32()),
            "linf": pa.array([0.125 * (image + 1) for image in images], pa.float32()),
            "zero_grad": pa.array([image == 0 for image in images], pa.bool_()),
        }
    )


A, B, C = ("a", [0, 1, 2], [1]), ("b", [0, 1], [0, 1]), ("c", [3, 5], [])


@pytest.mark.parametrize(
    ("files", "results", "sound"),
    [
        ([[A, B], [C], []], [{"a": (3, 1 / 3), "b": (2, 1.0)}, {"c": (2, 0.0)}, {}], [True, True, True]),
        ([[A, B], [C]], [{"a": (3, 1 / 3)}, {"c": (2, 0.0)}], [False, True]),
        ([[A], [C]], [{"a": (3, 1 / 3), "b": (2, 1.0)}, {"c": (2, 0.0)}], [False, True]),
        ([[A], [B], [C]], [{"a": (3, 0.5)}, {"b": (3, 1.0)}, {"c": (2, 0.0)}], [False, False, True]),
        ([[A], [B], [C]], [{"b": (2, 1.0)}, {"a": (3, 1 / 3)}, {"c": (2, 0.0)}], [False, False, True]),
        ([[A], [A], [C]], [{"a": (3, 1 / 3)}, {"a": (3, 1 / 3)}, {"c": (2, 0.0)}], [False, False, True]),
        ([[A], [("a", [7], [])], [C]], [{"a": (4, 0.25)}, {}, {"c": (2, 0.0)}], [False, False, True]),
        ([[("a", [1, 0, 1], [1]), B], [C]], [{"b": (2, 1.0), "a": (2, 0.5)}, {"c": (2, 0.0)}], [True, True]),
        ([[], [C]], [{"a": (1, 0.0)}, {"c": (2, 0.0)}], [False, True]),
    ],
    ids=[
        *("as they should be", "no result", "no outcomes", "another value or number", "in each other's file"),
        *("in two files", "over two files", "any order and twice", "an empty file"),
    ],
)
@pytest.mark.parametrize("one_dictionary", [False, True], ids=["a dictionary each", "one dictionary"])
def test_which_of_several_files_are_sound_and_their_outcomes(files, results, sound, one_dictionary):
    outcomes = [table_of(*blocks) for blocks in files]
    if one_dictionary:
        sizes = [sum(len(images) for _, images, _ in blocks) for blocks in files]
        read = FileRows.of(dict(zip("xyz", sizes, strict=False)), pa.concat_tables(outcomes).combine_chunks())
    else:
        read = FileRows(dict(zip("xyz", outcomes, strict=False)))
    expected_of = {
        name: (pa.array([*few], pa.string()), *map(np.array, zip(*few.values(), strict=True) if few else ([], [])))
        for name, few in zip(read, results, strict=True)
    }
    reader = Outcomes(Store("nowhere"))
    together = reader._sound_together(read, expected_of)
    assert [name in together for name in read] == sound
    for name, file in together.items():
        alone = outcome_file.outcome_table(read[name], reader.images)
        for cell, place in zip(expected_of[name][0], file.positions.tolist(), strict=True):
            own = alone.cells.to_pylist().index(cell.as_py())
            for column in ("scores", "zero"):
                values, mine = getattr(file.table, column), getattr(alone, column)
                start, stop = file.table.bounds[place : place + 2]
                np.testing.assert_array_equal(values[start:stop], mine[alone.bounds[own] : alone.bounds[own + 1]])
            for column in ("lists", "recorded", "moved"):
                np.testing.assert_equal(getattr(file.table, column)[place], getattr(alone, column)[own])


def test_files_are_read_together_up_to_their_bytes(tmp_path):
    (tmp_path / "outcomes").mkdir()
    for name, size in (("a", 5), ("b", 90), ("c", 20), ("d", 80), ("e", 300), ("f", 1)):
        (tmp_path / "outcomes" / f"{name}.parquet").write_bytes(bytes(size + FOOTER))
    files = Folder(Store(str(tmp_path)), "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    assert list(files.batches(files.names(), most=100)) == [["a", "b"], ["c", "d"], ["e"], ["f"]]
    assert list(files.batches([])) == []


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("attack_params", ('{"steps":5}', '{"steps":20}')),
        ("task_params", ('{"k":10}', '{"k":50}')),
        ("norm", ("linf", "l2")),
    ],
)
def test_exported_outcomes_say_in_what_their_cells_differ(tmp_path, column, values):
    for place, value in enumerate(values):
        more = {"attack_params": f'{{"norm":"{value}"}}'} if column == "norm" else {}
        fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.3 + 0.4 * place}}, (0,), 20, place, **{column: value} | more)
    store = Store(str(tmp_path / "store"))
    scores = store.results().set_index(column)["value"].to_dict()
    export([store], "outcomes", tmp_path / "outcomes.parquet")
    means = pq.read_table(tmp_path / "outcomes.parquet").to_pandas().groupby(column)["robust"].mean()
    assert means.to_dict() == pytest.approx(scores)
    assert len(set(scores.values())) == 2
