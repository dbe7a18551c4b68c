"""Which modules of the user's a job's members are from, and with what text: results say so among their versions."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import signsym_core as ss
from orchestrator.store import provenance
from signsym_core import extensions


def with_extensions(versions: str, *specs: Mapping[str, Any], models: tuple[Mapping[str, Any], ...] = ()) -> str:
    """The JSON `versions`, with the digest of each module of the user's that a member in the specs is from.

    Of the records of `models` those are added that these were trained with.
    """
    modules = {_modules()[name] for name in _names(specs) if name in _modules()}
    more = {provenance.EXTENSION + module: extensions.digest(module) for module in sorted(modules)}
    for record in models:
        trained = provenance.extended(record.get("versions", "{}"))
        more |= {f"{provenance.TRAINED}{name}": digest for name, digest in trained.items()}
    return json.dumps(json.loads(versions) | more, sort_keys=True) if more else versions


@functools.cache
def _modules() -> Mapping[str, str]:
    """The module, or its package, of each member that is not from signsym_core, by its name."""
    if not extensions.digests():
        # As for most users: all families are not imported for nothing.
        return {}
    members = [member for family in (ss.RULES, ss.ATTACKS, ss.BACKBONES, ss.DATASETS, ss.TASKS) for member in family]
    tops = {member.name: member.__module__.partition(".")[0] for member in members}
    return {name: top for name, top in tops.items() if top in extensions.digests()}


def _names(value: Any) -> Iterator[str]:
    """The names of all members in a job's spec, of rules by layers and of attacks that are trained against too."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield value["name"]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _names(inner)
