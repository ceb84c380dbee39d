"""`superbrain completion`: what a shell needs to complete the command line, made from the parsers.

    superbrain completion bash > /usr/share/bash-completion/completions/superbrain

`words` lists the commands, one a line, for whoever writes a page about all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

_EXAMPLES = """\
examples:
  source <(superbrain completion bash)     for this shell
  superbrain completion words
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
        help="what a shell needs to complete this command",
        description="Print what a shell needs to complete the superbrain command.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("bash", "words"), help="the script, or all commands")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from superbrain.cli.main import COMMANDS, parser_of

    names = [command for group in COMMANDS.values() for command in group]
    if args.what == "words":
        print("\n".join(command.name for command in names))
        return 0
    choices = {"superbrain": [*(command.name for command in names), "--help", "--version"]}
    for command in names:
        choices |= dict(_choices("superbrain", parser_of(command)))
    print(_bash(choices), end="")
    return 0


def _choices(place: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """Give what may follow each place of one command, subcommand by subcommand."""
    options: list[str] = []
    for action in parser._actions:  # noqa: SLF001 - argparse offers no public way to its options
        options += action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - no public name for it
            for name, inner in action.choices.items():
                options.append(name)
                yield from _choices(f"{place} {name}", inner)
        elif action.choices and not action.option_strings:
            options += map(str, action.choices)
    if place != "superbrain":
        yield place, options


def _bash(choices: dict[str, list[str]]) -> str:
    places = "\n".join(f'            "{p}") place="{p}" ;;' for p in choices if " " in p)
    answers = "\n".join(f'        "{p}") choices="{" ".join(w)}" ;;' for p, w in choices.items())
    return _BASH % {"places": places, "choices": answers}
