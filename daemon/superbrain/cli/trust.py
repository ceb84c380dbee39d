"""`superbrain trust`: what an operator does about whom a host believes.

`show`, `import` and `forget-time` ask the daemon. `revoke` writes a file into the trust folder,
which belongs to root, and then has the daemon read it: the daemon itself cannot write there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import os
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from superbrain.bundle.archive import peek
from superbrain.bundle.keys import load_public_key
from superbrain.bundle.signing import TRUST_UPDATE, read_envelope
from superbrain.bundle.trust_chain import SignedUpdate, read_update
from superbrain.cli.actions import add_action
from superbrain.cli.control import (
    ControlError,
    NotRunning,
    add_control_options,
    control_client,
)
from superbrain.cli.display import make_console, print_json, show
from superbrain.cli.trust_view import trust_view, update_view
from superbrain.domain.operations import (
    ForgetTime,
    GetTrust,
    ImportTrust,
    Outcome,
    Reload,
    TrustReply,
)
from superbrain.domain.trust import bundle_digest
from superbrain.domain.trust_update import MAX_TEXT
from superbrain.host.files import make_readable_folder

ORDER_TIMEOUT_S: Final = 60.0
_HEX: Final = re.compile(r"[0-9a-f]{64}")

_EXAMPLES = """\
examples:
  superbrain trust show                         keys, threshold, what is revoked, the updates
  superbrain trust import trust-*.sbt           or drop them into the inbox, all at once
  superbrain trust revoke ocr-3.1.0.sbb --why "reads wrong totals"
  superbrain trust forget-time                  after a clock that was ahead was set right

where the keys are:
  superbrain trust create --add a.pub --add b.pub --threshold 2 --key a.key
  superbrain trust sign trust-1.sbt --key b.key
  superbrain trust create --after trust-1.sbt --add c.pub --remove 3f2a9c1b --key a.key --key c.key
  superbrain trust show trust-2.sbt             what it says, and who has signed it

docs/trust.md tells how a site lives with it for ten years.
"""
_REVOKE = """\
What is revoked is named by its file, or by the 64 digits that `trust show`, `report` and
`key show` print. A revoked bundle is not installed any more. If it serves, the version before it
takes over; if there is none, it goes on serving and health is critical, or, with --stop, callers
get no answers. Run it as root: the trust folder is root's. To undo it, remove the file that it
wrote and type: superbrain reload

examples:
  sudo superbrain trust revoke ocr-3.1.0.sbb --why "reads wrong totals"
  sudo superbrain trust revoke author.pub --why "notebook stolen"
  sudo superbrain trust revoke "$(superbrain report ocr --json | jq -r .digest)" --stop
"""


def register(commands: argparse._SubParsersAction[Any]) -> argparse._SubParsersAction[Any]:
    """Add `trust`; give its sub-parsers for the actions."""
    parser = commands.add_parser(
        "trust",
        help="whom this host believes",
        description="Show, import, revoke, and make what says whom hosts believe.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions: argparse._SubParsersAction[Any] = parser.add_subparsers(
        metavar="ACTION", required=True
    )
    showing = _add(actions, "show", "show whom this host believes, or what an update file says")
    showing.add_argument("file", nargs="?", type=Path, metavar="FILE.sbt", help="a trust update")
    showing.add_argument("--json", action="store_true", help="print it as JSON")
    showing.set_defaults(run=run_show)
    importing = _add(actions, "import", "take signed trust updates, in any order")
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE.sbt")
    importing.set_defaults(run=run_import)
    _register_revoke(actions)
    _add(actions, "forget-time", "judge dates by the clock again").set_defaults(run=run_forget)
    return actions


def _add(
    actions: argparse._SubParsersAction[Any], name: str, summary: str, epilog: str = _EXAMPLES
) -> argparse.ArgumentParser:
    parser = add_action(actions, name, summary, epilog)
    add_control_options(parser, timeout_s=ORDER_TIMEOUT_S)
    return parser


def _register_revoke(actions: argparse._SubParsersAction[Any]) -> None:
    parser = _add(actions, "revoke", "trust a key or a bundle no longer, on this host", _REVOKE)
    parser.add_argument("what", metavar="WHAT", help="FILE.sbb, FILE.pub, a digest or a key id")
    parser.add_argument(
        "--stop", action="store_true", help="better no answers than those of this bundle"
    )
    parser.add_argument("--why", default="", metavar="TEXT", help="for those who ask later")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="the trust folder (default: the daemon's)"
    )
    parser.set_defaults(run=run_revoke)


# --- show -----------------------------------------------------------------------------------------


def run_show(args: argparse.Namespace) -> int:
    """Show the host's trust, or a file's."""
    if args.file is not None:
        return _show_file(args)
    facts = control_client(args).ask(GetTrust(), TrustReply).trust
    if args.json:
        print_json(facts)
        return 0
    console = make_console()
    show(console, *trust_view(console, facts))
    return 0


def _show_file(args: argparse.Namespace) -> int:
    signed = read_update(read_update_file(args.file))
    if args.json:
        said = msgspec.to_builtins(signed.update)
        print_json({"digest": signed.digest, "signatures": list(signed.claimed), "update": said})
        return 0
    console = make_console()
    show(console, *update_view(console, signed.update, signed.claimed))
    return 0


# --- import ---------------------------------------------------------------------------------------


def run_import(args: argparse.Namespace) -> int:
    """Have the daemon take update files."""
    updates = [_checked(path) for path in args.files]
    operation = ImportTrust([signed.data.decode() for signed in updates])
    print(control_client(args).ask(operation, Outcome).message)
    return 0


def _checked(path: Path) -> SignedUpdate:
    return read_update(read_update_file(path))


def read_update_file(path: Path) -> bytes:
    """Read an update file.

    Raises:
        ControlError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(TRUST_UPDATE.max_envelope_bytes + 1)
    except OSError as error:
        raise ControlError(
            f"{path}: expected a trust update, found: {error.strerror}",
            mend="Make one with `superbrain trust create`",
        ) from error


# --- revoke ---------------------------------------------------------------------------------------


def run_revoke(args: argparse.Namespace) -> int:
    """Write the file that revokes, then have it read."""
    digest = _digest_of(args.what)
    folder = args.folder or _daemons_folder(args)
    path = folder / "revoked" / digest
    _write(path, _note(args.why, stop=args.stop))
    print(f"revoked      {digest}")
    print(f"written      {path}")
    try:
        print(control_client(args).ask(Reload(), Outcome).message)
    except NotRunning:
        print("superbraind is not running: it is read when it starts")
    return 0


def _digest_of(what: str) -> str:
    """Give the digest of a bundle, the id of a key, or the 64 digits themselves."""
    path = Path(what)
    if _HEX.fullmatch(what):
        return what
    if what.endswith(".pub"):
        return load_public_key(path).key_id
    if what.endswith(".sbb") and path.exists():
        with path.open("rb") as file:
            return bundle_digest(read_envelope(peek(file)).payload)
    raise ControlError(
        f"expected a bundle, a public key or 64 lower-case hex digits, found {what!r}",
        mend="superbrain report MODEL prints a digest, superbrain key show FILE.pub a key id",
    )


def _daemons_folder(args: argparse.Namespace) -> Path:
    return Path(control_client(args).ask(GetTrust(), TrustReply).trust.folder)


def _note(why: str, *, stop: bool) -> str:
    if len(why) > MAX_TEXT or not why.isprintable():
        raise ControlError(f"expected --why as printable text of at most {MAX_TEXT} characters")
    by = f"{getpass.getuser()}, {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"
    quoted = msgspec.json.encode(why).decode()  # a JSON string is a TOML string
    return f"# {by}\nwhy = {quoted}\nstop = {'true' if stop else 'false'}\n"


def _write(path: Path, text: str) -> None:
    """Replace the file in one step: writable by its owner only, and readable by the service."""
    part = path.with_name(f".{path.name}")
    try:
        make_readable_folder(path.parent)
        part.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(part, flags, 0o644), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ControlError(
            f"nothing is revoked: {path} cannot be written: {error.strerror}",
            mend="Run it with sudo: the trust folder belongs to root",
        ) from error


def run_forget(args: argparse.Namespace) -> int:
    """Have the daemon forget the latest time it has seen."""
    print(control_client(args).ask(ForgetTime(), Outcome).message)
    return 0
