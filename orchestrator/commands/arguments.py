"""The options of every command; nothing heavy is imported, so that --help and a wrong option answer at once."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from pathlib import Path
from typing import Any, NoReturn

from signsym_core import __version__


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest choice or option where one is misspelt."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does, but what a command does not know is told with that command's own usage."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._option_string_actions, n=1)
            also = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{also}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        if wrong := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            near = difflib.get_close_matches(wrong[1], re.findall(r"[^\s,']+", wrong[2]), n=1)
            message += f"; did you mean {near[0]}?" if near else ""
        super().error(message)


def parser() -> Parser:
    """The parser of the command line; its `command` is the name of the command."""
    root_parser = Parser(prog="signsym", description="Sweeps over sign-symmetry rules and attacks.")
    root_parser.add_argument("--version", action="version", version=f"signsym {__version__}")
    commands = root_parser.add_subparsers(dest="command", required=True)
    # Arguments that several commands have.
    grid, store, data_root = _grid(), Parser(add_help=False), Parser(add_help=False)
    store.add_argument("storage", metavar="STORAGE")
    what = "a store; of several the results are shown together"
    stores = Parser(add_help=False)
    stores.add_argument("storages", metavar="STORAGE", nargs="+", help=what)
    root = os.environ.get("SIGNSYM_DATA_ROOT", "data")
    words = f"where data sets lie (default: {root})"
    data_root.add_argument("--data-root", type=Path, default=root, metavar="DIR", help=words)

    what = "the jobs that a grid needs, and those that are done; nothing runs"
    commands.add_parser("plan", parents=[grid], help=what)

    what = "run the jobs that a grid still lacks"
    sweep = commands.add_parser("sweep", parents=[grid, data_root], help=what)
    sweep.add_argument("--address", help="Ray cluster to join, such as auto; default: a local Ray on this machine")
    where = "where the grid's callbacks write (default: ray_results)"
    sweep.add_argument("--trackers", type=Path, default="ray_results", metavar="DIR", help=where)
    sweep.add_argument("--dashboard", action="store_true", help="start Ray's dashboard with a local Ray")
    sweep.add_argument("--plan", action="store_true", help="only print the plan")
    sweep.add_argument("--retry-failed", action="store_true", help="try jobs again that failed for good before")

    what = "done, running, failed, blocked and missing jobs of a store"
    status = commands.add_parser("status", parents=[store], help=what)
    what = "read every file and name each that is damaged, foreign, torn or missing, or that has no digest"
    status.add_argument("--verify", action="store_true", help=what)

    what = "merge small files, so that a store of many jobs is read faster; safe at any instant and beside sweeps"
    commands.add_parser("compact", parents=[store], help=what, description=f"{what[0].upper()}{what[1:]}.")

    what = "look at one or several stores in the browser, also while a sweep writes to it"
    explore = commands.add_parser("explore", parents=[stores], help=what)
    explore.add_argument("--port", type=int, default=8050, help="port of 127.0.0.1 (default: 8050)")

    what = "static pages with curves, tables and provenance"
    report = commands.add_parser("report", parents=[stores], help=what)
    report.add_argument("--out", type=Path, required=True, metavar="DIR")
    what = "also save each figure as it looks on screen, which takes Kaleido and Chrome or Chromium"
    report.add_argument("--screen-figures", action="store_true", help=what)

    what = "one view of the explorer as a file for a paper"
    figure = commands.add_parser("figure", parents=[stores], help=what)
    what = (
        'what follows the port in the address of a page of the explorer, such as "?p=gap&g=exact"; "" is its first page'
    )
    figure.add_argument("address", metavar="ADDRESS", help=what)
    what = "ends with .pdf, .svg or .png; with .tex for the view's tables; or with .html for an interactive figure"
    figure.add_argument("--out", type=Path, required=True, metavar="FILE", help=what)
    what = "inches: 3.3 for one column of a paper, 6.75 for two (default: 6.75)"
    figure.add_argument("--width", type=float, choices=(3.3, 6.75), default=6.75, help=what)

    what = (
        "write a note on a cell, a model or a view of a store, which the explorer shows there; without TEXT list them"
    )
    note = commands.add_parser("note", parents=[store], help=what)
    note.add_argument("text", metavar="TEXT", nargs="?", help="one line")
    what = (
        'what the note is on: the address of a page of the explorer, such as "?p=gap&g=exact", or the beginning of the '
    )
    note.add_argument("--on", metavar="ADDRESS", help=f"{what}key of a cell or a fine-tune")
    note.add_argument(
        "--tag", default="", metavar="WORD", help="a word to find it by, such as weak; lists those with it"
    )
    note.add_argument("--withdraw", metavar="ID", help="take back the note of this id")

    what = "a verdict for each model: sound, weak attack, masked gradient, undecided"
    audit = commands.add_parser("audit", parents=[stores, data_root], help=what)
    audit.add_argument("--no-probes", action="store_true", help="do not load the models and their data")
    audit.add_argument("--grid", type=Path, metavar="FILE", help="write the grid that supplies what one store lacks")
    audit.add_argument("--json", action="store_true", help="print JSON instead of a table")

    attack = commands.add_parser("attack", parents=[data_root], help="attack one checkpoint of yours and judge it")
    what = "a state dict: .safetensors, or torch's"
    attack.add_argument("--weights", type=Path, required=True, metavar="FILE", help=what)
    attack.add_argument("--backbone", required=True, help='a name, or "{name: smallcnn, width: 8}"')
    attack.add_argument("--dataset", required=True, help='likewise: "{name: cifar10, size: 64}"; its test images')
    attack.add_argument("--rule", default="bp", help="the learning rule whose backward pass it has (default: bp)")
    attack.add_argument("--attack", action="append", default=[], help="likewise, repeatable; default: what checks need")
    attack.add_argument("--gradient", action="append", default=[], help="repeatable: feedback, exact, transfer")
    attack.add_argument("--epsilon", nargs="+", default=["2/255", "8/255", "0.1", "0.5"], metavar="E", help="L∞ radii")
    what = "weights of a network trained by backpropagation, for transfer"
    attack.add_argument("--twin", type=Path, metavar="FILE", help=what)
    attack.add_argument("--images", type=int, metavar="N", help="the first N test images (default: all)")
    attack.add_argument("--seed", type=int, default=0, help="of the attacks, and of the rule (default: 0)")
    attack.add_argument("--out", type=Path, metavar="FILE.csv", help="write the rows there")

    what = "a tidy table for your own analysis, as CSV or Parquet"
    export = commands.add_parser("export", parents=[stores], help=what)
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="ends with .csv or .parquet; of robustbench a folder"
    )
    what = "a row per cell, image of each cell, point of a curve, worst case of a model over attacks at each epsilon, "
    what += (
        "surrogate and attacked rule of each transfer attack at each epsilon, geometry of the loss of a model at each "
    )
    what += "epsilon, calibration of a model on each set of its test images, corrupted set of test images of a model, "
    what += (
        "layer and epoch of each model, or note; training has loss and scores beside its alignment; robustbench has a "
        "JSON file for each network that AutoAttack was run on along the exact gradient (default: results)"
    )
    kinds = ["results", "outcomes", "curves", "worst", "transfer", "geometry", "calibration"]
    kinds += ["corruptions", "alignment", "training", "notes", "robustbench"]
    export.add_argument("--what", choices=kinds, default="results", help=what)

    data = commands.add_parser("data", help="check a data set, and decode its images before a sweep")
    actions = data.add_subparsers(dest="action", required=True)
    what = "which files exist, which are missing and where they come from; nothing is written"
    check = actions.add_parser("check", parents=[data_root], help=what)
    what = "images to decode as a sample (default: 200)"
    check.add_argument("--sample", type=int, default=200, metavar="N", help=what)
    what = "decode the images into the cache that all trials share"
    prepare = actions.add_parser("prepare", parents=[data_root], help=what)
    what = "losslessly: about half the room, decompressed whenever an image is read (also: SIGNSYM_CACHE_COMPRESS=1)"
    prepare.add_argument("--compress", action="store_true", help=what)
    for action in (check, prepare):
        action.add_argument("dataset", metavar="NAME", help="the data set, as a grid calls it")
        what = "a parameter of the data set, such as size=64 or split=500/100/rest"
        action.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help=what)

    commands.add_parser("grids", help="the grids that come with signsym, which plan and sweep know by name")

    commands.add_parser("schema", help="the JSON Schema of grid files, for editors")

    completion = commands.add_parser("completion", help="a script that completes this command line in a shell")
    completion.add_argument("shell", choices=("bash", "zsh"), help='in ~/.bashrc: eval "$(signsym completion bash)"')
    return root_parser


def _grid() -> Parser:
    """The arguments of plan and sweep."""
    parser = Parser(add_help=False)
    parser.add_argument("grid", metavar="GRID", help="a grid file, or the name of one that `signsym grids` lists")
    storage = os.environ.get("SIGNSYM_STORAGE", "runs")
    # The variable's name, not its value: a URI with a secret in it is refused, but only after --help is printed.
    default = "$SIGNSYM_STORAGE" if "SIGNSYM_STORAGE" in os.environ else storage
    what = f"where results are kept: a folder or a bucket such as s3://bucket/sweeps (default: {default})"
    parser.add_argument("--storage", default=storage, metavar="URI", help=what)
    what = "put a value over the grid's"
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help=what)
    return parser
