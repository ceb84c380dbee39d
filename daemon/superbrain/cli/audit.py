"""`superbrain audit`: who changed what on this host, and whether the trail is as it was written."""

from __future__ import annotations

import argparse
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.text import Text

from superbrain.cli.control import ControlError, add_control_options, control_client
from superbrain.cli.display import arrow, local_time, make_console, plain_table, print_json, show
from superbrain.cli.numbers import whole
from superbrain.domain.audit import Entry, Peer
from superbrain.domain.operations import AuditReply, AuditVerdict, GetAudit, VerifyAudit
from superbrain.host.audit_log import AuditLog, verify_folder

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 10_000

_EXAMPLES = """\
examples:
  superbrain audit                     the newest entries
  superbrain audit --limit 500 --json | jq '.[] | select(.action == "order")'
  superbrain audit --verify            is anything changed, missing or cut off?
  superbrain audit --verify --folder /media/usb/state     a copy, without a daemon

With --verify the exit code is 0 when the trail is whole and 1 when it is not.
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `audit`."""
    parser = commands.add_parser(
        "audit",
        help="who changed what, and whether the trail is whole",
        description="Show the newest entries of the audit trail, or check the whole of it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verify", action="store_true", help="check the chain of all entries")
    parser.add_argument(
        "--limit",
        type=whole(1, MAX_LIMIT),
        default=DEFAULT_LIMIT,
        metavar="N",
        help="at most so many entries (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="read the files in DIR, not by the daemon"
    )
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show entries or the verdict."""
    if args.verify:
        return _verify(args)
    entries = _entries(args)
    if args.json:
        print_json(entries)
        return 0
    console = make_console()
    show(console, audit_view(console, entries) if entries else Text("The audit trail is empty."))
    return 0


def _entries(args: argparse.Namespace) -> list[Entry]:
    if args.folder is None:
        return control_client(args).ask(GetAudit(args.limit), AuditReply).entries
    try:
        return AuditLog(_existing(args.folder)).newest(args.limit)
    except OSError as error:
        raise _unreadable(args.folder, error) from error


def _verify(args: argparse.Namespace) -> int:
    verdict = _verdict(args)
    if args.json:
        print_json(verdict)
    else:
        print("\n".join(verdict_lines(verdict)))
    return 1 if verdict.faults else 0


def _verdict(args: argparse.Namespace) -> AuditVerdict:
    if args.folder is None:
        return control_client(args).ask(VerifyAudit(), AuditVerdict)
    try:
        chain = verify_folder(_existing(args.folder))
    except OSError as error:
        raise _unreadable(args.folder, error) from error
    last = chain.last
    return AuditVerdict(chain.first, last.sequence, chain.entries, last.sha256, chain.faults)


def verdict_lines(verdict: AuditVerdict) -> list[str]:
    """What there is, then every fault."""
    if not verdict.entries and not verdict.faults:
        return ["the audit trail is empty"]
    if not verdict.faults:
        found = f"entries {verdict.first} to {verdict.last} are as they were written"
        return [found, f"the last one's sha256 is {verdict.sha256}"]
    found = f"{verdict.entries} entries, {verdict.first} to {verdict.last}; not as written:"
    return [found, *(f"  {fault}" for fault in verdict.faults)]


def audit_view(console: Console, entries: Sequence[Entry]) -> RenderableType:
    """One row for each entry; details stand below it."""
    table = plain_table(console)
    table.add_column("at", no_wrap=True)
    table.add_column("#", no_wrap=True, justify="right")
    for column in ("by", "action", "what"):  # where it is narrow all three give way, none alone
        table.add_column(column, overflow="fold")
    for entry in entries:
        what = Text(entry.subject, style="bold")
        if entry.outcome:
            what.append(f" {arrow(console)} {entry.outcome}", style="not bold")
        if entry.detail:
            what.append(f"\n{entry.detail}", style="not bold dim")
        by = peer_text(entry.peer)
        table.add_row(local_time(entry.at), str(entry.sequence), by, entry.action, what)
    return table


def peer_text(peer: Peer | None) -> str:
    """Name who asked: `root (pid 4711)`; the daemon itself where nobody did."""
    if peer is None:
        return "superbraind"
    try:
        name = pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        name = f"user id {peer.uid}"
    return f"{name} (pid {peer.pid})"


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ControlError(
            f"expected a folder with audit.log, found none at {folder}",
            mend="It is the state folder, such as /var/lib/superbrain/state",
        )
    return folder


def _unreadable(folder: Path, error: OSError) -> ControlError:
    return ControlError(
        f"the audit trail in {folder} cannot be read: {error.strerror}", mend="Run it with sudo"
    )
