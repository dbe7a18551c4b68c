"""The parameters of a class of Foolbox, from its signature, and Foolbox's version."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from importlib import metadata
from typing import Any, Literal

from signsym_core.attacks import foolboxclasses
from signsym_core.registry import coerce, neutral

#: Parameters of Foolbox that do not affect images: the folder and the interval of its progress logs.
_LEFT_OUT = frozenset({"tensorboard", "update_stats_every_k"})


@functools.cache
def installed() -> str:
    """Foolbox's version."""
    return metadata.version("foolbox")


def fields_of(cls: Any) -> list[tuple[str, Any, Any]]:
    """The version, and the parameters of Foolbox's signature with its types and defaults."""
    fields: list[tuple[str, Any, Any]] = [("version", str, neutral("", default=installed()))]
    for name, parameter in inspect.signature(cls).parameters.items():
        hint: Any = parameter.annotation
        if name in _LEFT_OUT or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name == "init_attack":
            # By its name, with Foolbox's defaults.
            fields.append((name, str | None, dataclasses.field(default=None)))
        elif parameter.default is parameter.empty:
            fields.append((name, hint | None, dataclasses.field(default=None, metadata={"required": True})))
        elif name != "distance":
            fields.append((name, hint, dataclasses.field(default=coerce(hint, parameter.default))))
    if foolboxclasses.norm_of(cls) is None and "constraint" not in {name for name, _, _ in fields}:
        # Foolbox refuses to run these without a distance.
        fields.append(("distance", Literal["l2", "linf"], dataclasses.field(default="l2")))
    return fields
