"""The operator's orders: `rollback`, `retire`, `retry`, `reload`.

Each is one question to the daemon, which answers when the order is carried out, or under way, or
refused; a refusal changes nothing. Only `retire` asks back, because callers then get no answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, Final

from superbrain.cli.actions import add_action
from superbrain.cli.control import ControlError, add_control_options, control_client
from superbrain.domain.operations import AnyOperation, Outcome, Reload, Retire, Retry, Rollback

ORDER_TIMEOUT_S: Final = 60.0

_ROLLBACK = """\
The version that served before takes the traffic back, between two requests. The present one is
not tried again by itself.

examples:
  superbrain rollback ocr
"""
_RETIRE = """\
Callers get NOT_FOUND from then on. The bundle stays in the store: 'superbrain retry' with the
version brings it back.

examples:
  superbrain retire ocr
  superbrain retire ocr --yes      in a script
"""
_RETRY = """\
Useful after the reason is gone: room on the disk, a driver, a trusted key.

examples:
  superbrain retry ocr                    the newest one that did not come to serve
  superbrain retry ocr --version 3.1.0
"""
_RELOAD = """\
What serves goes on serving. The answer says what changed in the configuration, what of it was
applied and what needs a restart. Without a usable key nothing new is taken, and status says so.

examples:
  superbrain reload
"""

_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse offers no public name for it


def register(commands: _Commands[Any]) -> None:
    """Add the orders."""
    _add(commands, "rollback", "bring a model's previous good version back", _ROLLBACK, rollback)
    retiring = _add(commands, "retire", "stop serving a model", _RETIRE, retire)
    retiring.add_argument("--yes", action="store_true", help="do not ask")
    trying = _add(commands, "retry", "try a failed or rejected deployment again", _RETRY, retry)
    trying.add_argument(
        "--version", default="", help="the version (default: the newest that failed)"
    )
    _add(commands, "reload", "read configuration, trusted keys and inbox again", _RELOAD, reload)


def rollback(args: argparse.Namespace) -> int:
    """Bring the previous good version back."""
    return _order(args, Rollback(model=args.model))


def retire(args: argparse.Namespace) -> int:
    """Stop serving a model, after asking."""
    if not args.yes:
        _require_consent(args.model)
    return _order(args, Retire(model=args.model))


def retry(args: argparse.Namespace) -> int:
    """Try a deployment again."""
    return _order(args, Retry(model=args.model, version=args.version))


def reload(args: argparse.Namespace) -> int:
    """Read configuration, trust folder and inbox again."""
    return _order(args, Reload())


def _add(
    commands: _Commands[Any],
    name: str,
    summary: str,
    epilog: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = add_action(commands, name, summary, epilog)
    if name != "reload":
        parser.add_argument("model", metavar="MODEL", help="the model's name")
    add_control_options(parser, timeout_s=ORDER_TIMEOUT_S)
    parser.set_defaults(run=run)
    return parser


def _order(args: argparse.Namespace, operation: AnyOperation) -> int:
    print(control_client(args).ask(operation, Outcome).message)
    return 0


def _require_consent(model: str) -> None:
    if not sys.stdin.isatty():
        raise ControlError(
            f"{model!r} is not retired: expected --yes, because nobody can be asked here",
            mend=f"superbrain retire {model} --yes",
        )
    answer = input(f"Callers of {model!r} will get no answers. Type its name to retire it: ")
    if answer.strip() != model:
        raise ControlError(f"{model!r} is not retired: {answer.strip()!r} is not its name")
