"""The gap page: answers that rest on all that was run, say which correction they stand after, and claim no more."""

from __future__ import annotations

import re

import pytest
from stores import SHARES, block, fill, page

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Links, Matrix, Words
from orchestrator.drawing.gap_figures import ROW_LETTERS
from orchestrator.pages import gap
from orchestrator.reports.static import write_report
from orchestrator.results.gaps import gap_lines
from orchestrator.results.live_store import LiveStore


def turning(data, search):
    """What the page says of its parts."""
    return next(each.title for each in page(data, search).blocks if isinstance(each, Links) and "panels" in each.title)


def answers(folder, search="?p=gap"):
    """The answers: the block in words, and for each rule its entries in the table."""
    found = page(folder, search).blocks
    words = next(each for each in found if isinstance(each, Words) and each.title.startswith("Is a rule"))
    (matrix,) = (each for each in found if isinstance(each, Matrix) and each.name == "answers")
    assert found.index(matrix) == found.index(words) + 1
    return words, {names[-1]: [entry.lines for entry in entries] for names, entries in matrix.rows}, matrix


def said(folder, search="?p=gap"):
    """For each rule the lines of its answer."""
    return {rule: entries[4] for rule, entries in answers(folder, search)[1].items()}


def shares(**by_line):
    """Shares by "rule_gradient"."""
    return {tuple(name.split("_")): values for name, values in by_line.items()}


def many(folder, backbones):
    """A store with a figure for each of so many backbones."""
    for at in range(backbones):
        fill(folder, seeds=(0, 1), images=20, draw=at, backbone=f"net{at:02}")
    return LiveStore(str(folder))


@pytest.mark.parametrize("filters", ["&g=feedback", "&g=exact&a=pgd", "&r=usf", "&as=heat&g=feedback", "&vs=exact"])
def test_the_answer_does_not_depend_on_what_is_shown(tmp_path, filters):
    data = LiveStore(str(fill(tmp_path / "store")))
    every = answers(data)[1]
    assert answers(data, f"?p=gap{filters}")[1] == every
    assert list(every) == ["BP", "uSF"]
    assert every["uSF"][0] == ["pgd (exact)"]


def test_a_filter_of_attacks_changes_the_answer_and_says_so(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, {("bp", "none"): {0.1: 0.4}, ("usf", "none"): {0.1: 0.02}}, attack="square", draw=1)
    words, every, _ = answers(folder, "?p=gap&e=0.1")
    assert "In the worst case over all attacks in the store" in words.sentences[0]
    assert every["uSF"][0] == ["square"]
    words, some, _ = answers(folder, "?p=gap&e=0.1&a=pgd")
    assert "In the worst case over pgd alone, as the filter chooses" in words.sentences[0]
    assert some["uSF"][0] == ["pgd (exact)"]
    assert some["uSF"][1] != every["uSF"][1]


@pytest.mark.slow
def test_each_part_answers_for_its_models_and_counts_those_that_it_leaves_out(tmp_path, monkeypatch):
    data = many(tmp_path / "store", 20)
    assert re.search(r"of ([\d,]+) panels", turning(data, "?p=gap&rows=gradient"))[1] == "40"
    _, _, matrix = answers(data, "?p=gap&rows=gradient")
    assert len(matrix.rows) == 24
    assert "6 more are not shown" in matrix.note
    monkeypatch.setattr("orchestrator.pages.answers.MOST", 100)
    places = {names[0] for part in (1, 2, 3) for names, _ in answers(data, f"?p=gap&rows=gradient&part={part}")[2].rows}
    assert len(places) == 20
    words, _, _ = answers(data, "?p=gap&rows=gradient")
    assert re.search(r"no difference to BP shown: \d+ of 18 models", words.sentences[0])


@pytest.mark.slow
def test_a_part_has_only_panels_that_can_be_compared(tmp_path):
    data = many(tmp_path / "store", 20)
    for part in (1, 2):
        titles = [each.title for each in page(data, f"?p=gap&vs=exact&part={part}").blocks]
        assert "Nothing to compare" not in titles
    assert "of 20 panels" in turning(data, "?p=gap&vs=exact")


@pytest.mark.slow
def test_a_heat_map_has_every_line_and_names_how_many_it_leaves_out(tmp_path, monkeypatch):
    data = many(tmp_path / "store", 20)
    found = page(data, "?p=gap&as=heat&e=0.1")
    heat = block(found, Figure)
    names, ticks = heat.figure["data"][0]["y"], heat.figure["layout"]["yaxis"]["ticktext"]
    assert len(names) == 20
    assert [tick.replace("<br>", " ") for tick in ticks] == names
    assert max(len(line) for tick in ticks for line in tick.split("<br>")) <= ROW_LETTERS
    assert not any(isinstance(each, Links) and "panels" in each.title for each in found.blocks)
    monkeypatch.setattr(gap, "MOST", 30)
    found = page(data, "?p=gap&as=heat")
    assert len(block(found, Figure).figure["data"][0]["y"]) == 15
    assert "leaves out 10 more" in found.blocks[0].sentences[0]


def test_the_table_under_a_heat_map_has_the_epsilon_that_is_drawn(tmp_path):
    folder = fill(tmp_path / "store")
    assert {row["epsilon"] for row in block(page(folder, "?p=gap&as=heat"), Figure).table.rows} == {"0.1"}
    assert {row["epsilon"] for row in block(page(folder, "?p=gap"), Figure).table.rows} == {"0", "0.1"}


def test_an_interval_that_excludes_zero_only_before_the_correction_is_no_difference(tmp_path):
    same = {0.05 * at: 0.4 for at in range(1, 9)}
    made = {("bp", "exact"): same, ("usf", "exact"): same | {0.05: 0.48}}
    data = LiveStore(str(fill(tmp_path / "store", made, images=200, draw=2)))
    query = data.snapshot.query()
    (line,) = gap_lines(query, query.index.lines, "bp")
    assert not line.points[0].gap.lo <= 0 <= line.points[0].gap.hi
    assert not line.points[0].clear
    words, rows, matrix = answers(data, "?p=gap&e=0.05")
    # One attack is its own worst case.
    assert rows["uSF"][2] == [f"{style.points(line.points[0].gap)} ○"]
    assert rows["uSF"][4] == ["no difference shown"]
    assert matrix.table.rows[1]["family"] == line.family == 8
    assert "no difference to BP shown: uSF (95 % intervals, after Holm's correction)" in words.sentences[0]


def test_a_gap_of_no_difference_is_certain_only_where_there_can_be_none(tmp_path):
    alike = {0.0: 1.0, 0.1: 0.0}
    names = [(rule, gradient) for rule in ("bp", "usf") for gradient in ("exact", "feedback")]
    data = LiveStore(str(fill(tmp_path / "store", dict.fromkeys(names, alike), images=60)))
    query, found = data.snapshot.query(), {}
    for minus in ("bp", "exact"):
        for line in gap_lines(query, query.index.ordered, minus):
            found |= {(minus, line.curve.rule, p.point.label): (p.gap.value, p.gap.lo, p.gap.hi) for p in line.points}
            # Of the exact gradient only what could differ is compared: uSF at ε = 0.1.
            assert line.family == {"bp": 2, "exact": 1}[minus]
    # All 60 images agree: of all images at most this share does not, by the exact interval of 0 of 60.
    most = 1 - 0.025 ** (1 / 60)
    apart = (0, pytest.approx(-most), pytest.approx(most))
    # BP's gradient is the exact one, and at ε = 0 nothing is changed.
    assert found == {
        ("bp", "usf", "0"): apart,
        ("bp", "usf", "0.1"): apart,
        ("exact", "bp", "0"): (0, 0, 0),
        ("exact", "bp", "0.1"): (0, 0, 0),
        ("exact", "usf", "0"): (0, 0, 0),
        ("exact", "usf", "0.1"): apart,
    }


def test_a_clear_gap_is_answered_by_the_worst_case_and_not_by_the_own_feedback(tmp_path):
    shared = {0.1: 0.4}
    made = shares(bp_exact=shared, usf_feedback={0.1: 0.8}, usf_exact={0.1: 0.35})
    made |= shares(frsf_feedback={0.1: 0.95}, frsf_exact={0.1: 0.9}, brsf_exact={0.1: 0.02})
    words, rows, matrix = answers(fill(tmp_path / "store", made, images=200))
    assert {rule: entries[4] for rule, entries in rows.items()} == {
        "BP": ["–"],
        "uSF": ["no difference shown", "more along its own feedback: masking"],
        "frSF": ["more robust"],
        "brSF": ["less robust"],
    }
    assert [rows[rule][2][0][-1] for rule in ("uSF", "frSF", "brSF")] == ["○", "●", "●"]
    assert rows["uSF"][3][0].startswith("+4")
    assert rows["brSF"][3] == ["–"]
    assert words.sentences == [
        "In the worst case over all attacks in the store, no difference to BP shown: uSF; more robust than BP: frSF; "
        "less robust than BP: brSF (95 % intervals, after Holm's correction).",
        "More robust than BP along their own feedback alone, which is gradient masking: uSF.",
    ]
    assert matrix.note.endswith("a demonstration, not evidence.")


def test_what_keeps_nothing_is_not_compared(tmp_path):
    made = shares(bp_exact={0.1: 0.005}, usf_exact={0.1: 0.01}, usf_feedback={0.1: 0.9}, bp_feedback={0.1: 0.1})
    found = said(fill(tmp_path / "store", made, images=400))
    assert found["uSF"] == ["nothing left to compare", "more along its own feedback: masking"]


def test_what_was_not_attacked_alike_is_not_answered(tmp_path):
    made = shares(bp_exact={0.1: 0.4}, bp_feedback={0.1: 0.4}, usf_feedback={0.1: 0.9}, frsf_exact={0.1: 0.4})
    folder = fill(tmp_path / "store", made)
    fill(folder, shares(frsf_exact={0.1: 0.3}), attack="fgsm", draw=1)
    _, rows, matrix = answers(folder)
    assert rows["uSF"][4] == ["not known: run these attacks with gradient: exact"]
    assert rows["frSF"][4] == ["not compared: other attacks than on BP"]
    fill(folder, shares(brsf_exact={0.1: 0.3}), seeds=(7,), draw=2)
    assert answers(folder)[1]["brSF"][4] == ["not compared: no seed or image in common with BP"]
    (entries,) = (entries for names, entries in matrix.rows if names == ["frSF"])
    assert entries[4].about == "run on one of the two alone: fgsm (exact)"


def test_noise_is_no_attack_that_confirms_what_survives_the_own_feedback(tmp_path):
    folder = fill(tmp_path / "store", shares(bp_feedback={0.1: 0.4}, usf_feedback={0.1: 0.8}))
    fill(folder, shares(bp_none={0.1: 0.99}, usf_none={0.1: 0.99}), attack="noise", draw=1)
    assert said(folder)["uSF"] == ["not known: run these attacks with gradient: exact"]
    fill(folder, shares(bp_none={0.1: 0.9}, usf_none={0.1: 0.9}), attack="square", draw=2)
    assert said(folder)["uSF"] == ["more robust"]


def test_the_feedback_of_a_rule_without_a_backward_pass_is_its_exact_gradient(tmp_path):
    made = shares(bp_feedback={0.1: 0.4}, pepita_feedback={0.1: 0.8}, usf_feedback={0.1: 0.8})
    found = said(fill(tmp_path / "store", made))
    assert found["PEPITA"] == ["more robust"]
    assert found["uSF"] == ["not known: run these attacks with gradient: exact"]


def test_one_seed_is_never_a_flat_yes_or_no(tmp_path):
    made = shares(bp_exact={0.1: 0.3}, usf_exact={0.1: 0.9}, frsf_exact={0.1: 0.02})
    folder = fill(tmp_path / "store", made, seeds=(0,), images=1500)
    found = said(folder)
    assert found["uSF"] == ["more robust, for this one seed"]
    assert found["frSF"] == ["less robust, for this one seed"]
    assert "more robust than BP, for this one seed: uSF" in answers(folder)[0].sentences[0]
    assert answers(folder)[2].note.endswith("a demonstration, not evidence.")


def test_enough_images_and_seeds_are_no_demonstration(tmp_path):
    made = shares(bp_exact={0.1: 0.3}, usf_exact={0.1: 0.9})
    _, rows, matrix = answers(fill(tmp_path / "store", made, images=1000))
    assert rows["uSF"][4] == ["more robust"]
    assert "demonstration" not in matrix.note


def test_a_row_leads_to_its_curves_and_has_the_audits_verdict(tmp_path):
    folder = fill(tmp_path / "store", images=300)
    _, rows, matrix = answers(folder)
    assert rows["uSF"][5][0] == "masked gradient"
    (entries,) = (entries for names, entries in matrix.rows if names == ["uSF"])
    assert entries[5].state == "raised"
    every, strongest = (block(page(folder, entries[at].search), Figure) for at in (1, 0))
    assert "in the worst case" in every.title
    assert {row["attack"] for row in strongest.table.rows} == {"pgd"}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_strongest_attack_on_bp_chooses_one_epsilon_for_every_page(tmp_path):
    folder = tmp_path / "store"
    weak = shares(bp_feedback={0.1: 0.9, 0.2: 0.8, 0.3: 0.4}, usf_feedback={0.1: 0.9, 0.2: 0.8, 0.3: 0.7})
    strong = shares(bp_exact={0.1: 0.8, 0.2: 0.4, 0.3: 0.1}, usf_exact={0.1: 0.8, 0.2: 0.4, 0.3: 0.1})
    fill(folder, weak | strong, attack="fgsm", draw=1)
    # An attack that never leaves half.
    fill(folder, shares(bp_none={0.1: 1.0, 0.2: 0.9, 0.3: 0.9}, usf_none={0.1: 1.0, 0.2: 0.9}), attack="square", draw=2)
    data = LiveStore(str(folder))
    for filters in ("", "&g=feedback", "&r=usf", "&as=heat"):
        assert "at ε = 0.2" in page(data, f"?p=gap{filters}").blocks[0].title
    assert "at ε = 0.2" in block(page(data, "?p=tables&t=all"), Matrix).title
    write_report(data, tmp_path / "out", title="t")
    assert "What the numbers say, classification at ε = 0.2" in (tmp_path / "out/index.html").read_text()


def test_without_bp_the_first_rule_stands_for_it_and_without_half_lost_the_largest_epsilon_is_taken(tmp_path):
    made = shares(usf_exact={0.1: 0.9, 0.2: 0.3}, frsf_exact={0.1: 0.2, 0.2: 0.1})
    title = block(page(fill(tmp_path / "none", made), "?p=tables&t=all"), Matrix).title
    assert title.endswith("ε = 0.2")
    made = shares(bp_exact={0.1: 0.9, 0.2: 0.8}, usf_exact={0.1: 0.9, 0.2: 0.8})
    assert "at ε = 0.2" in page(fill(tmp_path / "weak", made), "?p=gap").blocks[0].title


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        *(("0.3", "0.3"), ("0.30", "0.3"), ("3e-1", "0.3"), ("0.031372", "0.0313725"), ("0.0314", "0.0313725")),
        *(("8/255", "0.0313725"), ("8%2F255", "0.0313725")),
    ],
)
def test_an_epsilon_is_found_by_its_number(tmp_path, asked, taken):
    made = {line: {0.0: 1.0, 8 / 255: 0.6, 0.3: 0.2} for line in SHARES}
    found = page(fill(tmp_path / "store", made), f"?p=gap&e={asked}")
    assert found.blocks[0].title == f"Is a rule more robust than BP at ε = {taken}?"


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["0.31", "0.2", "1e999", "nan", "1/0", "x", "0", "-0.3", "1e-999"])
def test_an_epsilon_that_is_not_there_is_named_with_the_one_that_is_taken(tmp_path, asked):
    made = {line: {0.0: 1.0, 0.1: 0.6, 0.3: 0.2} for line in SHARES}
    found = page(fill(tmp_path / "store", made), f"?p=gap&e={asked}")
    assert found.blocks[0].sentences == [f"No line that the filter chooses has ε = “{asked}”: ε = 0.3 is taken."]


def test_the_page_tells_its_intervals_and_those_of_the_flags_apart(tmp_path):
    reading = " ".join(page(fill(tmp_path / "store"), "?p=gap").blocks[-1].sentences)
    assert "exact_gradient_breaks is about these very models: its interval is over images alone" in reading
    assert "A gap is about other seeds as well" in reading


def test_a_bp_that_cannot_be_drawn_is_named(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, {("bp", "exact"): {0.1: 0.9}}, seeds=(0,), draw=9)
    problems = page(folder, "?p=gap&r=usf").blocks[0].sentences
    assert len(problems) == 1
    assert problems[0].startswith("Not drawn: two results for rule bp")


def test_the_same_question_at_another_epsilon_and_about_one_backbone_is_one_click(tmp_path):
    shares = {(rule, gradient): {0.0: 1.0, 0.1: 0.6, 0.2: 0.3} for rule, gradient in SHARES}
    folder = fill(tmp_path / "store", shares)
    fill(folder, shares, draw=1, backbone="resnet18")
    ways = {each.title: each.links for each in page(folder, "?p=gap").blocks if isinstance(each, Links)}
    assert [link.text for link in ways["Epsilon"]] == ["ε = 0.1", "ε = 0.2 (this one)"]
    assert [link.text for link in ways["Backbone"]] == ["resnet18", "smallcnn"]
    asked = page(folder, ways["Epsilon"][0].search)
    assert next(each for each in asked.blocks if isinstance(each, Words)).title.endswith("ε = 0.1?")
    _, rows, matrix = answers(folder, ways["Backbone"][0].search)
    assert list(rows) == ["BP", "uSF"]
    assert matrix.note.startswith("resnet18 / digits.")
    assert {names[0] for names, _ in answers(folder)[2].rows} == {"resnet18 / digits", "smallcnn / digits"}


@pytest.mark.parametrize(
    ("rule", "words"), [("usf", "The store has no result of BP"), ("bp", "of BP: put other rules")]
)
def test_a_store_of_one_rule_says_what_a_gap_lacks(tmp_path, rule, words):
    fill(tmp_path / "s", {(rule, "exact"): {0.0: 1.0, 0.1: 0.4}})
    found = block(page(tmp_path / "s", "?p=gap"), Words)
    assert found.title == "Nothing to compare"
    assert words in found.sentences[1]
