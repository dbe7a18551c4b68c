"""`signsym figure` writes what the page of the same address shows, or says why it does not."""

from __future__ import annotations

import pytest
from stores import fill

from orchestrator.commands.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("figures") / "store")


@pytest.mark.slow
def test_the_suffix_decides_what_is_written(folder, tmp_path, capsys):
    for view, name, start in (
        ("?p=curves&r=usf", "curves.pdf", b"%PDF"),
        ("http://127.0.0.1:8050/?p=gap", "new/gap.svg", b"<?xml"),
        ("", "first.png", b"\x89PNG"),
        ("?p=gap&as=heat", "heat.html", (b"<!doctype html>", b"<html>")),
    ):
        out = tmp_path / name
        assert main(["figure", str(folder), view, "--out", str(out), "--width", "3.3"]) == 0
        assert out.read_bytes().startswith(start)
        assert f"figure: {out}" in capsys.readouterr().out
    # The same numbers give the same file.
    assert main(["figure", str(folder), "?p=gap", "--out", str(tmp_path / "again.svg"), "--width", "3.3"]) == 0
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "new/gap.svg").read_bytes()
    assert b"heatmap" in (tmp_path / "heat.html").read_bytes()
    # One file alone, without Plotly from another host.
    assert b"<script src=" not in (tmp_path / "heat.html").read_bytes()
    assert main(["figure", str(folder), "?p=tables", "--out", str(tmp_path / "table.tex")]) == 0
    assert "\\begin{tabular}" in (tmp_path / "table.tex").read_text()


@pytest.mark.parametrize(
    ("view", "name", "words"),
    [
        ("?p=curves", "curves.jpg", "ends with .pdf, .svg, .png, .tex or .html"),
        ("?p=curves&r=ursf", "curves.pdf", "The store has no rule “ursf”"),
        ("?p=curv", "curves.pdf", "The address asks for “curv” as page"),
        ("?p=curves", "curves.tex", "has no table for LaTeX"),
        ("?p=tables", "table.pdf", "has no figure"),
        ("?p=gap&as=heat", "heat.pdf", "drawn for the screen alone"),
        ("?p=training", "training.pdf", "has no figure"),
        ("?p=gap&e=0.77", "gap.pdf", "No line that the filter chooses has ε = “0.77”"),
        ("?p=tables&t=all&e=0.77", "table.tex", "No line shown has ε = “0.77”"),
        ("?part=9", "curves.pdf", "There is no part 9"),
    ],
)
def test_what_it_would_not_show_as_it_was_asked_for_is_refused(folder, tmp_path, capsys, view, name, words):
    assert main(["figure", str(folder), view, "--out", str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
