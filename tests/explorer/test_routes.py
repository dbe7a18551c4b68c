"""Tables in full over HTTP: every digit, no formula, and nothing for hostile addresses."""

from __future__ import annotations

import csv
import io

import pytest
from stores import block, fill, page

from orchestrator.drawing.blocks import Figure, as_csv
from orchestrator.explorer.app import make_app
from orchestrator.results.live_store import LiveStore

FORMULA = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("routes") / "store")


@pytest.fixture(scope="module")
def client(folder):
    return make_app(LiveStore(str(folder))).server.test_client()


def rows(answer):
    return list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))


@pytest.mark.parametrize(
    ("name", "search"),
    [
        ("curves", ""),
        ("gap", "p=gap"),
        ("table-rows", "p=tables&t=all&e=0.1"),
        ("flags-rows", "p=flags"),
        ("cell-line", "p=cell&c=job-usf-exact-1-0-0.1"),
        ("cell-seeds", "p=cell&c=job-usf-exact-1-0-0.1"),
    ],
)
def test_every_pages_table_is_a_file_to_be_saved(client, name, search):
    answer = client.get(f"/table/{name}.csv?{search}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert rows(answer)


def test_the_file_has_every_digit_of_the_view(client, folder):
    answer = client.get("/table/curves.csv?r=usf&g=exact")
    table = block(page(folder, "?r=usf&g=exact"), Figure).table
    assert answer.get_data(as_text=True) == as_csv(table)
    found = rows(answer)
    assert len(found) == 2
    assert [float(row["score"]) for row in found] == [row["value"] for row in table.rows]
    assert any(len(row["from"]) > 12 for row in found)
    # Negative numbers are numbers.
    assert any(row["gap to BP"].startswith("-") for row in found)


@pytest.mark.parametrize(
    "path",
    [
        "/table/none.csv",
        "/table/gap.csv",
        "/table/Curves.csv",
        "/table/curves%0d%0aX-Evil:1.csv",
        '/table/curves".csv',
        "/table/..csv",
        "/table/curves%00.csv",
        "/table/curves%0a.csv",
        "/table/cell-line.csv?p=cell&c=../../etc/passwd",
    ],
)
def test_what_is_no_table_of_the_page_is_not_found(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "X-Evil" not in answer.headers
    assert "Content-Disposition" not in answer.headers


def test_a_path_is_no_name(client):
    for path in ("/table/..%2f..%2fx.csv", "/table/../curves.csv", "/table/curves"):
        assert client.get(path).mimetype != "text/csv"


@pytest.mark.parametrize("search", ["b=%ff%fe", "r=<script>", "e=%00", "part=99999", "zzz=1", "a" * 9000])
def test_hostile_views_give_the_table_without_them(client, search):
    assert rows(client.get(f"/table/curves.csv?{search}"))[0].keys() >= {"score", "flags"}
    assert len(rows(client.get("/table/curves.csv", environ_overrides={"QUERY_STRING": "b=\xff\xfe"}))) == 8


def test_another_hosts_name_gets_no_table(client):
    assert client.get("/table/curves.csv", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("text", [FORMULA, "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\0=1"])
def test_text_that_a_spreadsheet_would_compute_is_written_as_text(tmp_path, text):
    client = make_app(LiveStore(str(fill(tmp_path / "store", seeds=(0,), dataset=text)))).server.test_client()
    found = rows(client.get("/table/curves.csv"))
    assert {row["data set"] for row in found} == {f"'{text}".replace("\r", " ")}
    assert {row["backbone"] for row in found} == {"smallcnn"}


def test_a_carriage_return_makes_no_row_of_its_own(tmp_path):
    client = make_app(LiveStore(str(fill(tmp_path / "store", seeds=(0,), dataset="a\r=1,2")))).server.test_client()
    answer = client.get("/table/curves.csv")
    assert "\r" not in answer.get_data(as_text=True)
    assert {row["data set"] for row in rows(answer)} == {"a =1,2"}


def test_a_page_that_is_opened_after_new_results_begins_with_them(tmp_path):
    data = LiveStore(str(fill(tmp_path / "store", seeds=(0, 1))))
    opened = make_app(data).server.test_client()

    def version():
        parts = opened.get("/_dash-layout").get_json()["props"]["children"]
        return next(part["props"]["data"] for part in parts if part["props"].get("id") == "version")

    before = version()
    fill(tmp_path / "store", seeds=(2,), draw=1)
    assert data.refresh()
    assert before != version() == [data.snapshot.version, version()[1]]
