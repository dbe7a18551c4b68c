"""The address of a page is the whole state: it comes back as it went, and what it cannot mean is named."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import fill, page

from orchestrator.drawing.blocks import Words
from orchestrator.results.view import AXES, FACETS, HIDDEN, PAGES, PageView, format_view, parse_view

name = st.text(min_size=1, max_size=12)
names = st.lists(name, unique=True, max_size=3).map(tuple)
FIELDS = dict(
    page=st.sampled_from(list(PAGES)),
    task=st.text(max_size=9),
    backbone=names,
    dataset=names,
    attack=names,
    gradient=names,
    rule=names,
    seed=st.lists(st.integers(0, 99).map(str), unique=True, max_size=3).map(tuple),
    store=names,
    grid=st.text(max_size=9),
    x=st.sampled_from(list(AXES)),
    rows=st.lists(st.sampled_from(FACETS), unique=True).map(tuple),
    seed_lines=st.booleans(),
    hide=st.lists(st.sampled_from(HIDDEN), unique=True).map(tuple),
    epsilon=st.text(max_size=9),
    over=st.sampled_from(["each", "worst"]),
    minus=st.sampled_from(["bp", "exact"]),
    form=st.sampled_from(["lines", "heat"]),
    preset=st.sampled_from(["", "1", "2", "3", "4", "worst", "all"]),
    layers=st.sampled_from(["mean", "each"]),
    table=st.booleans(),
    portion=st.integers(1, 100_000),
    cell=st.text(max_size=70),
    only=st.sampled_from(["", "gained", "lost"]),
    label=st.text(max_size=9),
    tag=st.text(max_size=9),
    live=st.booleans(),
)
views = st.builds(PageView, **FIELDS)


def test_every_field_of_a_view_is_tried():
    assert [field.name for field in dataclasses.fields(PageView) if field.name not in FIELDS] == []


@pytest.mark.slow
@given(views)
@settings(max_examples=200, deadline=None)
def test_a_view_comes_back_from_its_address(view):
    assert parse_view(format_view(view)) == (view, [])


@pytest.mark.slow
@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_address_raises(text):
    parse_view(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "words"),
    [("?p=nowhere", "nowhere"), ("?zzz=1", "zzz"), ("?r=none-such", "none-such"), ("?s=-1", "-1"), ("?part=0", "0")],
)
def test_an_unknown_value_falls_back_and_is_named_on_the_page(tmp_path, search, words):
    found = page(fill(tmp_path / "store"), search)
    warning = found.blocks[0]
    assert isinstance(warning, Words)
    assert any(f"“{words}”" in sentence for sentence in warning.sentences)
    assert found.title == "Curves"


def test_an_endless_address_is_not_read():
    assert parse_view("?r=" + "x" * 100_000) == (
        PageView(),
        ["The address is longer than 8,000 characters and was not read."],
    )
