"""The store: whole files or none, foreign files named and skipped, every table as its schema says."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
import torch
from storerows import put, record, result

from orchestrator.plan.estimate import survey_store
from orchestrator.store import Store, StoreError, records, tables


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_the_example_of_its_docstring_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(Store, "Store", globs={})
    assert len(example.examples) > 5
    assert doctest.DocTestRunner().run(example).failed == 0


def test_tables_come_back_as_they_went(store):
    asked = {"queries": 7, "distance": 0.5, "zero_grad": None, "nonfinite_grad": 0}
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
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(str(tmp_path / "file")).write("grids/x", b"")
