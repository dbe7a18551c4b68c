"""The store: whole files or none, foreign files named and skipped, every table as its schema says."""

from __future__ import annotations

import doctest
import pickle
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from storerows import outcomes, put, record, result

from orchestrator.plan.estimate import survey_store
from orchestrator.results.live_store import LiveStore
from orchestrator.results.result_files import COLUMNS, read_results
from orchestrator.store import Store, StoreError, records, rowcopy, tables
from orchestrator.store.folder import Folder
from orchestrator.store.store import sealed_table


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_the_example_of_its_docstring_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(Store, "Store", globs={})
    assert len(example.examples) > 5
    assert doctest.DocTestRunner().run(example).failed == 0


def test_a_file_has_the_columns_that_were_measured_and_a_reader_nulls_for_the_others(store):
    assert tables.outcomes_with({"confidence", *tables.MEASURES}) == tables.OUTCOMES
    rows = [{"cell": "a", "image": image, "robust": True, "linf": 0.25, "confidence": 0.5} for image in range(3)]
    for name, measured in (("clean", ["confidence"]), ("pgd", [])):
        store.write_table("outcomes", name, rows, tables.outcomes_with(measured))
        written = pq.read_schema(f"{store.uri}/outcomes/{name}.parquet")
        assert written.names == [*tables.OUTCOMES.names[:9], *measured]
    read = store.table("outcomes", tables.OUTCOMES).to_pylist()
    assert sorted(str(row["confidence"]) for row in read) == ["0.5"] * 3 + ["None"] * 3
    assert {row["grad_l1"] for row in read} == {None}


def test_tables_come_back_as_they_went(store):
    asked = {"queries": 7, "distance": 0.5, "zero_grad": None, "nonfinite_grad": 0}
    asked |= {"grad_l1": 7.5, "grad_l2": 0.5, "cosine": -0.25, "sign_agreement": 0.5, "rise": -0.125}
    asked |= {"linearity": None, "confidence": 0.75}
    rows = [{"cell": "a", "image": 3, "robust": True, "ap": None, "linf": 0.25, **asked}]
    store.write_table("outcomes", "job", rows, tables.OUTCOMES)
    assert store.table("outcomes", tables.OUTCOMES).to_pylist() == rows


def test_every_column_says_what_it_means_and_every_file_its_version(store, tmp_path):
    store.write_table("results", "job", [result("a")], tables.RESULTS)
    schema = pq.read_schema(tmp_path / "store/results/job.parquet")
    assert schema.metadata[b"signsym_schema"] == tables.SCHEMA_VERSION.encode()
    assert all(field.metadata[b"meaning"] for field in schema)


def test_broken_foreign_and_temporary_files_are_named_and_skipped(store, tmp_path):
    put(store, "good", "a")
    folder = tmp_path / "store/results"
    (folder / "half.parquet").write_bytes((folder / "good.parquet").read_bytes()[:200])
    (folder / "foreign.parquet").write_bytes(b"hello")
    (folder / ".good.parquet.1234.tmp").write_bytes(b"")
    (folder / "note.txt").write_text("hello")
    store.write_table("results", "old", [{"other": 1}], __import__("pyarrow").schema([("other", "int64")]))
    assert survey_store(store).done_cells == {"a"}
    named = {"half.parquet", "foreign.parquet", "old.parquet", "note.txt"}
    assert set(store.skipped) == {f"results/{name}" for name in named}


def test_a_cell_that_two_sweeps_computed_counts_once(store):
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    put(store, "two", "a", finished_at=late, device="late")
    put(store, "one", "a", finished_at=early, device="early")
    assert store.results()["device"].tolist() == ["early"]


def test_a_failed_write_leaves_nothing_behind(store, tmp_path, monkeypatch):
    store.write("a/file", b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match=r"a/file cannot be written.*No space left"):
        store.write("a/file", b"new")
    assert (tmp_path / "store/a/file").read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "store/a").iterdir()] == ["file"]


def test_a_store_that_was_moved_away_is_not_made_again(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.write("a/file", b"1")
    other = Store(store.uri)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    for each in (store, other):
        with pytest.raises(StoreError, match=r"a/more cannot be written.*was moved, removed or unmounted since"):
            each.write("a/more", b"2")
    assert not (tmp_path / "store").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    store.write("a/more", b"2")
    assert store.names("a", "") == ["file", "more"]


def test_a_model_is_done_when_its_record_is_written(store, monkeypatch):
    tensors = {"network.weight": torch.randn(3, 2)}
    monkeypatch.setattr(records, "written", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.save_model("k", tensors, record("k"))
    assert store.done_models() == set()
    monkeypatch.undo()
    store.save_model("k", tensors, record("k"))
    assert store.done_models() == {"k"}
    assert torch.equal(store.load_model("k")[0]["network.weight"], tensors["network.weight"])


def test_progress_is_replaced_read_and_dropped(store, tmp_path):
    assert store.load_progress("k") is None
    store.save_progress("k", {"a": torch.zeros(2)}, {"epoch": 1, "history": []})
    store.save_progress("k", {"a": torch.ones(2)}, {"epoch": 2, "history": [{"loss": 1.5}]})
    tensors, state = store.load_progress("k")
    assert torch.equal(tensors["a"], torch.ones(2))
    assert state == {"epoch": 2, "history": [{"loss": 1.5}]}
    path = tmp_path / "store/models/k/progress.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    assert store.load_progress("k") is None
    store.drop_progress("k")
    store.drop_progress("k")
    assert not path.exists()


def test_a_storage_that_cannot_be_opened_is_a_clear_error(tmp_path):
    with pytest.raises(StoreError, match="nosuch"):
        Store("nosuch://bucket/place")
    (tmp_path / "grids").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(str(tmp_path)).write("grids/x", b"")


def test_small_files_are_read_by_the_copy_of_their_rows_and_large_ones_by_their_columns(store, tmp_path):
    rows = [result("a", reach=float("nan")), result("b", gpu_peak=2**40, device="ε")]
    store.write_table("results", "job", rows, tables.RESULTS)
    path = tmp_path / "store/results/job.parquet"
    data = path.read_bytes()
    assert rowcopy.read(data, tables.RESULTS, rowcopy.described(tables.RESULTS)) is not None
    copied = Folder(store, "results", tables.RESULTS, tables.RESULTS.names, tables.RESULTS.names).read(["job"])["job"]
    # What any other reader gets is the same.
    assert repr(copied.to_pylist()) == repr(pq.read_table(path).to_pylist())
    # Of an older schema the copy is read too, for a newer one the columns.
    older = tables.RESULTS.remove(tables.RESULTS.get_field_index("nonfinite_grad"))
    table = pq.read_table(path).select(older.names).cast(older)
    store.write("results/job.parquet", sealed_table(table, older, copy=rowcopy.written(table)))
    today = rowcopy.described(tables.RESULTS)
    assert rowcopy.read(path.read_bytes(), tables.RESULTS, today) is not None
    assert rowcopy.read(path.read_bytes(), older, rowcopy.described(older)) is not None
    assert rowcopy.read(data, older, rowcopy.described(older)) is None
    required = tables.RESULTS.append(pa.field("another", pa.int64()))
    assert rowcopy.read(data, required, rowcopy.described(required)) is None
    (row, second) = Store(store.uri).table("results", tables.RESULTS).to_pylist()
    assert row == table.to_pylist()[0] | {"nonfinite_grad": None, "reach": row["reach"]}
    assert second == table.to_pylist()[1] | {"nonfinite_grad": None}
    # A copy that the seal does not cover any more is not believed, whatever else the file says.
    data = bytearray(path.read_bytes())
    place = data.find(b" runs:") + 60
    data[place] ^= 1
    path.write_bytes(data)
    reader = Store(store.uri)
    assert not reader.table("results", tables.RESULTS)
    assert "damaged" in reader.skipped["results/job.parquet"]
    many = pa.Table.from_pylist([result(f"{number:x}" * 9, seed=number**4) for number in range(9000)], tables.RESULTS)
    assert rowcopy.written(many) == ""


def test_files_that_are_checked_together_are_told_apart(store):
    for number in range(40):
        put(store, f"job{number:02}", f"a{number}", f"b{number}")
    # One whose rows are no results, one that contradicts its outcomes, and two with each other's outcomes.
    store.write_table("results", "job07", [result("a7", value=2.0)], tables.RESULTS)
    store.write_table("results", "job08", [result("a8", hits=1), result("b8")], tables.RESULTS)
    for one, other in (("10", "11"), ("11", "10")):
        rows = [*outcomes(f"a{one}"), *outcomes(f"b{other}")]
        store.write_table("outcomes", f"job{one}", rows, tables.OUTCOMES)
    reader = Store(store.uri)
    assert survey_store(reader).done_cells == {
        f"{name}{number}" for name in "ab" for number in range(40) if number not in (7, 8, 10, 11)
    }
    assert reader.skipped.keys() == {
        "results/job07.parquet",
        *(f"outcomes/job{number}.parquet" for number in ("08", "10", "11")),
    }
    for number in (7, 8, 10, 11):
        put(store, f"job{number:02}", f"a{number}", f"b{number}")
    assert len(survey_store(Store(store.uri)).done_cells) == 80


def test_results_that_another_process_read_are_shown_as_if_they_were_read_here(store, tmp_path):
    for number in range(3):
        put(store, f"job{number}", f"a{number}", f"b{number}", seed=number)
    (tmp_path / "store/results/torn.parquet").write_bytes(b"PAR1")
    unsealed = pa.Table.from_pylist([result("old", seed=7)], tables.RESULTS)
    pq.write_table(unsealed, tmp_path / "store/results/old.parquet")
    read = pickle.loads(pickle.dumps(read_results(store.uri).in_one()))
    put(store, "later", "c", seed=9)
    data, all_here = LiveStore(store.uri, at_once=True, results=read), LiveStore(store.uri, at_once=True)
    assert sorted(data.snapshot.index.cells.to_pylist()) == ["a0", "a1", "a2", "b0", "b1", "b2", "c", "old"]
    assert data.skipped == all_here.skipped
    assert "results/torn.parquet" in data.skipped
    folder, here = (Folder(store, "results", tables.RESULTS, COLUMNS, plain={"cell"}) for _ in range(2))
    taken, read_here = folder.take(read), here.read(["job0", "job1", "job2", "old", "torn"])
    assert {name: rows.to_pylist() for name, rows in taken.items()} == {
        name: rows.to_pylist() for name, rows in read_here.items()
    }
    assert folder.unsealed == here.unsealed == {"results/old.parquet", "results/torn.parquet"}
    assert folder.broken == here.broken
    # Of no results nothing is taken.
    assert Folder(store, "results", tables.RESULTS, COLUMNS).take(read_results(str(tmp_path / "none")).in_one()) == {}
