"""A script that completes the command line in bash and zsh, written by shtab from the options themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

from orchestrator.commands.arguments import parser
from orchestrator.gridfile.shipped import shipped_grids

#: How a grid is completed: by the names of the shipped ones, and by files.
_GRIDS = {
    "bash": '_signsym_grids() {{ compgen -W "{names}" -- "$1"; _shtab_compgen_files "$1"; }}',
    "zsh": "_signsym_grids() {{ _alternative 'grids:grid:({names})' 'files:file:_files' }}",
}


def completion(shell: str) -> str:
    """The script for "bash" or "zsh": files, folders and shipped grids are completed by what an argument takes."""
    completed = {
        "GRID": dict.fromkeys(_GRIDS, "_signsym_grids"),
        "STORAGE": shtab.DIRECTORY,
        "DIR": shtab.DIRECTORY,
        "FILE": shtab.FILE,
        "FILE.csv": shtab.FILE,
    }
    whole = parser()
    for action in _actions(whole):
        if action.metavar in completed:
            action.complete = completed[action.metavar]  # type: ignore[attr-defined]
    return shtab.complete(whole, shell, preamble=_GRIDS[shell].format(names=" ".join(shipped_grids())))


def _actions(options: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every action of a parser and of its commands."""
    for action in options._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
