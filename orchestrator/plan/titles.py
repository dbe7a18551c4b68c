"""Titles of jobs that would be the same, told apart by the settings in which the jobs differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.jobs import keys
from orchestrator.jobs.job import Job

#: Characters of a setting's value at most.
LONGEST = 40
#: Entries of a spec that are in its title already, or say nothing to people.
_LEFT_OUT = frozenset({"kind", "semantics", "seed", "points", "model", "surrogate", "gradient", "started"})

#: Where a setting stands in a spec, from the outside in.
_Path = tuple[str, ...]


def told_apart(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs, parents before children, with titles such as "finetune usf net digits seed 0 (lr 0.1)".

    Settings are named where jobs of one title differ in them; an attack has those of its fine-tune as well.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs.values():
        groups.setdefault(job.title, []).append(job)
    settings = {job.key: words for group in groups.values() if len(group) > 1 for job, words in _differing(group)}
    titled: dict[str, Job] = {}
    for job in jobs.values():
        start, end = job.title, ""
        if job.kind == "attack":
            # The title of an attack ends with that of its fine-tune, but for the first word.
            before, now = (known[job.parents[0]].title.partition(" ")[2] for known in (jobs, titled))
            start, end = job.title.removesuffix(f": {before}"), f": {now}"
        words = settings.get(job.key, "")
        if job.kind == "finetune" and job.parents:
            # The weights of a training before are named by its settings, not by its key.
            words = words.replace(job.parents[0][:LONGEST], settings.get(job.parents[0], "") or "yes")
            settings[job.key] = words
        titled[job.key] = dataclasses.replace(job, title=f"{start}{f' ({words})' if words else ''}{end}")
    return titled


def _differing(group: list[Job]) -> Iterator[tuple[Job, str]]:
    """The jobs of one title, each with those of its settings that not all of them have."""
    names = dict.fromkeys(name for job in group for name in job.spec if name not in _LEFT_OUT)
    # Most of what has one title is one attack on several models.
    unequal = [name for name in names if any(job.spec.get(name) != group[0].spec.get(name) for job in group)]
    if not unequal:
        return
    specs = [dict(_flat({name: job.spec[name] for name in unequal if name in job.spec})) for job in group]
    differing = _telling(specs)
    for job, spec in zip(group, specs, strict=True):
        yield job, ", ".join(f"{_name(path)} {spec[path][:LONGEST]}" for path in differing if path in spec)


def _telling(specs: Sequence[Mapping[_Path, str]]) -> list[_Path]:
    """The settings that tell some jobs apart.

    Of what the same jobs have, and equally, such as the settings of a pre-training, the first is enough.
    """
    paths: list[_Path] = []
    named: set[tuple[bool, ...]] = {(True,) * len(specs)}
    for path in dict.fromkeys(path for spec in specs for path in spec):
        holders = tuple(path in spec for spec in specs)
        equal = len({spec[path] for spec in specs if path in spec}) == 1
        if not (equal and holders in named):
            paths.append(path)
            named.add(holders)
    return paths


def _flat(value: Any, path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """Each setting below a mapping by its path, as JSON without quotes."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _flat(below, (*path, name))
    else:
        yield path, keys.canonical(value).strip('"')


def _name(path: _Path) -> str:
    """A setting as grids name it: "lr" for finetune.lr, "scale" for rule.parameters.scale, "rule" for rule.name."""
    return path[-2] if path[-1] == "name" else path[-1]
