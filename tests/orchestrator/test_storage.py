"""The same store on every kind of place: a folder, a file URI, a bucket on a real S3 server, and by fsspec."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback

import pyarrow as pa
import pytest
import storerows
import torch
from places import SECRET
from sweeps import ROOT

from orchestrator.commands.cli import main
from orchestrator.plan.estimate import survey_store
from orchestrator.store import Store, StoreError, files, tables
from orchestrator.store.claims import Claims, alive
from orchestrator.store.events import Events

pytestmark = pytest.mark.slow


def test_every_part_of_the_store(uri):
    store = Store(uri)
    assert survey_store(store).done_cells == store.done_models() == set()
    storerows.put(store, "one", "a", "b")
    store.save_progress("m", {"w": torch.ones(2)}, {"epoch": 1, "history": []})
    assert store.load_progress("m")[1]["epoch"] == 1
    store.save_model("m", {"w": torch.arange(3.0)}, storerows.record("m"))
    store.drop_progress("m")
    store.write_json("grids/x.json", {"a": 1})
    again = Store(uri)
    assert survey_store(again).done_cells == {"a", "b"}
    assert again.done_models() == {"m"}
    assert again.load_progress("m") is None
    assert torch.equal(again.load_model("m")[0]["w"], torch.arange(3.0))
    assert again.read_json_files("grids") == {"x": {"a": 1}}
    assert again.names("results", ".parquet") == ["one.parquet"]
    assert again.exists(["results/one.parquet", "results/two.parquet", "models/m/record.json"]) == {
        "results/one.parquet",
        "models/m/record.json",
    }
    again.write_table("failures", "j", [dict.fromkeys(tables.FAILURES.names)], tables.FAILURES)
    again.forget_failures(["j", "k"])
    assert again.names("failures", ".parquet") == []
    with pytest.raises(FileNotFoundError):
        again.read("nothing/here")
    assert again.skipped == {}


def test_a_half_written_file_is_named_and_not_done(uri):
    store = Store(uri)
    storerows.put(store, "good", "a")
    whole = store.read("results/good.parquet")
    store.write("results/half.parquet", whole[: len(whole) // 2])
    assert survey_store(store).done_cells == {"a"}
    assert set(store.skipped) == {"results/half.parquet"}


def test_readers_during_writes_see_a_whole_file_or_none(uri):
    store, reader = Store(uri), Store(uri)
    sizes, seen, stop = (10, 200_000), set(), threading.Event()
    store.write("x/file", b"a" * sizes[0])

    def read():
        while not stop.is_set():
            seen.add(len(reader.read("x/file")))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for at in range(20):
            store.write("x/file", b"a" * sizes[at % 2])
    finally:
        stop.set()
        thread.join()
    # A file system without an atomic move may show nothing for a moment; nothing half in any case.
    assert seen <= set(sizes)


def test_claims_and_events(uri):
    store = Store(uri)
    with Claims(store, list) as claims, Events(store, claims.id, {}) as events:
        assert claims.take(["a"]) == {"a"}
        assert Claims(Store(uri), list).take(["a", "b"]) == {"b"}
        events.write("sweep_started", jobs=3)
    assert len(alive(store)) == 1
    lines = b"".join(store.read(f"events/{name}") for name in store.names("events", ".jsonl")).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["sweep_started", "sweep_ended"]


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket/x",
        f"s3://key:a/{SECRET}@bucket/x",
        f"s3://key%3A{SECRET}%2540bucket/x",
        f"s3://bucket/x?secret_key={SECRET}",
        f"s3://bucket/x?access_key={SECRET}",
        f"s3://bucket/x?endpoint_override=http://u:{SECRET}@host",
        f"s3://bucket/x?endpoint_override=http%3A%2F%2Fu%3A{SECRET}%40host",
        f"s3://bucket/x?region=a&{SECRET}",
        f"s3://bucket/x?region=a;sig={SECRET}",
        f"s3://bucket/x?sig={SECRET}",
        f"gs://bucket/x?hmac={SECRET}",
        f"abfs://container:{SECRET}@account.dfs.core.windows.net/x",
        f"abfs://container@account.dfs.core.windows.net/x?sig={SECRET}",
        f"abfs://container@account.dfs.core.windows.net/x?client_secret={SECRET}",
        f"abfs://{SECRET}@elsewhere.example/x",
        f"ftp://me:{SECRET}@host/x",
        f"memory://x?token={SECRET}",
        f"s3://[{SECRET}/x?y=1",
    ],
)
def test_what_may_be_a_secret_in_a_uri_is_refused_and_not_repeated(uri):
    with pytest.raises(StoreError) as caught:
        Store(uri)
    assert SECRET not in "".join(traceback.format_exception(caught.value, chain=True)).split("StoreError", 1)[1]
    assert "environment" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("scheme", ["abfs", "abfss"])
def test_azures_usual_uri_is_read(scheme):
    store = Store(f"{scheme}://container@account.dfs.core.windows.net/sweeps/x")
    assert store.root == "container/sweeps/x"
    assert "Azure" in type(store.fs).__name__


def test_a_secret_in_the_environments_storage_is_in_no_help_and_no_message(monkeypatch, capsys, tiny):
    monkeypatch.setenv("SIGNSYM_STORAGE", f"s3://key:{SECRET}@bucket/x")
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    for command in ("plan", "sweep"):
        assert main([command, str(tiny)]) == 2
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err
    assert "$SIGNSYM_STORAGE" in output.out


@pytest.mark.parametrize(
    ("uri", "words"), [("s3:/bucket/x", r"a folder of that name is \./s3:/bucket/x"), ("s3://", "a place after ://")]
)
def test_a_slip_in_a_uri_is_neither_a_folder_nor_a_bucket(uri, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=words):
        Store(uri)
    assert not list(tmp_path.iterdir())
    assert Store("./s3:/bucket/x").folder == tmp_path / "s3:/bucket/x"


@pytest.mark.parametrize("look", ["names", "read", "exists"])
def test_a_bucket_that_cannot_be_reached_is_the_stores_error_with_a_way_on(look, monkeypatch):
    class Closed:
        def __getattr__(self, name):
            raise pa.ArrowException("Failed to get token\nfrom any credential")

    store = Store("memory://closed/x")
    monkeypatch.setattr(store, "fs", Closed())
    arguments = {"names": ("results", ".parquet"), "read": ("results/x",), "exists": (["results/x"],)}[look]
    with pytest.raises(StoreError, match="cannot be read: Failed to get token from any credential; check its name"):
        getattr(store, look)(*arguments)


def test_an_unknown_kind_of_place_is_refused_with_what_is_known():
    with pytest.raises(StoreError, match="s3://bucket/path"):
        Store("gopher://host/x")


LIMITED = """
import sys
from orchestrator.store import Store, StoreError
store = Store(sys.argv[1])
try:
    for at in range(100):
        store.write(f"results/{at}.parquet", b"x" * 100_000)
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("options", "reason", "advice"),
    [
        ("size=1m", "No space left on device", "free some space"),
        ("ro", "Read-only file system", "choose another --storage"),
    ],
)
def test_a_full_disk_and_a_read_only_store_are_named_and_leave_nothing_half_written(tmp_path, options, reason, advice):
    script = f"mount -t tmpfs -o {options} tmpfs {tmp_path} && exec {sys.executable} -c '{LIMITED}' {tmp_path}/ && true"
    listing = f"; find {tmp_path} -type f -printf '%s %f\\n'"
    inside = ["bash", "-c", script.replace("exec ", "") + listing]
    for words in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("this machine gives no mounts of one's own")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*words, *inside], capture_output=True, text=True, env=environment)
    assert reason in done.stdout, done.stderr
    assert advice in done.stdout
    left = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert all(line.startswith("100000 ") and line.endswith(".parquet") for line in left), left


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="expected a folder, got a file"):
        Store(str(tmp_path / "file"))
    with pytest.raises(StoreError, match="a folder, not a file"):
        Store(str(tmp_path)).write("file/a/b", b"")


def test_the_advice_is_for_every_error_that_it_names():
    assert all(isinstance(number, int) and words for number, words in files._ADVICE.items())
