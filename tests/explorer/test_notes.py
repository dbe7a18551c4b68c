"""Notes: written on what a store has, shown where they belong, and never more than a text."""

from __future__ import annotations

import json
import multiprocessing

import pandas as pd
import pytest
from stores import SHARES, block, fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Links, Matrix, Words
from orchestrator.explorer.refresh import noting
from orchestrator.explorer.render import Look, rendered
from orchestrator.pages.context import context_of
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import opened
from orchestrator.store import Store
from orchestrator.store.notes import Notes

HOSTILE = "<script>alert(1)</script> **bold** $x$"


@pytest.fixture
def store(tmp_path):
    """A store whose rules have fine-tunes of their own."""
    for rule in ("bp", "usf"):
        shares = {key: value for key, value in SHARES.items() if key[0] == rule}
        fill(tmp_path / "store", shares, finetune_job=f"fine-tune-{rule}", seeds=(0, 1))
    return tmp_path / "store"


@pytest.fixture
def note(store, capsys):
    """Runs `signsym note` on the store; its status and what it printed."""

    def run(*words, folder=store):
        status = main(["note", str(folder), *words])
        out, err = capsys.readouterr()
        return status, out + err

    return run


def cell_of(store, rule, epsilon=0.1):
    index = LiveStore(str(store), at_once=True).snapshot.index
    rows = (r for line in index.lines if line.rule == rule for r in line.rows if index.epsilon[r] == epsilon)
    return str(index.value("cell", next(rows)))


def shown(store, search):
    """The sentences of the notes on a page."""
    return [
        text for words in page(store, search).blocks if isinstance(words, Words) and words.title == "Notes"
        for text in words.sentences
    ]  # fmt: skip


def texts(store, search):
    return [text.partition(" (20")[0] for text in shown(store, search)]


def test_a_note_stands_where_it_was_written_and_nowhere_else(store, note):
    cell = cell_of(store, "usf")
    assert note("on a view", "--on", "http://127.0.0.1:8050/?p=gap&a=pgd&tb=1&live=1")[0] == 0
    assert note("on a cell", "--on", cell, "--tag", "weak")[0] == 0
    assert note("on a cell, by its page", "--on", f"?p=cell&c={cell}")[0] == 0
    assert note("on a model", "--on", "fine-tune-usf")[0] == 0
    assert texts(store, "?p=gap&a=pgd") == ["on a view"]
    assert texts(store, "?task=classification&p=gap&a=pgd&part=1") == ["on a view"]
    assert texts(store, "?p=gap") == texts(store, "?p=curves&a=pgd") == []
    assert texts(store, f"?p=cell&c={cell}") == ["[weak] on a cell", "on a cell, by its page", "on a model"]
    assert texts(store, f"?p=cell&c={cell_of(store, 'usf', 0.0)}") == ["on a model"]
    assert texts(store, f"?p=cell&c={cell_of(store, 'bp')}") == []
    assert texts(store, "?p=flags") == texts(store, "?p=training") == texts(store, "?p=flags&r=usf") == ["on a model"]
    assert "UTC, on the model: uSF, smallcnn / digits, seed 0, " in shown(store, "?p=flags")[0]
    assert texts(store, "?p=flags&r=bp") == []


def test_the_page_of_notes_has_all_and_those_of_a_tag(store, note):
    assert "Nobody has written a note" in block(page(store, "?p=notes"), Words).sentences[0]
    note("one", "--on", "", "--tag", "weak")
    note("two", "--on", "fine-tune-bp", "--tag", "redo")
    note("three", "--on", cell_of(store, "usf"))
    found = page(store, "?p=notes")
    matrix = block(found, Matrix)
    assert sorted(row[1][0].lines[0] for row in matrix.rows) == ["one", "three", "two"]
    where = {row[1][0].lines[0]: row[1][1] for row in matrix.rows}
    assert where["one"].lines == ["view: Curves", "?task=classification"]
    assert where["two"].lines == ["model: BP, smallcnn / digits, seed 0"]
    assert where["three"].lines == ["cell: uSF, pgd, ε = 0.1, smallcnn / digits, seed 0"]
    assert where["three"].search.endswith(cell_of(store, "usf"))
    assert [link.search for link in block(found, Links).links] == [
        f"?p=notes&task=classification{tag}" for tag in ("", "&tag=redo", "&tag=weak")
    ]
    (only,) = block(page(store, "?p=notes&tag=weak"), Matrix).rows
    assert only[1][0].lines == ["one"]
    assert "the tag “none”" in block(page(store, "?p=notes&tag=none"), Words).sentences[0]


def test_a_note_that_is_withdrawn_is_shown_no_more_and_nothing_is_deleted(store, note):
    note("wrong", "--on", "")
    note("right", "--on", "", "--tag", "weak")
    (first, second) = Notes(Store(str(store))), Notes(Store(str(store)))
    first.refresh()
    second.refresh()
    (wrong,) = (each.id for each in first.all if each.text == "wrong")
    assert note("--withdraw", wrong)[1] == f"withdrawn: {wrong} wrong\n"
    assert texts(store, "?") == ["[weak] right"]
    status, said = note("--withdraw", wrong)
    assert (status, f"has no note {wrong}" in said) == (2, True)
    assert len(list((store / "notes").iterdir())) == 3
    assert "[weak] right  (?task=classification)" in note()[1]
    assert len(note("--tag", "weak")[1].splitlines()) == 1
    assert "no note with the tag redo" in note("--tag", "redo")[1]
    # Who has read it before sees that it is gone.
    first.refresh()
    assert [each.text for each in first.all] == ["right"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["x"], "expected --on beside a text"),
        (["x", "--on", "?p=gap&r=frsf"], "The store has no rule “frsf”; known: bp, usf.\n"),
        (["x", "--on", "?p=gap&z=1"], "“z”, which is no filter"),
        (["x", "--on", "?p=cell&c=0123456789"], "has no cell '0123456789'"),
        (["x", "--on", "0123456789"], "no cell and no fine-tune whose key begins with '0123456789'"),
        (["two\nlines", "--on", ""], "expected a text of one line and at most 2,000 characters"),
        (["\x1b[31mred", "--on", ""], "expected a text of one line"),
        (["x" * 2001, "--on", ""], "expected a text of one line"),
        ([" ", "--on", ""], "expected a text of one line"),
        (["x", "--on", "", "--tag", "a b"], "expected a tag of at most 40 letters"),
        (["x", "--on", "", "--withdraw", "12345678"], "--withdraw: expected no text"),
        (["--on", ""], "--on: expected a text before it"),
    ],
)
def test_a_note_that_no_page_could_show_is_refused(store, note, words, error):
    status, said = note(*words)
    assert status == 2
    assert error in said
    assert not (store / "notes").exists()


def test_damaged_and_foreign_files_are_named_and_hide_no_note(store, note):
    note("one", "--on", "")
    (file,) = (store / "notes").iterdir()
    value = json.loads(file.read_text())
    for name, content in {
        "00000000": "{",
        "00000001": "[]",
        "00000002": json.dumps(value),
        "00000003": json.dumps(value | {"id": "00000003", "text": "a\nb"}),
        "00000004": json.dumps(value | {"id": "00000004", "text": 3}),
        "00000005": json.dumps(value | {"id": "00000005", "later": "field", "text": "newer"}),
        "zzzz": json.dumps(value | {"id": "zzzz"}),
    }.items():
        (store / f"notes/{name}.json").write_text(content)
    (store / "notes/readme.txt").write_text("mine")
    assert sorted(texts(store, "?")) == ["newer", "one"]
    skipped = LiveStore(str(store), at_once=True).skipped
    assert sorted(skipped) == [
        f"notes/{n}" for n in (*(f"0000000{k}.json" for k in range(5)), "readme.txt", "zzzz.json")
    ]
    _, said = note()
    assert "notes/00000003.json" in said
    assert main(["status", str(store), "--verify"]) == 1


@pytest.mark.usefixtures("undrawn")
def test_text_stays_text_and_a_report_has_the_pages_of_noted_cells(store, note, tmp_path):
    note(HOSTILE, "--on", "")
    cell = cell_of(store, "bp", 0.0)
    note("look", "--on", cell)
    context = context_of(LiveStore(str(store)), "?")
    found = page(store, "?")
    drawn = json.dumps(
        [part.to_plotly_json() for part in rendered(found, Look())], default=lambda part: part.to_plotly_json()
    )
    assert HOSTILE in drawn
    assert "Markdown" not in drawn
    assert main(["report", str(store), "--out", str(tmp_path / "report")]) == 0
    for name in ("index", "curves-classification"):
        html = (tmp_path / f"report/{name}.html").read_text()
        assert "&lt;script&gt;alert(1)&lt;/script&gt; **bold** $x$" in html
        assert "<script>alert(1)" not in html
    assert HOSTILE in (tmp_path / "report/tables/index-notes-rows.csv").read_text()
    assert "look" in (tmp_path / f"report/cells/{cell[:16]}.html").read_text()
    last = noting(found, context).blocks[-1]
    assert last.commands == [f"signsym note {store} 'TEXT' --on '?task=classification'"]


def test_the_command_that_a_page_shows_writes_the_note_on_it(store, note):
    cell = cell_of(store, "usf")
    context = context_of(LiveStore(str(store)), f"?p=cell&c={cell}")
    commands = noting(page(store, f"?p=cell&c={cell}"), context).blocks[-1].commands
    assert [command.rpartition(" ")[2] for command in commands] == [cell, "fine-tune-usf"]
    for command in commands:
        note("there", "--on", command.rpartition(" ")[2])
    assert texts(store, f"?p=cell&c={cell}") == ["there", "there"]


def test_several_stores_show_and_export_the_notes_of_each(store, note, tmp_path):
    other = fill(tmp_path / "other", draw=1, backbone="vgg16")
    note("here", "--on", "?p=gap")
    note("there", "--on", "?p=gap", folder=other)
    data = opened([str(store), str(other)])
    both = page(data, "?p=gap")
    (words,) = (each for each in both.blocks if isinstance(each, Words) and each.title == "Notes")
    assert [
        ("here" in text and ", store," in text) or ("there" in text and ", other," in text) for text in words.sentences
    ]
    assert len(words.sentences) == 2
    for search, named in (("?p=gap", store), ("?p=gap&store=other", other)):
        (command,) = noting(page(data, search), context_of(data, search)).blocks[-1].commands
        assert command == f"signsym note {named} 'TEXT' --on '?p=gap&task=classification'"
    assert len(block(page(data, "?p=notes"), Matrix).rows) == 2
    assert len(block(page(data, "?p=notes&store=other"), Matrix).rows) == 1
    main(["export", str(store), str(other), "--what", "notes", "--out", str(tmp_path / "notes.parquet")])
    frame = pd.read_parquet(tmp_path / "notes.parquet")
    assert frame[["text", "on", "target", "tag", "store"]].values.tolist() == [
        ["here", "view", "?p=gap&task=classification", "", "store"],
        ["there", "view", "?p=gap&task=classification", "", "other"],
    ]


def test_a_store_without_notes_has_nothing_to_export(store, tmp_path, capsys):
    assert main(["export", str(store), "--what", "notes", "--out", str(tmp_path / "notes.csv")]) == 2
    assert "nothing of notes is there that can be read. It is made by signsym note" in capsys.readouterr().err
    assert not (tmp_path / "notes.csv").exists()


def test_compaction_keeps_notes_and_results_do_not_know_them(store, note):
    before = Store(str(store)).results()
    note("kept", "--on", "")
    assert main(["compact", str(store)]) == 0
    pd.testing.assert_frame_equal(before, Store(str(store)).results())
    assert texts(store, "?") == ["kept"]


def _write(uri, count):
    for at in range(count):
        Notes(Store(uri)).write(f"{at}", "view", "?")


def test_many_write_at_once(store):
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(str(store), 20)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    notes = Notes(Store(str(store)))
    notes.refresh()
    assert len(notes.all) == 60
    assert notes.skipped == {}
