"""`superbrain bundle init | record-golden | prove | precision`: what runs an author's bundle.

`prove` does what a host does: it verifies and unpacks a bundle file (a folder is taken as it is),
then loads and proves it on every rung of its ladder, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.text import Text

from superbrain.bundle.archive import open_bundle
from superbrain.bundle.folder import read_folder
from superbrain.bundle.keys import load_public_key
from superbrain.bundle.store import Store
from superbrain.bundle.trust_folder import read_trust_folder
from superbrain.cli.author_init import register_init
from superbrain.cli.author_precision import register_precision
from superbrain.cli.author_record import register_record
from superbrain.cli.display import heading, make_console, milliseconds_text, print_json, show
from superbrain.cli.proof_table import proof_view
from superbrain.domain.errors import StoreError
from superbrain.domain.manifest import Manifest
from superbrain.domain.trust import Trust
from superbrain.serve.trial import Trial, goes_live_on, try_ladder

_EXAMPLES = """\
examples:
  superbrain bundle prove ocr                                  the folder, as it is
  superbrain bundle prove ocr-1.2.0.sbb --key author.pub       the file, as a host would
  superbrain bundle prove ocr-1.2.0.sbb --trust /etc/superbrain/trust --json
"""


class ProveResult(msgspec.Struct, frozen=True):
    """What `bundle prove --json` prints; `goes_live_on` is empty when no rung passed."""

    name: str
    version: str
    goes_live_on: str
    trials: list[Trial]


def register(bundle_commands: argparse._SubParsersAction[Any]) -> None:
    """Add `init`, `record-golden`, `prove` and `precision` to `superbrain bundle`."""
    register_init(bundle_commands)
    register_record(bundle_commands)
    _register_prove(bundle_commands)
    register_precision(bundle_commands)


def _register_prove(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser(
        "prove",
        help="prove a bundle on this machine",
        description="Run every golden case on every rung of the ladder, as a host does before it\n"
        "serves, and show how near the answers are. Exit code 0 means: it would go live.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundle", type=Path, metavar="FOLDER|FILE.sbb", help="a folder, or a bundle file"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--trust", type=Path, metavar="DIR", help="for a file: a trust folder")
    source.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="FILE.pub",
        help="for a file: a public key to trust; may be given again",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(run=run_prove, parser=parser)


def run_prove(args: argparse.Namespace) -> int:
    """Prove on every rung; 0 when one of them passed."""
    is_folder = args.bundle.is_dir()
    if is_folder and (args.trust or args.key):
        args.parser.error("--trust and --key are for a bundle file; a folder is not signed")
    if not is_folder and not (args.trust or args.key):
        args.parser.error("a bundle file needs --trust DIR or --key FILE.pub")
    with _opened(args) as (folder, manifest):
        trials = list(try_ladder(folder, manifest))
    live = goes_live_on(manifest, trials)
    if args.json:
        print_json(ProveResult(manifest.name, manifest.version, live, trials))
    else:
        console = make_console()
        show(console, *_views(console, manifest, trials, live))
    return 0 if live else 1


@contextlib.contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple[Path, Manifest]]:
    """Give the bundle's folder and manifest; of a file, an unpacked copy for the time being."""
    if args.bundle.is_dir():
        yield args.bundle, read_folder(args.bundle)
        return
    trust = read_trust_folder(args.trust) if args.trust else _trust_in(args.key)
    with tempfile.TemporaryDirectory(prefix="superbrain-prove-") as scratch:
        store = Store(Path(scratch), reserve_bytes=0)
        try:
            with args.bundle.open("rb") as file:
                verified = open_bundle(file, trust)
                folder = store.receive(file, verified)
        except OSError as error:
            raise StoreError(
                f"{args.bundle}: expected a folder or a bundle file, found: {error.strerror}",
                reason="SOURCE_UNREADABLE",
            ) from error
        yield folder, verified.manifest


def _trust_in(keys: list[Path]) -> Trust:
    return Trust(keys=tuple(load_public_key(path) for path in keys))


def _views(
    console: Console, manifest: Manifest, trials: list[Trial], live: str
) -> Iterator[RenderableType]:
    yield heading(f"{manifest.name} {manifest.version}")
    for trial in trials:
        if trial.proof is not None:
            timing = trial.proof.timing
            time = f", {milliseconds_text(timing.median_ms)} ms a request" if timing else ""
            yield Text(f"\n{trial.rung}: {trial.proof.runtime}{time}")
            yield proof_view(console, trial.proof)
        else:
            yield Text(f"\n{trial.rung}: not loaded: {trial.error}")
            if trial.mend:
                yield Text(f"  {trial.mend}", style="dim")
    if live:
        yield Text(f"\nproven: it would go live on {live}", style="green")
    else:
        tried = ", ".join(trial.rung for trial in trials)
        yield Text(f"\nnot proven: no rung of {tried} passed", style="bold red")
