"""The options of every command; nothing heavy is imported, so that --help and a wrong option answer at once."""

from __future__ import annotations

import argparse
import os

from signsym_core import __version__


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; its `command` is the name of the command."""
    root_parser = argparse.ArgumentParser(prog="signsym", description="Sweeps over sign-symmetry rules and attacks.")
    root_parser.add_argument("--version", action="version", version=f"signsym {__version__}")
    commands = root_parser.add_subparsers(dest="command", required=True)

    plan = commands.add_parser("plan", help="the jobs that a grid needs, and those that are done; nothing runs")
    _grid_arguments(plan)

    sweep = commands.add_parser("sweep", help="run the jobs that a grid still lacks")
    _grid_arguments(sweep)
    root = os.environ.get("SIGNSYM_DATA_ROOT", "data")
    sweep.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
    sweep.add_argument("--address", help="Ray cluster to join, such as auto; default: a local Ray on this machine")
    where = "where the grid's callbacks write (default: ray_results)"
    sweep.add_argument("--trackers", default="ray_results", metavar="DIR", help=where)
    sweep.add_argument("--dashboard", action="store_true", help="start Ray's dashboard with a local Ray")
    sweep.add_argument("--plan", action="store_true", help="only print the plan")
    sweep.add_argument("--retry-failed", action="store_true", help="try jobs again that failed for good before")

    status = commands.add_parser("status", help="done, running, failed, blocked and missing jobs of a store")
    status.add_argument("storage", metavar="STORAGE")
    what = "read every file and name each that is damaged, foreign, torn or missing, or that has no digest"
    status.add_argument("--verify", action="store_true", help=what)

    what = "merge small files, so that a store of many jobs is read faster; safe at any instant and beside sweeps"
    compact = commands.add_parser("compact", help=what, description=f"{what[0].upper()}{what[1:]}.")
    compact.add_argument("storage", metavar="STORAGE")

    explore = commands.add_parser("explore", help="look at a store in the browser, also while a sweep writes to it")
    explore.add_argument("storage", metavar="STORAGE")
    explore.add_argument("--port", type=int, default=8050, help="port of 127.0.0.1 (default: 8050)")

    report = commands.add_parser("report", help="static pages with curves, tables and provenance")
    report.add_argument("storage", metavar="STORAGE")
    report.add_argument("--out", required=True, metavar="DIR")
    what = "also save each figure as it looks on screen, which takes Kaleido and Chrome or Chromium"
    report.add_argument("--screen-figures", action="store_true", help=what)

    audit = commands.add_parser(
        "audit", help="a verdict for each model: sound, weak attack, masked gradient, undecided"
    )
    audit.add_argument("storage", metavar="STORAGE")
    audit.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
    audit.add_argument("--no-probes", action="store_true", help="do not load the models and their data")
    audit.add_argument("--grid", metavar="FILE", help="write the grid that supplies what is missing")
    audit.add_argument("--json", action="store_true", help="print JSON instead of a table")

    attack = commands.add_parser("attack", help="attack one checkpoint of yours and judge it")
    attack.add_argument("--weights", required=True, metavar="FILE", help="a state dict: .safetensors, or torch's")
    attack.add_argument("--backbone", required=True, help='a name, or "{name: smallcnn, width: 8}"')
    attack.add_argument("--dataset", required=True, help='likewise: "{name: cifar10, size: 64}"; its test images')
    attack.add_argument("--rule", default="bp", help="the learning rule whose backward pass it has (default: bp)")
    attack.add_argument("--attack", action="append", default=[], help="likewise, repeatable; default: what checks need")
    attack.add_argument("--gradient", action="append", default=[], help="repeatable: feedback, exact, transfer")
    attack.add_argument("--epsilon", nargs="+", default=["2/255", "8/255", "0.1", "0.5"], metavar="E", help="L∞ radii")
    attack.add_argument("--twin", metavar="FILE", help="weights of a network trained by backpropagation, for transfer")
    attack.add_argument("--images", type=int, metavar="N", help="the first N test images (default: all)")
    attack.add_argument("--seed", type=int, default=0, help="of the attacks, and of the rule (default: 0)")
    attack.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
    attack.add_argument("--out", metavar="FILE.csv", help="write the rows there")

    export = commands.add_parser("export", help="a tidy table for your own analysis, as CSV or Parquet")
    export.add_argument("storage", metavar="STORAGE")
    export.add_argument("--out", required=True, metavar="FILE", help="ends with .csv or .parquet")
    what = "a row per cell, image of each cell, point of a curve, or layer and epoch of each model (default: results)"
    export.add_argument("--what", choices=("results", "outcomes", "curves", "alignment"), default="results", help=what)

    data = commands.add_parser("data", help="check a data set, and decode its images before a sweep")
    actions = data.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "check", help="which files exist, which are missing and where they come from; nothing is written"
    )
    check.add_argument(
        "--sample", type=int, default=200, metavar="N", help="images to decode as a sample (default: 200)"
    )
    prepare = actions.add_parser("prepare", help="decode the images into the cache that all trials share")
    for action in (check, prepare):
        action.add_argument("dataset", metavar="NAME", help="the data set, as a grid calls it")
        action.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
        what = "a parameter of the data set, such as size=64 or split=500/100/rest"
        action.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help=what)

    commands.add_parser("grids", help="the grids that come with signsym, which plan and sweep know by name")

    commands.add_parser("schema", help="the JSON Schema of grid files, for editors")

    completion = commands.add_parser("completion", help="a script that completes this command line in a shell")
    completion.add_argument("shell", choices=("bash", "zsh"), help='in ~/.bashrc: eval "$(signsym completion bash)"')
    return root_parser


def _grid_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID", help="a grid file, or the name of one that `signsym grids` lists")
    storage = os.environ.get("SIGNSYM_STORAGE", "runs")
    # The variable's name, not its value: a URI with a secret in it is refused, but only after --help is printed.
    default = "$SIGNSYM_STORAGE" if "SIGNSYM_STORAGE" in os.environ else storage
    what = f"where results are kept: a folder or a bucket such as s3://bucket/sweeps (default: {default})"
    parser.add_argument("--storage", default=storage, metavar="URI", help=what)
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help="put a value over the grid's"
    )
