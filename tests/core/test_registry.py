"""The registry: explicit, ordered, closed, and helpful when asked for what it does not have."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from signsym_core.registry import Member, ParameterError, Registry, UnknownNameError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tea(Member):
    """A drink."""

    name, label, citation = "tea", "Tea", "a test"

    minutes: float = 3.0
    cups: int = 1
    milk: bool = False
    kind: Literal["green", "black"] = "green"
    guests: tuple[str, ...] = ()
    sugar: int | None = None

    def __post_init__(self):
        require(self.cups >= 1, "cups", "at least 1", self.cups)


class Coffee(Tea):
    """Another."""

    name = "coffee"


DRINKS = Registry("drink", [Tea, Coffee])


def test_members_keep_their_order_and_names():
    assert DRINKS.names == ["tea", "coffee"]
    assert [member.name for member in DRINKS] == ["tea", "coffee"]
    assert "tea" in DRINKS
    assert len(DRINKS) == 2


def test_two_members_with_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        Registry("drink", [Tea, Tea])


def test_values_are_taken_as_their_types_ask():
    tea = DRINKS.build("tea", minutes=4, guests=["ann", "bob"], sugar=None)
    assert tea.minutes == 4.0
    assert isinstance(tea.minutes, float)
    assert tea.guests == ("ann", "bob")
    assert tea.changed() == {"minutes": 4.0, "guests": ("ann", "bob")}
    assert DRINKS.build("tea", **tea.parameters()) == tea


@pytest.mark.parametrize(
    ("name", "parameters", "error", "words"),
    [
        ("cofee", {}, UnknownNameError, "unknown drink: 'cofee', did you mean 'coffee'"),
        ("wine", {}, UnknownNameError, "known: tea, coffee"),
        ("tea", {"minuets": 1}, UnknownNameError, "did you mean 'minutes'"),
        ("tea", {"minutes": "long"}, ParameterError, "'minutes' expects a finite number, got 'long'"),
        ("tea", {"minutes": True}, ParameterError, "finite number"),
        ("tea", {"minutes": float("nan")}, ParameterError, "finite number"),
        ("tea", {"cups": 1.5}, ParameterError, "a whole number, got 1.5"),
        ("tea", {"cups": True}, ParameterError, "a whole number"),
        ("tea", {"cups": 0}, ParameterError, "'cups' expects at least 1, got 0"),
        ("tea", {"milk": 1}, ParameterError, "true or false"),
        ("tea", {"kind": "red"}, ParameterError, "one of 'green', 'black'"),
        ("tea", {"guests": "ann"}, ParameterError, "a list of"),
        ("tea", {"guests": [1]}, ParameterError, "a list of"),
        ("tea", {"sugar": "two"}, ParameterError, "a whole number or null"),
    ],
)
def test_what_does_not_fit_is_named(name, parameters, error, words):
    with pytest.raises(error) as caught:
        DRINKS.build(name, **parameters)
    assert words in str(caught.value)
