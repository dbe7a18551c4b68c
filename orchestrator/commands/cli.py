"""The command line: each command is a module of this package, whose `run` returns the exit status."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.commands.arguments import parser

WRONG, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `orchestrator.engine.sweep`)."""
    parsed = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A locale that cannot encode ε shows its number: a character that cannot be printed must not end a sweep.
        if isinstance(stream, io.TextIOWrapper) and "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")
    # On a terminal rich knows the width; elsewhere lines are not wrapped, so that they can be searched.
    # Markup is off: paths and errors may contain brackets.
    plain: dict[str, Any] = {"markup": False, "highlight": False}
    console = Console(**plain) if sys.stdout.isatty() else Console(width=10_000, force_terminal=False, **plain)
    errors = Console(stderr=True, soft_wrap=True, **plain)
    try:
        # Imported here, so that --help and a wrong option answer at once.
        command = importlib.import_module(f"orchestrator.commands.{parsed.command}")
        # A command that can only succeed or raise returns nothing.
        return command.run(parsed, console) or 0
    except (ValueError, OSError) as error:
        errors.print(Text.assemble((f"signsym {parsed.command}: ", "red"), str(error)))
        return WRONG
    except KeyboardInterrupt:
        errors.print(f"signsym {parsed.command}: interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
