"""`superbrain completion`: what a shell needs to complete the command line, made from the parsers.

    superbrain completion bash > /usr/share/bash-completion/completions/superbrain

`man` gives the manual page superbrain(1), from the same parsers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

_EXAMPLES = """\
examples:
  source <(superbrain completion bash)     for this shell
  superbrain completion man | man -l -       the manual page
"""
_BASH = """\
# bash completion of superbrain; written by: superbrain completion bash
_superbrain() {
    local word=${COMP_WORDS[COMP_CWORD]} place=superbrain choices="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$place ${COMP_WORDS[i]}" in
%(places)s
        esac
    done
    case $place in
%(choices)s
    esac
    case "$place ${COMP_WORDS[COMP_CWORD - 1]}" in
%(values)s
    esac
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
    if [[ ${#COMPREPLY[@]} -eq 0 && $word != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -o filenames -F _superbrain superbrain
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `completion`."""
    parser = commands.add_parser(
        "completion",
        help="bash completion, and the manual page",
        description="Print what a shell needs to complete this command, or its manual page.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("bash", "man"), help="for bash, or the manual page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from superbrain.cli.main import COMMANDS, overview, parser_of

    commands = [command for group in COMMANDS.values() for command in group]
    parsers = {command.name: parser_of(command) for command in commands}
    print(_manual(overview(), parsers) if args.what == "man" else _bash(parsers), end="")
    return 0


def _manual(overview: str, parsers: dict[str, argparse.ArgumentParser]) -> str:
    lines = [
        ".TH SUPERBRAIN 1",
        ".SH NAME",
        r"superbrain \- prove signed model bundles on this host and serve them",
        *_section("SYNOPSIS", overview),
    ]
    for parser in parsers.values():
        for place, inner in _places("superbrain", parser):
            lines += _section(place.upper(), inner.format_help())
    lines += [".SH SEE ALSO", "superbraind(8), /opt/superbrain/current/share/doc/superbrain"]
    return "\n".join(lines) + "\n"


def _section(title: str, text: str) -> list[str]:
    """Give a text as it is, under a title; roff reads a leading dot and backslashes as its own."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").splitlines()
    shown = [rf"\&{line}" if line.startswith((".", "'")) else line for line in plain]
    return [f'.SH "{title}"', ".nf", *shown, ".fi"]


def _places(
    place: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Give every command and subcommand below `place`, with its parser."""
    for action in parser._actions:  # noqa: SLF001 - argparse offers no public way to them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - no public name for it
            for name, inner in action.choices.items():
                yield f"{place} {name}", inner
                yield from _places(f"{place} {name}", inner)


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Give what may follow: options, subcommands, the values of a positional argument."""
    words: list[str] = []
    for action in parser._actions:  # noqa: SLF001 - argparse offers no public way to them
        words += action.option_strings or map(str, action.choices or ())
    return words


def _values(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Give what may follow each option that takes one of a few values."""
    return {
        option: list(map(str, action.choices))
        for action in parser._actions  # noqa: SLF001 - argparse offers no public way to them
        if action.choices
        for option in action.option_strings
    }


def _bash(parsers: dict[str, argparse.ArgumentParser]) -> str:
    choices = {"superbrain": [*parsers, "--help", "--version"]}
    values: dict[str, list[str]] = {}
    for place, inner in (one for p in parsers.values() for one in _places("superbrain", p)):
        choices[place] = _words(inner)
        values |= {f"{place} {option}": of for option, of in _values(inner).items()}
    places = "\n".join(f'            "{p}") place="{p}" ;;' for p in choices if " " in p)
    return _BASH % {"places": places, "choices": _cases(choices), "values": _cases(values)}


def _cases(choices: dict[str, list[str]]) -> str:
    return "\n".join(f'        "{at}") choices="{" ".join(w)}" ;;' for at, w in choices.items())
