"""What was answered by the shortcuts of clients, counted."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from superbrain.client import lane, link
from superbrain.client.link import Link
from superbrain.client.result import Result, form_without_id
from superbrain.transport import brief_wait, compiled


class _Counted:
    """A shortcut that takes note of what it gives."""

    def __init__(self, shortcut: Any, shortcuts: Shortcuts) -> None:  # noqa: ANN401
        self._shortcut, self._shortcuts = shortcut, shortcuts

    @property
    def good(self) -> bool:
        good: bool = self._shortcut.good
        return good

    @good.setter
    def good(self, good: bool) -> None:
        self._shortcut.good = good

    def ask(self, *args: Any) -> object:  # noqa: ANN401 - passed on
        answer = self._shortcut.ask(*args)
        if isinstance(answer, Result):
            self._shortcuts.results.append(answer)
        elif answer is not None:
            self._shortcuts.begun.append(answer)
        return answer


class Shortcuts:
    """Counts, from here on, in a program that uses no OpenTelemetry, on a host that is never busy.

    Args:
        patch: of the test.
        moment_ns: how long an answer is looked for.

    Attributes:
        there: whether the loop is compiled; else there are none.
        made: how many there were.
        results: what they gave.
        begun: what went on by the usual way.
    """

    def __init__(self, patch: pytest.MonkeyPatch, moment_ns: int) -> None:
        form_without_id.cache_clear()  # what other tests have seen is not known
        patch.delitem(sys.modules, "opentelemetry.trace", raising=False)
        patch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
        patch.setattr(link, "_MOMENT_NS", moment_ns)
        for module in (brief_wait, lane):
            patch.setattr(module, "CROWDED_NS", moment_ns)
        self.there = compiled.loop() is not None
        self.made = 0
        self.results: list[Result] = []
        self.begun: list[object] = []
        shortcut = Link.shortcut

        def counted(one: Link, *args: Any) -> object:  # noqa: ANN401 - passed on
            made = shortcut(one, *args)
            if made is None:
                return None
            self.made += 1
            return _Counted(made, self)

        patch.setattr(Link, "shortcut", counted)
