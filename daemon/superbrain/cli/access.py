"""`superbrain access`: who may ask this host by TCP: make key pairs, allow, deny and list clients.

The folder of clients is what `[tcp] clients` names. A running daemon reads it again on
`superbrain reload`; nothing here needs the daemon, or the packages of an extra.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from superbrain.app.config import DEFAULT_CONFIG, load_config
from superbrain.bundle.disk import not_written, write_new
from superbrain.cli.actions import add_action
from superbrain.cli.infer import print_as_json, table
from superbrain.host.files import make_readable_folder
from superbrain.wire.curve import (
    MAX_CERTIFICATE_BYTES,
    Certificate,
    certificate_text,
    parse_certificate,
)
from superbrain.wire.errors import InvalidArgument

_EXAMPLES = """\
examples:
  superbrain access generate server --directory /etc/superbrain/tcp
  superbrain access allow camera.pub
  superbrain access list
  superbrain access deny camera
  superbrain reload

for a client, whose camera.key stays with it while camera.pub goes to the host:
  superbrain access generate camera
  superbrain infer orientation --endpoint tcp://host:5555 \\
      --curve-server server.pub --curve-key camera.key --input image=page.jpg

Allowing and denying count from the next 'superbrain reload'; who was denied is cut then.
"""
_SUFFIX: Final = ".pub"


class Client(NamedTuple):
    """One file of the folder of clients."""

    name: str
    key: str


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `access`."""
    parser = commands.add_parser(
        "access",
        help="who may ask by TCP: keys, allow, deny, list",
        description="Make CURVE key pairs, and say whose clients may connect by TCP.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    generate = add_action(
        actions, "generate", "make a key pair: NAME.key (secret) and NAME.pub", _EXAMPLES
    )
    generate.add_argument("name", metavar="NAME", help="what the files are called")
    generate.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="where to put them (here)"
    )
    generate.set_defaults(run=run_generate)
    allow = add_action(actions, "allow", "let the owner of a key connect", _EXAMPLES)
    allow.add_argument("file", type=Path, metavar="NAME.pub", help="the client's public half")
    allow.add_argument("--name", default="", help="what to call it (the file's name)")
    _add_folder(allow)
    allow.set_defaults(run=run_allow)
    deny = add_action(actions, "deny", "let a client connect no more", _EXAMPLES)
    deny.add_argument("name", metavar="NAME", help="as 'superbrain access list' has it")
    _add_folder(deny)
    deny.set_defaults(run=run_deny)
    listing = add_action(actions, "list", "list who may connect", _EXAMPLES)
    listing.add_argument("--json", action="store_true", help="print it as JSON")
    _add_folder(listing)
    listing.set_defaults(run=run_list)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help=f"the folder of clients (what [tcp] clients in {DEFAULT_CONFIG} says)",
    )


def run_generate(args: argparse.Namespace) -> int:
    """Make a key pair."""
    name = _plain(args.name)
    public, secret = (half.decode() for half in zmq.curve_keypair())
    pair = Certificate(public, secret)
    secret_path = args.directory / f"{name}.key"
    public_path = args.directory / f"{name}{_SUFFIX}"
    _write(secret_path, certificate_text(pair, f"superbrain: secret key of {name}"), 0o600)
    try:
        _write(public_path, certificate_text(Certificate(public), f"superbrain: {name}"), 0o644)
    except BaseException:
        secret_path.unlink()
        raise
    print(f"secret key  {secret_path}   stays where it is used; nobody else may read it")
    print(f"public key  {public_path}   a client's goes to the host, the server's to its clients")
    print(f"key         {public}")
    return 0


def run_allow(args: argparse.Namespace) -> int:
    """Put a client's public half into the folder."""
    folder = _folder(args)
    name = _plain(args.name or args.file.name.removesuffix(_SUFFIX))
    key = _read(args.file).public
    same = next((client for client in _clients(folder) if client.key == key), None)
    if same is not None:
        raise InvalidArgument(f"expected a new key, found that of {same.name!r}")
    _make(folder)
    _write(folder / f"{name}{_SUFFIX}", certificate_text(Certificate(key), f"client {name}"), 0o644)
    print(f"{name} may connect after: superbrain reload")
    return 0


def run_deny(args: argparse.Namespace) -> int:
    """Take a client out of the folder."""
    folder = _folder(args)
    name = _plain(args.name)
    try:
        (folder / f"{name}{_SUFFIX}").unlink()
    except FileNotFoundError as error:
        known = ", ".join(client.name for client in _clients(folder)) or "nobody"
        msg = f"expected one of those in {folder} ({known}), found {name!r}"
        raise InvalidArgument(msg) from error
    except OSError as error:
        msg = f"{folder}: expected to take {name} out, found: {error.strerror}"
        raise InvalidArgument(msg) from error
    print(f"{name} is cut at: superbrain reload")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """List who is in the folder."""
    folder = _folder(args)
    clients = _clients(folder)
    if args.json:
        print_as_json([client._asdict() for client in clients])
    elif clients:
        print(table([("CLIENT", "KEY"), *clients]))
    else:
        print(f"Nobody may connect by TCP: {folder} has no NAME{_SUFFIX}.")
    return 0


def _folder(args: argparse.Namespace) -> Path:
    return Path(args.folder or load_config().tcp.clients)


def _clients(folder: Path) -> list[Client]:
    paths = sorted(folder.glob("*" + _SUFFIX))
    return [Client(path.stem, _read(path).public) for path in paths if path.name[0] != "."]


def _read(path: Path) -> Certificate:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CERTIFICATE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"expected to read a CURVE certificate from {path}, found: {error}"
        raise InvalidArgument(msg) from error
    return parse_certificate(text, str(path))


def _make(folder: Path) -> None:
    """Make the folder of clients, which the service reads."""
    try:
        make_readable_folder(folder, parents=True)
    except OSError as error:
        msg = f"expected to make {folder}, found: {error.strerror}"
        raise InvalidArgument(msg, mend="Run it with sudo: the folder belongs to root") from error


def _write(path: Path, text: str, mode: int) -> None:
    """Write a new file with a mode, whatever the umask; what is there already stays."""
    try:
        write_new(path, text.encode(), mode)
    except FileExistsError as error:
        msg = f"expected to make {path}, found that it is there already"
        raise InvalidArgument(msg, mend="Choose another name, or remove it first") from error
    except OSError as error:
        message, mend = not_written(path, error)
        raise InvalidArgument(message, mend=mend) from error


def _plain(name: str) -> str:
    if not name or "/" in name or name.startswith(".") or not name.isprintable():
        raise InvalidArgument(f"expected a plain name without slashes, found {name!r}")
    return name
