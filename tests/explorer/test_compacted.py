"""A compacted store and the loose one: every command and every page says the same, to the last digit."""

from __future__ import annotations

import re

import pytest
from stores import fill, keep_grid, page

from orchestrator.commands.cli import main
from orchestrator.results.live_store import LiveStore
from orchestrator.results.view import PAGES
from orchestrator.store import Store, tables


@pytest.mark.slow
def test_every_command_says_the_same_of_a_compacted_store(tmp_path, capsys):
    folder = fill(tmp_path / "store")
    keep_grid(folder)
    store, empty = Store(str(folder)), dict.fromkeys(tables.ALIGNMENT.names)
    for job in ("f", "g"):
        rows = [empty | {"job": job, "epoch": 1, "layer": layer, "angle": 30.0} for layer in ("conv", "head")]
        store.write_table("alignment", job, rows, tables.ALIGNMENT)

    def said():
        capsys.readouterr()
        answers = [main(["audit", str(folder), "--no-probes", "--json"]), capsys.readouterr().out]
        answers += [main(["status", str(folder)]), capsys.readouterr().out]
        for what in ("results", "outcomes", "curves", "alignment"):
            assert main(["export", str(folder), "--what", what, "--out", str(tmp_path / "table.csv")]) == 0
            answers.append(sorted((tmp_path / "table.csv").read_text().splitlines()))
        data = LiveStore(str(folder))
        cell = str(data.snapshot.index.value("cell", 3))
        for search in [*(f"?p={name}" for name in PAGES), f"?p=cell&c={cell}"]:
            # But for where objects lie in memory, and the numbers of lines, which follow the order of files.
            answers.append(re.sub(r"0x[0-9a-f]+|line=\d+", "", repr(page(data, search))))
        return answers

    before = said()
    assert main(["compact", str(folder)]) == 0
    assert len(list((folder / "results").iterdir())) == len(list((folder / "alignment").iterdir())) == 1
    assert said() == before
