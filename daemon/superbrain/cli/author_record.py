"""`superbrain bundle record-golden FOLDER`: answers recorded on the reference engine.

Without `--case` every case that has request files is recorded again; with it one case, whose
request may be given with `--input NAME=FILE`.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from superbrain.bundle.folder import read_folder
from superbrain.cli.display import make_console, plain_table, show
from superbrain.cli.tensor_text import first_values
from superbrain.domain.errors import RecipeError
from superbrain.domain.tensor_fit import spell_array
from superbrain.serve.golden_writer import Recorded
from superbrain.serve.recording import draft_manifest, record, waiting_cases

# How many characters of a value are shown.
_LEAST_ROOM: Final = 24
_MOST_ROOM: Final = 72
_NAMES: Final = ("case", "part", "tensor", "holds")

_EXAMPLES = """\
examples:
  superbrain bundle record-golden ocr                          every golden/*/request again
  superbrain bundle record-golden ocr --case receipt --input image=receipt.jpg
  superbrain bundle record-golden ocr --graphs                 and what goes through each graph
"""


def register_record(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `bundle record-golden`."""
    parser = actions.add_parser(
        "record-golden",
        help="record what the bundle must answer",
        description="Answer golden requests with the graphs as they are (onnxruntime:cpu, or\n"
        "torchscript:cpu), twice, and store the answers as what every host must reproduce.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds bundle.toml")
    parser.add_argument("--case", metavar="NAME", help="only this case; it is made when new")
    parser.add_argument(
        "--input",
        type=_named_file,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="with --case: a request tensor of it, as .npy, .json, or any file for BYTES []",
    )
    parser.add_argument(
        "--graphs", action="store_true", help="also record inputs and outputs of every graph"
    )
    parser.set_defaults(run=run_record, parser=parser)


def run_record(args: argparse.Namespace) -> int:
    """Record and show what was written."""
    if args.input and not args.case:
        args.parser.error("--input needs --case NAME")
    manifest = draft_manifest(args.folder)
    if args.input:
        cases = {args.case: dict(args.input)}
    else:
        cases = waiting_cases(args.folder, manifest)
        cases = {args.case: cases.get(args.case, {})} if args.case else cases
    if not any(cases.values()):
        raise RecipeError(
            f"{args.folder}: expected requests in golden/{args.case or '*'}/request, found none",
            reason="RECIPE_GOLDEN",
            mend="Put them there, or name a new case: --case NAME --input TENSOR=FILE",
        )
    recorded = record(args.folder, manifest, cases, graphs=args.graphs)
    console = make_console()
    show(console, recorded_view(console, recorded))
    read_folder(args.folder)
    print(f"files    {args.folder}/golden/CASE/PART/TENSOR.*")
    print("check    are these responses right? Every host will be held to them")
    print(f"next     superbrain bundle prove {shlex.quote(str(args.folder))}")
    return 0


def recorded_view(console: Console, recorded: list[Recorded]) -> Table:
    """What was recorded, with as much of every value as there is room for."""
    table = plain_table(console)
    for name in _NAMES:
        table.add_column(name, overflow="fold", no_wrap=name == "holds")
    table.add_column("value", no_wrap=True)
    names = [(one.case, one.part, one.tensor, spell_array(one.array)) for one in recorded]
    taken = [max(map(len, column)) + 2 for column in zip(_NAMES, *names, strict=True)]
    room = min(max(console.width - sum(taken), _LEAST_ROOM), _MOST_ROOM)
    for one, cells in zip(recorded, names, strict=True):
        texts = map(Text, (*cells, first_values(one.array, room)))
        table.add_row(*texts, style="" if one.part == "response" else "dim")
    return table


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, found {text!r}")
    return name, Path(path)
