"""What the demo looks like: numbered steps, commands as they are typed, their output, and claims.

Colour and a running clock on a terminal; plain words in a pipe. A claim is printed only if it
holds: `claim(False, …)` raises.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable

DIM, BOLD, GREEN, CYAN = "2", "1", "32", "36"
MAX_WIDTH = 100
INDENT = 4
TOLD_EVERY_S = 20


class ClaimBroken(Exception):
    """Something that the demo says did not hold; the message is what was to be seen."""


class Page:
    """Standard output, as a story with numbered steps."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.columns = shutil.get_terminal_size((MAX_WIDTH, 24)).columns
        self.width = min(self.columns, MAX_WIDTH)
        self.claims: list[str] = []
        self._colour = self.is_terminal and "NO_COLOR" not in os.environ
        self._tick = "✓" if sys.stdout.encoding.lower().startswith("utf") else "ok:"
        self._steps = 0
        self._gap = True
        self._ticking = False

    def title(self, text: str) -> None:
        """Say what this is."""
        self._print("")
        self._print(self._styled(text, BOLD))

    def step(self, title: str, text: str) -> None:
        """Begin the next numbered step and say what it is about."""
        self._steps += 1
        self.gap()
        self._print(self._styled(f"{self._steps}. {title}", BOLD))
        self.say(text)

    def say(self, text: str) -> None:
        """Tell something, in lines that fit."""
        for line in textwrap.wrap(" ".join(text.split()), self.width - 3):
            self._print(f"  {line}")
        self.gap()

    def typed(self, command: str) -> None:
        """Show what a person would type."""
        self._print(f"  {self._styled(f'$ {command}', CYAN)}")

    def output(self, line: str) -> None:
        """Show one line that a command printed; what is too long for a terminal goes on below."""
        for part in self._fitting(line):
            self._print(" " * INDENT + self._styled(part, DIM) if part else "")

    def lines(self, lines: Iterable[str]) -> None:
        """Show several lines, and an empty one."""
        for line in lines:
            self.output(line)
        self.gap()

    def gap(self) -> None:
        """Leave one line empty, never two."""
        if not self._gap:
            self._print("")

    def claim(self, holds: object, sentence: str) -> None:
        """Say what has been seen.

        Raises:
            ClaimBroken: it has not.
        """
        if not holds:
            raise ClaimBroken(sentence)
        self.claims.append(sentence)
        tick = self._styled(self._tick, GREEN)
        first, *rest = textwrap.wrap(" ".join(sentence.split()), self.width - INDENT - 3)
        self._print(f"  {tick} {first}")
        for line in rest:
            self._print(f"{' ' * (3 + len(self._tick))}{line}")

    def clock(self, what: str) -> Clock:
        """Give a clock for something slow, to be ticked now and then."""
        return Clock(self, what)

    def passing(self, text: str) -> None:
        """Show something on a terminal until the next line comes."""
        print(f"\r\033[K{' ' * INDENT}{text}"[: self.columns + 3], end="", flush=True)
        self._ticking = True

    def clear(self) -> None:
        """Take it off again."""
        if self._ticking:
            print("\r\033[K", end="", flush=True)
            self._ticking = False

    def _print(self, text: str) -> None:
        self.clear()
        print(text, flush=True)
        self._gap = not text

    def _fitting(self, line: str) -> list[str]:
        if not self.is_terminal or len(line) <= self.columns - INDENT:
            return [line]
        room = textwrap.TextWrapper(self.columns - INDENT, subsequent_indent="      ")
        room.drop_whitespace = False
        return room.wrap(line)

    def _styled(self, text: str, style: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour else text


class Clock:
    """The seconds that something takes: in place on a terminal, a line now and then in a pipe."""

    def __init__(self, page: Page, what: str) -> None:
        self._page = page
        self._what = what
        self._began = time.monotonic()
        self._told = 0

    def tick(self) -> None:
        """Show how long it has taken so far."""
        seconds = int(time.monotonic() - self._began)
        if self._page.is_terminal and seconds:
            self._page.passing(f"{self._what} ... {seconds} s")
        elif seconds // TOLD_EVERY_S > self._told:
            self._told = seconds // TOLD_EVERY_S
            self._page.output(f"{self._what} ... {seconds} s")
