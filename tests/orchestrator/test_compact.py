"""`signsym compact`: the same rows in few files, at every instant, whoever reads, writes, dies or merges beside it."""

from __future__ import annotations

import shutil
import signal
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from storerows import outcomes, put, result
from sweeps import finish, start

from orchestrator.commands.cli import main
from orchestrator.plan.estimate import survey_store as survey
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, StoreError, compact, mergeable, merged, tables
from orchestrator.store.claims import Claims

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
JOBS = [f"{number:064x}" for number in range(5)]


def fill(store, jobs=JOBS, **more):
    """A job's files for each of `jobs`: two cells, and an adversarial image."""
    for number, job in enumerate(jobs):
        example = dict.fromkeys(tables.EXAMPLES.names, "x") | {"image": 0, "clean": b"c", "adversarial": b"a"}
        rows = [example | {"cell": f"{job}-{epsilon}"} for epsilon in (0, 1)]
        store.write_table("examples", job, rows, tables.EXAMPLES)
        values = {"finished_at": MOMENT, "seed": number} | more
        put(store, job, f"{job}-0", **values)
        cells = [result(f"{job}-{at}", **{"job": job, "epsilon": at / 10} | values) for at in (0, 1)]
        store.write_table("outcomes", job, [row for cell in cells for row in outcomes(cell["cell"])], tables.OUTCOMES)
        store.write_table("results", job, cells, tables.RESULTS)
    return store


def rows(store):
    """Every row that a reader gets, in an order of their own."""
    results = store.results().sort_values("cell").to_json(orient="records", date_format="iso")
    return results, store.outcomes().sort_values(["cell", "image"]).to_json(orient="records", date_format="iso")


def files(folder):
    """How many files of each kind there are, and how many of them were merged."""
    names = {kind: [path.stem for path in (folder / kind).glob("*")] for kind in ("results", "outcomes", "examples")}
    return {kind: (len(each), sum(map(merged.is_merged, each))) for kind, each in names.items()}


def paths(jobs=JOBS):
    return [f"results/{job}.parquet" for job in jobs]


def test_the_same_rows_in_one_file_of_each_kind_wherever_the_store_lies(uri):
    store = fill(Store(uri))
    before = rows(store)
    done = compact.compact(store)
    assert (done.files, done.jobs, done.merged_files) == (15, 5, 1)
    again = Store(uri)
    assert rows(again) == before
    assert survey(again).done_cells == {f"{job}-{at}" for job in JOBS for at in (0, 1)}
    (name,) = again.names("results", ".parquet")
    assert again.names("outcomes", ".parquet") == again.names("examples", ".parquet") == [name]
    assert merged.finished(again, [*paths(), "results/none.parquet"]) == set(paths())
    assert again.skipped == {}
    assert again.unsealed == set()
    data = LiveStore(uri)
    assert len(data.snapshot.index) == 10
    assert {cell for row in range(10) for cell in data.cells.examples(data.snapshot.index, [row])} == {
        f"{job}-{at}" for job in JOBS for at in (0, 1)
    }
    # Merged with what came later, until a merged file is large.
    fill(again, ["f" * 64])
    assert compact.compact(again).files == 6
    assert len(again.names("results", ".parquet")) == len(merged.lists(again)) == 1
    assert compact.compact(again) == compact.Compaction()


class _Killed(BaseException):
    pass


def _strike(monkeypatch, number, meanwhile=lambda: None):
    """End the process, as it were, before the change of a store with this number; `meanwhile` is done before each."""
    count = iter(range(10**6))

    def before(change):
        def changed(store, path, *data):
            # Signs of life come when they come.
            if not path.startswith("sweeps/"):
                meanwhile()
                if next(count) == number:
                    raise _Killed
            change(store, path, *data)

        return changed

    monkeypatch.setattr(Store, "write", before(Store.write))
    monkeypatch.setattr(Store, "remove", before(Store.remove))
    # One after the other, so that each number is one place.
    monkeypatch.setattr(merged, "THREADS", 1)
    return count


@pytest.mark.slow
def test_killed_between_any_two_changes_nothing_is_lost_or_doubled_and_the_next_ends_it(tmp_path, monkeypatch):
    before = rows(fill(Store(str(tmp_path / "loose")), JOBS[:2]))
    number, killed = 0, True
    while killed:
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "loose", folder)
        store = Store(str(folder))
        with monkeypatch.context() as patch:
            _strike(patch, number)
            try:
                compact.compact(store)
                killed = False
            except _Killed:
                pass
        assert rows(Store(str(folder))) == before
        assert merged.finished(store, paths(JOBS[:2])) == set(paths(JOBS[:2]))
        assert len(LiveStore(str(folder)).snapshot.index) == 4
        compact.compact(store)
        assert rows(Store(str(folder))) == before
        assert files(folder) == dict.fromkeys(("results", "outcomes", "examples"), (1, 1)), number
        assert Store(str(folder)).skipped == {}
        shutil.rmtree(folder)
        number += 1
    # Three merged files and their list are written, and six small ones go.
    assert number == 11


@pytest.mark.slow
def test_readers_at_every_change_see_each_cell_once(tmp_path, monkeypatch):
    store = fill(Store(str(tmp_path)))
    before, explorer, seen = rows(store), LiveStore(str(tmp_path)), 0

    def look():
        nonlocal seen
        seen += 1
        assert rows(Store(str(tmp_path))) == before
        explorer.refresh()
        index = explorer.snapshot.index
        assert sorted(str(index.value("cell", row)) for row in range(len(index))) == sorted(
            f"{job}-{at}" for job in JOBS for at in (0, 1)
        )
        assert all(explorer.cells.rows(index, range(len(index))))
        assert (
            len(explorer.cells.examples(index, range(len(index))))
            == len(explorer.cells.reach(index, range(len(index))))
            == 10
        )
        assert not explorer.skipped

    _strike(monkeypatch, -1, look)
    compact.compact(store)
    assert seen == 19


def test_a_reader_whose_listing_is_old_reads_the_merged_files(tmp_path, monkeypatch):
    """The files of one store are merged after they were listed and before they are read."""
    before = rows(fill(Store(str(tmp_path))))
    listing = Store.listing

    def then_compact(store, folder, suffix):
        listed = listing(store, folder, suffix)
        if folder == "results" and suffix == ".parquet":
            monkeypatch.setattr(Store, "listing", listing)
            compact.compact(Store(str(tmp_path)))
        return listed

    monkeypatch.setattr(Store, "listing", then_compact)
    late = LiveStore(str(tmp_path))
    assert len(late.snapshot.index) == 10
    assert not late.skipped
    # A listing that began before a compaction and ended after it has neither form: it is made again.
    fill(Store(str(tmp_path)), ["e" * 64])
    known, half = rows(Store(str(tmp_path))), iter([[]])

    def between(store, folder, suffix):
        if folder == "results" and suffix == ".parquet":
            monkeypatch.setattr(Store, "listing", listing)
            compact.compact(Store(str(tmp_path)))
            return next(half), {}
        return listing(store, folder, suffix)

    monkeypatch.setattr(Store, "listing", between)
    assert rows(Store(str(tmp_path))) == known != before


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_removes_files(tmp_path):
    before = rows(fill(Store(str(tmp_path))))
    words = (
        "import sys, time; from orchestrator.store import Store, compact, merged\n"
        "remove, left = Store.remove, [3]\n"
        "def slow(store, path):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: print('now', flush=True); time.sleep(3600)\n"
        "    remove(store, path)\n"
        "Store.remove, merged.THREADS = slow, 1\n"
        "compact.compact(Store(sys.argv[1]))\n"
    )
    process = start("-c", words, tmp_path)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert files(tmp_path)["results"] == (3, 1)
    assert rows(Store(str(tmp_path))) == before
    # Its claim is known to be a dead process's: nothing is waited for.
    compact.compact(Store(str(tmp_path)))
    assert rows(Store(str(tmp_path))) == before
    assert files(tmp_path) == dict.fromkeys(("results", "outcomes", "examples"), (1, 1))


def test_a_damaged_merged_file_costs_what_it_held_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(mergeable, "JOBS", 3)
    store = fill(Store(str(tmp_path)))
    compact.compact(store)
    assert files(tmp_path)["results"] == (2, 2)
    for kind in ("results", "outcomes"):
        folder = tmp_path.parent / f"{tmp_path.name}-{kind}"
        shutil.copytree(tmp_path, folder)
        path = sorted((folder / kind).glob("*"))[0]
        held = {row["job"] for row in pq.read_table(folder / "results" / path.name, columns=["job"]).to_pylist()}
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        broken = Store(str(folder))
        assert {cell[:64] for cell in survey(broken).done_cells} == set(JOBS) - held
        assert list(broken.skipped) == [f"{kind}/{path.name}"]
        # A sweep that computes them again takes away what says that they are done, and the others stay so.
        merged.forget_results(broken, paths(held))
        assert merged.finished(broken, paths()) == set(paths()) - set(paths(held))
        fill(broken, sorted(held), finished_at=datetime(2026, 2, 1, tzinfo=UTC))
        assert len(survey(Store(str(folder))).done_cells) == 10
        # The damaged file stays where it is, and nothing of it is believed.
        again = Store(str(folder))
        compact.compact(again)
        assert path.exists()
        assert len(survey(Store(str(folder))).done_cells) == 10
        assert main(["status", str(folder), "--verify"]) == 1


def test_what_cannot_be_trusted_stays_where_it_is(tmp_path):
    store = fill(Store(str(tmp_path)))
    put(store, "bare", "x")
    (tmp_path / "outcomes/bare.parquet").unlink()
    put(store, "contradicts", "y", hits=3, value=0.75)
    put(store, "torn", "z")
    torn = tmp_path / "results/torn.parquet"
    torn.write_bytes(torn.read_bytes()[:500])
    store.write_table("outcomes", "alone", outcomes("w"), tables.OUTCOMES)
    newer = pa.Table.from_pylist([result("v")], tables.RESULTS).append_column("later", pa.array([1]))
    put(store, "newer", "v")
    pq.write_table(newer, tmp_path / "results/newer.parquet")
    (tmp_path / "results/note.txt").write_text("hello")
    stay = [f"results/{name}" for name in ("bare.parquet", "contradicts.parquet", "torn.parquet", "newer.parquet")]
    stay += ["results/note.txt", "outcomes/contradicts.parquet", "outcomes/newer.parquet", "outcomes/alone.parquet"]
    before = {name: (tmp_path / name).read_bytes() for name in stay}
    merging = Store(str(tmp_path))
    assert compact.compact(merging).jobs == 5
    assert {name: (tmp_path / name).read_bytes() for name in stay} == before
    assert {"results/torn.parquet", "results/note.txt"} <= set(merging.skipped)
    assert compact.compact(Store(str(tmp_path))).files == 0
    assert {name: (tmp_path / name).read_bytes() for name in stay} == before


def test_rows_from_before_digests_are_still_told_apart(tmp_path):
    store = fill(Store(str(tmp_path)))
    for job in JOBS[:3]:
        for kind, schema in (("results", tables.RESULTS), ("outcomes", tables.OUTCOMES)):
            path = tmp_path / f"{kind}/{job}.parquet"
            pq.write_table(pa.Table.from_pylist(pq.read_table(path).to_pylist(), schema), path)
    before = rows(Store(str(tmp_path)))
    compact.compact(store)
    again = Store(str(tmp_path))
    assert rows(again) == before
    survey(again)
    old = {path for path in again.unsealed if path.startswith("results/")}
    (path,) = old
    assert {row["job"] for row in pq.read_table(tmp_path / path, columns=["job"]).to_pylist()} == set(JOBS[:3])
    # From now on damage to them is noticed.
    data = bytearray((tmp_path / path).read_bytes())
    data[100] ^= 1
    (tmp_path / path).write_bytes(data)
    survey(again)
    assert path in again.skipped


def test_what_was_computed_again_meanwhile_counts_once(tmp_path):
    store = fill(Store(str(tmp_path)))
    before = rows(store)
    compact.compact(store)
    # A sweep that knew nothing of it has the same results, later.
    fill(store, JOBS[:2], finished_at=datetime(2026, 2, 1, tzinfo=UTC))
    # Of another one a compaction removed the outcomes, which a merged file has, before its results came.
    (tmp_path / f"outcomes/{JOBS[1]}.parquet").unlink()
    assert rows(Store(str(tmp_path))) == before
    data = LiveStore(str(tmp_path))
    assert len(data.snapshot.index) == 10
    assert not data.skipped
    compact.compact(store)
    again = Store(str(tmp_path))
    assert rows(again) == before
    assert again.skipped == {}


def test_large_examples_stay_and_are_found_by_their_job(tmp_path, monkeypatch):
    monkeypatch.setitem(mergeable.SMALL, "examples", 100)
    store = fill(Store(str(tmp_path)))
    compact.compact(store)
    assert files(tmp_path) == {"results": (1, 1), "outcomes": (1, 1), "examples": (5, 0)}
    data = LiveStore(str(tmp_path))
    assert all(data.cells.examples(data.snapshot.index, [row]) for row in range(10))


def test_two_compactions_at_once_and_a_store_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    fill(Store(str(tmp_path / "store")))
    with Claims(Store(str(tmp_path / "store")), list) as claims:
        claims.take([compact.CLAIM])
        assert main(["compact", str(tmp_path / "store")]) == 2
        assert "another compaction" in capsys.readouterr().err
        assert files(tmp_path / "store")["results"] == (5, 0)

    def refuse(store, path, data):
        raise StoreError(f"{path} cannot be written to the store {store.uri}: Read-only file system; make it writable")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", refuse)
        assert main(["compact", str(tmp_path / "store")]) == 2
    assert "Read-only file system" in capsys.readouterr().err
    assert files(tmp_path / "store")["results"] == (5, 0)
    assert main(["compact", str(tmp_path / "nothing")]) == 2
    assert "there is no sweep" in capsys.readouterr().err


def test_the_commands_say_what_they_do(tmp_path, capsys, monkeypatch):
    fill(Store(str(tmp_path)))
    assert main(["status", str(tmp_path)]) == 0
    assert "compact" not in capsys.readouterr().out
    monkeypatch.setattr("orchestrator.commands.compact.MANY", 10)
    assert main(["status", str(tmp_path)]) == 0
    assert f"10 small files are slow to read; to merge them, at any time: signsym compact {tmp_path}" in (
        capsys.readouterr().out
    )
    assert main(["compact", str(tmp_path)]) == 0
    assert "merged 15 files of 5 jobs" in capsys.readouterr().out
    assert main(["compact", str(tmp_path)]) == 0
    assert "Nothing to merge" in capsys.readouterr().out
    assert main(["status", str(tmp_path), "--verify"]) == 0
    said = capsys.readouterr().out
    assert "4 files read: 0 damaged" in said
    assert main(["status", str(tmp_path)]) == 0
    assert "compact" not in capsys.readouterr().out
