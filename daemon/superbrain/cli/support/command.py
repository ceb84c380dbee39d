"""`superbrain support-bundle`: collects what a remote engineer needs, and nothing secret.

Every part of the table in parts.py is collected for itself, within a time for all of them; what
cannot be had is named in MISSING.txt with its reason. The archive is for its owner alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any, Final

import msgspec

import superbrain
from superbrain.app.config import DEFAULT_CONFIG, Config, ConfigError, load_config
from superbrain.bundle.disk import not_written, write_new
from superbrain.cli.actions import add_action
from superbrain.cli.control import ControlClient, add_control_options
from superbrain.cli.display import make_console, plain_table, print_json, show
from superbrain.cli.numbers import seconds
from superbrain.cli.support.parts import PARTS, Part, collect
from superbrain.cli.support.redact import LEFT_OUT, Redactor, known_secrets
from superbrain.cli.support.source import MAX_BYTES, MAX_PART_BYTES, Source, cut
from superbrain.domain.quantities import bytes_text
from superbrain.wire.errors import InvalidArgument, SuperbrainError

TIME_LIMIT_S: Final = 60.0
CONTROL_TIMEOUT_S: Final = 5.0
_PLAIN: Final = re.compile(r"[^A-Za-z0-9._+-]")

_EXAMPLES = """\
It works without a running daemon. As root it has everything; as an ordinary user of the group what
that user may see. Private keys, payloads, environments and what models have printed are not in it
(--with-output adds the last). Look into it before you send it: it is a plain .tar.gz of texts.

examples:
  superbrain support-bundle
  superbrain support-bundle --output /tmp/ticket-4711.tar.gz --with-output
  superbrain support-bundle --root host --log host/daemon.log     a daemon started by hand
  superbrain support-bundle --json | jq '.parts[] | select(.missing != "")'
"""
_README = """\
Support bundle of {host}, made {at} by uid {uid} with superbrain {version}.

{parts}

Nothing secret is collected: no private keys, no CURVE secret keys, no requests or answers, no
environments. Texts were looked through once more for what is named like a secret; "{left_out}"
stands where something was. What models and their code have printed is {output}. Sentences about
requests that failed hold what the model's code said in its exception.
"""


class Collected(msgspec.Struct, frozen=True):
    """One part as it came: `missing` says why it is not there, `cut` that it is not whole."""

    name: str
    what: str
    size_bytes: int = 0
    missing: str = ""
    mend: str = ""
    cut: bool = False


class Summary(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    file: str
    size_bytes: int
    parts: list[Collected]


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `support-bundle`."""
    parser = add_action(
        commands,
        "support-bundle",
        "collect what a remote engineer needs, and nothing secret",
        _EXAMPLES,
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the archive (superbrain-HOST-TIME.tar.gz here)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"another file than {DEFAULT_CONFIG}"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="all folders below DIR, as for superbraind"
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="the daemon's log, where it is not in the journal"
    )
    parser.add_argument(
        "--with-output", action="store_true", help="also what models and their code have printed"
    )
    parser.add_argument(
        "--time-limit",
        type=seconds(3600),
        default=TIME_LIMIT_S,
        metavar="SECONDS",
        help="for everything together (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print what was collected as JSON")
    add_control_options(parser, timeout_s=CONTROL_TIMEOUT_S)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect everything that can be had."""
    at = dt.datetime.now(dt.UTC)
    name = f"superbrain-{_PLAIN.sub('_', os.uname().nodename)}-{at:%Y%m%dT%H%M%SZ}"
    path = args.output or Path(f"{name}.tar.gz")
    if path.exists():
        raise _there_already(path)
    source = _source(args)
    files: dict[str, bytes] = {}
    collected = [_collect(part, source, files) for part in PARTS]
    files["MISSING.txt"] = _missing(collected).encode()
    files["README.txt"] = _readme(at, collected, source).encode()
    data = _archive(name, files, at)
    _write(path, data)
    summary = Summary(str(path), len(data), collected)
    if args.json:
        print_json(summary)
    else:
        _show(summary)
    return 0


def _source(args: argparse.Namespace) -> Source:
    """Where to collect from; a configuration that does not fit is no hindrance."""
    error = ""
    try:
        config = load_config(args.config, args.root)
    except ConfigError as found:
        config, error = load_config(None, args.root or Path("/"), {}), found.message
        config = config if args.root else Config()
    redactor = Redactor(known_secrets(os.environ, Path(config.tcp.secret_key)))
    endpoint = f"ipc://{config.paths.runtime}/control.sock" if args.root else args.control
    return Source(
        config,
        error,
        ControlClient(endpoint, args.timeout),
        redactor,
        log=args.log,
        with_output=args.with_output,
        time_limit_s=args.time_limit,
        places=tuple(
            word
            for option, value in (("--root", args.root), ("--config", args.config))
            if value is not None
            for word in (option, str(value))
        ),
    )


def _collect(part: Part, source: Source, files: dict[str, bytes]) -> Collected:
    """Collect one part, as far as there is room."""
    try:
        found = collect(part, source)
    except SuperbrainError as error:
        return Collected(part.name, part.what, missing=error.message, mend=error.mend)
    except OSError as error:
        return Collected(part.name, part.what, missing=f"{error.filename}: {error.strerror}")
    size, shortened = 0, False
    for name, data in found.items():
        room = min(MAX_PART_BYTES - size, MAX_BYTES - sum(map(len, files.values())))
        shortened = shortened or len(data) > room
        if room > 0:
            files[name] = data if len(data) <= room else cut(data, room).encode()
            size += len(files[name])
    return Collected(part.name, part.what, size, cut=shortened)


def _archive(name: str, files: dict[str, bytes], at: dt.datetime) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for path, data in sorted(files.items()):
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(at.timestamp())
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        write_new(path, data, 0o600)
    except FileExistsError as error:
        raise _there_already(path) from error
    except OSError as error:
        message, mend = not_written(path, error)
        raise InvalidArgument(message, mend=f"{mend}, or name another place by --output") from error


def _there_already(path: Path) -> InvalidArgument:
    return InvalidArgument(
        f"expected to make {path}, found that it is there already",
        mend="Name another file by --output, or move it away",
    )


def _missing(collected: list[Collected]) -> str:
    lines = [
        f"{one.name}: {one.missing}" + (f" ({one.mend})" if one.mend else "")
        for one in collected
        if one.missing
    ]
    lines += [f"{one.name}: only its end, for its size" for one in collected if one.cut]
    return "\n".join(lines or ["nothing is missing"]) + "\n"


def _readme(at: dt.datetime, collected: list[Collected], source: Source) -> str:
    width = max(len(one.name) for one in collected)
    parts = [
        f"{one.name:{width}}  {one.what}" + (" (missing, see MISSING.txt)" if one.missing else "")
        for one in collected
    ]
    return _README.format(
        host=os.uname().nodename,
        at=f"{at:%Y-%m-%d %H:%M:%S} UTC",
        uid=os.getuid(),
        version=superbrain.__version__,
        parts="\n".join(parts),
        left_out=LEFT_OUT,
        output="in it" if source.with_output else "left out",
    )


def _show(summary: Summary) -> None:
    console = make_console()
    table = plain_table(console)
    for column in ("part", "size", "what"):
        table.add_column(
            column, no_wrap=column != "what", justify="right" if column == "size" else "left"
        )
    for one in summary.parts:
        size = "-" if one.missing else bytes_text(one.size_bytes)
        table.add_row(one.name, size, f"missing: {one.missing}" if one.missing else one.what)
    show(console, table)
    print(f"{summary.file}  {bytes_text(summary.size_bytes)}; look into it before you send it")
