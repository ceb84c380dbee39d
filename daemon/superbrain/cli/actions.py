"""How a command's action is added: its summary in the list, and as a sentence above its help."""

from __future__ import annotations

import argparse
from typing import Any

Actions = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def add_action(
    actions: Actions[Any], name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    """Add an action with its examples.

    Args:
        actions: the command's sub-parsers, or the program's for a command without actions.
        name: as it is typed.
        summary: a phrase without a capital or a full stop.
        epilog: the examples, printed as they are.
    """
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
