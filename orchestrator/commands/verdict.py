"""A verdict's checks on the console, as `signsym audit` and `signsym attack` print them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from signsym_core.auditing.checks import Check
from signsym_core.auditing.verdict import Verdict


def show_raised(verdict: Verdict, console: Console) -> None:
    """A line for each check that is raised."""
    for result in verdict.made:
        if result.finding.raised:
            console.print(f"  {result.check.id} {result.check.flag}: {result.words}", soft_wrap=True)


def show_missing(checks: Iterable[Check], console: Console) -> None:
    """A line for each of the checks that could not be made."""
    for check in checks:
        console.print(f"  {check.id} {check.flag}: needs {check.needs}")
