"""`superbrain bundle engines | build | inspect | verify`: a folder becomes a file and back.

The commands that run a bundle (`init`, `record-golden`, `prove`) are in author_prove.py.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from superbrain.bundle import archive
from superbrain.bundle.archive import VerifiedBundle, open_bundle
from superbrain.bundle.folder import build, collect_files, read_recipe
from superbrain.bundle.keys import load_public_key, load_signing_key
from superbrain.bundle.signing import read_envelope, verify_envelope
from superbrain.bundle.trust_folder import read_trust_folder
from superbrain.cli.author_engines import register_engines
from superbrain.cli.author_key import ask_passphrase
from superbrain.cli.bundle_view import BundleFacts, bundle_view
from superbrain.cli.display import make_console, print_json, show
from superbrain.domain.errors import Incomplete, RecipeError, StoreError
from superbrain.domain.manifest_json import parse_manifest
from superbrain.domain.rungs import graph_files, is_torchscript
from superbrain.domain.trust import Trust, bundle_digest
from superbrain.engines.onnx_files import check_external_files

_EXAMPLES = """\
examples:
  superbrain bundle build orientation --key author.key        orientation-1.2.0.sbb, here
  superbrain bundle inspect orientation-1.2.0.sbb             what is in it; trusts nobody
  superbrain bundle verify orientation-1.2.0.sbb --key author.pub
  superbrain bundle verify orientation-1.2.0.sbb --trust /etc/superbrain/trust
"""


class Verification(msgspec.Struct, frozen=True):
    """What `bundle verify --json` prints."""

    file: str
    name: str
    version: str
    sequence: int
    digest: str
    signers: tuple[str, ...]
    threshold: int
    size_bytes: int


def register(bundle_commands: argparse._SubParsersAction[Any]) -> None:
    """Add `engines`, `build`, `inspect` and `verify` to `superbrain bundle`."""
    register_engines(bundle_commands)
    _register_build(bundle_commands)
    _register_inspect(bundle_commands)
    _register_verify(bundle_commands)


def _add(
    actions: argparse._SubParsersAction[Any], name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=summary,
        description=description,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _register_build(actions: argparse._SubParsersAction[Any]) -> None:
    parser = _add(
        actions,
        "build",
        "make a signed bundle from a folder",
        "Make NAME-VERSION.sbb from a folder with bundle.toml. The same folder and keys give the "
        "same bytes. docs/bundle-format.md describes the folder.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds bundle.toml")
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        required=True,
        metavar="FILE.key",
        help="a private key to sign with; give it again for every further signer",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="where to put it (here)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run_build)


def _register_inspect(actions: argparse._SubParsersAction[Any]) -> None:
    parser = _add(
        actions,
        "inspect",
        "show what is in a bundle file",
        "Show what a bundle file says about itself. No key is needed, and nobody vouches for it "
        "unless --trust is given; `verify` checks every byte.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a bundle file")
    parser.add_argument("--trust", type=Path, metavar="DIR", help="check signatures against it")
    parser.add_argument("--json", action="store_true", help="print digest and manifest as JSON")
    parser.set_defaults(run=run_inspect)


def _register_verify(actions: argparse._SubParsersAction[Any]) -> None:
    parser = _add(
        actions,
        "verify",
        "check signatures and every byte of a bundle file",
        "Check a bundle file as a host would: signatures, manifest, and every byte of every file. "
        "Dates and sequence are the host's to judge.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a bundle file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trust", type=Path, metavar="DIR", help="a trust folder")
    source.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="FILE.pub",
        help="a public key to trust; may be given again",
    )
    parser.add_argument(
        "--threshold", type=int, default=1, metavar="N", help="with --key: how many must sign (1)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run_verify)


def run_build(args: argparse.Namespace) -> int:
    """Build a bundle and say what was made."""
    if not args.output.is_dir():
        raise RecipeError(
            f"{args.output}: expected a folder to put the bundle into, found none",
            reason="RECIPE_OUTPUT",
            mend=f"mkdir -p {args.output}",
        )
    keys = [load_signing_key(path, ask_passphrase) for path in args.key]
    _check_weights(args.folder)
    with _progress("building") as progress:
        built = build(args.folder, keys, args.output, progress)
    if args.json:
        print_json(
            {
                "path": str(built.path),
                "digest": built.digest,
                "signers": built.signers,
                "size_bytes": built.size_bytes,
            }
        )
        return 0
    print(f"bundle   {built.path}   {built.size_bytes:,} bytes")
    print(f"digest   {built.digest}")
    for signer in built.signers:
        print(f"signer   {signer}")
    print("next     copy it into the inbox of a host that trusts a signer")
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Show what a bundle says about itself."""
    with _open(args.file) as file:
        envelope = archive.peek(file)
        have = args.file.stat().st_size
    trust = read_trust_folder(args.trust) if args.trust else None
    signed = verify_envelope(envelope, trust) if trust else read_envelope(envelope)
    facts = BundleFacts(
        file=str(args.file),
        digest=bundle_digest(signed.payload),
        verified=trust is not None,
        signers=signed.signers,
        size_bytes=have,
        manifest=parse_manifest(signed.payload),
    )
    expected = archive.expected_size(envelope, facts.manifest)
    if args.json:
        print_json(facts)
        return 0
    console = make_console()
    show(console, *bundle_view(console, facts, expected))
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Check every byte of a bundle against trusted keys."""
    trust = _trust(args)
    with _open(args.file) as file:
        bundle = open_bundle(file, trust)
        _check_complete(args.file, bundle)
        with _progress("verifying") as progress:
            archive.check_members(file, bundle, progress)
    manifest = bundle.manifest
    result = Verification(
        file=str(args.file),
        name=manifest.name,
        version=manifest.version,
        sequence=manifest.sequence,
        digest=bundle.digest,
        signers=bundle.signers,
        threshold=trust.threshold,
        size_bytes=bundle.total_bytes,
    )
    if args.json:
        print_json(result)
        return 0
    print(f"verified   {manifest.name} {manifest.version}, sequence {manifest.sequence}")
    print(f"digest     {bundle.digest}")
    for signer in bundle.signers:
        print(f"signer     {signer}")
    print(f"checked    {len(manifest.files)} files, {bundle.total_bytes:,} bytes")
    return 0


def _check_weights(folder: Path) -> None:
    """Refuse graphs with weights outside the bundle; a graph that is missing is the builder's."""
    files = frozenset(collect_files(folder))
    for graph in read_recipe(folder).graphs.values():
        for path in graph_files(graph):
            if path in files and not is_torchscript(path):
                check_external_files(folder, path, files)


def _trust(args: argparse.Namespace) -> Trust:
    if args.trust is not None:
        return read_trust_folder(args.trust)
    keys = tuple(load_public_key(path) for path in args.key)
    return Trust(keys=keys, threshold=args.threshold)


def _check_complete(path: Path, bundle: VerifiedBundle) -> None:
    if not bundle.complete:
        raise Incomplete(
            f"{path}: expected {bundle.total_bytes} bytes, found {bundle.have_bytes}",
            have_bytes=bundle.have_bytes,
            need_bytes=bundle.total_bytes,
        )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(
            f"{path}: expected a bundle file, found: {error.strerror}", reason="SOURCE_UNREADABLE"
        ) from error


@contextlib.contextmanager
def _progress(action: str) -> Iterator[archive.Progress]:
    """Show a bar on standard error while somebody watches, and nothing in a pipe."""
    columns = (
        TextColumn(action),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(action, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
