"""`superbrain health`: one line and an exit code, as monitoring systems expect from a check.

    OK - 2 models ready | models=2 ready=2 requests=1332431c errors=3c restarts=1c

| exit code | word | when |
|---|---|---|
| 0 | OK | the report says so |
| 1 | WARNING | callers get answers, but somebody should look |
| 2 | CRITICAL | callers get no answers, or the daemon gives no report |
| 3 | UNKNOWN | there is no report that can be trusted: missing, unreadable, too old |

The code is the same wherever standard output leads: it may be closed, full, or read by nobody. It
needs no package beyond the client's, and with --file no access to the control socket.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from superbrain.cli.control import (
    NoAnswer,
    NotRunning,
    add_control_options,
    control_client,
)
from superbrain.cli.numbers import fitting
from superbrain.cli.streams import try_to_print
from superbrain.domain.health import Health, Severity
from superbrain.domain.operations import GetHealth, HealthReply
from superbrain.domain.quantities import duration_text
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import UNREADABLE

MAX_AGE_S: Final = 60.0

CRITICAL: Final = 2
UNKNOWN: Final = 3
_WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_CODES: Final[dict[Severity, int]] = {"ok": 0, "warning": 1, "critical": CRITICAL}

_EXAMPLES = """\
exit codes: 0 ok, 1 warning, 2 critical, 3 unknown

examples:
  superbrain health
  superbrain health --file /run/superbrain/health.json --max-age 120
  superbrain health --json | jq .problems
"""


class Untrusted(SuperbrainError):
    """There is no report, or none that says how things are now."""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `health`."""
    parser = commands.add_parser(
        "health",
        help="one line and an exit code for monitoring",
        description="Judge this host in one line and an exit code; problems follow, one a line.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--file", type=Path, metavar="PATH", help="read this health.json instead of asking"
    )
    parser.add_argument(
        "--max-age",
        type=fitting(float, lambda age_s: age_s >= 0, "seconds from 0 on"),
        default=MAX_AGE_S,
        metavar="SECONDS",
        help="an older report tells nothing (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Get the report, print the verdict, return its exit code."""
    try:
        health = _from_file(args.file) if args.file else _from_daemon(args)
        _require_fresh(health, args.max_age, dt.datetime.now(dt.UTC))
    except SuperbrainError as error:
        return _no_report(error, as_json=args.json)
    if args.json:
        try_to_print(msgspec.json.format(msgspec.json.encode(health), indent=2).decode())
    else:
        try_to_print("\n".join(verdict_lines(health)))
    return _CODES[health.status]


def verdict_lines(health: Health) -> Iterator[str]:
    """The summary with its figures, then every problem with what to do."""
    yield f"{_WORDS[_CODES[health.status]]} - {_summary(health)} | {_figures(health)}"
    for problem in health.problems:
        mend = f" -> {problem.mend}" if problem.mend else ""
        yield f"{problem.severity}: {problem.subject}: {problem.message}{mend}".replace("\n", " ")


def _summary(health: Health) -> str:
    if health.problems:
        first, others = health.problems[0], len(health.problems) - 1
        more = f" (and {others} more)" if others else ""
        return _one_line(f"{first.subject}: {first.message}{more}")
    if not health.models:
        return "no models are installed"
    ready = sum(model.state == "ready" for model in health.models)
    total = len(health.models)
    plural = "" if total == 1 else "s"
    return f"{ready} model{plural} ready" if ready == total else f"{ready} of {total} models ready"


def _figures(health: Health) -> str:
    """Performance data: `c` marks counters that only grow."""
    models = health.models
    figures = {
        "models": f"{len(models)}",
        "ready": f"{sum(model.state == 'ready' for model in models)}",
        "requests": f"{sum(model.requests for model in models)}c",
        "errors": f"{sum(model.errors for model in models)}c",
        "restarts": f"{sum(model.restarts for model in models)}c",
        "waiting": f"{sum(model.waiting for model in models)}",
        "disk_free": f"{health.host.disk_free_bytes}B",
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())


def _one_line(text: str) -> str:
    """Monitoring takes what follows a `|` for figures, and only the first line for the summary."""
    return " ".join(text.replace("|", "/").split())


# --- getting the report -------------------------------------------------------------------------


def _from_daemon(args: argparse.Namespace) -> Health:
    return control_client(args).ask(GetHealth(), HealthReply).health


def _from_file(path: Path) -> Health:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Health)
    except OSError as error:
        raise Untrusted(
            f"{path} cannot be read: {error.strerror}",
            mend="expected the health.json that superbraind writes into its runtime folder",
        ) from error
    except UNREADABLE as error:
        raise Untrusted(
            f"{path} is no health report: {error}",
            mend="use the 'superbrain' command of the version that runs as daemon",
        ) from error


def _require_fresh(health: Health, max_age_s: float, now: dt.datetime) -> None:
    if health.at.tzinfo is None:
        raise Untrusted("the report's time has no time zone, expected UTC")
    age_s = (now - health.at).total_seconds()
    limit = duration_text(max_age_s)
    if age_s > max_age_s:
        raise Untrusted(
            f"the report is {duration_text(age_s)} old, expected at most {limit}",
            mend="superbraind has stopped or hangs: systemctl status superbraind, or its terminal",
        )
    if age_s < -max_age_s:
        raise Untrusted(
            f"the report is from {duration_text(-age_s)} in the future",
            mend="the clock was set back: wait for the next report, or check time synchronisation",
        )


def _no_report(error: SuperbrainError, *, as_json: bool) -> int:
    """A daemon that does not answer is critical; not being able to look is unknown."""
    code = CRITICAL if isinstance(error, NotRunning | NoAnswer) else UNKNOWN
    if as_json:
        fields = {"message": error.message, "mend": error.mend}
        try_to_print(msgspec.json.encode({"error": fields}).decode())
        return code
    mend = f"\n-> {error.mend}" if error.mend else ""
    try_to_print(f"{_WORDS[code]} - {_one_line(error.message)}{mend}")
    return code
