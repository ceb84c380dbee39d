"""`superbrain convert`: from a framework's model to a bundle that has its own answers.

How it ends, besides what every command may end with:

    0   the folder is written, and this machine proves it
    4   nobody can vouch for the answers: the graph gives others than the original, or the original
        others than itself; nothing was written
    5   the framework's environment is missing, stale or cannot be made
    6   the folder is written, but a precision that was asked for is harmful, and not in it
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from superbrain.bundle.folder import RECIPE_NAME
from superbrain.cli.actions import Actions
from superbrain.cli.author_precision import LIGHT_HELP
from superbrain.cli.convert_folder import ConvertResult, write_folder
from superbrain.cli.convert_progress import Told
from superbrain.cli.convert_view import environments_view, parity_view, result_view
from superbrain.cli.display import make_console, print_json, show
from superbrain.cli.recipe_text import plain_name
from superbrain.convert import environments as env
from superbrain.convert.errors import ConvertError, ParityFailed, SetupFailed, SourceRefused
from superbrain.convert.inputs import parse_dynamic, parse_input, parse_values
from superbrain.convert.job import OPSET, Converted, Disagreement, Wish, convert
from superbrain.convert.parity import WITHIN
from superbrain.convert.precision import LIMITS, parse_precision
from superbrain.convert.sources import ALIASES, Source, look_at_source
from superbrain.domain.errors import RecipeError
from superbrain.domain.graph_rules import NAME

EXIT_PARITY = 4
EXIT_ENVIRONMENT = 5
EXIT_PRECISION = 6
T = TypeVar("T")

_EXAMPLES = """\
examples:
  superbrain convert --setup sklearn                once for each framework; see --environments
  superbrain convert wine.joblib --trust-pickle --samples rows.npy --output wine
  superbrain convert net.pt2 --output net
  superbrain convert models:make_net --weights net.pth --input x=float32[batch,3,224,224] \\
      --dynamic batch=1:4:16 --samples images/ --output net
  superbrain convert saved_model/ --output net --json
  superbrain convert mine.onnx --against net.pt2 --output net     a graph that you exported yourself
  superbrain convert net.keras --precision fp16 --precision int8=0.2 --calibration images/
  superbrain convert script.pt --native --input x=float32[batch,3,224,224]  TorchScript as it is

then:
  superbrain bundle build net --key author.key
"""


def register(commands: Actions[argparse.ArgumentParser]) -> None:
    """Add `convert`."""
    parser = commands.add_parser(
        "convert",
        help="from a framework's model to a bundle with its own answers",
        description="Convert a model to ONNX, hold the graph to the framework's own answers at "
        "every size,\nand write a bundle folder whose golden cases they are. See docs/convert.md.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a file, a folder, module:function"
    )
    _add_environments(parser)
    _add_model(parser)
    _add_result(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run_convert, parser=parser)


def _add_environments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("environments")
    group.add_argument(
        "--setup", choices=env.FRAMEWORKS, help="make the environment of a framework, and stop"
    )
    group.add_argument("--remove", choices=env.FRAMEWORKS, help="throw one away, and stop")
    group.add_argument("--environments", action="store_true", help="list them, and stop")
    group.add_argument(
        "--environments-folder",
        type=Path,
        metavar="DIR",
        help=f"where they lie (${env.PLACE_VARIABLE}, or the user's data folder)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--from",
        dest="framework",
        choices=(*env.FRAMEWORKS, *ALIASES),
        default="",
        help="its framework (guessed from the file)",
    )
    group.add_argument("--against", metavar="ORIGINAL", help="MODEL is an ONNX file of this model")
    group.add_argument("--weights", type=Path, metavar="FILE", help="for module:function")
    group.add_argument(
        "--input",
        type=_typed(parse_input),
        action="append",
        default=[],
        metavar="NAME=DTYPE[SIZES]",
        help="an input, such as x=float32[batch,3,224,224]; again for every further one",
    )
    group.add_argument("--outputs", default="", metavar="NAMES", help="names, with commas between")
    group.add_argument(
        "--dynamic",
        type=_typed(parse_dynamic),
        action="append",
        default=[],
        metavar="SIZE=MIN:TYPICAL:MAX",
        help="bounds of a size that has a name",
    )
    group.add_argument("--trust-pickle", action="store_true", help="code in the file may run")
    group.add_argument("--opset", type=int, default=OPSET, metavar="N", help=f"of ONNX ({OPSET})")
    group.add_argument(
        "--native",
        action="store_true",
        help="no ONNX: serve TorchScript as it is (hosts need the extra 'torch')",
    )
    group.add_argument("--no-simplify", action="store_true", help="leave the graph as exported")


def _add_result(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the comparison, and the bundle")
    group.add_argument("--samples", type=Path, metavar="PATH", help="real inputs as .npy or .npz")
    group.add_argument(
        "--values",
        type=_typed(parse_values),
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="without --samples: the values an input may have",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of generated samples (0)")
    group.add_argument(
        "--within",
        type=float,
        default=WITHIN,
        metavar="SHARE",
        help=f"the largest error that is still the same model ({WITHIN:g} of the values' size)",
    )
    group.add_argument(
        "--precision",
        type=_typed(parse_precision),
        action="append",
        default=[],
        metavar="NAME[=SHARE]",
        help="also in fp16 or int8, unless its errors go beyond this share of the values' size "
        f"({', '.join(f'{name}={share:g}' for name, share in LIMITS.items())})",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="PATH",
        help="real inputs for int8 and AutoCast, as for --samples (the samples of the comparison)",
    )
    group.add_argument("--light", action="store_true", help=LIGHT_HELP)
    group.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (NAME)")
    group.add_argument("--name", help="the bundle's name (the folder's)")
    group.add_argument("--keep", type=Path, metavar="DIR", help="work there and leave everything")


def run_convert(args: argparse.Namespace) -> int:
    """Do what was asked: one thing about environments, or a conversion."""
    place = args.environments_folder or env.default_place()
    try:
        if args.environments:
            return _list(args, place)
        if args.setup:
            return _set_up(args, place)
        if args.remove:
            return _remove(args, place)
        if args.model is None:
            args.parser.error("expected MODEL, --setup FRAMEWORK or --environments")
        return _convert(args, place)
    except (SetupFailed, ParityFailed) as error:
        return _ended(args, error)


def _list(args: argparse.Namespace, place: Path) -> int:
    found = [env.look(place, framework) for framework in env.FRAMEWORKS]
    if args.json:
        print_json(found)
    else:
        console = make_console()
        show(console, *environments_view(console, place, found))
    return 0


def _set_up(args: argparse.Namespace, place: Path) -> int:
    with Told(quiet=args.json) as told:
        made = env.set_up(place, args.setup, told)
    if args.json:
        print_json(made)
    else:
        console = make_console()
        show(console, *environments_view(console, place, [made]))
    return 0


def _remove(args: argparse.Namespace, place: Path) -> int:
    removed = env.remove(place, args.remove)
    if args.json:
        print_json({"framework": args.remove, "removed": removed})
    else:
        print(f"{'removed' if removed else 'none in'} {place / args.remove}")
    return 0


def _convert(args: argparse.Namespace, place: Path) -> int:
    wish = _wish(args)
    called = Path(args.model).stem if args.against else wish.source.name
    name = args.name or plain_name(args.output.name if args.output else called)
    folder: Path = args.output or Path(name)
    _check_target(folder, name)
    if wish.precisions and find_spec("onnx") is None:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
    environment = env.require(place, wish.source.framework)
    with _WorkPlace(args.keep) as work, Told(quiet=args.json) as told:
        found = convert(wish, environment, work, told)
        told("writing the folder, and proving it as a host would")
        result = write_folder(folder, name, wish, found)
    return _say(args, result, found)


def _wish(args: argparse.Namespace) -> Wish:
    graph = None
    source = look_at_source(
        args.against or args.model, args.framework, trust_pickle=args.trust_pickle
    )
    if args.against:
        graph = _graph_of(args.model)
    if args.native and (args.against or args.precision or source.framework != "torch"):
        args.parser.error("--native is for models of torch, without --against and --precision")
    for path in (args.samples, args.weights, args.calibration):
        if path is not None and not path.exists():
            raise SourceRefused(
                f"{path}: expected a file or folder, found none", code="SOURCE_MISSING"
            )
    return Wish(
        source=source,
        graph=graph,
        inputs=args.input,
        outputs=[name for name in args.outputs.split(",") if name],
        dynamic=dict(args.dynamic),
        values=dict(args.values),
        samples=args.samples,
        weights=args.weights,
        search=str(Path.cwd()),
        opset=args.opset,
        simplify=not args.no_simplify,
        within=args.within,
        seed=args.seed,
        trust_pickle=args.trust_pickle,
        precisions=dict(args.precision),
        calibration=args.calibration,
        light=args.light,
        native=args.native,
    )


def _graph_of(given: str) -> Path:
    found: Source = look_at_source(given, "onnx")
    if found.path is None:
        raise SourceRefused(f"{given}: expected an ONNX file for --against", code="SOURCE_FORM")
    return found.path


def _check_target(folder: Path, name: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(
            f"{folder}: expected no folder or an empty one, found something there",
            reason="RECIPE_EXISTS",
            mend=f"Choose another --output; {RECIPE_NAME} in it may have been edited by hand",
        )
    if not NAME.fullmatch(name):
        raise RecipeError(
            f"expected a name of 1-64 of a-z 0-9 . _ - that starts with a letter or digit, "
            f"found {name!r}",
            reason="RECIPE_NAME",
            mend="Give another --name",
        )


class _WorkPlace:
    """A folder to work in: the author's, which stays, or one that is thrown away."""

    def __init__(self, keep: Path | None) -> None:
        self._keep = keep
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=False)
            return self._keep.resolve()
        self._scratch = tempfile.TemporaryDirectory(prefix="superbrain-convert-")
        return Path(self._scratch.name)

    def __exit__(self, *_: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()


def _say(args: argparse.Namespace, result: ConvertResult, found: Converted) -> int:
    if args.json:
        print_json(result)
    else:
        console = make_console()
        show(console, *result_view(console, result, found.figures))
    return 0 if all(one.kept for one in result.precisions) else EXIT_PRECISION


def _ended(args: argparse.Namespace, error: ConvertError) -> int:
    """Say it as every command does, with the figures where there are some."""
    figures = error.figures if isinstance(error, Disagreement) else []
    fields = {"code": error.code, "message": error.message, "mend": error.mend}
    if args.json:
        print_json({"error": fields, "figures": figures} if figures else {"error": fields})
    elif figures:
        console = make_console()
        show(console, parity_view(console, figures))
    print(f"error: {error.message}", file=sys.stderr)
    if error.mend:
        print(f"  → {error.mend}", file=sys.stderr)
    return EXIT_ENVIRONMENT if isinstance(error, SetupFailed) else EXIT_PARITY


def _typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser's ValueError as the usage error that argparse shows in full."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read
