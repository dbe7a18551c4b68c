"""Conformance suites: what every member of a family must do. Our own members pass them, and so should yours.

    from signsym_core.testing import check_rule
    check_rule(MyRule())

Each check raises AssertionError, saying what was expected and what came.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from signsym_core.attacks import Attack
from signsym_core.attacks.ball import Norm
from signsym_core.attacks.base import NormedAttack
from signsym_core.backbones import Backbone
from signsym_core.conformance.attacks import check_tasks
from signsym_core.conformance.data import check_data
from signsym_core.conformance.matrices import check_matrices
from signsym_core.conformance.network import Network, small_images, small_network
from signsym_core.conformance.whole import check_whole
from signsym_core.datasets import DataSource
from signsym_core.registry import Member
from signsym_core.rules import Rule
from signsym_core.rules.convert import convert
from signsym_core.rules.whole import WholeRule


def check_member(member: Member) -> None:
    """A frozen dataclass with a name, a label and a source, whose parameters rebuild it."""
    assert dataclasses.is_dataclass(member), f"{member!r} must be a dataclass"
    assert member.__dataclass_params__.frozen, f"{member.name}: the dataclass must be frozen"  # type: ignore[attr-defined]
    for attribute in ("name", "label", "citation"):
        assert getattr(member, attribute, ""), f"{type(member).__name__} must have a {attribute}"
    assert type(member).__doc__, f"{member.name} must have a docstring with its formula"
    assert type(member)(**member.parameters()) == member, f"{member.name}: its parameters must rebuild it"


def check_rule(rule: Rule, network: Network | None = None, images: Tensor | None = None) -> None:
    """The promises of a learning rule, on a small network with a convolution and a linear layer.

    A rule of the whole network, at points or by steps, may need another one: what `network` makes, for its `images`.
    """
    check_member(rule)
    if isinstance(rule, WholeRule):
        check_whole(rule, network or small_network, small_images() if images is None else images)
    else:
        check_matrices(rule)


def check_attack(attack: Attack) -> None:
    """The promises of an attack on each task that it fits, on a small network, in each norm that it can be given.

    Budget, range, independence of epsilons, determinism, that only a white-box attack asks for gradients, that these
    are the chosen ones, and that every pass of the model is counted.
    """
    check_member(attack)
    assert attack.tasks, f"{attack.name} must fit a task"
    check_tasks(attack)
    if isinstance(attack, NormedAttack):
        for norm in get_args(Norm):
            if norm != attack.norm:
                check_tasks(dataclasses.replace(attack, norm=norm))


def check_dataset(source: DataSource, root: Path) -> None:
    """The promises of a data set below the data root `root`: types, labels, the same images twice, choices."""
    check_member(source)
    check_data(source, root)


def check_backbone(backbone: Backbone) -> None:
    """A model of it takes [0, 1] images of its smallest size, has a fresh head, and depends on its seed alone."""
    check_member(backbone)
    model = backbone.build(7, channels=3, size=backbone.min_size, seed=1).eval()
    images = torch.rand(2, 3, backbone.min_size, backbone.min_size)
    assert model(images).shape == (2, 7), f"{backbone.name} must give [n, outputs]"
    head = list(model.head_parameters())
    assert {p.shape[0] for p in head} == {7}, f"{backbone.name}: the head must be one layer of the asked width"
    body = list(model.body_parameters())
    assert len(head) + len(body) == len(list(model.parameters())), f"{backbone.name}: head and body must be all"
    convert(model, "usf")
    _check_grey(backbone)


def _check_grey(backbone: Backbone) -> None:
    """Grey images go through, by shapes alone."""
    side = backbone.min_size
    with torch.device("meta"):
        model = backbone.build(7, channels=1, size=side, seed=1).eval()
        try:
            shape = list(model(torch.empty(2, 1, side, side)).shape)
        except RuntimeError as error:
            raise AssertionError(
                f"{backbone.name} fails on grey images ({error}): a network made for `channels` needs a mean and a std "
                f"of one value, since one of three values makes three channels of a grey image"
            ) from error
    assert shape == [2, 7], f"{backbone.name} must give [n, outputs] for grey images too, got {shape}"
