"""The registry: explicit, ordered, closed, and helpful when asked for what it does not have."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import pytest

from signsym_core import ATTACKS, BACKBONES, DATASETS, RULES, TASKS
from signsym_core.registry import (
    Count,
    Member,
    NonNegative,
    ParameterError,
    Positive,
    Registry,
    UnknownNameError,
    above,
    build,
    coerce,
    integer,
    require,
    shown,
    unknown,
    within,
)


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
        super().__post_init__()
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brew(Tea):
    """Parameters with bounds of every kind."""

    leaves: Count | None = None
    pots: Annotated[int, integer(2, 4)] = 2
    heat: Positive = 0.5
    rest: NonNegative = 0.0
    pause: Annotated[float, above(1)] = 2.0
    full: Annotated[float, within("(0, 1]")] = 1.0
    empty: Annotated[float, within("[0, 1)")] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongBrew(Brew):
    """The same, with another default."""

    pots: int = 4


@pytest.mark.parametrize("brew", [Brew, LongBrew])
@pytest.mark.parametrize(
    ("name", "fitting", "others", "words"),
    [
        ("leaves", (None, 1), (0,), "null or a whole number, at least 1"),
        ("pots", (2, 4), (1, 5), "a whole number in 2 .. 4"),
        ("heat", (1e-9,), (0.0,), "a number above 0"),
        ("rest", (0.0,), (-1e-9,), "a number, at least 0"),
        ("pause", (1.1,), (1.0,), "a number above 1"),
        ("full", (1e-9, 1.0), (0.0, 1.1), "a number in (0, 1]"),
        ("empty", (0.0, 0.9), (-0.1, 1.0), "a number in [0, 1)"),
    ],
)
def test_a_parameter_holds_to_the_bounds_of_its_annotation_and_to_those_of_the_class_above(
    brew, name, fitting, others, words
):
    for value in fitting:
        assert getattr(brew(**{name: value}), name) == value
    for value in others:
        with pytest.raises(ParameterError) as caught:
            brew(**{name: value})
        assert str(caught.value).startswith(f"parameter {name!r} expects {words}, got ")


FAMILIES = [RULES, ATTACKS, BACKBONES, DATASETS, TASKS]
MEMBERS = [(family, name) for family in FAMILIES for name in family.names]
IDS = [f"{family.family}-{name}" for family, name in MEMBERS]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.family)
def test_the_families_have_their_members_in_the_order_of_tables(family):
    assert (
        family.names
        == {
            "rule": [
                *("bp", "fa", "usf", "frsf", "brsf", "kp", "wm", "lowrank", "sym"),
                *("dfa", "local", "pepita", "lra", "mixed"),
            ],
            "attack": [
                "none",
                "noise",
                "fgsm",
                "bim",
                "mim",
                "pgd",
                "apgd",
                "fab",
                "autoattack",
                "square",
                "hopskipjump",
                "boundary",
                "hag",
                "sdha",
                "hag-saat",
                "sdha-saat",
                "geometry",
                "smoothing",
            ],
            "backbone": [
                *("alexnet", "vgg16", "resnet18", "resnet50", "convnext_tiny", "vit_b_16", "smallcnn"),
                *("mlp", "snn", "rnn", "lstm", "mnm"),
            ],
            "data set": [
                *("digits", "cifar10", "coco", "nuswide", "imagenet", "imagenet100", "imagefolder", "lists"),
                *("temporal_order", "temporal_order_3bit", "permutation", "recall"),
            ],
            "task": ["classification", "hashing"],
        }[family.family]
    )


@pytest.mark.parametrize(("family", "name"), MEMBERS, ids=IDS)
def test_a_name_with_a_letter_too_many_gets_a_suggestion(family, name):
    with pytest.raises(UnknownNameError) as caught:
        family.build(name + "x")
    assert f"unknown {family.family}: '{name}x', did you mean '" in str(caught.value)
    assert f"known: {', '.join(family.names)}" in str(caught.value)


@pytest.mark.parametrize(("family", "name"), MEMBERS, ids=IDS)
def test_every_parameter_of_every_member_refuses_what_no_parameter_takes(family, name):
    for parameter in family[name]().parameters():
        with pytest.raises(ParameterError, match=f"{family.family} '{name}': parameter '{parameter}' expects"):
            family.build(name, **{parameter: object()})
        with pytest.raises(UnknownNameError, match=f"did you mean '{parameter}'"):
            family.build(name, **{parameter + "x": 1})


@pytest.mark.parametrize(("family", "name"), MEMBERS, ids=IDS)
def test_members_are_frozen_take_keywords_alone_and_equal_their_like(family, name):
    member = family.build(name)
    assert member == family.build(name, **member.parameters())
    assert hash(member) == hash(family.build(name))
    assert member.changed() == {}
    with pytest.raises(TypeError):
        family[name](1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        member.name = "other"


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float, 3, 3.0),
        (float, -2.5, -2.5),
        (int, 3, 3),
        (bool, True, True),
        (str, "a", "a"),
        (float | None, None, None),
        (float | None, 1, 1.0),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], (), ()),
        (tuple[float, ...], [1, 2.5], (1.0, 2.5)),
        (tuple[int | str, ...] | None, ["a", 3], ("a", 3)),
        (tuple[int | str, ...] | None, None, None),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], 2, 2),
        (Literal["a"] | None, None, None),
    ],
)
def test_values_that_fit_come_out_in_the_type_that_was_declared(hint, value, expected):
    made = coerce(hint, value)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (float, True, "a finite number"),
        (float, "1", "a finite number"),
        (float, None, "a finite number"),
        (float, math.inf, "a finite number"),
        pytest.param(float, 10**400, "a finite number", id="float-huge"),
        (int, False, "a whole number"),
        (int, 2.0, "a whole number"),
        (int, "2", "a whole number"),
        (bool, 0, "true or false"),
        (bool, "true", "true or false"),
        (str, 3, "a text"),
        (float | None, True, "a finite number or null"),
        (float | None, "no", "a finite number or null"),
        (tuple[int, ...], 3, "a list of (a whole number)"),
        (tuple[int, ...], {1, 2}, "a list of (a whole number)"),
        (tuple[int, ...], "12", "a list of (a whole number)"),
        (tuple[int | str, ...], [True], "a list of (a whole number or a text)"),
        (tuple[int, ...], [1, None], "a list of (a whole number)"),
        (Literal["a", "b"], "c", "one of 'a', 'b'"),
        (Literal["a", "b"], ["a"], "one of 'a', 'b'"),
        (Literal[1, 2], True, "one of 1, 2"),
        (Literal[1, 2], 1.0, "one of 1, 2"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_what_would(hint, value, words):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Thing:
        value: hint

    Thing.__annotations__["value"] = hint
    with pytest.raises(ParameterError) as caught:
        build(Thing, "thing 'one'", {"value": value})
    assert f"thing 'one': parameter 'value' expects {words}, got {shown(value)}" in str(caught.value)


def test_a_member_that_does_not_exist_is_not_in_the_family():
    assert "wine" not in DRINKS
    assert 3 not in DRINKS
    with pytest.raises(UnknownNameError, match="wine"):
        DRINKS["wine"]


def test_a_family_without_members_says_so():
    with pytest.raises(UnknownNameError, match="known: none"):
        Registry("drink", []).build("tea")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (False, "false"),
        ((1, None, "a"), "[1, null, 'a']"),
        ({"name": "usf", "on": [True]}, "{name: 'usf', on: [true]}"),
        ("x" * 99, "'" + "x" * 39 + " ... " + "x" * 9 + "' (99 characters)"),
    ],
)
def test_a_value_is_shown_as_a_grid_writes_it(value, text):
    assert shown(value) == text


def test_an_unknown_name_is_near_in_any_case_and_a_long_list_is_cut():
    names = [f"name{number}" for number in range(60)]
    assert unknown("rule", "BP", ["usf", "bp"]) == "unknown rule: 'BP', did you mean 'bp'? known: usf, bp"
    assert unknown("drink", "?", names).endswith(", name35, ... (60 in all)")


def test_an_unknown_member_may_be_one_of_an_extension(monkeypatch):
    with pytest.raises(UnknownNameError, match="Members of your own are known where SIGNSYM_EXTENSIONS names"):
        DRINKS["mate"]
    monkeypatch.setenv("SIGNSYM_EXTENSIONS", "json")
    with pytest.raises(UnknownNameError, match=r"None of the modules in SIGNSYM_EXTENSIONS \(json\) registers it"):
        DRINKS["mate"]
