"""The page of tables: which table and which epsilon it takes, what it says of them, and how long it takes."""

from __future__ import annotations

import pytest
from stores import GRID, block, fill, keep_grid, page

from orchestrator.drawing.blocks import Figure, Matrix, MatrixCell, Table, Words
from orchestrator.drawing.latex import latex
from orchestrator.pages.paper_tables import PRESETS, paper_table
from orchestrator.pages.telling_epsilon import matching
from orchestrator.results.live_store import LiveStore
from orchestrator.results.paper_values import printed
from orchestrator.results.query import Query
from orchestrator.results.scores import KEPT, best, points_at
from signsym_core.statistics.intervals import gap

EPSILONS = {"0": 0.0, "0.02": 0.02, "8/255": 8 / 255, "0.3": 0.3}


def entries(found):
    """The first line of each entry by backbone, gradient and rule."""
    matrix = block(found, Matrix)
    rules = matrix.header[4:]
    return {
        (names[0], names[3], rule): entry.lines
        for names, row in matrix.rows
        for rule, entry in zip(rules, row, strict=True)
    }


def warnings(found):
    return [
        text for each in found.blocks if isinstance(each, Words) and each.tone == "warning" for text in each.sentences
    ]


def reading(found):
    return " ".join(found.blocks[-1].sentences)


def test_without_clean_scores_the_scores_under_attack_are_shown(tmp_path):
    folder = fill(tmp_path / "store")
    found = page(folder, "?p=tables")
    assert block(found, Matrix).title == "Every attack, at ε = 0.1"
    assert "Nothing is run or planned of “Table 1: clean top-1 of classification”" in reading(found)
    assert block(page(folder, "?p=tables&t=1"), Matrix).title == PRESETS["1"].title


def test_clean_scores_that_are_there_or_asked_for_are_the_first_table(tmp_path):
    folder = fill(tmp_path / "store")
    keep_grid(folder)
    assert block(page(folder, "?p=tables"), Matrix).title == PRESETS["1"].title
    clean = fill(tmp_path / "clean", {("bp", "none"): {0.0: 0.9}}, attack="none")
    assert block(page(clean, "?p=tables"), Matrix).title == PRESETS["1"].title


def test_models_without_results_are_told_apart_by_all_in_which_they_differ(tmp_path):
    # Two rules of one name on two settings: four models, of which none has a result, beside one that has some.
    folder = fill(tmp_path / "store", {("frsf", "none"): {0.0: 0.9}}, attack="none")
    rules = GRID.replace("[bp, usf]", "[{name: frsf, scale: xavier}, {name: frsf, scale: unit}]")
    experiment = rules.split("experiments:")[1]
    keep_grid(folder, rules + experiment.replace("epochs: 2", "epochs: 2, lr: 100"))
    matrix = block(page(folder, "?p=tables"), Matrix)
    assert matrix.header[4:] == ["frSF(defaults)", "frSF(scale=unit)", "frSF(scale=xavier)"]
    places = [names[1] for names, _ in matrix.rows]
    assert len(set(places)) == 3
    assert sum("lr=100" in place for place in places) == 1
    states = {names[1]: [entry.state for entry in row] for names, row in matrix.rows}
    assert sorted(map(tuple, states.values())) == [("", "not run", "not run")] + 2 * [("not run", "not run", "not run")]


def test_rows_of_the_paper_that_the_store_lacks_are_shown_where_its_table_is_chosen(tmp_path):
    scores = {("bp", "none"): {0.0: 0.9}}
    folder = fill(tmp_path / "store", scores, attack="none")
    found = page(folder, "?p=tables")
    assert [names[0] for names, _ in block(found, Matrix).rows] == ["smallcnn"]
    assert block(found, Matrix).header[4:] == ["BP"]
    assert "12 more rows, of which this store has nothing: choose 1" in reading(found)
    assert len(block(page(folder, "?p=tables&t=1"), Matrix).rows) == 13
    # Beside a row of the paper stand all of its rules, since it prints them.
    fill(folder, scores, attack="none", backbone="alexnet", dataset="cifar10")
    found = page(folder, "?p=tables")
    rows = {names[0]: [entry.lines[-1] for entry in row] for names, row in block(found, Matrix).rows}
    assert block(found, Matrix).header[4:] == ["BP", "uSF", "frSF", "brSF"]
    assert rows["alexnet"][1:] == ["paper 90.62 [75.8, 96.8]", "paper 93.75 [79.9, 98.3]", "paper 87.5 [71.9, 95.0]"]
    assert "11 more rows" in reading(found)


@pytest.mark.parametrize("name", ["3", "4"])
def test_a_table_without_lines_has_no_epsilon_and_no_correction_over_nothing(tmp_path, name):
    matrix = block(page(fill(tmp_path / "store"), f"?p=tables&t={name}"), Matrix)
    assert matrix.title == PRESETS[name].title
    assert "Holm" not in matrix.note
    assert "Holm's correction over the 2 rows" in block(page(tmp_path / "store", "?p=tables&t=all"), Matrix).note


def test_what_is_only_asked_for_stands_at_an_epsilon_that_is_asked_for(tmp_path):
    folder = fill(tmp_path / "store", attack="fgsm")
    fill(folder, backbone="other")
    keep_grid(folder)
    found = page(folder, "?p=tables&t=all&a=pgd&b=smallcnn")
    assert block(found, Matrix).title == "Under pgd, at ε = 0.1"
    assert {lines[0] for lines in entries(found).values()} == {"not run"}


def test_the_papers_dash_is_shown_where_it_has_no_number(tmp_path):
    found = page(fill(tmp_path / "store"), "?p=tables&t=2")
    for backbone in ("alexnet", "resnet18", "vgg16"):
        place = ("2", backbone, "nuswide", "brsf")
        assert printed()[place].value is None
    rows = block(found, Matrix).rows
    assert sum(entry.lines[-1] == "paper –" for _, row in rows for entry in row) == 3
    assert "“–” is where it has no number" in reading(found)


def test_a_zero_is_told_from_nothing(tmp_path):
    text = reading(page(fill(tmp_path / "store"), "?p=tables"))
    assert "0.0 is a number" in text
    assert "nothing was handled" not in text


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("0.3", "0.3"),
        ("0.30", "0.3"),
        ("3e-1", "0.3"),
        ("0.031372", "8/255"),
        ("0.0314", "8/255"),
        ("16/510", "8/255"),
        ("0", "0"),
        ("0.00001", None),
        ("0.301", None),
        ("0.031", None),
        ("nan", None),
        ("inf", None),
        ("1/0", None),
        ("", None),
        ("eight", None),
    ],
)
def test_an_epsilon_is_found_by_its_label_or_its_number(text, label):
    assert matching(text, EPSILONS) == label
    assert matching(text, {}) is None


def test_the_label_itself_stands_above_a_nearer_number():
    assert matching("0.0314", {"8/255": 8 / 255, "0.0314": 0.0314}) == "0.0314"
    assert matching("0.03140", {"8/255": 8 / 255, "0.0314": 0.0314}) == "0.0314"


def test_an_epsilon_of_the_address_is_matched_and_an_unknown_one_says_which_is_taken(tmp_path):
    folder = fill(tmp_path / "store", {("bp", "exact"): {0.0: 1.0, 0.1: 0.9, 0.3: 0.2}})
    found = page(folder, "?p=tables&t=all&e=0.10")
    assert block(found, Matrix).title.endswith("at ε = 0.1")
    assert not warnings(found)
    found = page(folder, "?p=tables&t=all&e=0.2")
    assert block(found, Matrix).title.endswith("at ε = 0.3")
    assert warnings(found) == ["No line shown has ε = “0.2”: ε = 0.3 is taken."]


def test_scores_are_those_of_the_curves(tmp_path):
    folder = fill(tmp_path / "store")
    data = LiveStore(str(folder))
    rows = block(page(data), Figure).table.rows
    curves = {
        (row["gradient"], row["rule"]): (row["value"], row["lo"], row["hi"]) for row in rows if row["epsilon"] == "0.1"
    }
    table = block(page(data, "?p=tables&t=all&e=0.1"), Matrix).table.rows
    assert {(row["gradient"], row["rule"]): (row["value"], row["lo"], row["hi"]) for row in table} == curves


def test_points_at_each_of_many_epsilons_are_those_of_the_curve(tmp_path):
    folder = fill(tmp_path / "store", {("bp", "exact"): {at / 20: 0.9 - at / 20 for at in range(KEPT + 3)}})
    for seeds in ((), (0, 2)):
        query = LiveStore(str(folder)).snapshot.query(seeds)
        lines = list(query.index.ordered)
        for _ in range(2):
            for point in query.curves(lines)[0].points:
                found, lacking = points_at(query, lines, point.epsilon)
                assert found == {lines[0].number: point}
                assert lacking == {}
    assert points_at(query, lines, 0.77) == ({}, {})


def test_results_that_give_no_score_are_not_called_not_run(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, {("usf", "exact"): {0.1: 0.9}}, seeds=(0,), draw=9)
    lines = entries(page(folder, "?p=tables&t=all&e=0.1"))["smallcnn", "exact", "uSF"]
    assert lines[0].startswith("two results: two results for rule usf")
    bare = fill(tmp_path / "bare")
    for path in (bare / "outcomes").glob("job-usf-exact-*"):
        path.unlink()
    assert entries(page(bare, "?p=tables&t=all&e=0.1"))["smallcnn", "exact", "uSF"] == ["no outcomes"]


def test_the_best_of_pairs_is_that_of_each_pair_alone(tmp_path):
    """Also where the seeds or images of the two differ, and where the first is not above the second."""
    folder = tmp_path / "store"
    shares = {("bp", "none"): {0.1: 0.3}, ("usf", "none"): {0.1: 0.9}}
    fill(folder, shares, attack="noise")
    fill(folder, {("frsf", "none"): {0.1: 0.9}}, attack="noise", seeds=(0, 1, 2, 3), images=50)
    query = LiveStore(str(folder)).snapshot.query()
    bp, usf, frsf = (next(query.index.chosen(rule=(rule,))) for rule in ("bp", "usf", "frsf"))
    pairs = {"a": (usf, bp), "b": (frsf, bp), "c": (usf, frsf), "d": (bp, usf)}
    clear = {key: gap(*query.pair(*pair, 0.1)) for key, pair in pairs.items()}
    assert all(clear[key].p < 0.01 for key in "abd")
    assert clear["c"].p > 0.05
    assert best(query, pairs, 0.1) == ({"a", "b"}, 4)


@pytest.mark.slow
def test_a_table_computes_one_epsilon_and_reads_its_pairs_together(tmp_path, monkeypatch):
    shares = {(rule, "exact"): {e / 20: 0.9 - e / 30 for e in range(11)} for rule in ("bp", "usf", "frsf")}
    folder = fill(tmp_path / "store", shares)
    for at in range(4):
        fill(folder, shares, draw=at + 1, backbone=f"net{at}")
    query = LiveStore(str(folder)).snapshot.query()
    lines = list(query.index.ordered)
    made = []
    samples, points = Query.samples, Query._scores
    monkeypatch.setattr(Query, "samples", lambda self, lines: made.append("samples") or samples(self, lines))
    monkeypatch.setattr(
        Query,
        "_scores",
        lambda self, found, wanted: made.extend(["point"] * len(wanted)) or points(self, found, wanted),
    )
    table = paper_table(query, LiveStore(str(folder)).status, lines, [], 0.2, "all", whole=False)
    assert table.family == 5
    assert made.count("samples") == 2
    assert made.count("point") == len(lines) == 15


def test_the_table_of_chosen_attacks_names_them(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, attack="fgsm", draw=1)
    assert block(page(folder, "?p=tables&t=all&e=0.1"), Matrix).title == "Every attack, at ε = 0.1"
    assert block(page(folder, "?p=tables&t=all&a=fgsm&e=0.1"), Matrix).title == "Under fgsm, at ε = 0.1"


def test_latex_has_the_units_and_no_sign_that_is_printed_as_another():
    cells = [MatrixCell(lines=["<1 %", "[0, 2] × “a|b”"], state="best")]
    rows = [(("[a]", "b&c_d"), cells)]
    table = Table(name="t", title="t", columns=(), rows=())
    found = latex(
        Matrix(name="m", title="|g|₁ at ε", header=["", "", "|g|₁"], rows=rows, note="Percent\nof 50 %.", table=table)
    )
    assert found.splitlines() == [
        "% \\usepackage{booktabs}",
        "% $|$g$|$$_1$ at $\\varepsilon$",
        "% Percent of 50 \\%.",
        "\\begin{tabular}{llr}",
        "\\toprule",
        " &  & $|$g$|$$_1$ \\\\",
        "\\midrule",
        "{[a]} & b\\&c\\_d & \\textbf{$<$1 \\%} \\\\",
        " &  & {\\footnotesize [0, 2] $\\times$ ``a$|$b''} \\\\",
        "\\bottomrule",
        "\\end{tabular}",
    ]
