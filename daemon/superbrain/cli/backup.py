"""`superbrain backup` and `superbrain restore`: what makes a host itself, in one file and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import msgspec

from superbrain.app.backup import SERVER_KEY_NAME, Made, make_backup
from superbrain.app.config import DEFAULT_CONFIG, load_config
from superbrain.app.restore import Options, Restored, config_file, restore
from superbrain.cli.actions import add_action
from superbrain.cli.display import print_json
from superbrain.domain.backup import Backup
from superbrain.domain.quantities import bytes_text

_BACKUP = """\
Run it as root. The daemon may run, and goes on serving. The file is for its owner alone: whoever
can change it decides what the host believes on which it is restored. What lies in the inbox,
engines built here and settings of the unit (systemctl edit) are not in it.

examples:
  superbrain backup --output /media/usb/$(hostname)-$(date +%F).sbbackup
  superbrain backup --output small.sbbackup --without-bundles
  superbrain backup --output whole.sbbackup --with-secrets    the TCP server's key too
"""
_RESTORE = """\
The daemon must be stopped. A restore that was cut off goes on when the same command is typed again.
Afterwards start the daemon: it verifies trust and bundles again, and every model proves itself.

examples:
  superbrain restore host.sbbackup --dry-run       is it whole, and would it fit here? 1 if not
  systemctl stop superbraind
  superbrain restore host.sbbackup
  superbrain restore host.sbbackup --replace       what is here is kept aside
"""
_WITHOUT_BUNDLES: Final = (
    "without the bundles: a host restored from it serves nothing until they are dropped again"
)


class BackupSummary(msgspec.Struct, frozen=True):
    """What `--json` prints: the backup without its list of files."""

    file: str
    host: str
    made_at: str
    superbrain: str
    journal_schema: int
    with_bundles: bool
    with_secrets: bool
    models: dict[str, str]
    bundles: int
    files: int
    size_bytes: int
    sha256: str = ""
    damaged: list[str] = []


class RestoreSummary(msgspec.Struct, frozen=True):
    """What `superbrain restore --json` prints."""

    backup: BackupSummary
    outcome: str
    kept: list[str]
    lower: list[str]
    left_out: list[str]
    refused: str = ""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `backup` and `restore`."""
    backing = add_action(
        commands, "backup", "write what makes this host itself into one file", _BACKUP
    )
    backing.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the file to make"
    )
    backing.add_argument(
        "--without-bundles",
        action="store_true",
        help="leave the bundles out; they must be dropped again after a restore",
    )
    backing.add_argument(
        "--with-secrets", action="store_true", help="take the TCP server's secret key along"
    )
    _add_places(backing)
    backing.set_defaults(run=run_backup)
    restoring = add_action(
        commands, "restore", "make a host what it was when a backup was made", _RESTORE
    )
    restoring.add_argument("file", type=Path, metavar="FILE", help="made by superbrain backup")
    restoring.add_argument(
        "--replace", action="store_true", help="although this host has models; they are kept aside"
    )
    restoring.add_argument(
        "--accept-older",
        action="store_true",
        help="although older releases, or what was revoked, would be accepted again",
    )
    restoring.add_argument(
        "--dry-run", action="store_true", help="check everything and change nothing"
    )
    _add_places(restoring)
    restoring.set_defaults(run=run_restore)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"another file than {DEFAULT_CONFIG}"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="all folders below DIR, as for superbraind"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run_backup(args: argparse.Namespace) -> int:
    """Make a backup; 1 when a bundle could not be taken along."""
    config = load_config(args.config, args.root)
    path = args.config or config_file(None, args.root)
    made = make_backup(
        config, path, args.output, bundles=not args.without_bundles, secrets=args.with_secrets
    )
    if args.json:
        print_json(_summary(args.output, made.backup, made))
    else:
        print("\n".join(_backup_lines(args.output, made, Path(config.tcp.secret_key).exists())))
    return 1 if made.damaged else 0


def run_restore(args: argparse.Namespace) -> int:
    """Restore a backup; 1 when a dry run finds that it would be refused."""
    options = Options(args.config, args.root, args.replace, args.accept_older, args.dry_run)
    done = restore(args.file, options)
    outcome = "checked" if args.dry_run else "resumed" if done.resumed else "restored"
    if args.json:
        kept = [str(path) for path in done.kept]
        summary = _summary(args.file, done.backup)
        print_json(RestoreSummary(summary, outcome, kept, done.lower, done.left_out, done.refused))
    else:
        print("\n".join(_restore_lines(args, done, outcome)))
    return 1 if done.refused else 0


def _backup_lines(path: Path, made: Made, has_key: bool) -> list[str]:  # noqa: FBT001 - a fact
    backup = made.backup
    lines = [f"{path}  {bytes_text(backup.size_bytes)}: {_holds(backup)}"]
    if not backup.with_bundles:
        lines.append(_WITHOUT_BUNDLES)
    lines += [
        f"without the bundle {digest[:12]}…, of which this host has no good copy"
        for digest in made.damaged
    ]
    if any(file.name == SERVER_KEY_NAME for file in backup.files):
        lines.append("with the TCP server's secret key: this file is a secret")
    elif has_key:
        lines.append("without the TCP server's secret key (--with-secrets takes it along)")
    lines.append(
        "whoever can change this file decides what a host believes: keep it as you keep keys"
    )
    return [*lines, f"sha256 {made.sha256}"]


def _holds(backup: Backup) -> str:
    models = ", ".join(f"{name} {version}" for name, version in backup.models.items())
    return f"{models or 'no models'}; {backup.bundles} bundles, {len(backup.files)} files"


def _restore_lines(args: argparse.Namespace, done: Restored, outcome: str) -> list[str]:
    backup = done.backup
    said = {
        "checked": "is whole",
        "resumed": "had been cut off and is restored now",
        "restored": "is restored",
    }
    made = f"{backup.made_at:%Y-%m-%d %H:%M:%S} UTC on {backup.host}"
    lines = [f"the backup of {made} {said[outcome]}: {_holds(backup)}"]
    if outcome == "checked":
        lines.append(
            f"it would be refused here: {done.refused}" if done.refused else "it fits here"
        )
    lines += [f"lower than before: {one}" for one in done.lower]
    lines += [f"left out, for it lies outside --root: {one}" for one in done.left_out]
    lines += [f"kept aside: {path}" for path in done.kept]
    if not backup.with_bundles:
        lines.append(_WITHOUT_BUNDLES)
    return lines if outcome == "checked" else [*lines, f"now: {_start(args)}"]


def _start(args: argparse.Namespace) -> str:
    """The line that starts the restored host; a backup need not have a configuration."""
    if not args.root:
        return "sudo systemctl start superbraind"
    path = config_file(args.config, args.root)
    start = f"superbraind --root {args.root}"
    return f"{start} --config {path}" if path.exists() else start


def _summary(path: Path, backup: Backup, made: Made | None = None) -> BackupSummary:
    return BackupSummary(
        file=str(path),
        host=backup.host,
        made_at=backup.made_at.isoformat(),
        superbrain=backup.superbrain,
        journal_schema=backup.journal_schema,
        with_bundles=backup.with_bundles,
        with_secrets=backup.with_secrets,
        models=backup.models,
        bundles=backup.bundles,
        files=len(backup.files),
        size_bytes=backup.size_bytes,
        sha256=made.sha256 if made else "",
        damaged=made.damaged if made else [],
    )
