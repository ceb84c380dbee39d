"""Where the `superbrain` command begins: whoever interrupts it is heard at once, and in silence.

Importing what a command needs takes most of the time that a short one takes. An interrupt ends the
process there and then, instead of a traceback out of somebody's module; so this one imports next to
nothing. `hand_back` gives Ctrl-C back to Python when the command itself begins, which may have
something to end in good order.
"""

from __future__ import annotations

import os
import signal

EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process and return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody ignores it
        signal.signal(signal.SIGINT, _end)
    from superbrain.cli.main import main as command

    return command()


def hand_back() -> None:
    """From here on an interrupt is a KeyboardInterrupt, as everywhere in Python."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_signal: int, _frame: object) -> None:
    """Nothing has been begun that would have to be ended."""
    os._exit(EXIT_INTERRUPTED)
