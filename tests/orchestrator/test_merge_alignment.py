"""Files of alignment that are merged: the same rows for every reader, whatever dies between two writes."""

from __future__ import annotations

import pytest
from rich.console import Console

from orchestrator.commands.verify import verify
from orchestrator.store import Store, StoreError, compact, merge_alignment, merged, tables
from orchestrator.store.alignment import alignment_folder, iter_trainings

JOBS = [f"{number:064x}" for number in range(5)]


def rows_of(job, angle=10.0, epochs=2):
    empty = dict.fromkeys(tables.ALIGNMENT.names)
    layers = ("conv", "head")
    return [
        empty | {"job": job, "epoch": epoch, "step": 1, "layer": layer, "angle": angle + epoch}
        for epoch in range(1, epochs + 1)
        for layer in layers
    ]


def fill(store, jobs=JOBS, **more):
    for job in jobs:
        store.write_table("alignment", job, rows_of(job, **more), tables.ALIGNMENT)
    return store


def rows(store, only=None):
    """What a reader gets, in an order of its own."""
    read = [row for table in iter_trainings(alignment_folder(store), only) for row in table.to_pylist()]
    return sorted(read, key=lambda row: (row["job"], row["epoch"], row["layer"]))


def test_the_same_rows_in_one_file_wherever_the_store_lies(uri):
    store = fill(Store(uri))
    before = rows(store)
    assert len(before) == 20
    done = compact.compact(store)
    assert (done.files, done.alignments, done.leftovers) == (0, 5, 0)
    (name,) = store.names("alignment", ".parquet")
    assert merged.lists(store) == [name.removesuffix(".parquet")]
    again = Store(uri)
    assert rows(again) == before
    assert rows(again, [JOBS[3]]) == rows_of(JOBS[3])
    assert compact.compact(again) == compact.Compaction()
    # Merged with what came later, until a merged file is large.
    fill(again, ["f" * 64])
    assert compact.compact(again).alignments == 2
    assert len(again.names("alignment", ".parquet")) == len(merged.lists(again)) == 1
    assert len(rows(again)) == 24
    assert verify(Store(uri), Console(quiet=True)) == 0


def test_killed_between_any_two_changes_nothing_is_lost_or_doubled_and_the_next_ends_it(tmp_path, monkeypatch):
    before = rows(fill(Store(str(tmp_path / "untouched"))))
    write, remove, steps, last = Store.write, Store.remove, 0, False
    while not last:
        store = fill(Store(str(tmp_path / str(steps))))
        left = steps

        def step(change, *arguments):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            change(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", lambda *arguments: step(write, *arguments))
            patch.setattr(Store, "remove", lambda *arguments: step(remove, *arguments))
            # One after the other, so that each number is one place.
            patch.setattr(merged, "THREADS", 1)
            try:
                merge_alignment.merge_alignment(store)
                last = True
            except KeyboardInterrupt:
                pass
        assert rows(store) == before
        compact.compact(store)
        assert rows(store) == before
        assert len(store.names("alignment", ".parquet")) == len(merged.lists(store)) == 1
        steps += 1
    # A table, its list, and five files that were removed.
    assert steps == 8


def test_a_training_that_ran_again_counts_once_and_by_its_own_file(tmp_path):
    store = fill(Store(str(tmp_path)))
    compact.compact(store)
    fill(store, [JOBS[0], "e" * 64], angle=30.0)
    for _ in range(2):
        assert [row["angle"] for row in rows(store, [JOBS[0]])] == [31.0, 31.0, 32.0, 32.0]
        assert len(rows(store)) == 24
        # It stays beside the merged file that has its older rows.
        compact.compact(store)
        assert [name for name in store.names("alignment", ".parquet") if "merged" not in name] == [f"{JOBS[0]}.parquet"]


def test_large_merged_files_stay_and_damage_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(merge_alignment, "ROWS", 12)
    store = fill(Store(str(tmp_path)))
    assert compact.compact(store).alignments == 5
    assert len(store.names("alignment", ".parquet")) == 2
    broken = tmp_path / "alignment" / f"{'a' * 64}.parquet"
    fill(store, ["a" * 64, "b" * 64, "c" * 64])
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    compact.compact(store)
    assert list(store.skipped) == [f"alignment/{broken.name}"]
    assert broken.exists()
    assert len(rows(store)) == 28


def test_what_is_not_what_was_written_costs_nothing(tmp_path, monkeypatch):
    store = fill(Store(str(tmp_path)))
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda store, path: read(store, path) + b"x" * ("merged-" in path))
    with pytest.raises(StoreError, match="nothing was removed"):
        merge_alignment.merge_alignment(store)
    assert set(store.names("alignment", ".parquet")) >= {f"{job}.parquet" for job in JOBS}
