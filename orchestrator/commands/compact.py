"""`signsym compact`: merges the small files of a store."""

from __future__ import annotations

import argparse

from rich.console import Console

from orchestrator.commands.progress import Lines
from orchestrator.engine.sweep import show_skipped
from orchestrator.store.compact import MANY, compact, small_files
from orchestrator.store.store import Store, open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Merge the small files of a store and print the counts."""
    store = open_store(parsed.storage)
    result = compact(store, Lines(console))
    show_skipped(store.skipped, console)
    if result.leftovers:
        console.print(f"removed {result.leftovers:,} files that killed compactions and sweeps had left")
    if result.files:
        words = (
            f"merged {result.files:,} files of {result.jobs:,} jobs; {result.merged_files:,} files hold their results"
        )
        console.print(words)
    if result.alignments:
        console.print(f"merged {result.alignments:,} files of alignment")
    if not result.files and not result.alignments:
        console.print("Nothing to merge: no two jobs that can be trusted have small files.")


def suggest(store: Store, console: Console) -> None:
    """Print a suggestion where a compaction would help."""
    if (count := small_files(store)) >= MANY:
        words = f"{count:,} small files are slow to read; to merge them, at any time: signsym compact {store.word}"
        console.print(words, soft_wrap=True)
