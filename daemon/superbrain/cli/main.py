"""The `superbrain` command: finds the command that was typed, runs it, and says how it ended.

One table lists every command with the modules that know it. A module is imported only when its
command is typed, so `superbrain --help` is quick and the base install (the client alone) offers
whatever works without the packages of an extra.

How a command ends:

    0 and others   what the command's `run(args)` returned
    1              it could not be done, or what it printed could not be written
    2              the command line is wrong
    3              a package of an extra is missing
    70             an error that nobody foresaw
    130, 141       interrupted; nobody reads the output any more
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from superbrain import __version__
from superbrain.cli import streams
from superbrain.cli.entry import EXIT_INTERRUPTED, hand_back
from superbrain.transport import compiled
from superbrain.wire.errors import RequestError, SuperbrainError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_MISSING_EXTRA = 3
EXIT_UNEXPECTED = 70
EXIT_BROKEN_PIPE = 141

# Which extra brings a package; `cpu` brings all others.
_EXTRAS = {"tensorrt": "tensorrt", "cuda": "tensorrt", "onnx": "author", "torch": "torch"}
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class Command(NamedTuple):
    """One row of the table: the modules' `function`s are called in order to register `name`.

    Each gets the sub-parsers of the root, or what the function before it returned.
    """

    name: str
    modules: tuple[str, ...]
    summary: str
    function: str = "register"


COMMANDS: dict[str, tuple[Command, ...]] = {
    "Watch and operate the daemon": (
        Command("status", ("status",), "what serves, how it does, and what needs attention"),
        Command("top", ("top",), "a live view: rates, latencies, load, deployments, events"),
        Command("history", ("history",), "what happened to every deployment"),
        Command("report", ("report",), "one deployment: its facts, its proofs, its life"),
        Command("health", ("health",), "one line and an exit code for monitoring"),
        Command("doctor", ("doctor",), "is this host fit, and what can it run"),
        Command("metrics", ("metrics",), "the health report as Prometheus metrics"),
        Command("rollback", ("operate",), "bring a model's previous good version back"),
        Command("retire", ("operate",), "stop serving a model"),
        Command("retry", ("operate",), "try a failed or rejected deployment again"),
        Command("reload", ("operate",), "read configuration, keys, TCP clients and inbox again"),
        Command("config", ("config",), "show, check and explain the configuration"),
        Command("access", ("access",), "who may ask by TCP: keys, allow, deny, list"),
        Command(
            "trust",
            ("trust", "trust_author"),
            "whom this host believes: show, import, revoke; make and sign trust updates",
        ),
        Command("audit", ("audit",), "who changed what, and whether the trail is whole"),
        Command("backup", ("backup",), "write what makes this host itself into one file"),
        Command("restore", ("backup",), "make a host what it was when a backup was made"),
        Command("support-bundle", ("support.command",), "one archive for a remote engineer"),
    ),
    "Ask a model": (
        Command("infer", ("infer",), "send one request and show the answer"),
        Command("models", ("infer",), "list the models that answer, with their tensors"),
        Command("load", ("load.command",), "how much a model takes, and what limits it"),
    ),
    "Make bundles": (
        Command(
            "bundle",
            ("author_commands", "author_prove", "author_bundle"),
            "start, record, prove, build and look into bundles",
        ),
        Command(
            "convert", ("convert",), "from a framework's model to a bundle with its own answers"
        ),
        Command("key", ("author_key",), "make and show signing keys"),
    ),
    "For shells": (Command("completion", ("completion",), "bash completion, and the manual page"),),
}

_DESCRIPTION = "superbrain proves signed model bundles on this host and serves them."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    streams.prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    code = _carry_out(words)
    try:
        sys.stdout.flush()  # a pipe that is closed, or a full disk, shows here and not afterwards
    except (OSError, KeyboardInterrupt) as error:
        return _report(error, words, as_json=False)
    return code


def _carry_out(words: list[str]) -> int:
    try:
        arguments = _parsed(words)
    except SystemExit as end:  # argparse: help or version was shown, or a usage error
        return _exit_code(end)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - said in one sentence, as below
        return _report(error, words, as_json=False)
    try:
        hand_back()
        return cast("Callable[[argparse.Namespace], int]", arguments.run)(arguments)
    except SystemExit as end:
        return _exit_code(end)
    except BaseException as error:  # noqa: BLE001 - the last place to turn it into a sentence
        return _report(error, words, as_json=getattr(arguments, "json", False))


def _parsed(words: list[str]) -> argparse.Namespace:
    name = _leading_word(words)
    arguments = parser_of(_command(name)).parse_args(words)
    if not hasattr(arguments, "run"):
        raise _usage_error(f"expected a command after {name!r}")
    return arguments


# --- finding the command ------------------------------------------------------------------------


def _leading_word(words: list[str]) -> str:
    """The command's name; help, version and usage errors end here."""
    if not words or words[0] in {"-h", "--help", "help"}:
        print(overview())
        raise SystemExit(0 if words else EXIT_USAGE)
    if words[0] in {"-V", "--version"}:
        print(f"superbrain {__version__} (lane loop: {compiled.described()})")
        raise SystemExit(0)
    return words[0]


def _command(name: str) -> Command:
    commands = {command.name: command for group in COMMANDS.values() for command in group}
    if name in commands:
        return commands[name]
    if name.startswith("-"):
        raise _usage_error(f"expected a command before options, got {name!r}")
    near = difflib.get_close_matches(name, commands, n=1)
    hint = f"; did you mean 'superbrain {near[0]}'?" if near else ""
    raise _usage_error(f"{name!r} is no command{hint}")


def parser_of(command: Command) -> argparse.ArgumentParser:
    """Make the parser of one command."""
    parser = argparse.ArgumentParser(prog="superbrain", description=_DESCRIPTION)
    place: object = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in command.modules:
        imported = importlib.import_module(f"superbrain.cli.{module}")
        place = getattr(imported, command.function)(place) or place
    return parser


def overview() -> str:
    """Give the text of `superbrain --help`."""
    width = max(len(command.name) for group in COMMANDS.values() for command in group)
    lines = ["usage: superbrain COMMAND [ARGUMENTS]", "", _DESCRIPTION]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {command.name:{width}}  {command.summary}" for command in commands]
    lines += [
        "",
        "options:",
        f"  {'--help':{width}}   this text; 'superbrain COMMAND --help' explains one command",
        f"  {'--version':{width}}  the version of superbrain",
    ]
    return "\n".join(lines)


def _usage_error(sentence: str) -> SystemExit:
    _complain(sentence, "superbrain --help lists the commands")
    return SystemExit(EXIT_USAGE)


# --- saying how it ended ------------------------------------------------------------------------


def _report(error: BaseException, words: list[str], *, as_json: bool) -> int:
    """Say what went wrong, on standard error and, for programs, on standard output."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        streams.forget(sys.stdout)
        return EXIT_BROKEN_PIPE
    if os.environ.get("SUPERBRAIN_DEBUG", "0") not in {"", "0"}:
        traceback.print_exception(error)
    code, message, mend = _sentences(error, words)
    if as_json:
        fields = {"error": _as_fields(error, message, mend)}
        streams.try_to_print(json.dumps(fields, ensure_ascii=False))
    _complain(message, mend)
    return code


def _complain(message: str, mend: str) -> None:
    said = f"error: {message}\n  → {mend}" if mend else f"error: {message}"
    streams.try_to_print(said, sys.stderr)


def _sentences(error: BaseException, words: list[str]) -> tuple[int, str, str]:
    """Exit code, what happened, what to do."""
    if isinstance(error, SuperbrainError):
        return EXIT_ERROR, error.message, error.mend
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("superbrain"):
        package = (error.name or "unknown").partition(".")[0]
        extra = _EXTRAS.get(package, "cpu")
        needs = f"superbrain {words[0]} needs the extra {extra!r} (module {package} is missing)"
        return EXIT_MISSING_EXTRA, needs, f"Install it with: pip install 'superbrain[{extra}]'"
    if isinstance(error, OSError) and (place := _cannot_be_written(error)):
        from superbrain.bundle.disk import not_written

        return EXIT_ERROR, *not_written(place, error)
    found = f"unexpected {type(error).__name__}: {error}"
    return EXIT_UNEXPECTED, found, "run with SUPERBRAIN_DEBUG=1 for the traceback"


def _as_fields(error: BaseException, message: str, mend: str) -> dict[str, str]:
    fields = {"message": message, "mend": mend}
    code = error.code if isinstance(error, RequestError) else getattr(error, "code", "")
    return {"code": str(code), **fields} if code else fields


def _cannot_be_written(error: OSError) -> str:
    """What it is that has no room, or may not be written; empty where it is something else."""
    if error.filename is None and streams.stdout_fails():
        streams.forget(sys.stdout)
        return "standard output"
    if error.errno not in _OF_WRITING:
        return ""
    return str(error.filename2 or error.filename or "standard output or a file")


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    _complain(str(end.code), "")
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
