"""`superbrain bundle engines FOLDER`: engines that a bundle brings along, and where they come from.

An engine is built by a host, for hosts of its kind. This command takes engines from such a host's
cache into an author's folder; `bundle build` signs them with the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from superbrain.bundle.engine_folder import take_engines
from superbrain.bundle.folder import read_folder, read_without_engines
from superbrain.cli.display import heading, make_console, plain_table, print_json, show
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import CarriedEngine, Manifest
from superbrain.domain.quantities import bytes_text

_EXAMPLES = """\
examples:
  superbrain bundle engines ocr                                            what is in the folder
  sudo superbrain bundle engines ocr --from /var/lib/superbrain/state/engines
  superbrain bundle engines ocr --from engines-of-an-l4 --json

the way there:
  drop the bundle without engines on one host of each kind; when it serves there, take its engines,
  raise version and sequence, build, and drop it on all others of that kind
"""


class EngineFacts(msgspec.Struct, frozen=True):
    """An engine in an author's folder, and the hosts that it is for."""

    graph: str
    rung: str
    gpu: str
    compute_capability: str
    version: str
    driver: str
    cuda: str
    size_bytes: int
    path: str


class EnginesResult(msgspec.Struct, frozen=True):
    """What `bundle engines --json` prints; `taken`, `passed_over`: entries of the cache."""

    name: str
    version: str
    taken: int
    passed_over: int
    engines: list[EngineFacts]


def register_engines(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `bundle engines`."""
    parser = actions.add_parser(
        "engines",
        help="show engines that the bundle brings along, take them from a host's cache",
        description="Show the engines in a folder, each with the hosts that it is for. With\n"
        "--from, take all that the cache of a host (state/engines, or a copy of it) has\n"
        "of this folder's graphs on the rungs of its ladder. Hosts of the same kind then\n"
        "need not build them, and prove them like any other; all other hosts build\n"
        "their own. An engine is native code: take it only from a host that you trust\n"
        "as your own key.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds bundle.toml")
    parser.add_argument(
        "--from", dest="cache", type=Path, metavar="DIR", help="the engine cache of a host"
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run_engines)


def run_engines(args: argparse.Namespace) -> int:
    """Take what fits, and show what is there."""
    taken = passed_over = 0
    if args.cache is not None:
        found = take_engines(args.folder, args.cache, read_without_engines(args.folder))
        taken, passed_over = len(found.engines), found.passed_over
        if not taken:
            raise _nothing(args.cache, args.folder, passed_over)
    manifest = read_folder(args.folder)
    if args.json:
        facts = engine_facts(manifest)
        print_json(EnginesResult(manifest.name, manifest.version, taken, passed_over, facts))
        return 0
    console = make_console()
    show(console, *_views(console, manifest, taken, passed_over))
    return 0


def _nothing(cache: Path, folder: Path, passed_over: int) -> RecipeError:
    return RecipeError(
        f"{cache}: expected engines of the graphs in {folder} on the rungs of its ladder, found "
        f"{passed_over} entries that are none",
        reason="RECIPE_ENGINE",
        mend="Drop this bundle on that host first: what it has built can be taken then",
    )


def engine_facts(manifest: Manifest) -> list[EngineFacts]:
    """Give the engines that a bundle brings along."""
    return [_facts(one, manifest) for one in manifest.engines]


def _facts(engine: CarriedEngine, manifest: Manifest) -> EngineFacts:
    key = engine.key
    return EngineFacts(
        graph=engine.graph,
        rung=key.rung,
        gpu=key.gpu,
        compute_capability=key.compute_capability,
        version=key.version,
        driver=engine.driver,
        cuda=engine.cuda,
        size_bytes=next(one.size_bytes for one in manifest.files if one.path == engine.path),
        path=engine.path,
    )


def _views(
    console: Console, manifest: Manifest, taken: int, passed_over: int
) -> Iterator[RenderableType]:
    yield heading(f"{manifest.name} {manifest.version}")
    if taken:
        yield Text(f"{taken} taken; {passed_over} other entries passed over", style="green")
    if manifest.engines:
        yield engine_table(console, engine_facts(manifest))
        yield Text(
            "Raise version and sequence in bundle.toml, then `superbrain bundle build`", "dim"
        )
    else:
        yield Text("It brings no engines: every host builds its own.")


def engine_table(console: Console, engines: Sequence[EngineFacts]) -> Table:
    """Show engines and the hosts that they are for."""
    table = plain_table(console)
    for name in ("graph", "rung", "GPU", "capability", "version"):
        table.add_column(name, overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("built with", overflow="fold")
    for one in engines:
        built_with = f"driver {one.driver or '?'}, CUDA {one.cuda or '?'}"
        cells = (one.graph, one.rung, one.gpu, one.compute_capability, one.version)
        table.add_row(*map(Text, cells), bytes_text(one.size_bytes), Text(built_with))
    return table
