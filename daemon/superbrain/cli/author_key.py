"""`superbrain key`: make the keys that sign bundles, and show whose key a file holds."""

from __future__ import annotations

import argparse
import getpass
import shlex
import sys
from pathlib import Path
from typing import Any

from superbrain.bundle.keys import generate_key, load_public_key
from superbrain.cli.display import print_json
from superbrain.domain.errors import SignatureRefused

_EXAMPLES = """\
examples:
  superbrain key generate author                        author.key and author.pub, here
  superbrain key generate author --passphrase           encrypted; asked for at every build
  superbrain key generate author --directory ~/.keys --type p256
  superbrain key show author.pub                        its id, as trust.toml and reports name it

author.key stays with whoever builds bundles. author.pub goes to every host that shall trust it,
into the folder `keys` of its trust folder.
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `key`."""
    parser = commands.add_parser(
        "key",
        help="make and show signing keys",
        description="Make the key pair that signs bundles, or show the id of a public key.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _register_generate(actions)
    show = actions.add_parser("show", help="show the id of a public key")
    show.add_argument("file", type=Path, metavar="FILE.pub", help="a public key file")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(run=run_show)


def _register_generate(actions: argparse._SubParsersAction[Any]) -> None:
    generate = actions.add_parser(
        "generate",
        help="make a key pair",
        description="Make NAME.key (private, only you can read it) and NAME.pub.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    generate.add_argument("name", metavar="NAME", help="what the files are called")
    generate.add_argument(
        "--type",
        choices=("ed25519", "p256"),
        default="ed25519",
        help="ed25519, or ECDSA P-256 where rules demand it (%(default)s)",
    )
    generate.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="where to put them (here)"
    )
    generate.add_argument(
        "--passphrase", action="store_true", help="encrypt the private key; asks for a passphrase"
    )
    generate.set_defaults(run=run_generate)


def run_generate(args: argparse.Namespace) -> int:
    """Make a key pair and say where it is and what to do next."""
    if not args.name or "/" in args.name or args.name.startswith("."):
        raise SignatureRefused(
            f"expected a plain file name without slashes, found {args.name!r}",
            reason="KEY_NAME",
            mend="Use --directory for the place",
        )
    passphrase = _new_passphrase() if args.passphrase else ""
    files = generate_key(args.directory, args.name, args.type, passphrase)
    print(f"private key  {files.private}   keep it secret and backed up; it signs bundles")
    print(f"public key   {files.public}   copy it to every host that shall trust it")
    print(f"key id       {files.key_id}")
    private = shlex.quote(str(files.private))
    print(f"next         superbrain bundle build FOLDER --key {private}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show a public key's id."""
    key = load_public_key(args.file)
    if args.json:
        print_json({"file": str(args.file), "key_id": key.key_id, "pem": key.pem.decode()})
        return 0
    print(key.key_id)
    return 0


def ask_passphrase() -> str:
    """Ask for the passphrase of a private key; nothing but a person at a terminal can answer."""
    if not sys.stdin.isatty():
        raise SignatureRefused(
            "expected a terminal to ask for the key's passphrase, found none",
            reason="KEY_ENCRYPTED",
            mend="Build on a terminal, or use a key without passphrase from a protected place",
        )
    return getpass.getpass("Passphrase: ")


def _new_passphrase() -> str:
    passphrase = ask_passphrase()
    if not passphrase or getpass.getpass("Again: ") != passphrase:
        raise SignatureRefused(
            "expected the same passphrase twice and not an empty one, found something else",
            reason="KEY_PASSPHRASE",
        )
    return passphrase
